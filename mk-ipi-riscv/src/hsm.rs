// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts and stops harts by calls of the firmware: SBI's hart state management.
//!
//! Any hart can start another hart. But a hart can only stop itself: SBI has no call that stops another hart. So a kernel that
//! hangs keeps its hart. The hart becomes free only if that kernel calls [`Hsm::stop`] on it, or if the machine is reset.

use crate::sbi::{probe, Extension, SbiError, SbiIo};
use mk_ipi_abi::{PhysAddr, PhysCpuId};

/// The number of the function `sbi_hart_start` in [`Extension::Hsm`].
const START: u64 = 0;
/// The number of the function `sbi_hart_stop`.
const STOP: u64 = 1;
/// The number of the function `sbi_hart_get_status`.
const STATUS: u64 = 2;

/// The state of a hart (SBI, "HSM Hart States").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HartState {
    /// The hart runs.
    Started,
    /// The hart runs no kernel code, and can be started.
    Stopped,
    /// The hart was started, and does not run yet.
    StartPending,
    /// The hart has called `sbi_hart_stop`, and is not stopped yet.
    StopPending,
    /// The hart is suspended until an interrupt or another event resumes it.
    Suspended,
    /// The hart has called `sbi_hart_suspend`, and is not suspended yet.
    SuspendPending,
    /// The hart was suspended, and an event has resumed it. It does not run yet.
    ResumePending,
}

/// The calls of the firmware's hart state management.
#[derive(Clone, Copy, Debug)]
pub struct Hsm<Io> {
    io: Io,
}

impl<Io: SbiIo> Hsm<Io> {
    /// Makes the object. It fails with [`SbiError::NotSupported`] if the firmware does not have the HSM extension.
    pub fn new(io: Io) -> Result<Self, SbiError> {
        probe(&io, Extension::Hsm)?;
        Ok(Self { io })
    }

    /// Starts the hart `target` at the physical address `entry`, in supervisor mode, with its own id in A0 and `opaque` in A1.
    /// When it starts, its `satp` and `sstatus.SIE` are 0.
    ///
    /// `Ok` means that the firmware has accepted the call. It does not mean that the hart runs. So the started code should write
    /// to memory that it runs, and the caller should wait for this with a time limit.
    ///
    /// # Safety
    ///
    /// `target` belongs to this kernel. `entry` is code that this hart may execute, and `opaque` is what this code expects.
    ///
    /// The target may still have old instructions of a former kernel in its instruction cache, for the same addresses. A fence on
    /// this hart does not change that. So the code at `entry` must execute `fence.i` before any instruction that may be different
    /// from the former kernel's instruction at the same address (ISA, "Zifencei").
    pub unsafe fn start(&self, target: PhysCpuId, entry: PhysAddr, opaque: u64) -> Result<(), SbiError> {
        // These fences make the image visible before the other hart executes it. The firmware starts that hart by a store
        // (ordered by the first fence) or by an output (ordered by the second fence).
        mk_ipi_core::sync::fence(mk_ipi_core::sync::Ordering::SeqCst);
        self.io.fence_before_doorbell();
        // SAFETY: the caller promises it.
        unsafe { self.io.call(Extension::Hsm, START, [target.0, entry.0, opaque]) }.ok().map(drop)
    }

    /// Stops the hart that makes the call. Returns only if the firmware refuses.
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

    /// Returns the state of the hart `target`.
    pub fn status(&self, target: PhysCpuId) -> Result<HartState, SbiError> {
        // SAFETY: the call has no effect.
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

    /// Makes the object for `fake`, and empties the log of `fake`.
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
