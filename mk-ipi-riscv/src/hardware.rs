// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real firmware and the real registers: each operation is one instruction.

use crate::sbi::{Extension, SbiIo, SbiReturn};
use core::arch::asm;
use mk_ipi_core::platform::LocalInterrupts;

/// `sstatus.SIE`, and `sip.SSIP`: bit 1 of both.
const BIT_1: u64 = 2;

/// The firmware below, and the interrupt switch of whichever hart runs the call.
#[derive(Clone, Copy, Debug)]
pub struct Hardware(());

impl Hardware {
    /// The firmware.
    ///
    /// # Safety
    ///
    /// Every hart that uses the object, or a copy, runs in supervisor mode on a firmware with SBI 0.2 or newer.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

// SAFETY: `sstatus.SIE` is the switch for interrupts in supervisor mode, and nothing moves a kernel's code to another hart while it is
// clear. The blocks are without `nomem`: compiler barriers.
unsafe impl LocalInterrupts for Hardware {
    /// `sstatus.SIE`, as it was: 0 or 2.
    type State = u64;

    #[inline]
    fn disable(&self) -> u64 {
        let before: u64;
        // SAFETY: supervisor mode may switch its interrupts off.
        unsafe { asm!("csrrci {}, sstatus, 2", out(reg) before, options(nostack)) };
        before & BIT_1
    }

    #[inline]
    fn restore(&self, before: u64) {
        // SAFETY: a value that the bit had.
        unsafe { asm!("csrs sstatus, {}", in(reg) before & BIT_1, options(nostack)) };
    }
}

/// Calls a function of one extension, whose id stands in the code before the call: the check of the disassembly must tell them
/// apart (SPEC RV-3).
macro_rules! ecall {
    ($extension:ident, $function:expr, $args:expr) => {{
        let (error, value);
        let [a0, a1, a2] = $args;
        // SAFETY: the firmware keeps all registers but A0 and A1 (SBI, "Binary Encoding"); the caller of `call` has the rest.
        unsafe {
            asm!(
                "li a7, {extension}",
                "ecall",
                extension = const Extension::$extension.id(),
                inlateout("a0") a0 => error, inlateout("a1") a1 => value, in("a2") a2,
                in("a6") $function, out("a7") _,
                options(nostack),
            );
        }
        SbiReturn { error, value }
    }};
}

// SAFETY: one instruction each, of the effect required; `asm!` blocks are kept in order, and are without `nomem`.
unsafe impl SbiIo for Hardware {
    #[inline(always)]
    unsafe fn call(&self, extension: Extension, function: u64, args: [u64; 3]) -> SbiReturn {
        match extension {
            Extension::Base => ecall!(Base, function, args),
            Extension::Ipi => ecall!(Ipi, function, args),
            Extension::Hsm => ecall!(Hsm, function, args),
        }
    }

    #[inline(always)]
    fn fence_before_doorbell(&self) {
        // SAFETY: a fence has no effect but order.
        unsafe { asm!("fence w, o", options(nostack, preserves_flags)) }
    }

    #[inline(always)]
    fn clear_software_interrupt(&self) {
        // SAFETY: supervisor mode may clear its own software interrupt, whose message is looked for behind this.
        unsafe { asm!("csrci sip, 2", options(nostack)) }
    }

    #[inline(always)]
    fn fence_after_clear(&self) {
        // SAFETY: as above.
        unsafe { asm!("fence o, rw", options(nostack, preserves_flags)) }
    }
}
