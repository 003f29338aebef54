// SPDX-License-Identifier: MIT OR Apache-2.0
//! Start and stop of harts by the firmware: SBI's hart state management.
//!
//! Any hart can start another one, but a hart can only stop itself: SBI has no call that stops another hart. So a
//! kernel that hangs keeps its hart. To get it back, that kernel must run [`Hsm::stop`], or the machine must be reset.

use crate::sbi::{probe, Extension, SbiError, SbiIo};
use mk_ipi_abi::{PhysAddr, PhysCpuId};

/// `sbi_hart_start`.
const START: u64 = 0;
/// `sbi_hart_stop`.
const STOP: u64 = 1;
/// `sbi_hart_get_status`.
const STATUS: u64 = 2;

/// A hart's state (SBI, "HSM Hart States").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HartState {
    /// It runs.
    Started,
    /// It runs no kernel code, and can be started.
    Stopped,
    /// It was started, and does not run yet.
    StartPending,
    /// It stops itself, and is not stopped yet.
    StopPending,
    /// It sleeps until an interrupt.
    Suspended,
    /// It goes to sleep.
    SuspendPending,
    /// It wakes up.
    ResumePending,
}

/// The firmware's hart state management.
#[derive(Clone, Copy, Debug)]
pub struct Hsm<Io> {
    io: Io,
}

impl<Io: SbiIo> Hsm<Io> {
    /// The extension, if the firmware has it; else [`SbiError::NotSupported`].
    pub fn new(io: Io) -> Result<Self, SbiError> {
        probe(&io, Extension::Hsm)?;
        Ok(Self { io })
    }

    /// Starts the hart `target` at `entry`, in supervisor mode, with its own id in A0 and `opaque` in A1. `satp` and
    /// `sstatus.SIE` are 0 there.
    ///
    /// `Ok` says that the firmware accepts the call, not that the hart came up. The started code should say so in
    /// memory, and the wait for it should be bounded.
    ///
    /// # Safety
    ///
    /// `target` belongs to this kernel. `entry` is code that may run there, and `opaque` is what that code expects. A
    /// fence on this hart does not affect the other hart's instruction fetch, which may still hold what a former kernel
    /// had at the same addresses. So the code at `entry` runs `fence.i` before it comes to any instruction that may
    /// differ from that kernel's (ISA, "Zifencei").
    pub unsafe fn start(&self, target: PhysCpuId, entry: PhysAddr, opaque: u64) -> Result<(), SbiError> {
        // The image is in memory before the other hart runs it: the firmware tells that hart by a store or an output.
        mk_ipi_core::sync::fence(mk_ipi_core::sync::Ordering::SeqCst);
        self.io.fence_before_doorbell();
        // SAFETY: the caller promises all of it.
        unsafe { self.io.call(Extension::Hsm, START, [target.0, entry.0, opaque]) }.ok().map(drop)
    }

    /// Stops the hart that calls. Returns only if the firmware refuses.
    ///
    /// # Safety
    ///
    /// This hart is not needed any more. Interrupts are off (`sstatus.SIE`).
    pub unsafe fn stop(&self) -> SbiError {
        // SAFETY: the caller promises it.
        match unsafe { self.io.call(Extension::Hsm, STOP, [0; 3]) }.ok() {
            Err(why) => why,
            // A call that succeeds does not return.
            Ok(_) => SbiError::Failed,
        }
    }

    /// The state of the hart `target`.
    pub fn status(&self, target: PhysCpuId) -> Result<HartState, SbiError> {
        // SAFETY: it has no effect.
        match unsafe { self.io.call(Extension::Hsm, STATUS, [target.0, 0, 0]) }.ok()? {
            0 => Ok(HartState::Started),
            1 => Ok(HartState::Stopped),
            2 => Ok(HartState::StartPending),
            3 => Ok(HartState::StopPending),
            4 => Ok(HartState::Suspended),
            5 => Ok(HartState::SuspendPending),
            6 => Ok(HartState::ResumePending),
            other => Err(SbiError::Other(other as i64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Op};

    /// The extension of a fake whose log is empty.
    fn hsm(fake: &Fake) -> Hsm<&Fake> {
        let hsm = Hsm::new(fake).unwrap();
        fake.take();
        hsm
    }

    #[test]
    fn each_call_has_the_manuals_number_and_arguments() {
        let fake = Fake::new();
        // SAFETY: a fake starts no hart.
        assert_eq!(unsafe { hsm(&fake).start(PhysCpuId(3), PhysAddr(0x8020_0000), 9) }, Ok(()));
        assert_eq!(fake.take(), [Op::FenceBefore, Op::Call(Extension::Hsm, 0, [3, 0x8020_0000, 9])]);
        // SAFETY: as above.
        assert_eq!(unsafe { hsm(&fake).stop() }, SbiError::Failed, "it must not return");
        assert_eq!(fake.take(), [Op::Call(Extension::Hsm, 1, [0; 3])]);
        assert_eq!(hsm(&fake).status(PhysCpuId(7)), Ok(HartState::Started));
        assert_eq!(fake.take(), [Op::Call(Extension::Hsm, 2, [7, 0, 0])]);
    }

    #[test]
    fn each_state_has_the_manuals_number() {
        use HartState::*;
        let fake = Fake::new();
        let states = [Started, Stopped, StartPending, StopPending, Suspended, SuspendPending, ResumePending];
        for (number, state) in (0..).zip(states) {
            fake.value.set(number);
            assert_eq!(hsm(&fake).status(PhysCpuId(0)), Ok(state));
        }
        fake.value.set(7);
        assert_eq!(hsm(&fake).status(PhysCpuId(0)), Err(SbiError::Other(7)));
    }

    #[test]
    fn what_the_firmware_refuses_is_told() {
        let fake = Fake::new();
        let hsm = hsm(&fake);
        for (error, expected) in [(-6, SbiError::AlreadyAvailable), (-5, SbiError::InvalidAddress)] {
            fake.error.set(error);
            // SAFETY: a fake starts and stops no hart.
            let found = unsafe { (hsm.start(PhysCpuId(1), PhysAddr(0), 0), hsm.stop()) };
            assert_eq!(found, (Err(expected), expected));
            assert_eq!(hsm.status(PhysCpuId(1)), Err(expected));
        }
    }

    #[test]
    fn a_firmware_without_the_extension_starts_no_hart() {
        let fake = Fake { has_extensions: false, ..Fake::new() };
        assert_eq!(Hsm::new(&fake).map(drop), Err(SbiError::NotSupported));
        assert_eq!(fake.take(), [Op::Call(Extension::Base, 3, [0x48_534d, 0, 0])]);
    }
}
