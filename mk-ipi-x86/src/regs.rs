// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC's registers, and the trait through which they are accessed.

use mk_ipi_core::platform::LocalInterrupts;

/// A register of the local APIC. The value is the offset in the xAPIC's page, in bytes (Intel SDM vol. 3A, table 10-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Register {
    /// Local APIC ID: bits 31:24 in xAPIC mode, all 32 in x2APIC mode (10.4.6, 10.12.2).
    Id = 0x020,
    /// Task priority. With 0 the CPU takes interrupts of every priority (10.8.3.1).
    TaskPriority = 0x080,
    /// End of interrupt: write 0 (10.8.5).
    Eoi = 0x0b0,
    /// Spurious vector in bits 7:0, and software enable in bit 8 (10.9).
    SpuriousVector = 0x0f0,
    /// Interrupts in service: one bit for each of the vectors 0 to 31. Read only (10.8.4).
    InService0 = 0x100,
    /// Interrupts in service, vectors 32 to 63.
    InService1 = 0x110,
    /// Interrupts in service, vectors 64 to 95.
    InService2 = 0x120,
    /// Interrupts in service, vectors 96 to 127.
    InService3 = 0x130,
    /// Interrupts in service, vectors 128 to 159.
    InService4 = 0x140,
    /// Interrupts in service, vectors 160 to 191.
    InService5 = 0x150,
    /// Interrupts in service, vectors 192 to 223.
    InService6 = 0x160,
    /// Interrupts in service, vectors 224 to 255.
    InService7 = 0x170,
    /// Error status: write 0, then read (10.5.3).
    ErrorStatus = 0x280,
    /// Interrupt command, bits 31:0. A write sends the interrupt. In x2APIC mode the register has all 64 bits of the command
    /// (10.6.1, 10.12.9).
    IcrLow = 0x300,
    /// Interrupt command, bits 63:32. Does not exist in x2APIC mode.
    IcrHigh = 0x310,
}

impl Register {
    /// The eight registers with the interrupts in service, lowest vectors first (Intel SDM vol. 3A, 10.8.4).
    pub const IN_SERVICE: [Self; 8] = [
        Self::InService0,
        Self::InService1,
        Self::InService2,
        Self::InService3,
        Self::InService4,
        Self::InService5,
        Self::InService6,
        Self::InService7,
    ];

    /// Offset in the xAPIC's page, in bytes.
    pub const fn offset(self) -> u32 {
        self as u32
    }

    /// The number of the MSR in x2APIC mode: `0x800 + offset / 16` (Intel SDM vol. 3A, 10.12.1.2). For [`Self::IcrHigh`], which
    /// has no MSR, the result is meaningless.
    pub const fn msr(self) -> u32 {
        0x800 | self.offset() >> 4
    }
}

/// The number of the MSR `IA32_APIC_BASE` (Intel SDM vol. 3A, 10.4.4).
pub const IA32_APIC_BASE: u32 = 0x1b;

/// The instructions that access the APIC of the CPU that runs them.
///
/// # Implementation safety
///
/// Each method does what its documentation says, with the APIC of the CPU that runs it, and in program order. The implementation
/// of [`LocalInterrupts`] meets the requirements of that trait.
///
/// `wrmsr`, `mmio_write` and `fence_before_doorbell` are compiler barriers: the compiler moves no access to memory that another
/// CPU can access across them, in either direction. An `asm!` block without `nomem` is such a barrier. A volatile store is not:
/// the compiler may move other stores after it, also relaxed atomic stores.
///
/// `mmio_write` stores to memory of type UC. The CPU makes its stores visible in program order. So when the APIC receives this
/// store, all earlier stores of the CPU are visible (Intel SDM vol. 3A, 8.2.2; UC: 11.3). Non-temporal stores are an exception:
/// code that writes a message with them must execute an `sfence` before the doorbell.
///
/// `fence_before_doorbell` makes all earlier stores globally visible before any later instruction starts. This is necessary
/// because a WRMSR to an x2APIC register does not wait for earlier stores (Intel SDM vol. 3A, 10.12.3).
pub unsafe trait ApicIo: LocalInterrupts {
    /// Reads an MSR.
    ///
    /// # Safety
    ///
    /// The MSR exists in the current mode of the CPU's APIC.
    unsafe fn rdmsr(&self, msr: u32) -> u64;

    /// Writes an MSR.
    ///
    /// # Safety
    ///
    /// The MSR exists in the current mode of the CPU's APIC, and `value` is legal for it. The caller has the right to cause the
    /// effect of the write.
    unsafe fn wrmsr(&self, msr: u32, value: u64);

    /// Returns whether the xAPIC's page is mapped, so that `mmio_read` and `mmio_write` may be called.
    fn has_mmio(&self) -> bool;

    /// Reads a register of the xAPIC.
    ///
    /// # Safety
    ///
    /// [`has_mmio`](Self::has_mmio) returns true, and the CPU is in xAPIC mode.
    unsafe fn mmio_read(&self, register: Register) -> u32;

    /// Writes a register of the xAPIC.
    ///
    /// # Safety
    ///
    /// The same as for [`mmio_read`](Self::mmio_read). The caller has the right to cause the effect of the write.
    unsafe fn mmio_write(&self, register: Register, value: u32);

    /// Returns whether this CPU has an x2APIC: CPUID.1:ECX bit 21 (Intel SDM vol. 3A, 10.12.1).
    fn has_x2apic(&self) -> bool;

    /// This CPU's 32-bit id, which CPUID reports in xAPIC mode too: CPUID.0BH:EDX (Intel SDM vol. 3A, 10.12.8.1). `None` (the
    /// default) if the CPU does not report it. Then this crate assumes that the 8 bits of the xAPIC's id register are the
    /// complete id.
    fn long_id(&self) -> Option<u32> {
        None
    }

    /// Makes all earlier stores visible before any later instruction starts: `mfence; lfence`.
    fn fence_before_doorbell(&self);

    /// Called once in each iteration of a loop that waits for the APIC.
    fn pause(&self) {
        mk_ipi_core::sync::spin_hint();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_register_has_the_manuals_offset_and_msr() {
        use Register::*;
        for (register, offset, msr) in [
            (Id, 0x20, 0x802),
            (TaskPriority, 0x80, 0x808),
            (Eoi, 0xb0, 0x80b),
            (SpuriousVector, 0xf0, 0x80f),
            (InService0, 0x100, 0x810),
            (InService7, 0x170, 0x817),
            (ErrorStatus, 0x280, 0x828),
            (IcrLow, 0x300, 0x830),
        ] {
            assert_eq!((register.offset(), register.msr()), (offset, msr), "{register:?}");
        }
        assert_eq!(IcrHigh.offset(), 0x310);
        let in_service = Register::IN_SERVICE.map(Register::msr);
        assert_eq!(in_service, [0x810, 0x811, 0x812, 0x813, 0x814, 0x815, 0x816, 0x817]);
    }
}
