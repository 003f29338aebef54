// SPDX-License-Identifier: MIT OR Apache-2.0
//! The firmware: doorbells, the tick, start of harts.

use super::clock;
use crate::clock::Microseconds;
use crate::layout;
use crate::platform::{self, Kernel};
use core::arch::asm;
use core::fmt;
use mk_ipi_abi::{PhysAddr, PhysCpuId, Vector};
use mk_ipi_core::platform::{Doorbell, DoorbellError};
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_riscv::{Hardware, Hsm, SbiDoorbell, SbiError};

/// How to send interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As it is found.
    Present,
    /// By the firmware.
    Sbi,
}

impl Mode {
    /// The mode of this name.
    pub fn named(name: &str) -> Option<Self> {
        (name == "sbi").then_some(Self::Sbi)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Present => "present",
            Self::Sbi => "sbi",
        })
    }
}

/// Why there are no doorbells, or a hart is not started or stopped.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
pub enum ControllerError {
    /// The firmware refuses.
    Firmware(SbiError),
    /// SBI stops no other hart.
    NotFromOutside(PhysCpuId),
    /// A kernel here has one hart.
    OneCpu,
}

impl From<SbiError> for ControllerError {
    fn from(e: SbiError) -> Self {
        Self::Firmware(e)
    }
}

/// Ticks of the counter from one tick of ours to the next: 2 ms.
const PERIOD: u64 = clock::SECOND / clock::TICK / 500;

/// The firmware below whichever hart runs the call.
pub struct Controller {
    doorbell: SbiDoorbell<Hardware>,
    hsm: Hsm<Hardware>,
}

impl Controller {
    /// Opens the doorbell; interrupts are still off.
    pub fn set_up(_: Mode) -> Result<(Self, Mode), ControllerError> {
        // SAFETY: supervisor mode on an SBI firmware, which started us.
        let hardware = unsafe { Hardware::new() };
        let (doorbell, hsm) = (SbiDoorbell::new(hardware)?, Hsm::new(hardware)?);
        // What was pending for a former kernel of this hart.
        doorbell.acknowledge();
        set_timer();
        // SAFETY: the trap entry of boot.s knows both interrupts: software (1) and timer (5).
        unsafe { asm!("csrs sie, {}", in(reg) 1u64 << 1 | 1 << 5, options(nostack)) };
        Ok((Self { doorbell, hsm }, Mode::Sbi))
    }

    /// A kernel here has one hart.
    pub fn enter_second(&self) -> Result<(), ControllerError> {
        Err(ControllerError::OneCpu)
    }

    /// This hart's id, which the entry was given.
    pub fn cpu_id(&self) -> PhysCpuId {
        extern "C" {
            static boot_hart: u64;
        }
        // SAFETY: boot.s has written it before any Rust ran, and nobody does later.
        PhysCpuId(unsafe { boot_hart })
    }

    /// The hart that booted the machine, if that is known: it runs the first kernel.
    pub fn boot_cpu(&self) -> Option<PhysCpuId> {
        (layout::own_kernel() == 0).then(|| self.cpu_id())
    }

    /// There is one vector.
    pub fn lead(&self, _: Vector, _: bool) {}

    /// There is no second one.
    pub fn open_spare(&self) {}

    /// No interrupt is another kernel's.
    pub fn ignore_strays(&self) {}

    /// Starts the hart `cpu` at `entry`, with `argument` in a1; there is nothing to wait for.
    ///
    /// # Safety
    ///
    /// As for [`Hsm::start`].
    pub unsafe fn start(
        &self,
        cpu: PhysCpuId,
        entry: u64,
        argument: u64,
        _: impl FnMut(Microseconds),
    ) -> Result<(), ControllerError> {
        // SAFETY: the caller.
        Ok(unsafe { self.hsm.start(cpu, PhysAddr(entry), argument) }?)
    }

    /// Nobody stops another hart here.
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

// SAFETY: passed on to the firmware's doorbell, which keeps the duty.
unsafe impl Doorbell for Controller {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.doorbell.check(cpu, vector)
    }

    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.doorbell.ring(cpu, vector)
    }

    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.doorbell.ring_from_nmi(cpu, vector)
    }
}

/// Has the timer interrupt, and begin anew: `sbi_set_timer` of the extension `TIME` (SBI, "Timer Extension").
fn set_timer() {
    let at = clock::ticks().wrapping_add(PERIOD);
    // SAFETY: the firmware's call, which changes A0 and A1. A firmware without it answers that; then there is no tick.
    unsafe {
        asm!(
            "ecall",
            inlateout("a0") at => _, lateout("a1") _,
            in("a6") 0, in("a7") 0x5449_4d45,
            options(nostack),
        );
    }
}

/// What boot.s calls for an interrupt, with its cause.
#[no_mangle]
extern "C" fn on_interrupt(cause: u64) {
    // The highest bit says that it is an interrupt.
    match cause << 1 >> 1 {
        1 => {
            Kernel.controller().doorbell.acknowledge();
            platform::on_doorbell();
        }
        5 => {
            set_timer();
            platform::on_tick();
        }
        other => fatal!("interrupt {other}, which nobody switched on"),
    }
}
