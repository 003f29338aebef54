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
use mk_ipi_arm64::{Affinity, Conduit, Gic, GicError, Hardware, Hvc, PowerState, Psci, PsciError, Sgi, Smc};
use mk_ipi_core::platform::{Doorbell, DoorbellError};
use mk_ipi_core::sync::{spin_hint, AtomicU64, Ordering};

/// How to run the interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the mode in which it is found.
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
    /// No redistributor belongs to this CPU.
    NoRedistributor(PhysCpuId),
    /// The firmware refuses.
    Firmware(PsciError),
    /// It was told to stop, but takes no interrupts; PSCI cannot stop another CPU.
    TakesNoInterrupts(PhysCpuId),
    /// The CPU cannot be rung.
    Doorbell(DoorbellError),
    /// A kernel here has one CPU.
    OneCpu,
}

impl From<GicError> for ControllerError {
    fn from(e: GicError) -> Self {
        Self::Gic(e)
    }
}

/// How long one turn of the wait for a stop is.
const STOP_TURN: Microseconds = Microseconds(100);
/// The time that a CPU is given to stop is multiplied by this, because its kernel must first get to its handler.
const STOP_WAITS: u64 = 20;

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

// SAFETY: passed on to one of the two, which implements the trait as required.
unsafe impl Conduit for Firmware {
    unsafe fn call(&self, function: u32, args: [u64; 3]) -> u64 {
        match self {
            // SAFETY: the caller promises it.
            Self::Hvc => unsafe { Hvc.call(function, args) },
            // SAFETY: the caller promises it.
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

/// The interrupt controller of the CPU that runs the call.
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
        // SAFETY: interrupts are masked, and nothing uses the memory-mapped interface.
        unsafe { Gic::use_system_registers(&hardware)? };
        let mut gic = Gic::new(hardware)?;
        if registers.has_range_selector() {
            gic = gic.with_range_selector();
        }
        if own::kernel() == 0 {
            registers.set_up_distributor();
        }
        registers.set_up_redistributor(gic.cpu_id())?;
        // SAFETY: interrupts are masked; `on_interrupt` handles every INTID.
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

    /// Does nothing: all vectors lead to their handlers at once.
    pub fn lead(&self, _: Vector, _: bool) {}

    /// Returns whether there is a second vector, for the conformance suite.
    pub fn has_spare(&self) -> bool {
        true
    }

    /// Does nothing: the second vector is always open.
    pub fn open_spare(&self) {}

    /// Does nothing: interrupts that this kernel does not know are always acknowledged.
    pub fn ignore_strays(&self) {}

    /// Starts `cpu` at `entry`, with `argument` in x0. It need not wait.
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
        // SAFETY: the caller promises it.
        unsafe { self.psci.cpu_on(cpu, PhysAddr(entry), argument) }.map_err(ControllerError::Firmware)
    }

    /// Rings `cpu`, whose kernel was told to stop itself at its next doorbell, and waits until the firmware says that
    /// it has stopped. Runs `meanwhile` until then. A kernel that takes no interrupts cannot be stopped: the firmware
    /// does not stop a CPU from outside.
    ///
    /// # Safety
    ///
    /// The CPU belongs to a kernel that the caller may end, and what it was doing is not needed.
    pub unsafe fn stop(
        &self,
        cpu: PhysCpuId,
        wait: Microseconds,
        mut meanwhile: impl FnMut(Microseconds),
    ) -> Result<(), ControllerError> {
        self.ring(cpu, DOORBELL).map_err(ControllerError::Doorbell)?;
        let turns = STOP_WAITS * u64::from(wait.0) / u64::from(STOP_TURN.0);
        for _ in 0..turns {
            if self.psci.affinity_info(cpu).map_err(ControllerError::Firmware)? == PowerState::Off {
                return Ok(());
            }
            meanwhile(STOP_TURN);
        }
        Err(ControllerError::TakesNoInterrupts(cpu))
    }

    /// Stops this CPU, by the firmware. For a kernel that was told to stop; called in its handler.
    pub fn stop_this(&self) {
        // SAFETY: interrupts are off, and the kernel ends here.
        let refused = unsafe { self.psci.cpu_off() };
        fatal!("the firmware does not stop this CPU: {refused:?}")
    }

    /// As `ThisCpu::compare_exchange_alone`.
    pub fn compare_exchange_alone(word: &AtomicU64, current: u64, new: u64) -> bool {
        word.compare_exchange(current, new, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: passed on to the GIC, which implements the trait as required.
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
    // SAFETY: as above; the values are those that the manual gives.
    unsafe { (at as *mut u32).write_volatile(value) };
}

// Offsets of the distributor's registers, and of a redistributor's (GIC, "The GIC Distributor register map", "The GIC Redistributor
// register map").
const GICD_CTLR: u64 = 0x0;
const GICD_TYPER: u64 = 0x4;
const GICR_TYPER: u64 = 0x8;
const GICR_WAKER: u64 = 0x14;
/// The second of a redistributor's two pages. It is for SGIs and PPIs.
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

    /// This CPU's redistributor. Each redistributor says which CPU it belongs to.
    fn redistributor(&self, cpu: PhysCpuId) -> Result<u64, ControllerError> {
        let affinity = Affinity::of_mpidr(cpu.0);
        let wanted = affinity.aff3() << 24 | affinity.aff2() << 16 | affinity.aff1() << 8 | affinity.aff0();
        let (start, len) = self.redistributors;
        let all = (start..start.saturating_add(len)).step_by(2 * SGI_PAGE as usize);
        let whose = |at: &u64| u64::from(read(at + GICR_TYPER + 4)) == wanted;
        all.into_iter().find(whose).ok_or(ControllerError::NoRedistributor(cpu))
    }

    /// Wakes the redistributor. Puts the doorbells and the timer into Group 1, with one priority, neither pending nor
    /// active, and enables them.
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

/// Starts the virtual timer anew, with its interrupt on.
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
        // Its interrupt stays pending until the timer is set anew.
        start_timer();
    }
    // SAFETY: it is the interrupt that was just acknowledged.
    unsafe { gic.eoi(interrupt) };
    match interrupt.sgi().and_then(Sgi::vector) {
        Some(DOORBELL) => platform::on_doorbell(),
        Some(SPARE_VECTOR) => conformance::on_spare(),
        Some(_) => platform::on_foreign(),
        None => platform::on_tick(),
    }
}
