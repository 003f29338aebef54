// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access to the real APIC by the CPU's instructions.

use crate::regs::{ApicIo, Register};
use core::arch::asm;
use core::ptr::NonNull;
use mk_ipi_core::platform::LocalInterrupts;
use x86_64::instructions::interrupts;
use x86_64::registers::model_specific::Msr;

/// The real APIC. Each call accesses the APIC of the CPU that runs the call.
#[derive(Clone, Copy, Debug)]
pub struct Hardware {
    /// The address where the xAPIC's page is mapped, or null.
    mmio: *mut u8,
}

// SAFETY: every CPU accesses its own APIC at the same address of the page, and the caller of `new` promised that the page is
// mapped on every CPU.
unsafe impl Send for Hardware {}
// SAFETY: the same as above. The object has no state that changes.
unsafe impl Sync for Hardware {}

impl Hardware {
    /// Makes the object. `mmio` is the kernel's mapping of the xAPIC's 4 KiB page. In x2APIC mode it can be `None`.
    ///
    /// # Safety
    ///
    /// Every CPU that uses the object, or a copy of it, runs in ring 0. The APIC of that CPU is in the mode of the [`LocalApic`]
    /// that contains the object ([`LocalApic::confirm_mode`] checks this). `mmio`, if given, is a mapping of the page that
    /// `IA32_APIC_BASE` names. As long as the object is used, the page is mapped on all of these CPUs, writable and with memory
    /// type UC (PCD and PWT set, with the usual PAT).
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

    /// The address of a register. If no page is mapped, the address is not valid.
    fn at(&self, register: Register) -> *mut u8 {
        self.mmio.wrapping_add(register.offset() as usize)
    }
}

// SAFETY: while IF is clear, the CPU takes no maskable interrupt, and a kernel does not move its code to another CPU. `cli` and
// `sti` are compiler barriers here.
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

// SAFETY: each access is one instruction with the required effect, and the fence is two. The compiler keeps the order of `asm!`
// blocks. The blocks that write or fence do not have the option `nomem`. This is also true of the block in `Msr::write`. The
// caller of `new` promised that the page is mapped as UC.
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
        // Every x86-64 CPU has leaf 0, which gives the number of the last leaf. Leaf 0BH exists if bits 15:0 of its EBX are not
        // all 0.
        #[allow(unused_unsafe)]
        // SAFETY: CPUID exists on x86-64.
        let (last, leaf) =
            unsafe { (core::arch::x86_64::__cpuid(0).eax, core::arch::x86_64::__cpuid_count(0xb, 0)) };
        (last >= 0xb && leaf.ebx & 0xffff != 0).then_some(leaf.edx)
    }

    #[inline]
    fn fence_before_doorbell(&self) {
        // SAFETY: a fence only orders accesses.
        unsafe { asm!("mfence", "lfence", options(nostack, preserves_flags)) }
    }
}
