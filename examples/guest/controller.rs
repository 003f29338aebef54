// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts and stops the CPUs of other kernels, by the local APIC. The guest has set up the APIC.

use super::{trampoline, Mode};
use crate::clock::Microseconds;
use crate::layout;
use mk_ipi_abi::{PhysAddr, PhysCpuId, Vector};
use mk_ipi_x86::{start_cpu, stop_cpu, Hardware, LocalApic, StartError, StartPage};

/// The local APIC of the CPU that makes the call.
pub struct Controller(pub LocalApic<Hardware>);

impl Controller {
    /// The mode in which the guest runs the APIC.
    pub fn mode(&self) -> Mode {
        match self.0.mode() {
            mk_ipi_x86::Mode::XApic => Mode::XApic,
            mk_ipi_x86::Mode::X2Apic => Mode::X2Apic,
        }
    }

    /// The CPU that booted the machine; `None` if it is not known.
    pub fn boot_cpu(&self) -> Option<PhysCpuId> {
        self.0.boot_cpu()
    }

    /// Does not return: a call is a fatal error, because a guest moves no CPUs.
    pub fn lead(&self, vector: Vector, _: bool) {
        fatal!("the handler of vector {} cannot be changed", vector.get())
    }

    /// Always true: the conformance suite can use a second vector.
    pub fn has_spare(&self) -> bool {
        true
    }

    /// Does nothing: the handler of the second vector is always set.
    pub fn open_spare(&self) {}

    /// Starts `cpu` at `entry` in 32-bit protected mode, with `argument` in ebx. Calls `delay` to wait; it must return after at
    /// least the time that it is given.
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
        // SAFETY: no CPU is on the trampoline: the caller promises that each CPU that was started before has left it. The page is
        // below 1 MiB, where no guest uses memory.
        unsafe { trampoline::set(entry, argument) };
        // SAFETY: the caller keeps the safety rules of this function, and the trampoline has been written.
        unsafe { start_cpu(&self.0, cpu, page, |us| delay(Microseconds(us.0))) }
    }

    /// Stops `cpu` by an INIT, whatever it runs. Then calls `meanwhile` with `wait`; `meanwhile` must spend that time. After
    /// it the CPU is considered stopped, because no register tells whether it has stopped.
    ///
    /// # Safety
    ///
    /// The CPU belongs to a kernel that this one may end. Nothing depends on the work that the CPU was doing.
    pub unsafe fn stop(
        &self,
        cpu: PhysCpuId,
        wait: Microseconds,
        mut meanwhile: impl FnMut(Microseconds),
    ) -> Result<(), StartError> {
        let wait = mk_ipi_x86::Microseconds(wait.0);
        // SAFETY: the caller keeps the safety rules of this function.
        unsafe { stop_cpu(&self.0, cpu, wait, |us| meanwhile(Microseconds(us.0))) }
    }
}
