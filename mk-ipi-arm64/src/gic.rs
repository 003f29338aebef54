// SPDX-License-Identifier: MIT OR Apache-2.0
//! The GIC's CPU interface as a doorbell.

use crate::affinity::Affinity;
use crate::regs::{Control, GicIo, SystemRegister};
use crate::sgi::{Sgi, SgiCommand};
use mk_ipi_abi::{PhysCpuId, Vector};
use mk_ipi_core::platform::{Doorbell, DoorbellError};

/// A value of `ICC_SRE_EL1`: SRE is set (bit 0), and the bypasses of FIQ and IRQ are disabled (bits 1 and 2). Bypasses are only
/// for a machine with an interrupt controller of an older kind.
const BY_SYSTEM_REGISTERS: u64 = 0b111;
/// `ICC_SRE_EL1.SRE`.
const SRE: u64 = 1;
/// The value of `ICC_PMR_EL1` that accepts every priority.
const EVERY_PRIORITY: u64 = 0xff;
/// The bits of `ICC_IAR1_EL1` with the INTID, which has at most 24 bits.
const INTID: u64 = 0xff_ffff;
/// The special INTIDs, which mean that no interrupt was taken (GIC, "Special INTIDs").
const SPECIAL: core::ops::RangeInclusive<u32> = 1020..=1023;

/// Why the CPU interface cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicError {
    /// `ICC_SRE_EL1.SRE` is 0, so the system registers of the CPU interface cannot be used. [`Gic::use_system_registers`] sets
    /// this bit.
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

/// The INTID of an interrupt that was acknowledged, and that must be ended by [`Gic::eoi`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt(u32);

impl Interrupt {
    /// The INTID.
    pub const fn intid(self) -> u32 {
        self.0
    }

    /// The interrupt as an SGI. `None` if it is not an SGI.
    pub const fn sgi(self) -> Option<Sgi> {
        match self.0 {
            #[expect(clippy::cast_possible_truncation, reason = "the pattern bounds it")]
            n @ 0..=15 => Sgi::new(n as u8),
            _ => None,
        }
    }
}

/// The CPU interface. Each call accesses the interface of the CPU that runs the call, so one object serves all CPUs of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Gic<Io> {
    io: Io,
    /// True if the CPU interface can send SGIs to CPUs whose Aff3 is not 0 (`ICC_CTLR_EL1.A3V`).
    aff3: bool,
    /// True if the CPU interface can send SGIs to CPUs whose Aff0 is above 15 (`ICC_CTLR_EL1.RSS`).
    range_selector: bool,
    /// True if the distributor delivers SGIs to CPUs whose Aff0 is above 15 (`GICD_TYPER.RSS`).
    by_ranges: bool,
}

impl<Io: GicIo> Gic<Io> {
    /// Enables the system registers of this CPU's interface. It does nothing if they are enabled already. Each CPU of the kernel
    /// must call it once, before [`new`](Self::new) and all other calls.
    ///
    /// It fails with [`GicError::NoSystemRegisters`] if SRE is still 0 after the write: a higher exception level does not allow
    /// this kernel to use the registers (GIC, "ICC_SRE_EL1, Interrupt Controller System Register Enable register (EL1)").
    ///
    /// # Safety
    ///
    /// Interrupts are masked, and this kernel does not use the memory-mapped CPU interface.
    pub unsafe fn use_system_registers(io: &Io) -> Result<(), GicError> {
        // SAFETY: every CPU with a GICv3 has the register at EL1. The value sets no reserved bits. The caller promises the rest.
        unsafe {
            if io.read(SystemRegister::SystemRegisterEnable) & SRE == 0 {
                io.write(SystemRegister::SystemRegisterEnable, BY_SYSTEM_REGISTERS);
                io.synchronize();
            }
        }
        confirm(io)
    }

    /// Makes the object, and reads what this CPU's interface can do. It fails with [`GicError::NoSystemRegisters`] if the system
    /// registers are not enabled.
    pub fn new(io: Io) -> Result<Self, GicError> {
        confirm(&io)?;
        // SAFETY: SRE is set; a read has no effect.
        let control = Control::from_bits_retain(unsafe { io.read(SystemRegister::Control) });
        let (aff3, range_selector) =
            (control.contains(Control::AFF3), control.contains(Control::RANGE_SELECTOR));
        Ok(Self { io, aff3, range_selector, by_ranges: false })
    }

    /// Returns the same object, which now also sends SGIs to CPUs whose Aff0 is above 15, if the CPU interface can do this. Call
    /// this only if the distributor delivers them: bit 26 of `GICD_TYPER` (RSS) is 1 (GIC, "Routing SPIs and SGIs by PE
    /// affinity"). Without this call such CPUs are [`Unreachable`](DoorbellError::Unreachable).
    #[must_use]
    pub const fn with_range_selector(mut self) -> Self {
        self.by_ranges = true;
        self
    }

    /// Checks that the system registers of this CPU's interface are enabled. Each CPU of the kernel must call it once. It fails
    /// with [`GicError::NoSystemRegisters`].
    pub fn confirm(&self) -> Result<(), GicError> {
        confirm(&self.io)
    }

    /// The object that accesses the registers.
    pub const fn io(&self) -> &Io {
        &self.io
    }

    /// Reads the physical id of this CPU. Peers send doorbells to this id, and a slot of RFC v2 has this id as its index.
    pub fn cpu_id(&self) -> PhysCpuId {
        // SAFETY: the register can be read at EL1, and a read has no effect.
        Affinity::of_mpidr(unsafe { self.io.read(SystemRegister::Mpidr) }).cpu()
    }

    /// Makes this CPU's interface take interrupts of Group 1, of every priority. It also sets EOImode to 0: then
    /// [`eoi`](Self::eoi) also deactivates the interrupt. Each CPU of the kernel must call it once, and not in an interrupt
    /// handler.
    ///
    /// First the call clears the priorities that a former kernel left active. There are some if that kernel was stopped inside an
    /// interrupt handler and replaced without a reset, for example by kexec. An active priority holds back all interrupts of the
    /// same or a lower priority (GIC, "`ICC_AP1R<n>_EL1`"). The call does not change the redistributor, where the interrupts are
    /// still active. The kernel must clear them there: see [what a kernel must do](crate).
    ///
    /// # Safety
    ///
    /// Interrupts are masked, and no handler of this CPU has an active interrupt. When the interrupts are unmasked, the vector
    /// table has an entry for IRQ that can handle every INTID that can come to this CPU.
    pub unsafe fn enable(&self) {
        // SAFETY: SRE is set (`new`, `confirm`), the registers exist, and all values are legal. The caller promises the handler.
        unsafe {
            let control = Control::from_bits_retain(self.io.read(SystemRegister::Control));
            // No loop: the number of the register must be a constant in each write (see `hardware`).
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

    /// Acknowledges the pending interrupt with the highest priority. The handler of IRQ must call this first. `None` if no
    /// interrupt is pending any more; then [`eoi`](Self::eoi) must not be called.
    ///
    /// After this call, all stores are visible that the sender of an SGI made before it sent the SGI.
    ///
    /// # Safety
    ///
    /// Called by the handler of IRQ, interrupts masked, on a CPU that has called [`enable`](Self::enable).
    pub unsafe fn acknowledge(&self) -> Option<Interrupt> {
        // SAFETY: SRE is set. The caller handles the interrupt that the read takes.
        let found = unsafe { self.io.read(SystemRegister::Acknowledge) } & INTID;
        self.io.settle();
        u32::try_from(found).ok().filter(|intid| !SPECIAL.contains(intid)).map(Interrupt)
    }

    /// Ends an interrupt that was acknowledged. Call it once, before you look for messages. If a peer then stores another
    /// message, its doorbell causes a new interrupt.
    ///
    /// # Safety
    ///
    /// [`acknowledge`](Self::acknowledge) returned `interrupt` on this CPU. Of the interrupts that are not ended yet, it is the
    /// last one.
    pub unsafe fn eoi(&self, interrupt: Interrupt) {
        // SAFETY: SRE is set. The caller promises that `interrupt` was acknowledged and is not ended yet.
        unsafe { self.io.write(SystemRegister::EndOfInterrupt, interrupt.0.into()) };
        self.io.synchronize();
    }

    /// Returns the command that interrupts `cpu` with `vector`. It fails with [`DoorbellError::Unreachable`] if the GIC cannot
    /// address `cpu`, and with [`DoorbellError::NoSuchVector`] if `vector` is no SGI.
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

/// Checks that the system registers of this CPU's interface are enabled.
fn confirm(io: &impl GicIo) -> Result<(), GicError> {
    // SAFETY: every CPU with a GICv3 has the register at EL1, and a read has no effect.
    match unsafe { io.read(SystemRegister::SystemRegisterEnable) } & SRE {
        0 => Err(GicError::NoSystemRegisters),
        _ => Ok(()),
    }
}

// SAFETY: `dsb ishst` makes earlier stores visible (see `GicIo`). A command names one CPU by its affinity, and IRM is 0.
unsafe impl<Io: GicIo> Doorbell for Gic<Io> {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.command(cpu, vector).map(drop)
    }

    /// The method cannot find out whether a CPU with this affinity exists. If there is none, the SGI is lost without an error.
    // Inlined, so that the barrier and the write are next to each other in the compiled code. The check of the disassembly needs
    // this (SPEC AR-3).
    #[inline]
    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        let command = self.command(cpu, vector)?;
        self.io.fence_before_doorbell();
        // SAFETY: SRE is set, and an `SgiCommand` sets no reserved bits. The write interrupts only `cpu`, with an SGI that the
        // kernel of this CPU expects.
        unsafe { self.io.write(SystemRegister::SendSgi, command.bits()) };
        self.io.synchronize();
        Ok(())
    }

    /// The same as `ring`. A doorbell is one write, so an NMI handler's doorbell cannot disturb one that the NMI interrupted.
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.ring(cpu, vector)
    }
}

#[cfg(test)]
#[path = "gic_tests.rs"]
mod tests;
