// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the machine ends.

use crate::arch;
pub use crate::arch::machine::{halt, undefined_instruction};

/// The emulator's exit status. It is `value * 2 + 1`, as QEMU's `isa-debug-exit` makes it.
///
/// 0 is not used: a triple fault gives that under `-no-reboot`.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Exit {
    /// Everything was done and found correct: status 33.
    Success = 0x10,
    /// Something was lost, torn or doubled, or a case failed: status 35.
    Failed = 0x11,
    /// A kernel gave up; an error record says why: status 37.
    Error = 0x12,
    /// A kernel panicked: status 39.
    Panic = 0x13,
    /// A CPU exception: status 41.
    Exception = 0x14,
}

/// Ends the machine, all kernels at once.
pub fn exit(how: Exit) -> ! {
    arch::machine::exit(how as u8)
}
