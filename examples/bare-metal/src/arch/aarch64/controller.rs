// SPDX-License-Identifier: MIT OR Apache-2.0
//! The GICv3, the virtual timer, and PSCI: doorbells, the tick, start of CPUs.

use super::super::device_tree::{self, TreeError};
use super::{DOORBELL, SPARE_VECTOR};
use crate::clock::Microseconds;
use crate::conformance;
use crate::own;
use crate::platform::{self, Kernel};
use core::arch::asm;
use core::fmt;
use mk_ipi_abi::{PhysAddr, PhysCpuId, Vector};
use mk_ipi_arm64::{Affinity, Conduit, Gic, GicError, Hardware, Hvc, Psci, PsciError, Sgi, Smc};
use mk_ipi_core::platform::{Doorbell, DoorbellError};
use mk_ipi_core::sync::{spin_hint, AtomicU64, Ordering};

/// How to run the interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As it is found.
    Present,
    /// As a GICv3, by system registers.
    GicV3,
}

impl Mode {
    /// The mode of this name.
    pub fn named(name: &str) -> Option<Self> {
        (name == "gicv3").then_some(Self::GicV3)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Present => "present",
            Self::GicV3 => "gicv3",
        })
    }
}

/// Why the interrupt controller cannot be used, or a CPU not be started or stopped.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
pub enum ControllerError {
    /// The CPU interface.
    Gic(GicError),
    /// The device tree.
    Tree(TreeError),
    /// No redistributor is this CPU's.
    NoRedistributor(PhysCpuId),
    /// The firmware refuses.
    Firmware(PsciError),
    /// PSCI stops no other CPU.
    NotFromOutside(PhysCpuId),
    /// A kernel here has one CPU.
    OneCpu,
}

impl From<GicError> for ControllerError {
    fn from(e: GicError) -> Self {
        Self::Gic(e)
    }
}

impl From<TreeError> for ControllerError {
    fn from(e: TreeError) -> Self {
        Self::Tree(e)
    }
}

/// How the firmware is called.
enum Firmware {
    Hvc,
    Smc,
}

// SAFETY: passed on to the one or the other, which keeps the duty.
unsafe impl Conduit for Firmware {
    unsafe fn call(&self, function: u32, args: [u64; 3]) -> u64 {
        match self {
            // SAFETY: the caller.
            Self::Hvc => unsafe { Hvc.call(function, args) },
            // SAFETY: the caller.
            Self::Smc => unsafe { Smc.call(function, args) },
        }
    }
}

/// The virtual timer's interrupt, private to each CPU (Arm BSA, "PPI assignments").
const TIMER: u32 = 27;
/// Ticks in a second.
const TICKS: u64 = 500;

/// Where the GIC's registers are.
#[derive(Clone, Copy)]
struct Registers {
    distributor: u64,
    redistributors: (u64, u64),
}

/// The interrupt controller of whichever CPU runs the call.
pub struct Controller {
    gic: Gic<Hardware>,
    psci: Psci<Firmware>,
}

impl Controller {
    /// Opens the doorbell; interrupts are still off. The machine's first kernel sets the distributor up, too.
    pub fn set_up(_: Mode) -> Result<(Self, Mode), ControllerError> {
        let (registers, firmware) = found_in_tree()?;
        // SAFETY: EL1 of a machine with a GICv3, as the device tree says.
        let hardware = unsafe { Hardware::new() };
        // SAFETY: interrupts are masked, and nobody uses the memory-mapped interface.
        unsafe { Gic::use_system_registers(&hardware)? };
        let mut gic = Gic::new(hardware)?;
        if registers.has_range_selector() {
            gic = gic.with_range_selector();
        }
        if own::kernel() == 0 {
            registers.set_up_distributor();
        }
        registers.set_up_redistributor(gic.cpu_id())?;
        // SAFETY: interrupts are masked; `on_interrupt` knows what to do.
        unsafe { gic.enable() };
        start_timer();
        // SAFETY: the device tree says how PSCI is called.
        Ok((Self { gic, psci: unsafe { Psci::new(firmware) } }, Mode::GicV3))
    }

    /// A kernel here has one CPU.
    pub fn enter_second(&self) -> Result<(), ControllerError> {
        Err(ControllerError::OneCpu)
    }

    /// This CPU's id.
    pub fn cpu_id(&self) -> PhysCpuId {
        self.gic.cpu_id()
    }

    /// The CPU that booted the machine, if that is known: it runs the first kernel.
    pub fn boot_cpu(&self) -> Option<PhysCpuId> {
        (own::kernel() == 0).then(|| self.cpu_id())
    }

    /// Vectors lead where they do.
    pub fn lead(&self, _: Vector, _: bool) {}

    /// Whether there is a second vector, for the conformance suite.
    pub fn has_spare(&self) -> bool {
        true
    }

    /// It is open.
    pub fn open_spare(&self) {}

    /// Interrupts that are nobody's are acknowledged in any case.
    pub fn ignore_strays(&self) {}

    /// Starts `cpu` at `entry`, with `argument` in x0; there is nothing to wait for.
    ///
    /// # Safety
    ///
    /// As for [`Psci::cpu_on`].
    pub unsafe fn start(
        &self,
        cpu: PhysCpuId,
        entry: u64,
        argument: u64,
        _: impl FnMut(Microseconds),
    ) -> Result<(), ControllerError> {
        // SAFETY: the caller.
        unsafe { self.psci.cpu_on(cpu, PhysAddr(entry), argument) }.map_err(ControllerError::Firmware)
    }

    /// Nobody stops another CPU here.
    ///
    /// # Safety
    ///
    /// None: it does nothing.
    pub unsafe fn stop(
        &self,
        cpu: PhysCpuId,
        _: Microseconds,
        _: impl FnMut(Microseconds),
    ) -> Result<(), ControllerError> {
        Err(ControllerError::NotFromOutside(cpu))
    }

    /// As `ThisCpu`'s method of that name.
    pub fn compare_exchange_alone(word: &AtomicU64, current: u64, new: u64) -> bool {
        word.compare_exchange(current, new, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: passed on to the GIC, which keeps the duty.
unsafe impl Doorbell for Controller {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.gic.check(cpu, vector)
    }

    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.gic.ring(cpu, vector)
    }

    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.gic.ring_from_nmi(cpu, vector)
    }
}

/// What the device tree says of GIC and PSCI.
fn found_in_tree() -> Result<(Registers, Firmware), TreeError> {
    let (mut registers, mut firmware) = (None, None);
    device_tree::of(Kernel.boot())?.each(|property| {
        if property.is(&["intc@"], "reg") {
            let mut longs = property.longs();
            if let (Some(distributor), Some(_), Some(start), Some(len)) =
                (longs.next(), longs.next(), longs.next(), longs.next())
            {
                registers = Some(Registers { distributor, redistributors: (start, len) });
            }
        } else if property.is(&["psci"], "method") {
            firmware = match property.value {
                b"hvc\0" => Some(Firmware::Hvc),
                b"smc\0" => Some(Firmware::Smc),
                _ => None,
            };
        }
    });
    let registers = registers.ok_or(TreeError::Lacks("a GICv3"))?;
    Ok((registers, firmware.ok_or(TreeError::Lacks("PSCI"))?))
}

fn read(at: u64) -> u32 {
    // SAFETY: a register of the GIC, as the device tree says; boot.s maps devices.
    unsafe { (at as *const u32).read_volatile() }
}

fn write(at: u64, value: u32) {
    // SAFETY: as above; the values are the manual's.
    unsafe { (at as *mut u32).write_volatile(value) };
}

// Offsets of the distributor's registers, and of a redistributor's (GIC, "The GIC Distributor register map", "The GIC Redistributor
// register map").
const GICD_CTLR: u64 = 0x0;
const GICD_TYPER: u64 = 0x4;
const GICR_TYPER: u64 = 0x8;
const GICR_WAKER: u64 = 0x14;
/// A redistributor's second page, of SGIs and PPIs; it has two.
const SGI_PAGE: u64 = 0x1_0000;
const GICR_IGROUPR0: u64 = SGI_PAGE + 0x80;
const GICR_ISENABLER0: u64 = SGI_PAGE + 0x100;
const GICR_ICPENDR0: u64 = SGI_PAGE + 0x280;
const GICR_ICACTIVER0: u64 = SGI_PAGE + 0x380;
const GICR_IPRIORITYR: u64 = SGI_PAGE + 0x400;

impl Registers {
    /// `GICD_TYPER.RSS`.
    fn has_range_selector(&self) -> bool {
        read(self.distributor + GICD_TYPER) & 1 << 26 != 0
    }

    /// Affinity routing, then Group 1.
    fn set_up_distributor(&self) {
        const ARE: u32 = 1 << 4;
        const GROUP_1: u32 = 1 << 1;
        const PENDING: u32 = 1 << 31;
        for value in [ARE, ARE | GROUP_1] {
            write(self.distributor + GICD_CTLR, value);
            while read(self.distributor + GICD_CTLR) & PENDING != 0 {
                spin_hint();
            }
        }
    }

    /// This CPU's redistributor, which says whose it is.
    fn redistributor(&self, cpu: PhysCpuId) -> Result<u64, ControllerError> {
        let affinity = Affinity::of_mpidr(cpu.0);
        let wanted = affinity.aff3() << 24 | affinity.aff2() << 16 | affinity.aff1() << 8 | affinity.aff0();
        let (start, len) = self.redistributors;
        let all = (start..start.saturating_add(len)).step_by(2 * SGI_PAGE as usize);
        let whose = |at: &u64| u64::from(read(at + GICR_TYPER + 4)) == wanted;
        all.into_iter().find(whose).ok_or(ControllerError::NoRedistributor(cpu))
    }

    /// Wakes it; the doorbells and the timer in Group 1, of one priority, neither pending nor active, enabled.
    fn set_up_redistributor(&self, cpu: PhysCpuId) -> Result<(), ControllerError> {
        let at = self.redistributor(cpu)?;
        const SLEEP: u32 = 1 << 1;
        const CHILDREN_ASLEEP: u32 = 1 << 2;
        write(at + GICR_WAKER, read(at + GICR_WAKER) & !SLEEP);
        while read(at + GICR_WAKER) & CHILDREN_ASLEEP != 0 {
            spin_hint();
        }
        let sgis = [DOORBELL, SPARE_VECTOR].map(|vector| u32::from(vector.number()));
        let ours = sgis.iter().fold(1 << TIMER, |bits, n| bits | 1 << n);
        write(at + GICR_IGROUPR0, u32::MAX);
        write(at + GICR_ICPENDR0, ours);
        write(at + GICR_ICACTIVER0, ours);
        // SGIs and PPIs: 32 priorities of 8 bits.
        (0..8).for_each(|n| write(at + GICR_IPRIORITYR + 4 * n, 0xa0a0_a0a0));
        write(at + GICR_ISENABLER0, ours);
        Ok(())
    }
}

/// Has the virtual timer interrupt, and begin anew.
fn start_timer() {
    // SAFETY: EL1 may use the timer.
    unsafe {
        asm!(
            "mrs {0}, cntfrq_el0",
            "udiv {0}, {0}, {1}",
            "msr cntv_tval_el0, {0}",
            "mov {0}, #1",
            "msr cntv_ctl_el0, {0}",
            "isb",
            out(reg) _,
            in(reg) TICKS,
            options(nostack, preserves_flags),
        );
    }
}

/// What boot.s calls for an interrupt.
#[no_mangle]
extern "C" fn on_interrupt() {
    let gic = &Kernel.controller().gic;
    // SAFETY: the handler of IRQ, on a CPU whose interface is enabled.
    let Some(interrupt) = (unsafe { gic.acknowledge() }) else { return };
    if interrupt.intid() == TIMER {
        // Its interrupt lasts until the timer is set anew.
        start_timer();
    }
    // SAFETY: the one that was just acknowledged.
    unsafe { gic.eoi(interrupt) };
    match interrupt.sgi().and_then(Sgi::vector) {
        Some(DOORBELL) => platform::on_doorbell(),
        Some(SPARE_VECTOR) => conformance::on_spare(),
        Some(_) => platform::on_foreign(),
        None => platform::on_tick(),
    }
}
