// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes the code at which a started CPU begins: trampoline.s, copied to a page below 1 MiB.

use crate::arch::at;
use crate::layout;

core::arch::global_asm!(include_str!("trampoline.s"), options(att_syntax));

/// Writes the trampoline to its page. The next CPU that is started enters `entry`, with `start_info` in ebx.
///
/// # Safety
///
/// No CPU is on the trampoline now, and the trampoline's page is RAM.
pub unsafe fn set(entry: u32, start_info: u32) {
    extern "C" {
        static trampoline_start: u8;
        static trampoline_mailbox: u8;
        static trampoline_end: u8;
    }
    let (start, mailbox, end) =
        (&raw const trampoline_start, &raw const trampoline_mailbox, &raw const trampoline_end);
    let len = end as usize - start as usize;
    let target = at(layout::TRAMPOLINE) as *mut u8;
    // SAFETY: the caller keeps the safety rules of this function. The code is smaller than a page, and its mailbox is aligned
    // to 8.
    unsafe {
        core::ptr::copy_nonoverlapping(start, target, len);
        let mailbox = target.add(mailbox as usize - start as usize).cast::<u32>();
        mailbox.write_volatile(entry);
        mailbox.add(1).write_volatile(start_info);
    }
}
