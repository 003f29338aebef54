// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access to the real firmware, registers and interrupt files by the hart's instructions.

use crate::imsic::{Identity, ImsicIo};
use crate::sbi::{Extension, SbiIo, SbiReturn};
use core::arch::asm;
use mk_ipi_abi::PhysCpuId;
use mk_ipi_core::platform::LocalInterrupts;

/// `sstatus.SIE`, which is bit 1.
const BIT_1: u64 = 2;

/// The real firmware, and the interrupt registers of the hart that runs the call.
#[derive(Clone, Copy, Debug)]
pub struct Hardware(());

impl Hardware {
    /// Makes the object.
    ///
    /// # Safety
    ///
    /// Every hart that uses the object, or a copy of it, runs in supervisor mode. The firmware has SBI 0.2 or newer.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

// SAFETY: while `sstatus.SIE` is 0, the hart takes no interrupts in supervisor mode, and a kernel does not move its code to
// another hart. The `asm!` blocks do not have the option `nomem`, so they are compiler barriers.
unsafe impl LocalInterrupts for Hardware {
    /// `sstatus` before `disable`, with all bits except SIE cleared: 0 or 2.
    type State = u64;

    #[inline]
    fn disable(&self) -> u64 {
        let before: u64;
        // SAFETY: code in supervisor mode may switch its interrupts off.
        unsafe { asm!("csrrci {}, sstatus, 2", out(reg) before, options(nostack)) };
        before & BIT_1
    }

    #[inline]
    fn restore(&self, before: u64) {
        // SAFETY: this sets SIE only if it was set before `disable`.
        unsafe { asm!("csrs sstatus, {}", in(reg) before & BIT_1, options(nostack)) };
    }
}

/// Calls a function of one extension. The instruction just before `ecall` loads the id of the extension. The check of the
/// disassembly needs this to find the calls of `sbi_send_ipi` (SPEC RV-3).
macro_rules! ecall {
    ($extension:ident, $function:expr, $args:expr) => {{
        let (error, value);
        let [a0, a1, a2] = $args;
        // SAFETY: the firmware preserves all registers except A0 and A1 (SBI, "Binary Encoding"). The caller of `call` promises
        // the rest.
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

// SAFETY: each method is one instruction with the required effect (`call` also loads A7). The compiler keeps the order of `asm!`
// blocks, and the blocks do not have the option `nomem`.
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
        // SAFETY: code in supervisor mode may clear its software interrupt. The caller looks for messages after this.
        unsafe { asm!("csrci sip, 2", options(nostack)) }
    }

    #[inline(always)]
    fn fence_after_clear(&self) {
        // SAFETY: a fence only orders accesses.
        unsafe { asm!("fence o, rw", options(nostack, preserves_flags)) }
    }
}

/// The supervisor-level interrupt files of the harts, on a machine with one group of harts: the files have equal distances in
/// memory, in the order of the hart ids, and the first one is the file of hart 0. `write` and `claim` access the file of the hart
/// that runs the call.
#[derive(Clone, Copy, Debug)]
pub struct ImsicFiles {
    /// The virtual address of the file of hart 0.
    first: usize,
    /// The distance in bytes from one file to the next: one page, and one more page for each guest file of a hart.
    stride: usize,
    /// The number of files.
    count: usize,
}

impl ImsicFiles {
    /// Makes the object for the files of harts `0..count`. The first file is mapped at the address `first`, and each next file
    /// `stride` bytes higher.
    ///
    /// # Safety
    ///
    /// The files of these harts are at these addresses (device tree: `reg` and `riscv,guest-index-bits` of the `riscv,imsics`
    /// node for supervisor mode). As long as the object is used, they are mapped writable, and as device registers. The last
    /// file ends inside the address space. Every hart that uses the object runs in supervisor mode and has the extension
    /// `Ssaia`.
    pub const unsafe fn new(first: usize, stride: usize, count: usize) -> Self {
        Self { first, stride, count }
    }
}

// SAFETY: each method is one `asm!` block with the required instructions. The compiler keeps the order of `asm!` blocks, and the
// blocks do not have the option `nomem`. The caller of `new` promised that the files are mapped.
unsafe impl ImsicIo for ImsicFiles {
    #[inline]
    fn has_file(&self, cpu: PhysCpuId) -> bool {
        usize::try_from(cpu.0).is_ok_and(|hart| hart < self.count)
    }

    #[inline(always)]
    unsafe fn send(&self, cpu: PhysCpuId, identity: Identity) {
        #[expect(clippy::cast_possible_truncation, reason = "an address has 64 bits")]
        let file = self.first.wrapping_add((cpu.0 as usize).wrapping_mul(self.stride));
        // SAFETY: the caller of `new` promised that the file is mapped. The store has 32 bits and is little endian, like the
        // hart. The caller of this method promises the rest.
        unsafe {
            asm!("fence w, o", "sw {}, 0({})", in(reg) u32::from(identity.get()), in(reg) file, options(nostack));
        }
    }

    // The registers are named by number, because old assemblers do not know their names: siselect is 0x150, sireg is 0x151, and
    // stopei is 0x15c.
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
        // SAFETY: a fence only orders accesses.
        unsafe { asm!("fence o, rw", options(nostack, preserves_flags)) }
    }
}
