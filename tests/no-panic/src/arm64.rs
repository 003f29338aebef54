// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of mk-ipi-arm64, with registers that can have any values, and with the real instructions.

use crate::opaque::{any, maybe, sink, vector};
use mk_ipi_abi::{PhysAddr, PhysCpuId};
use mk_ipi_arm64::regs::Control;
use mk_ipi_arm64::{
    Affinity, Conduit, Gic, GicIo, Interrupt, Psci, PsciError, Sgi, SgiCommand, SystemRegister,
};
use mk_ipi_core::platform::Doorbell;

/// Registers and firmware that can return any values.
struct Registers;

// SAFETY: this code is never run, and the requirements of the trait are about running code.
unsafe impl GicIo for Registers {
    unsafe fn read(&self, register: SystemRegister) -> u64 {
        sink(register);
        any()
    }
    unsafe fn write(&self, register: SystemRegister, value: u64) {
        sink((register, value));
    }
    fn fence_before_doorbell(&self) {
        sink(());
    }
    fn synchronize(&self) {
        sink(());
    }
    fn settle(&self) {
        sink(());
    }
}

// SAFETY: as above.
unsafe impl Conduit for Registers {
    unsafe fn call(&self, function: u32, args: [u64; 3]) -> u64 {
        sink((function, args));
        any()
    }
}

pub fn call_all() {
    with(Registers);
    firmware(Registers);
    #[cfg(target_arch = "aarch64")]
    on_hardware();
    let affinity = Affinity::of_mpidr(any());
    sink((affinity.aff0(), affinity.aff1(), affinity.aff2(), affinity.aff3(), affinity.cpu()));
    sink(Affinity::new(PhysCpuId(any())));
    sink(vector().and_then(Sgi::of_vector).map(|sgi| (sgi.intid(), sgi.vector())));
    sink(Sgi::new(any()).map(|sgi| SgiCommand::to(affinity, sgi).bits()));
    let (control, other) = (Control::from_bits_retain(any()), Control::from_bits_retain(any()));
    sink((control.contains(other), control.difference(other).bits(), control.priority_bits()));
}

#[cfg(target_arch = "aarch64")]
fn on_hardware() {
    use mk_ipi_arm64::{Hardware, Hvc, Smc};
    use mk_ipi_core::platform::LocalInterrupts;
    // SAFETY: as above.
    let hardware = unsafe { Hardware::new() };
    let state = hardware.disable();
    hardware.restore(state);
    with(hardware);
    firmware(Hvc);
    firmware(Smc);
}

fn with<Io: GicIo>(io: Io) {
    // SAFETY: as above.
    sink(unsafe { Gic::use_system_registers(&io) });
    let Ok(mut gic) = Gic::new(io) else { return };
    if maybe() {
        gic = gic.with_range_selector();
    }
    sink((gic.confirm(), gic.cpu_id()));
    sink(core::ptr::from_ref(gic.io()));
    // SAFETY: as above.
    unsafe {
        gic.enable();
        if let Some(interrupt) = gic.acknowledge() {
            sink((Interrupt::intid(interrupt), interrupt.sgi()));
            gic.eoi(interrupt);
        }
    }
    if let Some(vector) = vector() {
        sink((gic.check(PhysCpuId(any()), vector), gic.ring(PhysCpuId(any()), vector)));
        sink(gic.ring_from_nmi(PhysCpuId(any()), vector));
    }
}

fn firmware<C: Conduit>(conduit: C) {
    // SAFETY: as above.
    let psci = unsafe { Psci::new(conduit) };
    sink(psci.version().map_err(PsciError::errno));
    sink(psci.affinity_info(PhysCpuId(any())));
    // SAFETY: as above.
    unsafe {
        sink(psci.cpu_on(PhysCpuId(any()), PhysAddr(any()), any()));
        sink(psci.cpu_off());
        sink(psci.system_off());
    }
}
