// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CPU interface's system registers, and the trait through which they are accessed.

/// A system register that this crate accesses. The manuals describe them: GIC, "AArch64 System register descriptions", and Arm
/// ARM, "MPIDR_EL1".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemRegister {
    /// `MPIDR_EL1`: this CPU's affinity.
    Mpidr,
    /// `ICC_SRE_EL1`: bit 0 (SRE) enables the other system registers of the CPU interface.
    SystemRegisterEnable,
    /// `ICC_CTLR_EL1`: the features of the CPU interface, and EOImode in bit 1.
    Control,
    /// `ICC_PMR_EL1`: the CPU takes only interrupts whose priority number is lower than this one. A lower number is a higher
    /// priority.
    PriorityMask,
    /// `ICC_BPR1_EL1`: says which bits of a priority decide whether an interrupt preempts another one.
    BinaryPoint,
    /// `ICC_AP1R0_EL1`: the active priorities of Group 1. If a priority has up to 5 bits, it contains all of them.
    ActivePriorities,
    /// `ICC_AP1R1_EL1`: more active priorities of Group 1. Exists if a priority has 6 bits or more.
    ActivePriorities1,
    /// `ICC_AP1R2_EL1`: more active priorities of Group 1. Exists if a priority has 7 bits or more.
    ActivePriorities2,
    /// `ICC_AP1R3_EL1`: more active priorities of Group 1. Exists if a priority has 7 bits or more.
    ActivePriorities3,
    /// `ICC_IGRPEN1_EL1`: bit 0 enables the interrupts of Group 1.
    GroupEnable,
    /// `ICC_IAR1_EL1`: a read acknowledges an interrupt and returns its INTID.
    Acknowledge,
    /// `ICC_EOIR1_EL1`: a write of an INTID ends that interrupt. Write only.
    EndOfInterrupt,
    /// `ICC_SGI1R_EL1`: a write sends an SGI of Group 1 for this Security state. Write only.
    SendSgi,
}

bitflags::bitflags! {
    /// `ICC_CTLR_EL1` (GIC, "ICC_CTLR_EL1, Interrupt Controller Control Register").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Control: u64 {
        /// EOImode. If it is 1, a write of `ICC_EOIR1_EL1` does not deactivate the interrupt.
        const EOI_MODE = 1 << 1;
        /// PRIbits: the number of priority bits minus 1.
        const PRIORITY_BITS = 7 << 8;
        /// A3V: the CPU interface can send SGIs to CPUs whose Aff3 is not 0.
        const AFF3 = 1 << 15;
        /// RSS: the CPU interface can send SGIs to CPUs whose Aff0 is above 15.
        const RANGE_SELECTOR = 1 << 18;
        /// All other bits. A write keeps them.
        const _ = !0;
    }
}

impl Control {
    /// The number of bits of a priority. If it is below 6, `ICC_AP1R1_EL1` does not exist. If it is below 7, `ICC_AP1R2_EL1` and
    /// `ICC_AP1R3_EL1` do not exist. An access to a register that does not exist is undefined (GIC, "`ICC_AP1R<n>_EL1`, Interrupt
    /// Controller Active Priorities Group 1 Registers").
    pub const fn priority_bits(self) -> u64 {
        ((self.bits() & Self::PRIORITY_BITS.bits()) >> 8).wrapping_add(1)
    }
}

/// The instructions that access the CPU interface of the CPU that runs them.
///
/// # Implementation safety
///
/// Each method does what its documentation says, with the registers of the CPU that runs it, and in program order. `write` and
/// the three barriers are also compiler barriers: the compiler moves no access to memory that another CPU can access across
/// them, in either direction. An `asm!` block without `nomem` is such a barrier.
///
/// `fence_before_doorbell` is `dsb ishst`: it is complete when every store before it is visible to all CPUs of the Inner
/// Shareable domain, and no later instruction starts before it is complete (Arm ARM, "Data Synchronization Barrier (DSB)"). It
/// is necessary because a write of a system register does not wait for earlier stores: without the barrier the interrupt could
/// arrive before the message is visible (GIC, "Observability of the effects of accesses to the GIC registers").
///
/// `synchronize` is `isb`: instructions after it see the effect of the system register writes before it (Arm ARM,
/// "Synchronization requirements for AArch64 System registers").
///
/// `settle` is `dsb sy`: the acknowledgement is complete before any later instruction starts (GIC, in the same section).
pub unsafe trait GicIo {
    /// Reads a register. A read of [`SystemRegister::Acknowledge`] acknowledges an interrupt.
    ///
    /// # Safety
    ///
    /// The register exists ([`Control::priority_bits`]) and can be read at the CPU's current exception level. For a register of
    /// the CPU interface other than `ICC_SRE_EL1`, `ICC_SRE_EL1.SRE` is set. [`SystemRegister::SendSgi`] and
    /// [`SystemRegister::EndOfInterrupt`] cannot be read. The caller has the right to cause the effect of the read.
    unsafe fn read(&self, register: SystemRegister) -> u64;

    /// Writes a register.
    ///
    /// # Safety
    ///
    /// The register exists, can be written at the CPU's current exception level, and `value` is legal for it. For a register of
    /// the CPU interface other than `ICC_SRE_EL1`, `ICC_SRE_EL1.SRE` is set. [`SystemRegister::Mpidr`] and
    /// [`SystemRegister::Acknowledge`] cannot be written. The caller has the right to cause the effect of the write.
    unsafe fn write(&self, register: SystemRegister, value: u64);

    /// Makes all earlier stores visible before any later instruction starts: `dsb ishst`.
    fn fence_before_doorbell(&self);

    /// Makes earlier writes of system registers take effect: `isb`.
    fn synchronize(&self);

    /// Waits until all earlier accesses are complete: `dsb sy`.
    fn settle(&self);
}
