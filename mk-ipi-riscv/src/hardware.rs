// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real firmware and the real registers: each operation is one instruction.

use crate::imsic::{Identity, ImsicIo};
use crate::sbi::{Extension, SbiIo, SbiReturn};
use core::arch::asm;
use mk_ipi_abi::PhysCpuId;
use mk_ipi_core::platform::LocalInterrupts;

/// `sstatus.SIE`, and `sip.SSIP`: bit 1 of both.
const BIT_1: u64 = 2;

/// The firmware, and the interrupt switch of whichever hart runs the call.
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

// SAFETY: `sstatus.SIE` is the switch for interrupts in supervisor mode, and a kernel's code is not moved to another
// hart while it is clear. The blocks are without `nomem`: they are compiler barriers.
unsafe impl LocalInterrupts for Hardware {
    /// The saved value of `sstatus.SIE`: 0 or 2.
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

/// Calls a function of one extension. The id is loaded by an instruction just before the call: the check of the
/// disassembly must tell the extensions apart (SPEC RV-3).
macro_rules! ecall {
    ($extension:ident, $function:expr, $args:expr) => {{
        let (error, value);
        let [a0, a1, a2] = $args;
        // SAFETY: the firmware keeps all registers but A0 and A1 (SBI, "Binary Encoding"); the caller of `call`
        // promises the
        // rest.
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

// SAFETY: each is one instruction, with the effect required. `asm!` blocks are kept in order, and are without `nomem`.
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
        // SAFETY: a fence only orders accesses.
        unsafe { asm!("fence w, o", options(nostack, preserves_flags)) }
    }

    #[inline(always)]
    fn clear_software_interrupt(&self) {
        // SAFETY: supervisor mode may clear its own software interrupt. The caller looks for its message after this.
        unsafe { asm!("csrci sip, 2", options(nostack)) }
    }

    #[inline(always)]
    fn fence_after_clear(&self) {
        // SAFETY: as above.
        unsafe { asm!("fence o, rw", options(nostack, preserves_flags)) }
    }
}

/// Supervisor-level interrupt files that lie side by side, in the order of the harts from hart 0 on, as on a machine
/// with one group of harts. And this hart's own file.
#[derive(Clone, Copy, Debug)]
pub struct ImsicFiles {
    /// Where hart 0's file is mapped.
    first: usize,
    /// Bytes from one file to the next: one page, and one more for each guest file of a hart.
    stride: usize,
    /// How many files there are.
    count: usize,
}

impl ImsicFiles {
    /// The files of harts `0..count`. The first one is mapped at `first`, and each next one `stride` bytes higher.
    ///
    /// # Safety
    ///
    /// The machine has its files there (device tree: `reg` and `riscv,guest-index-bits` of the `riscv,imsics` node for
    /// supervisor mode). They are mapped as a device's registers, writable, for as long as the object is used. The end
    /// of the last one does not go beyond the address space. Every hart that uses the object runs in supervisor mode
    /// and has `Ssaia`.
    pub const unsafe fn new(first: usize, stride: usize, count: usize) -> Self {
        Self { first, stride, count }
    }
}

// SAFETY: each is one instruction, or the two that belong together, with the effect required. `asm!` blocks are kept in
// order, and are without `nomem`. The caller of `new` promised the files.
unsafe impl ImsicIo for ImsicFiles {
    #[inline]
    fn has_file(&self, cpu: PhysCpuId) -> bool {
        usize::try_from(cpu.0).is_ok_and(|hart| hart < self.count)
    }

    #[inline(always)]
    unsafe fn send(&self, cpu: PhysCpuId, identity: Identity) {
        #[expect(clippy::cast_possible_truncation, reason = "an address has 64 bits")]
        let file = self.first.wrapping_add((cpu.0 as usize).wrapping_mul(self.stride));
        // SAFETY: the caller of `new` promised the file; the caller promises the rest. The store has 32 bits and is
        // little endian, as the hart is.
        unsafe {
            asm!("fence w, o", "sw {}, 0({})", in(reg) u32::from(identity.get()), in(reg) file, options(nostack));
        }
    }

    // The registers are given by number, because old assemblers do not know the names: siselect 0x150, sireg 0x151,
    // stopei 0x15c.
    #[inline(always)]
    unsafe fn write(&self, register: u64, value: u64) {
        // SAFETY: the caller promises it.
        unsafe {
            asm!("csrw 0x150, {}", "csrw 0x151, {}", in(reg) register, in(reg) value, options(nostack));
        }
    }

    #[inline(always)]
    unsafe fn claim(&self) -> u64 {
        let top;
        // SAFETY: the caller promises it.
        unsafe { asm!("csrrw {}, 0x15c, zero", out(reg) top, options(nostack)) };
        top
    }

    #[inline(always)]
    fn fence_after_claim(&self) {
        // SAFETY: as above.
        unsafe { asm!("fence o, rw", options(nostack, preserves_flags)) }
    }
}
