// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CPU interface's system registers, and the trait through which they are accessed.

/// A system register that is used here; the names are the manuals' (GIC, "AArch64 System register descriptions"; Arm ARM,
/// "MPIDR_EL1").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemRegister {
    /// `MPIDR_EL1`: this CPU's affinity.
    Mpidr,
    /// `ICC_SRE_EL1`: bit 0 switches the system register interface on.
    SystemRegisterEnable,
    /// `ICC_CTLR_EL1`: the features of the CPU interface, and EOImode in bit 1.
    Control,
    /// `ICC_PMR_EL1`: interrupts of a higher priority, which is a lower number, are let through.
    PriorityMask,
    /// `ICC_BPR1_EL1`: which part of a priority counts for preemption.
    BinaryPoint,
    /// `ICC_AP1R0_EL1`: the Group 1 priorities that are active. With up to 5 bits of priority it has all of them.
    ActivePriorities,
    /// `ICC_AP1R1_EL1`, with 6 bits of priority or more: the next ones.
    ActivePriorities1,
    /// `ICC_AP1R2_EL1`, with 7 bits or more.
    ActivePriorities2,
    /// `ICC_AP1R3_EL1`, with 7 bits or more.
    ActivePriorities3,
    /// `ICC_IGRPEN1_EL1`: bit 0 lets Group 1 interrupts in.
    GroupEnable,
    /// `ICC_IAR1_EL1`: a read acknowledges an interrupt and returns its INTID.
    Acknowledge,
    /// `ICC_EOIR1_EL1`: the write ends an interrupt.
    EndOfInterrupt,
    /// `ICC_SGI1R_EL1`: the write sends an SGI of Group 1 for this Security state. Write only.
    SendSgi,
}

bitflags::bitflags! {
    /// `ICC_CTLR_EL1` (GIC, "ICC_CTLR_EL1, Interrupt Controller Control Register").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Control: u64 {
        /// EOImode: an end of interrupt does not deactivate.
        const EOI_MODE = 1 << 1;
        /// PRIbits: how many bits of a priority there are, less one.
        const PRIORITY_BITS = 7 << 8;
        /// A3V: SGIs can be sent to CPUs whose Aff3 is not 0.
        const AFF3 = 1 << 15;
        /// RSS: SGIs can be sent to CPUs whose Aff0 is above 15.
        const RANGE_SELECTOR = 1 << 18;
        /// The rest is kept on a write.
        const _ = !0;
    }
}

impl Control {
    /// How many bits of a priority there are. With fewer than 6 there is no `ICC_AP1R1_EL1`; with fewer than 7 there is
    /// no `ICC_AP1R2_EL1` and no `ICC_AP1R3_EL1`. An access to a register that is not there is undefined (GIC,
    /// "`ICC_AP1R<n>_EL1`, Interrupt Controller Active Priorities Group 1 Registers").
    pub const fn priority_bits(self) -> u64 {
        ((self.bits() & Self::PRIORITY_BITS.bits()) >> 8).wrapping_add(1)
    }
}

/// The instructions that access the CPU interface of the CPU that runs them.
///
/// # Implementation safety
///
/// Each method does what it says, to this CPU's registers and in program order. `write` and the three barriers are compiler
/// barriers too: no access to memory that another CPU can see moves across them, in either direction. An `asm!` block without
/// `nomem` is one.
///
/// `fence_before_doorbell` is `dsb ishst`: it ends when every store before it is visible to all CPUs of the Inner Shareable domain,
/// and no later instruction starts earlier (Arm ARM, "Data Synchronization Barrier (DSB)"). A write of a system register waits for no
/// earlier store: without the barrier the interrupt could overtake the message (GIC, "Observability of the effects of accesses to
/// the GIC registers").
///
/// `synchronize` is `isb`: the system registers written before it have their effect after it (Arm ARM, "Synchronization
/// requirements for AArch64 System registers").
///
/// `settle` is `dsb sy`: the acknowledgement is complete before anything later is done (GIC, as above).
pub unsafe trait GicIo {
    /// Reads a register. A read of [`SystemRegister::Acknowledge`] takes the interrupt.
    ///
    /// # Safety
    ///
    /// The register exists ([`Control::priority_bits`]) and can be read at the CPU's present exception level. The
    /// registers of the CPU interface can be read once `ICC_SRE_EL1.SRE` is set; [`SystemRegister::SendSgi`] and
    /// [`SystemRegister::EndOfInterrupt`] never can. The caller may cause the effect.
    unsafe fn read(&self, register: SystemRegister) -> u64;

    /// Writes a register.
    ///
    /// # Safety
    ///
    /// The register exists, can be written at the CPU's present exception level, and takes `value`.
    /// [`SystemRegister::Mpidr`] and [`SystemRegister::Acknowledge`] can never be written. The caller may cause the
    /// effect.
    unsafe fn write(&self, register: SystemRegister, value: u64);

    /// Makes all earlier stores visible before anything later: `dsb ishst`.
    fn fence_before_doorbell(&self);

    /// Makes writes of system registers take effect: `isb`.
    fn synchronize(&self);

    /// Waits until all earlier accesses are complete: `dsb sy`.
    fn settle(&self);
}
