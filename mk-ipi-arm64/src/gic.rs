// SPDX-License-Identifier: MIT OR Apache-2.0
//! The GIC's CPU interface as a doorbell.

use crate::affinity::Affinity;
use crate::regs::{Control, GicIo, SystemRegister};
use crate::sgi::{Sgi, SgiCommand};
use mk_ipi_abi::{PhysCpuId, Vector};
use mk_ipi_core::platform::{Doorbell, DoorbellError};

/// `ICC_SRE_EL1`: SRE is set, and the bypasses of FIQ and IRQ are off, because no GIC of an older kind sits behind this
/// one.
const BY_SYSTEM_REGISTERS: u64 = 0b111;
/// `ICC_SRE_EL1.SRE`.
const SRE: u64 = 1;
/// `ICC_PMR_EL1`: every priority is let through.
const EVERY_PRIORITY: u64 = 0xff;
/// `ICC_IAR1_EL1`: INTIDs have 24 bits at most.
const INTID: u64 = 0xff_ffff;
/// The special INTIDs: no interrupt was taken (GIC, "Special INTIDs").
const SPECIAL: core::ops::RangeInclusive<u32> = 1020..=1023;

/// Why the CPU interface cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicError {
    /// `ICC_SRE_EL1.SRE` is 0: the CPU interface is not reached by system registers. [`Gic::use_system_registers`] sets it.
    NoSystemRegisters,
}

impl core::fmt::Display for GicError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::NoSystemRegisters => f.write_str("the system registers of the GIC are not enabled"),
        }
    }
}

impl core::error::Error for GicError {}

/// An interrupt that was acknowledged and must be ended: its INTID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt(u32);

impl Interrupt {
    /// The INTID.
    pub const fn intid(self) -> u32 {
        self.0
    }

    /// The SGI, if it is one.
    pub const fn sgi(self) -> Option<Sgi> {
        match self.0 {
            #[expect(clippy::cast_possible_truncation, reason = "the pattern bounds it")]
            n @ 0..=15 => Sgi::new(n as u8),
            _ => None,
        }
    }
}

/// The CPU interface of whichever CPU runs the call: one object serves all CPUs of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Gic<Io> {
    io: Io,
    /// True if SGIs can reach CPUs whose Aff3 is not 0.
    aff3: bool,
    /// True if the CPU interface can send to CPUs whose Aff0 is above 15.
    range_selector: bool,
    /// True if the distributor can do the same.
    by_ranges: bool,
}

impl<Io: GicIo> Gic<Io> {
    /// Enables the system registers of this CPU's interface. No effect if they are enabled. Each CPU calls it once,
    /// before [`new`](Self::new) or any other use.
    ///
    /// [`GicError::NoSystemRegisters`] if the bit does not stay set: a higher exception level denies the registers to
    /// this kernel (GIC, "ICC_SRE_EL1, Interrupt Controller System Register Enable register (EL1)").
    ///
    /// # Safety
    ///
    /// Interrupts are masked, and this kernel does not use the memory-mapped CPU interface.
    pub unsafe fn use_system_registers(io: &Io) -> Result<(), GicError> {
        // SAFETY: EL1 of every CPU with a GICv3 has the register; the bits are its own; the caller promises the rest.
        unsafe {
            if io.read(SystemRegister::SystemRegisterEnable) & SRE == 0 {
                io.write(SystemRegister::SystemRegisterEnable, BY_SYSTEM_REGISTERS);
                io.synchronize();
            }
        }
        confirm(io)
    }

    /// The CPU interface, which is reached by system registers.
    pub fn new(io: Io) -> Result<Self, GicError> {
        confirm(&io)?;
        // SAFETY: SRE is set; a read has no effect.
        let control = Control::from_bits_retain(unsafe { io.read(SystemRegister::Control) });
        let (aff3, range_selector) =
            (control.contains(Control::AFF3), control.contains(Control::RANGE_SELECTOR));
        Ok(Self { io, aff3, range_selector, by_ranges: false })
    }

    /// The same, told that the distributor takes SGIs for CPUs whose Aff0 is above 15: `GICD_TYPER.RSS`, bit 26. They
    /// are sent if the CPU interface can send them, too (GIC, "Routing SPIs and SGIs by PE affinity"). Without this
    /// call such CPUs are [`Unreachable`](DoorbellError::Unreachable).
    #[must_use]
    pub const fn with_range_selector(mut self) -> Self {
        self.by_ranges = true;
        self
    }

    /// Checks that this CPU's interface is reached by system registers. Each CPU calls it once.
    pub fn confirm(&self) -> Result<(), GicError> {
        confirm(&self.io)
    }

    /// The access to the registers.
    pub const fn io(&self) -> &Io {
        &self.io
    }

    /// This CPU's id: what peers ring, and the index of its slot.
    pub fn cpu_id(&self) -> PhysCpuId {
        // SAFETY: EL1 may read it; a read has no effect.
        Affinity::of_mpidr(unsafe { self.io.read(SystemRegister::Mpidr) }).cpu()
    }

    /// Makes this CPU's interface take interrupts of Group 1, of every priority. An end of interrupt then also
    /// deactivates (EOImode 0). Each CPU calls it once, and not in an interrupt handler.
    ///
    /// First it clears the priorities that a former kernel left active. Such a kernel was stopped inside a handler and
    /// replaced without a reset, as by kexec. Until then they hold back all others of their priority and below (GIC,
    /// "`ICC_AP1R<n>_EL1`"). The redistributor still has the interrupts themselves as active: see [the kernel's
    /// part](crate).
    ///
    /// # Safety
    ///
    /// Interrupts are masked, and no handler of this CPU has an interrupt active. Once they are not masked, the vector
    /// table has an entry for IRQ that can handle every INTID that can arrive here.
    pub unsafe fn enable(&self) {
        // SAFETY: SRE is set (`new`, `confirm`); the registers exist, all values are legal; the caller promises the handler.
        unsafe {
            let control = Control::from_bits_retain(self.io.read(SystemRegister::Control));
            // One by one: the code must show which register each write goes to (see `hardware`).
            self.io.write(SystemRegister::ActivePriorities, 0);
            if control.priority_bits() >= 6 {
                self.io.write(SystemRegister::ActivePriorities1, 0);
            }
            if control.priority_bits() >= 7 {
                self.io.write(SystemRegister::ActivePriorities2, 0);
                self.io.write(SystemRegister::ActivePriorities3, 0);
            }
            self.io.write(SystemRegister::PriorityMask, EVERY_PRIORITY);
            self.io.write(SystemRegister::BinaryPoint, 0);
            self.io.write(SystemRegister::Control, control.difference(Control::EOI_MODE).bits());
            self.io.write(SystemRegister::GroupEnable, 1);
        }
        self.io.synchronize();
    }

    /// Takes the pending interrupt of the highest priority: the first thing that the handler of IRQ does. `None` if no
    /// interrupt is pending any more; then there is nothing to end.
    ///
    /// What the sender of an SGI stored before it rang is visible after this call.
    ///
    /// # Safety
    ///
    /// Called by the handler of IRQ, interrupts masked, on a CPU that has called [`enable`](Self::enable).
    pub unsafe fn acknowledge(&self) -> Option<Interrupt> {
        // SAFETY: SRE is set; the caller takes the interrupt.
        let found = unsafe { self.io.read(SystemRegister::Acknowledge) } & INTID;
        self.io.settle();
        u32::try_from(found).ok().filter(|intid| !SPECIAL.contains(intid)).map(Interrupt)
    }

    /// Ends an interrupt that was acknowledged. Call it once, and before the messages are read, so that a message that
    /// comes later rings again.
    ///
    /// # Safety
    ///
    /// `interrupt` is the last one that [`acknowledge`](Self::acknowledge) returned on this CPU and that is not ended
    /// yet.
    pub unsafe fn eoi(&self, interrupt: Interrupt) {
        // SAFETY: SRE is set; the caller ends what it took.
        unsafe { self.io.write(SystemRegister::EndOfInterrupt, interrupt.0.into()) };
        self.io.synchronize();
    }

    /// The command that rings `cpu` with `vector`, if there is one.
    fn command(&self, cpu: PhysCpuId, vector: Vector) -> Result<SgiCommand, DoorbellError> {
        let in_reach = |target: &Affinity| {
            let ranges = self.range_selector && self.by_ranges;
            (ranges || target.aff0() < 16) && (self.aff3 || target.aff3() == 0)
        };
        let target = Affinity::new(cpu).filter(in_reach).ok_or(DoorbellError::Unreachable(cpu))?;
        let sgi = Sgi::of_vector(vector).ok_or(DoorbellError::NoSuchVector(vector))?;
        Ok(SgiCommand::to(target, sgi))
    }
}

fn confirm(io: &impl GicIo) -> Result<(), GicError> {
    // SAFETY: EL1 of every CPU with a GICv3 has the register; a read has no effect.
    match unsafe { io.read(SystemRegister::SystemRegisterEnable) } & SRE {
        0 => Err(GicError::NoSystemRegisters),
        _ => Ok(()),
    }
}

// SAFETY: ordering is by `dsb ishst`, see `GicIo`; a command names one CPU by its affinity, and IRM is 0.
unsafe impl<Io: GicIo> Doorbell for Gic<Io> {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.command(cpu, vector).map(drop)
    }

    /// It does not know whether a CPU has this affinity. An SGI to an affinity that no CPU has is lost.
    // Inlined, so that barrier and write stay together in the code: the check of the disassembly needs that (SPEC
    // AR-3).
    #[inline]
    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        let command = self.command(cpu, vector)?;
        self.io.fence_before_doorbell();
        // SAFETY: SRE is set, and an `SgiCommand` has no reserved bits. It sends an interrupt that the target's kernel
        // expects, to one CPU.
        unsafe { self.io.write(SystemRegister::SendSgi, command.bits()) };
        self.io.synchronize();
        Ok(())
    }

    /// A doorbell is one write, so it cannot disturb a doorbell that the NMI interrupted.
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.ring(cpu, vector)
    }
}

#[cfg(test)]
#[path = "gic_tests.rs"]
mod tests;
