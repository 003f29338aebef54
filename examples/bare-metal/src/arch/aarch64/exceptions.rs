// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the vectors of boot.s lead to: every exception is reported and ends the machine. Interrupts go to the
//! controller's code.

use crate::console;
use crate::machine::Exit;
use core::arch::asm;

/// An exception or an unexpected interrupt, by the number of its vector (Arm ARM, "AArch64 vector tables").
#[no_mangle]
extern "C" fn exception(vector: u64) -> ! {
    let (cause, address, at): (u64, u64, u64);
    // SAFETY: reads of registers that EL1 may read.
    unsafe {
        asm!("mrs {}, esr_el1", "mrs {}, far_el1", "mrs {}, elr_el1", out(reg) cause, out(reg) address, out(reg) at);
    }
    console::fatal(
        format_args!("exception by vector {vector}, esr {cause:#x}, elr {at:#x}, far {address:#x}"),
        Exit::Exception,
    )
}
