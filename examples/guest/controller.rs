// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC, which the guest's kernel has set up. It starts and stops the CPUs that the guest does not use.

use super::{trampoline, Mode};
use crate::clock::Microseconds;
use crate::layout;
use mk_ipi_abi::{PhysAddr, PhysCpuId, Vector};
use mk_ipi_x86::{start_cpu, stop_cpu, Hardware, LocalApic, StartError, StartPage};

/// The local APIC of the CPU that runs the call.
pub struct Controller(pub LocalApic<Hardware>);

impl Controller {
    /// The mode in which the guest's kernel runs the APIC.
    pub fn mode(&self) -> Mode {
        match self.0.mode() {
            mk_ipi_x86::Mode::XApic => Mode::XApic,
            mk_ipi_x86::Mode::X2Apic => Mode::X2Apic,
        }
    }

    /// The CPU that booted the machine, if that is known.
    pub fn boot_cpu(&self) -> Option<PhysCpuId> {
        self.0.boot_cpu()
    }

    /// Fails: a guest moves no CPUs.
    pub fn lead(&self, vector: Vector, _: bool) {
        fatal!("vector {} cannot be led elsewhere", vector.get())
    }

    /// There is a second vector, for the conformance suite.
    pub fn has_spare(&self) -> bool {
        true
    }

    /// Does nothing: the second vector is always open.
    pub fn open_spare(&self) {}

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
        // SAFETY: the CPU that was started before runs, so it has left the trampoline. The page is below 1 MiB, where
        // no guest uses memory.
        unsafe { trampoline::set(entry, argument) };
        // SAFETY: the caller promises it, and the trampoline is in place.
        unsafe { start_cpu(&self.0, cpu, page, |us| delay(Microseconds(us.0))) }
    }

    /// Stops `cpu` by INIT, whatever it runs. Runs `meanwhile` until it has stopped, for which it is given the time
    /// `wait`.
    ///
    /// # Safety
    ///
    /// The CPU belongs to a kernel that this one may end, and what it was doing is not needed.
    pub unsafe fn stop(
        &self,
        cpu: PhysCpuId,
        wait: Microseconds,
        mut meanwhile: impl FnMut(Microseconds),
    ) -> Result<(), StartError> {
        let wait = mk_ipi_x86::Microseconds(wait.0);
        // SAFETY: the caller promises it.
        unsafe { stop_cpu(&self.0, cpu, wait, |us| meanwhile(Microseconds(us.0))) }
    }
}
