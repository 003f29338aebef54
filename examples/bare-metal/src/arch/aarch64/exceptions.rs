// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handler of exceptions. It reports the exception, and then ends the machine. A kernel that serves only halts itself. IRQs are
//! handled in controller.rs.

use crate::console;
use crate::machine::Exit;
use core::arch::asm;

/// boot.s calls this for an exception or an unexpected interrupt, with the number of the vector (Arm ARM, "AArch64 vector
/// tables").
#[no_mangle]
extern "C" fn exception(vector: u64) -> ! {
    let (cause, address, at): (u64, u64, u64);
    // SAFETY: this only reads registers that EL1 may read.
    unsafe {
        asm!("mrs {}, esr_el1", "mrs {}, far_el1", "mrs {}, elr_el1", out(reg) cause, out(reg) address, out(reg) at);
    }
    console::fatal(
        format_args!("exception by vector {vector}, esr {cause:#x}, elr {at:#x}, far {address:#x}"),
        Exit::Exception,
    )
}
