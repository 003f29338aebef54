// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC: doorbells, the tick, start and stop of CPUs.

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

/// The vector for an interrupt that went away. Its low four bits are set, because old CPUs require that.
const SPURIOUS: Vector = Vector::new(0xef).unwrap();

/// The local APIC of the CPU that runs the call.
pub struct Controller {
    apic: LocalApic<Hardware>,
}

impl Controller {
    /// Puts the APIC into `mode` and opens the doorbell; interrupts are still off. Also returns the mode that it is in.
    pub fn set_up(mode: Mode) -> Result<(Self, Mode), ModeError> {
        idt::init();
        let (hardware, page) = apic_registers();
        if mode == Mode::X2Apic {
            // SAFETY: nothing has used the page yet.
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
        // SAFETY: the entries are made for these vectors. Each vector that can arrive here has its entry before the
        // APIC is on.
        unsafe {
            idt::set(super::DOORBELL, doorbell_interrupt);
            idt::set(timer::VECTOR, tick_interrupt);
            idt::set(SPURIOUS, spurious_interrupt);
        }
        let controller = Self { apic };
        controller.open(page);
        Ok((controller, found))
    }

    /// Makes this CPU's APIC take interrupts, and starts its tick.
    fn open(&self, page: u64) {
        // SAFETY: the IDT has an entry for each vector that can come here.
        unsafe {
            self.apic.enable(SpuriousVector::new(SPURIOUS.get()).unwrap_or(SpuriousVector::DEFAULT));
            timer::start(self.apic.mode(), page);
        }
    }

    /// Opens the doorbell on this CPU, the second one, as on the first; interrupts are still off.
    pub fn enter_second(&self) -> Result<(), ModeError> {
        idt::load();
        let (hardware, page) = apic_registers();
        if self.apic.mode() == mk_ipi_x86::Mode::X2Apic {
            // SAFETY: nothing has used the page on this CPU.
            unsafe { mk_ipi_x86::Mode::enter_x2apic(&hardware)? };
        }
        self.apic.confirm_mode()?;
        self.open(page);
        Ok(())
    }

    /// This CPU's id.
    pub fn cpu_id(&self) -> PhysCpuId {
        self.apic.apic_id()
    }

    /// The CPU that booted the machine, if that is known.
    pub fn boot_cpu(&self) -> Option<PhysCpuId> {
        self.apic.boot_cpu()
    }

    /// Leads `vector` to the doorbell's code if it is `ours`, otherwise to the code that counts other kernels'
    /// doorbells.
    pub fn lead(&self, vector: Vector, ours: bool) {
        // SAFETY: the entries are made for it.
        unsafe { idt::set(vector, if ours { doorbell_interrupt } else { foreign_interrupt }) };
    }

    /// Returns whether there is a second vector, for the conformance suite.
    pub fn has_spare(&self) -> bool {
        true
    }

    /// Opens the second vector.
    pub fn open_spare(&self) {
        // SAFETY: the entry is made for it.
        unsafe { idt::set(SPARE_VECTOR, spare_interrupt) };
    }

    /// Makes this kernel acknowledge interrupts that it does not know.
    pub fn ignore_strays(&self) {
        // SAFETY: the entry is made for it.
        unsafe { idt::set_others(stray_interrupt) };
    }

    /// Starts `cpu` at `entry` in 32-bit protected mode, with `argument`. `delay` as for `start_cpu`.
    ///
    /// # Safety
    ///
    /// The CPU runs nothing that is needed. `entry` is code for it that takes this argument. Every CPU that was started
    /// before has said that it runs.
    pub unsafe fn start(
        &self,
        cpu: PhysCpuId,
        entry: u64,
        argument: u64,
        mut delay: impl FnMut(Microseconds),
    ) -> Result<(), StartError> {
        let page = StartPage::new(PhysAddr(layout::TRAMPOLINE));
        let page = page.unwrap_or_else(|e| fatal!("the trampoline: {e:?}"));
        let (Ok(entry), Ok(argument)) = (u32::try_from(entry), u32::try_from(argument)) else {
            fatal!("a CPU starts below 4 GiB, not at {entry:#x} with {argument:#x}")
        };
        // SAFETY: the page is free: the CPU that was started before runs, so it has left the trampoline.
        unsafe { trampoline::set(entry, argument) };
        // SAFETY: the caller promises it, and the trampoline is in place.
        unsafe { start_cpu(&self.apic, cpu, page, |us| delay(Microseconds(us.0))) }
    }

    /// Stops `cpu` by INIT, whatever it runs. Runs `meanwhile` until it has stopped, for which it is given the time
    /// `wait`.
    ///
    /// # Safety
    ///
    /// The CPU belongs to this kernel or to one that it may end, and what it was doing is not needed.
    pub unsafe fn stop(
        &self,
        cpu: PhysCpuId,
        wait: Microseconds,
        mut meanwhile: impl FnMut(Microseconds),
    ) -> Result<(), StartError> {
        let wait = mk_ipi_x86::Microseconds(wait.0);
        // SAFETY: the caller promises it.
        unsafe { stop_cpu(&self.apic, cpu, wait, |us| meanwhile(Microseconds(us.0))) }
    }

    /// Does nothing: a CPU is stopped from outside on this architecture.
    pub fn stop_this(&self) {}

    /// As `ThisCpu::compare_exchange_alone`: without the LOCK prefix.
    pub fn compare_exchange_alone(word: &AtomicU64, current: u64, new: u64) -> bool {
        mk_ipi_x86::compare_exchange_alone(word, current, new)
    }
}

// SAFETY: passed on to the local APIC, which implements the trait as required.
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

/// The local APIC's registers, and where their page lies.
fn apic_registers() -> (Hardware, u64) {
    // SAFETY: a copy that only reads `IA32_APIC_BASE`.
    let base = ApicBase::read(&unsafe { Hardware::new(None) });
    let page = base.page().0;
    // SAFETY: boot.s maps this page one to one, writable and uncached. A CPU uses the registers only after it has
    // changed its mode.
    (unsafe { Hardware::new(NonNull::new(page as *mut u8)) }, page)
}

doorbell_entry!(fn doorbell_interrupt => on_doorbell);
doorbell_entry!(fn tick_interrupt => on_tick);
doorbell_entry!(fn spurious_interrupt => on_spurious);
doorbell_entry!(fn stray_interrupt => eoi);
doorbell_entry!(fn foreign_interrupt => on_foreign);
doorbell_entry!(fn spare_interrupt => on_spare);

/// Ends the interrupt in service.
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
