// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real APIC: each operation is one or two instructions.

use crate::regs::{ApicIo, Register};
use core::arch::asm;
use core::ptr::NonNull;
use mk_ipi_core::platform::LocalInterrupts;
use x86_64::instructions::interrupts;
use x86_64::registers::model_specific::Msr;

/// The APIC of whichever CPU runs the call.
#[derive(Clone, Copy, Debug)]
pub struct Hardware {
    /// The page, or null.
    mmio: *mut u8,
}

// SAFETY: the page shows each CPU its own APIC at the same address, and the caller of `new` promised it for every CPU.
unsafe impl Send for Hardware {}
// SAFETY: as above; no state is shared.
unsafe impl Sync for Hardware {}

impl Hardware {
    /// The APIC, through the kernel's mapping of its 4 KiB page; x2APIC mode needs none.
    ///
    /// # Safety
    ///
    /// Every CPU that uses the object, or a copy, runs in ring 0. Its APIC is in the mode of the [`LocalApic`] that is
    /// made of the object; [`LocalApic::confirm_mode`] checks that. `mmio`, if given, is the page named by
    /// `IA32_APIC_BASE`, mapped writable on all of these CPUs and with memory type UC (PCD and PWT set, with the usual
    /// PAT), for as long as the object is used.
    ///
    /// [`LocalApic`]: crate::LocalApic
    /// [`LocalApic::confirm_mode`]: crate::LocalApic::confirm_mode
    pub const unsafe fn new(mmio: Option<NonNull<u8>>) -> Self {
        Self {
            mmio: match mmio {
                Some(page) => page.as_ptr(),
                None => core::ptr::null_mut(),
            },
        }
    }

    /// The address of a register. Without a page it is not a valid address.
    fn at(&self, register: Register) -> *mut u8 {
        self.mmio.wrapping_add(register.offset() as usize)
    }
}

// SAFETY: IF is the switch for maskable interrupts, and a kernel's code is not moved to another CPU while IF is clear.
// Both instructions are compiler barriers.
unsafe impl LocalInterrupts for Hardware {
    /// True if interrupts were on.
    type State = bool;

    #[inline]
    fn disable(&self) -> bool {
        let were_on = interrupts::are_enabled();
        interrupts::disable();
        were_on
    }

    #[inline]
    fn restore(&self, were_on: bool) {
        if were_on {
            interrupts::enable();
        }
    }
}

// SAFETY: each is one instruction, with the effect required. `asm!` blocks are kept in order. Those that write or
// fence, `Msr::write`'s too, are without `nomem`. The caller of `new` promised that the page is mapped as UC.
unsafe impl ApicIo for Hardware {
    #[inline]
    unsafe fn rdmsr(&self, msr: u32) -> u64 {
        // SAFETY: the caller promises it.
        unsafe { Msr::new(msr).read() }
    }

    #[inline]
    unsafe fn wrmsr(&self, msr: u32, value: u64) {
        // SAFETY: the caller promises it.
        unsafe { Msr::new(msr).write(value) }
    }

    #[inline]
    fn has_mmio(&self) -> bool {
        !self.mmio.is_null()
    }

    #[inline]
    unsafe fn mmio_read(&self, register: Register) -> u32 {
        let value;
        // SAFETY: the page is mapped, and the register lies in it. The caller promises the rest.
        unsafe {
            let at = self.at(register);
            asm!("mov {:e}, [{}]", out(reg) value, in(reg) at, options(nostack, preserves_flags, readonly));
        }
        value
    }

    #[inline]
    unsafe fn mmio_write(&self, register: Register, value: u32) {
        // SAFETY: the page is mapped, and the register lies in it. The caller promises the rest.
        unsafe {
            let at = self.at(register);
            asm!("mov [{}], {:e}", in(reg) at, in(reg) value, options(nostack, preserves_flags));
        }
    }

    #[inline]
    fn has_x2apic(&self) -> bool {
        // Every x86-64 CPU has leaf 1. The intrinsic is unsafe in the oldest supported compiler and safe in newer ones.
        #[allow(unused_unsafe)]
        // SAFETY: CPUID exists on x86-64.
        let leaf = unsafe { core::arch::x86_64::__cpuid(1) };
        leaf.ecx & 1 << 21 != 0
    }

    fn long_id(&self) -> Option<u32> {
        // Every x86-64 CPU has leaf 0, which gives the number of the last leaf. Leaf 0BH exists if its EBX is not 0.
        #[allow(unused_unsafe)]
        // SAFETY: CPUID exists on x86-64.
        let (last, leaf) =
            unsafe { (core::arch::x86_64::__cpuid(0).eax, core::arch::x86_64::__cpuid_count(0xb, 0)) };
        (last >= 0xb && leaf.ebx & 0xffff != 0).then_some(leaf.edx)
    }

    #[inline]
    fn fence_before_doorbell(&self) {
        // SAFETY: fences only order accesses.
        unsafe { asm!("mfence", "lfence", options(nostack, preserves_flags)) }
    }
}
