// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the machine ends.

use crate::arch;
pub use crate::arch::machine::{halt, undefined_instruction};

/// The reason why the machine ends. QEMU's exit status is `value * 2 + 1`, as its device `isa-debug-exit` computes it.
///
/// No value gives the exit status 0, which QEMU has after a triple fault under `-no-reboot`.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Exit {
    /// The run is complete, and no fault was found: exit status 33.
    Success = 0x10,
    /// The run is complete, and a fault was found (such as a lost message, or a failed case): exit status 35.
    Failed = 0x11,
    /// A kernel could not continue, and printed an error record: exit status 37.
    Error = 0x12,
    /// A kernel panicked: exit status 39.
    Panic = 0x13,
    /// A kernel had a CPU exception: exit status 41.
    Exception = 0x14,
}

/// Ends the machine, and so all kernels on it.
pub fn exit(how: Exit) -> ! {
    arch::machine::exit(how as u8)
}
