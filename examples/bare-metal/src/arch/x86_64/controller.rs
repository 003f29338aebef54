// SPDX-License-Identifier: MIT OR Apache-2.0
//! Drives the local APIC: doorbells, the tick, start and stop of CPUs.

use super::{idt, timer, trampoline, Mode, SPARE_VECTOR};
use crate::clock::Microseconds;
use crate::platform::{self, Kernel};
use crate::{conformance, layout};
use core::ptr::NonNull;
use mk_ipi_abi::{PhysAddr, PhysCpuId, Vector};
use mk_ipi_core::platform::{Doorbell, DoorbellError};
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_x86::mode::ApicBase;
use mk_ipi_x86::{
    doorbell_entry, start_cpu, stop_cpu, Hardware, LocalApic, ModeError, SpuriousVector, StartError,
    StartPage,
};

/// The vector of spurious interrupts. Its low four bits are set, because old CPUs require that.
const SPURIOUS: Vector = Vector::new(0xef).unwrap();

/// The local APIC of the CPU that makes the call.
pub struct Controller {
    apic: LocalApic<Hardware>,
}

impl Controller {
    /// Puts the APIC into `mode`, makes this CPU accept doorbells, and starts the tick. Interrupts must be off, and stay off.
    /// Also returns the mode in which the APIC is.
    pub fn set_up(mode: Mode) -> Result<(Self, Mode), ModeError> {
        idt::init();
        let (hardware, page) = apic_registers();
        if mode == Mode::X2Apic {
            // SAFETY: no code has used the APIC's page yet.
            unsafe { mk_ipi_x86::Mode::enter_x2apic(&hardware)? };
        }
        let apic = LocalApic::new(hardware)?;
        let found = match apic.mode() {
            mk_ipi_x86::Mode::XApic => Mode::XApic,
            mk_ipi_x86::Mode::X2Apic => Mode::X2Apic,
        };
        if mode != Mode::Present && mode != found {
            return Err(ModeError::Differs(apic.mode()));
        }
        // SAFETY: `doorbell_entry!` makes each of these functions for the IDT. Each vector that can interrupt this CPU has its
        // entry before the APIC is enabled.
        unsafe {
            idt::set(super::DOORBELL, doorbell_interrupt);
            idt::set(timer::VECTOR, tick_interrupt);
            idt::set(SPURIOUS, spurious_interrupt);
        }
        let controller = Self { apic };
        controller.open(page);
        Ok((controller, found))
    }

    /// Enables the APIC of this CPU, and starts its tick.
    fn open(&self, page: u64) {
        // SAFETY: the IDT has an entry for each vector that can interrupt this CPU.
        unsafe {
            self.apic.enable(SpuriousVector::new(SPURIOUS.get()).unwrap_or(SpuriousVector::DEFAULT));
            timer::start(self.apic.mode(), page);
        }
    }

    /// Makes this CPU, which is the second one of this kernel, accept doorbells, and starts its tick. Interrupts must be off, and
    /// stay off.
    pub fn enter_second(&self) -> Result<(), ModeError> {
        idt::load();
        let (hardware, page) = apic_registers();
        if self.apic.mode() == mk_ipi_x86::Mode::X2Apic {
            // SAFETY: no code has used the APIC's page on this CPU.
            unsafe { mk_ipi_x86::Mode::enter_x2apic(&hardware)? };
        }
        self.apic.confirm_mode()?;
        self.open(page);
        Ok(())
    }

    /// The physical id of this CPU.
    pub fn cpu_id(&self) -> PhysCpuId {
        self.apic.apic_id()
    }

    /// The CPU that booted the machine. Only a kernel whose first CPU is that CPU knows it; in other kernels this is `None`.
    pub fn boot_cpu(&self) -> Option<PhysCpuId> {
        self.apic.boot_cpu()
    }

    /// Sets the handler of `vector`. If `ours` is true, the handler is that of this kernel's doorbell. Otherwise the handler
    /// counts a doorbell of another kernel.
    pub fn lead(&self, vector: Vector, ours: bool) {
        // SAFETY: `doorbell_entry!` makes both functions for the IDT.
        unsafe { idt::set(vector, if ours { doorbell_interrupt } else { foreign_interrupt }) };
    }

    /// Returns whether the conformance suite can use a second vector.
    pub fn has_spare(&self) -> bool {
        true
    }

    /// Sets the handler of the second vector, for the conformance suite.
    pub fn open_spare(&self) {
        // SAFETY: `doorbell_entry!` makes this function for the IDT.
        unsafe { idt::set(SPARE_VECTOR, spare_interrupt) };
    }

    /// Makes this kernel acknowledge and ignore interrupts on all vectors that have no handler yet.
    pub fn ignore_strays(&self) {
        // SAFETY: `doorbell_entry!` makes this function for the IDT.
        unsafe { idt::set_others(stray_interrupt) };
    }

    /// Starts `cpu` at `entry` in 32-bit protected mode, with `argument` in ebx. Calls `delay` to wait. `delay` must return
    /// only after the time that it is given.
    ///
    /// # Safety
    ///
    /// Nothing depends on what the CPU runs now. `entry` is code that may run on it with this argument. Every CPU that was
    /// started before has reported that it runs, so it has left the trampoline.
    pub unsafe fn start(
        &self,
        cpu: PhysCpuId,
        entry: u64,
        argument: u64,
        mut delay: impl FnMut(Microseconds),
    ) -> Result<(), StartError> {
        let page = StartPage::new(PhysAddr(layout::TRAMPOLINE));
        let page = page.unwrap_or_else(|e| fatal!("the trampoline's page: {e:?}"));
        let (Ok(entry), Ok(argument)) = (u32::try_from(entry), u32::try_from(argument)) else {
            fatal!("no CPU can start at {entry:#x} with {argument:#x}: both must be below 4 GiB")
        };
        // SAFETY: no CPU is on the trampoline: the caller promises that each CPU that was started before has left it.
        unsafe { trampoline::set(entry, argument) };
        // SAFETY: the caller keeps the safety rules of this function, and the trampoline has been written.
        unsafe { start_cpu(&self.apic, cpu, page, |us| delay(Microseconds(us.0))) }
    }

    /// Stops `cpu` by an INIT, whatever it runs. Then calls `meanwhile` with `wait`. `meanwhile` must return only after that
    /// time. Then the CPU is considered stopped, because no register tells whether it has stopped.
    ///
    /// # Safety
    ///
    /// The CPU belongs to this kernel, or to a kernel that this one may end. Nothing depends on the work that the CPU was doing.
    pub unsafe fn stop(
        &self,
        cpu: PhysCpuId,
        wait: Microseconds,
        mut meanwhile: impl FnMut(Microseconds),
    ) -> Result<(), StartError> {
        let wait = mk_ipi_x86::Microseconds(wait.0);
        // SAFETY: the caller keeps the safety rules of this function.
        unsafe { stop_cpu(&self.apic, cpu, wait, |us| meanwhile(Microseconds(us.0))) }
    }

    /// Does nothing: on this architecture another CPU stops this one, by an INIT.
    pub fn stop_this(&self) {}

    /// Implements `ThisCpu::compare_exchange_alone`, by an instruction without the LOCK prefix.
    pub fn compare_exchange_alone(word: &AtomicU64, current: u64, new: u64) -> bool {
        mk_ipi_x86::compare_exchange_alone(word, current, new)
    }
}

// SAFETY: each call is passed on to the local APIC, which implements the trait as required.
unsafe impl Doorbell for Controller {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.apic.check(cpu, vector)
    }

    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.apic.ring(cpu, vector)
    }

    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.apic.ring_from_nmi(cpu, vector)
    }
}

/// The local APIC's registers, and the physical address of their page.
fn apic_registers() -> (Hardware, u64) {
    // SAFETY: this `Hardware` is only used to read `IA32_APIC_BASE`.
    let base = ApicBase::read(&unsafe { Hardware::new(None) });
    let page = base.page().0;
    // SAFETY: boot.s maps this page one to one, writable and uncached. A CPU that changes its APIC's mode does so before it uses
    // the registers.
    (unsafe { Hardware::new(NonNull::new(page as *mut u8)) }, page)
}

doorbell_entry!(fn doorbell_interrupt => on_doorbell);
doorbell_entry!(fn tick_interrupt => on_tick);
doorbell_entry!(fn spurious_interrupt => on_spurious);
doorbell_entry!(fn stray_interrupt => eoi);
doorbell_entry!(fn foreign_interrupt => on_foreign);
doorbell_entry!(fn spare_interrupt => on_spare);

/// Acknowledges the interrupt that is being handled.
extern "C" fn eoi() {
    Kernel.controller().apic.eoi();
}

extern "C" fn on_doorbell() {
    eoi();
    platform::on_doorbell();
}

extern "C" fn on_tick() {
    eoi();
    platform::on_tick();
}

/// A spurious interrupt is not acknowledged (Intel SDM vol. 3A, 10.9).
extern "C" fn on_spurious() {}

extern "C" fn on_foreign() {
    eoi();
    platform::on_foreign();
}

extern "C" fn on_spare() {
    eoi();
    conformance::on_spare();
}
