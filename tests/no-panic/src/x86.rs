// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of mk-ipi-x86, with registers that can have any values, and with the real instructions.

use crate::opaque::{any, maybe, option, sink, vector};
use core::ptr::NonNull;
use mk_ipi_abi::{PhysAddr, PhysCpuId};
use mk_ipi_core::platform::{Doorbell, LocalInterrupts};
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_x86::icr::{DeliveryMode, DestinationMode, Fields, Level, Shorthand, Trigger};
use mk_ipi_x86::mode::ApicBase;
use mk_ipi_x86::{
    compare_exchange_alone, start_cpu, stop_cpu, ApicIo, ErrorStatus, Hardware, Icr, LocalApic, Microseconds,
};
use mk_ipi_x86::{Mode, Register, SpuriousVector, StartError, StartPage};

/// Registers that can have any values.
struct Registers;

// SAFETY: this code is never run, and the requirements of the trait are about running code.
unsafe impl LocalInterrupts for Registers {
    type State = u64;
    fn disable(&self) -> u64 {
        any()
    }
    fn restore(&self, state: u64) {
        sink(state);
    }
}

// SAFETY: as above.
unsafe impl ApicIo for Registers {
    unsafe fn rdmsr(&self, msr: u32) -> u64 {
        sink(msr);
        any()
    }
    unsafe fn wrmsr(&self, msr: u32, value: u64) {
        sink((msr, value));
    }
    fn has_mmio(&self) -> bool {
        maybe()
    }
    unsafe fn mmio_read(&self, register: Register) -> u32 {
        sink(register);
        any()
    }
    unsafe fn mmio_write(&self, register: Register, value: u32) {
        sink((register, value));
    }
    fn has_x2apic(&self) -> bool {
        maybe()
    }
    fn long_id(&self) -> Option<u32> {
        maybe().then(any)
    }
    fn fence_before_doorbell(&self) {
        sink(());
    }
}

mk_ipi_x86::doorbell_entry!(fn entry => interrupted);

extern "C" fn interrupted() {
    // SAFETY: as above.
    with(unsafe { Hardware::new(NonNull::new(any::<usize>() as *mut u8)) });
}

pub fn call_all() {
    with(Registers);
    sink(entry as *const ());
    commands();
    flags();
    for register in [Register::Id, Register::TaskPriority, Register::Eoi, Register::IcrLow] {
        sink((register.offset(), register.msr()));
    }
    sink(Register::IN_SERVICE.map(Register::msr));
    sink(StartPage::new(PhysAddr(any())).map(StartPage::vector));
    let word = AtomicU64::new(any());
    sink((compare_exchange_alone(&word, any(), any()), word.as_ptr()));
}

fn with<Io: ApicIo>(io: Io) {
    sink((Mode::read(&io), ApicBase::read(&io).page(), io.long_id()));
    // SAFETY: as above.
    sink(unsafe { Mode::enter_x2apic(&io) });
    io.pause();
    let Ok(mut apic) = LocalApic::new(io) else { return };
    sink(apic.boot_cpu());
    if maybe() {
        apic = apic.with_boot_cpu(PhysCpuId(any()));
    }
    if maybe() {
        apic = apic.with_error_check();
    }
    sink((apic.mode(), apic.confirm_mode(), apic.apic_id(), apic.read_errors()));
    sink(core::ptr::from_ref(apic.io()));
    apic.eoi();
    if let Some(spurious) = SpuriousVector::new(any()) {
        // SAFETY: as above.
        unsafe { apic.enable(spurious) };
    }
    // SAFETY: as above.
    sink(unsafe { apic.send(icr()) });
    if let Some(vector) = vector() {
        sink((apic.check(PhysCpuId(any()), vector), apic.ring(PhysCpuId(any()), vector)));
        sink(apic.ring_from_nmi(PhysCpuId(any()), vector));
    }
    if let Ok(page) = StartPage::new(PhysAddr(any())) {
        // SAFETY: as above.
        let started = unsafe { start_cpu(&apic, PhysCpuId(any()), page, |Microseconds(us)| sink(us)) };
        sink(started.map_err(StartError::errno));
    }
    // SAFETY: as above.
    sink(unsafe { stop_cpu(&apic, PhysCpuId(any()), Microseconds(any()), |Microseconds(us)| sink(us)) });
}

fn icr() -> Icr {
    let fixed = [DeliveryMode::Fixed, DeliveryMode::Init, DeliveryMode::StartUp];
    Icr::new(Fields {
        vector: any(),
        delivery: fixed.get(any::<usize>()).copied().unwrap_or(DeliveryMode::Nmi),
        destination_mode: if maybe() { DestinationMode::Logical } else { DestinationMode::Physical },
        level: if maybe() { Level::Assert } else { Level::Deassert },
        trigger: if maybe() { Trigger::Edge } else { Trigger::Level },
        shorthand: if maybe() { Shorthand::Others } else { Shorthand::None },
        destination: any(),
    })
}

fn commands() {
    let icr = icr();
    sink((icr.destination(), icr.x2apic(), icr.xapic_low(), icr.xapic_high(), Icr::init(any())));
    sink(vector().map(|v| Icr::fixed(v, any())));
    sink(StartPage::new(PhysAddr(any())).map(|page| Icr::start_up(page, any())));
}

/// The functions that `bitflags!` declares and that callers of the crate use.
fn flags() {
    let (mut a, b) = (ErrorStatus::from_bits_retain(any()), ErrorStatus::from_bits_truncate(any()));
    sink((
        a.bits(),
        a.is_empty(),
        a.is_all(),
        a.contains(b),
        a.intersects(b),
        a == b,
        a | b,
        a & b,
        a - b,
        !a,
    ));
    a.toggle(b);
    sink(a);
    let (base, other) = (ApicBase::from_bits_retain(any()), option(ApicBase::from_bits_truncate(any())));
    sink((base.bits(), other.map(|o| (base.union(o), base.contains(o)))));
}
