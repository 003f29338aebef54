// SPDX-License-Identifier: MIT OR Apache-2.0
//! Drives the GICv3 (doorbells), the virtual timer (the tick), and PSCI (start and stop of CPUs).

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

/// The mode in which to run the interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The mode in which this kernel finds the controller. On arm64 this is always [`Self::GicV3`].
    Present,
    /// A GICv3 whose CPU interface is used through system registers.
    GicV3,
}

impl Mode {
    /// Returns the mode with this name, which must be `gicv3`. `None` for every other name, also for that of [`Self::Present`].
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

/// Why the interrupt controller cannot be used, or why a CPU cannot be started or stopped.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
pub enum ControllerError {
    /// The GIC's CPU interface cannot be used.
    Gic(GicError),
    /// The device tree does not describe what this kernel needs.
    Tree(TreeError),
    /// The GIC has no redistributor for this CPU.
    NoRedistributor(PhysCpuId),
    /// The firmware returned this error.
    Firmware(PsciError),
    /// The CPU with this id was told to stop, and did not stop in time. It probably takes no interrupts. With PSCI a CPU can stop
    /// only itself.
    TakesNoInterrupts(PhysCpuId),
    /// The doorbell that tells the CPU to stop cannot be sent.
    Doorbell(DoorbellError),
    /// This kernel cannot have a second CPU on this architecture.
    OneCpu,
}

impl From<GicError> for ControllerError {
    fn from(e: GicError) -> Self {
        Self::Gic(e)
    }
}

/// The time between two checks whether a CPU has stopped.
const STOP_TURN: Microseconds = Microseconds(100);
/// [`Controller::stop`] multiplies its parameter `wait` by this number. The longer wait is needed because the CPU stops itself.
/// It must first take the interrupt. Then its interrupt handler stops it.
const STOP_WAITS: u64 = 20;

impl From<TreeError> for ControllerError {
    fn from(e: TreeError) -> Self {
        Self::Tree(e)
    }
}

/// The instruction by which the firmware is called.
enum Firmware {
    Hvc,
    Smc,
}

// SAFETY: each call is passed on to `Hvc` or `Smc`, which implement the trait as required.
unsafe impl Conduit for Firmware {
    unsafe fn call(&self, function: u32, args: [u64; 3]) -> u64 {
        match self {
            // SAFETY: the caller keeps the safety rules of this function.
            Self::Hvc => unsafe { Hvc.call(function, args) },
            // SAFETY: the caller keeps the safety rules of this function.
            Self::Smc => unsafe { Smc.call(function, args) },
        }
    }
}

/// The INTID of the virtual timer's interrupt. It is a PPI: each CPU has its own (Arm BSA, "PPI assignments").
const TIMER: u32 = 27;
/// The number of this kernel's ticks in a second.
const TICKS: u64 = 500;

/// Where the registers of the GIC are.
#[derive(Clone, Copy)]
struct Registers {
    /// The address of the distributor.
    distributor: u64,
    /// The address and the length of the memory that contains all redistributors.
    redistributors: (u64, u64),
}

/// The GIC's CPU interface of the CPU that calls a method; and PSCI, which starts and stops CPUs.
pub struct Controller {
    gic: Gic<Hardware>,
    psci: Psci<Firmware>,
}

impl Controller {
    /// Makes this CPU accept doorbells, and starts the tick. Interrupts must be off. This function does not switch them on.
    /// Kernel 0, the first one on the machine, also sets up the distributor.
    pub fn set_up(_: Mode) -> Result<(Self, Mode), ControllerError> {
        let (registers, firmware) = found_in_tree()?;
        // SAFETY: this code runs at EL1, and the device tree says that the machine has a GICv3.
        let hardware = unsafe { Hardware::new() };
        // SAFETY: interrupts are masked, and no code uses the memory-mapped CPU interface.
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
        // SAFETY: the device tree says by which instruction PSCI is called. QEMU's machine `virt` has PSCI 0.2 or newer.
        Ok((Self { gic, psci: unsafe { Psci::new(firmware) } }, Mode::GicV3))
    }

    /// Always fails, because this kernel cannot have a second CPU on this architecture.
    pub fn enter_second(&self) -> Result<(), ControllerError> {
        Err(ControllerError::OneCpu)
    }

    /// The physical id of this CPU.
    pub fn cpu_id(&self) -> PhysCpuId {
        self.gic.cpu_id()
    }

    /// The CPU that booted the machine. Only kernel 0 knows it, because it runs on that CPU; in other kernels this is `None`.
    pub fn boot_cpu(&self) -> Option<PhysCpuId> {
        (own::kernel() == 0).then(|| self.cpu_id())
    }

    /// On x86-64 this sets the handler of a vector. Here it does nothing: `on_interrupt` handles the interrupts of all vectors.
    pub fn lead(&self, _: Vector, _: bool) {}

    /// Returns whether the conformance suite can use a second vector.
    pub fn has_spare(&self) -> bool {
        true
    }

    /// Does nothing: interrupts on the second vector are always enabled.
    pub fn open_spare(&self) {}

    /// Does nothing: `on_interrupt` acknowledges unknown interrupts anyway.
    pub fn ignore_strays(&self) {}

    /// Starts `cpu` at `entry`, with `argument` in x0. The last parameter, a delay, is not used: the firmware needs no waits.
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
        // SAFETY: the caller keeps the safety rules of this function.
        unsafe { self.psci.cpu_on(cpu, PhysAddr(entry), argument) }.map_err(ControllerError::Firmware)
    }

    /// Stops `cpu`. The caller has set the word that tells the kernel on that CPU to stop itself at its next doorbell. This
    /// function rings that doorbell, and waits until the firmware reports that the CPU is off. After each check that finds the
    /// CPU still on, it calls `meanwhile` with a time. `meanwhile` must return only after this time. If the CPU is still on after
    /// [`STOP_WAITS`] times `wait`, this function fails with [`ControllerError::TakesNoInterrupts`].
    ///
    /// A kernel that takes no interrupts cannot be stopped, because the firmware stops only the CPU that calls it.
    ///
    /// # Safety
    ///
    /// The CPU belongs to a kernel that the caller may end. Nothing depends on the work that the CPU was doing.
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

    /// Makes the firmware stop this CPU, and does not return. The doorbell's handler calls this if the host has told this kernel
    /// to stop.
    pub fn stop_this(&self) {
        // SAFETY: interrupts are off, and the kernel ends here.
        let refused = unsafe { self.psci.cpu_off() };
        fatal!("the firmware did not stop this CPU: {refused:?}")
    }

    /// Implements `ThisCpu::compare_exchange_alone`.
    pub fn compare_exchange_alone(word: &AtomicU64, current: u64, new: u64) -> bool {
        word.compare_exchange(current, new, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: each call is passed on to the GIC, which implements the trait as required.
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

/// Reads from the device tree where the GIC's registers are, and how PSCI is called.
fn found_in_tree() -> Result<(Registers, Firmware), TreeError> {
    let (mut is_v3, mut registers, mut firmware) = (false, None, None);
    device_tree::of(Kernel.boot())?.each(|property| {
        if property.is(&["intc@"], "compatible") {
            is_v3 = property.value.split(|byte| *byte == 0).any(|name| name == b"arm,gic-v3");
        } else if property.is(&["intc@"], "reg") {
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
    let registers = registers.filter(|_| is_v3).ok_or(TreeError::Lacks("a GICv3"))?;
    Ok((registers, firmware.ok_or(TreeError::Lacks("PSCI"))?))
}

fn read(at: u64) -> u32 {
    // SAFETY: `at` is a register of the GIC, at an address from the device tree. boot.s maps all devices.
    unsafe { (at as *const u32).read_volatile() }
}

fn write(at: u64, value: u32) {
    // SAFETY: as in `read`. The callers write only values that the manual allows.
    unsafe { (at as *mut u32).write_volatile(value) };
}

// Offsets of the registers of the distributor and of a redistributor (the GIC architecture specification, Arm IHI 0069, "The GIC
// Distributor register map", "The GIC Redistributor register map").
const GICD_CTLR: u64 = 0x0;
const GICD_TYPER: u64 = 0x4;
const GICR_TYPER: u64 = 0x8;
const GICR_WAKER: u64 = 0x14;
/// The offset of the second of a redistributor's two frames, which have 64 KiB each. This frame is for SGIs and PPIs.
const SGI_PAGE: u64 = 0x1_0000;
const GICR_IGROUPR0: u64 = SGI_PAGE + 0x80;
const GICR_ISENABLER0: u64 = SGI_PAGE + 0x100;
const GICR_ICPENDR0: u64 = SGI_PAGE + 0x280;
const GICR_ICACTIVER0: u64 = SGI_PAGE + 0x380;
const GICR_IPRIORITYR: u64 = SGI_PAGE + 0x400;

impl Registers {
    /// Returns `GICD_TYPER.RSS`: whether an SGI can go to a CPU whose affinity level 0 is above 15.
    fn has_range_selector(&self) -> bool {
        read(self.distributor + GICD_TYPER) & 1 << 26 != 0
    }

    /// First turns affinity routing on. Then turns the interrupts of Group 1 on.
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

    /// The address of the redistributor of `cpu`. The upper half of each redistributor's `GICR_TYPER` is its CPU's affinity.
    fn redistributor(&self, cpu: PhysCpuId) -> Result<u64, ControllerError> {
        let affinity = Affinity::of_mpidr(cpu.0);
        let wanted = affinity.aff3() << 24 | affinity.aff2() << 16 | affinity.aff1() << 8 | affinity.aff0();
        let (start, len) = self.redistributors;
        let all = (start..start.saturating_add(len)).step_by(2 * SGI_PAGE as usize);
        let whose = |at: &u64| u64::from(read(at + GICR_TYPER + 4)) == wanted;
        all.into_iter().find(whose).ok_or(ControllerError::NoRedistributor(cpu))
    }

    /// Wakes the redistributor of `cpu`. Puts all SGIs and PPIs into Group 1. Clears the pending and active states of three
    /// interrupts: the doorbell, the second vector, and the timer. Gives all SGIs and PPIs the same priority. Then enables the
    /// three interrupts.
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
        // The 32 SGIs and PPIs have 8 bits of priority each.
        (0..8).for_each(|n| write(at + GICR_IPRIORITYR + 4 * n, 0xa0a0_a0a0));
        write(at + GICR_ISENABLER0, ours);
        Ok(())
    }
}

/// Sets the virtual timer to the next tick, with its interrupt enabled.
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

/// boot.s calls this for each interrupt.
#[no_mangle]
extern "C" fn on_interrupt() {
    let gic = &Kernel.controller().gic;
    // SAFETY: this is the handler of IRQ, on a CPU whose GIC interface is enabled.
    let Some(interrupt) = (unsafe { gic.acknowledge() }) else { return };
    if interrupt.intid() == TIMER {
        // The timer's interrupt stays pending until the timer is set to the next tick.
        start_timer();
    }
    // SAFETY: `interrupt` was acknowledged above.
    unsafe { gic.eoi(interrupt) };
    match interrupt.sgi().and_then(Sgi::vector) {
        Some(DOORBELL) => platform::on_doorbell(),
        Some(SPARE_VECTOR) => conformance::on_spare(),
        Some(_) => platform::on_foreign(),
        None => platform::on_tick(),
    }
}
