// SPDX-License-Identifier: MIT OR Apache-2.0
//! Doorbells, by the firmware or by the IMSICs; the tick and the start of harts, by the firmware.

use super::super::device_tree::{self, TreeError};
use super::{clock, DOORBELL, SPARE_VECTOR};
use crate::clock::Microseconds;
use crate::conformance;
use crate::own;
use crate::platform::{self, Kernel};
use core::arch::asm;
use core::fmt;
use mk_ipi_abi::{PhysAddr, PhysCpuId, Vector, PAGE_SIZE};
use mk_ipi_core::platform::{Doorbell, DoorbellError};
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_riscv::{Hardware, HartState, Hsm, Identity, Imsic, ImsicFiles, SbiDoorbell, SbiError};

/// How to send interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the way that is found.
    Present,
    /// By the firmware.
    Sbi,
    /// By the IMSICs.
    Imsic,
}

impl Mode {
    /// The mode of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "sbi" => Some(Self::Sbi),
            "imsic" => Some(Self::Imsic),
            _ => None,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Present => "present",
            Self::Sbi => "sbi",
            Self::Imsic => "imsic",
        })
    }
}

/// Why there are no doorbells, or a hart is not started or stopped.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
pub enum ControllerError {
    /// The firmware refuses.
    Firmware(SbiError),
    /// The device tree.
    Tree(TreeError),
    /// It was told to stop, but takes no interrupts; SBI cannot stop another hart.
    TakesNoInterrupts(PhysCpuId),
    /// The hart cannot be rung.
    Doorbell(DoorbellError),
    /// A kernel here has one hart.
    OneCpu,
}

impl From<SbiError> for ControllerError {
    fn from(e: SbiError) -> Self {
        Self::Firmware(e)
    }
}

/// How long one turn of the wait for a stop is.
const STOP_TURN: Microseconds = Microseconds(100);
/// The time that a hart is given to stop is multiplied by this, because its kernel must first get to its handler.
const STOP_WAITS: u64 = 20;

impl From<TreeError> for ControllerError {
    fn from(e: TreeError) -> Self {
        Self::Tree(e)
    }
}

/// Ticks of the counter between two ticks of this kernel: 2 ms.
const PERIOD: u64 = clock::SECOND / clock::TICK / 500;

/// What sends doorbells.
enum Sender {
    Firmware(SbiDoorbell<Hardware>),
    Imsics(Imsic<ImsicFiles>),
}

/// The firmware, and the IMSIC of the hart that runs the call, if it is used.
pub struct Controller {
    sender: Sender,
    hsm: Hsm<Hardware>,
}

/// `sie`: software, timer and external interrupts of supervisor mode.
const SOFTWARE: u64 = 1 << 1;
const TIMER: u64 = 1 << 5;
const EXTERNAL: u64 = 1 << 9;

impl Controller {
    /// Opens the doorbell; interrupts are still off.
    pub fn set_up(mode: Mode) -> Result<(Self, Mode), ControllerError> {
        // SAFETY: this is supervisor mode on an SBI firmware, which started this kernel.
        let hardware = unsafe { Hardware::new() };
        let hsm = Hsm::new(hardware)?;
        let (sender, found, enabled) = match mode {
            Mode::Present | Mode::Sbi => {
                let doorbell = SbiDoorbell::new(hardware)?;
                // Clears what was pending for a former kernel of this hart.
                doorbell.acknowledge();
                (Sender::Firmware(doorbell), Mode::Sbi, SOFTWARE)
            }
            Mode::Imsic => {
                let imsic = imsics()?;
                let [Some(doorbell), Some(spare)] = [DOORBELL, SPARE_VECTOR].map(Identity::of_vector) else {
                    fatal!("a doorbell has identity 0")
                };
                // SAFETY: interrupts are off; `on_interrupt` handles both.
                unsafe { imsic.enable(&[doorbell, spare]) };
                (Sender::Imsics(imsic), Mode::Imsic, EXTERNAL)
            }
        };
        set_timer();
        // SAFETY: the trap entry of boot.s handles these.
        unsafe { asm!("csrs sie, {}", in(reg) TIMER | enabled, options(nostack)) };
        Ok((Self { sender, hsm }, found))
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
        // SAFETY: boot.s has written it before any Rust ran, and it is not written later.
        PhysCpuId(unsafe { boot_hart })
    }

    /// The hart that booted the machine, if that is known: it runs the first kernel.
    pub fn boot_cpu(&self) -> Option<PhysCpuId> {
        (own::kernel() == 0).then(|| self.cpu_id())
    }

    /// Does nothing: all vectors lead to their handlers at once.
    pub fn lead(&self, _: Vector, _: bool) {}

    /// Returns whether there is a second vector, for the conformance suite.
    pub fn has_spare(&self) -> bool {
        matches!(self.sender, Sender::Imsics(_))
    }

    /// Does nothing: the second vector is always open.
    pub fn open_spare(&self) {}

    /// Does nothing: interrupts that this kernel does not know are always acknowledged.
    pub fn ignore_strays(&self) {}

    /// Starts the hart `cpu` at `entry`, with `argument` in a1. It need not wait.
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
        // SAFETY: the caller promises it.
        Ok(unsafe { self.hsm.start(cpu, PhysAddr(entry), argument) }?)
    }

    /// Rings `cpu`, whose kernel was told to stop itself at its next doorbell, and waits until the firmware says that
    /// it has stopped. Runs `meanwhile` until then. A kernel that takes no interrupts cannot be stopped: the firmware
    /// does not stop a hart from outside.
    ///
    /// # Safety
    ///
    /// The hart belongs to a kernel that the caller may end, and what it was doing is not needed.
    pub unsafe fn stop(
        &self,
        cpu: PhysCpuId,
        wait: Microseconds,
        mut meanwhile: impl FnMut(Microseconds),
    ) -> Result<(), ControllerError> {
        self.ring(cpu, DOORBELL).map_err(ControllerError::Doorbell)?;
        let turns = STOP_WAITS * u64::from(wait.0) / u64::from(STOP_TURN.0);
        for _ in 0..turns {
            if self.hsm.status(cpu)? == HartState::Stopped {
                return Ok(());
            }
            meanwhile(STOP_TURN);
        }
        Err(ControllerError::TakesNoInterrupts(cpu))
    }

    /// Stops this hart, by the firmware. For a kernel that was told to stop; called in its handler.
    pub fn stop_this(&self) {
        // SAFETY: interrupts are off, and the kernel ends here.
        let refused = unsafe { self.hsm.stop() };
        fatal!("the firmware does not stop this hart: {refused:?}")
    }

    /// As `ThisCpu::compare_exchange_alone`.
    pub fn compare_exchange_alone(word: &AtomicU64, current: u64, new: u64) -> bool {
        word.compare_exchange(current, new, Ordering::Relaxed).is_ok()
    }
}

impl Controller {
    fn doorbell(&self) -> &dyn Doorbell {
        match &self.sender {
            Sender::Firmware(doorbell) => doorbell,
            Sender::Imsics(imsic) => imsic,
        }
    }
}

// SAFETY: passed on to the firmware's doorbell or to the IMSICs', which implement the trait as required.
unsafe impl Doorbell for Controller {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.doorbell().check(cpu, vector)
    }

    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.doorbell().ring(cpu, vector)
    }

    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.doorbell().ring_from_nmi(cpu, vector)
    }
}

/// The IMSICs' files for supervisor mode, from the device tree. Of the IMSIC nodes, it takes the one that is wired to
/// interrupt 9, supervisor external.
fn imsics() -> Result<Imsic<ImsicFiles>, TreeError> {
    const PATH: [&str; 2] = ["soc", "interrupt-controller@"];
    const COMPATIBLE: &[u8] = b"riscv,imsics";
    let tree = device_tree::of(Kernel.boot())?;
    // One node is for machine mode, and one for supervisor mode.
    let (mut found, mut unit, mut guest_bits, mut files) = ([None; 2], None, 0, None);
    tree.each(|property| {
        let is_imsic = || property.value.split(|byte| *byte == 0).any(|name| name == COMPATIBLE);
        if property.is(&PATH, "compatible") && is_imsic() {
            if let Some(place) = found.iter_mut().find(|place| place.is_none()) {
                *place = property.unit();
            }
        }
    });
    tree.each(|property| {
        let is_supervisors = property.value.get(4..8) == Some(&[0, 0, 0, 9]);
        if property.is(&PATH, "interrupts-extended") && is_supervisors && found.contains(&property.unit()) {
            unit = property.unit();
        }
    });
    tree.each(|property| {
        if unit.is_none() || property.unit() != unit {
            return;
        }
        if property.is(&PATH, "reg") {
            let mut longs = property.longs();
            files = longs.next().zip(longs.next());
        } else if property.is(&PATH, "riscv,guest-index-bits") {
            guest_bits = property.number().unwrap_or(0).min(6);
        }
    });
    let (first, len) = files.ok_or(TreeError::Lacks("IMSICs for supervisor mode"))?;
    let stride = PAGE_SIZE << guest_bits;
    // SAFETY: the device tree says so, and boot.s maps devices one to one.
    let files = unsafe { ImsicFiles::new(first as usize, stride as usize, (len / stride) as usize) };
    // SAFETY: a machine with IMSICs has the AIA's registers.
    Ok(unsafe { Imsic::new(files) })
}

/// Starts the timer anew, with its interrupt on: `sbi_set_timer` of the extension `TIME` (SBI, "Timer Extension").
fn set_timer() {
    let at = clock::ticks().wrapping_add(PERIOD);
    // SAFETY: the firmware's call, which changes A0 and A1. A firmware without this extension returns an error; then
    // there is no tick.
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
    match (cause << 1 >> 1, &Kernel.controller().sender) {
        (1, Sender::Firmware(doorbell)) => doorbell.handle(platform::on_doorbell),
        (5, _) => {
            set_timer();
            platform::on_tick();
        }
        (9, Sender::Imsics(imsic)) => {
            // SAFETY: the handler of external interrupts, which are off.
            while let Some(identity) = unsafe { imsic.claim() } {
                match u8::try_from(identity).ok().and_then(Vector::of_number) {
                    Some(DOORBELL) => platform::on_doorbell(),
                    Some(SPARE_VECTOR) => conformance::on_spare(),
                    _ => platform::on_foreign(),
                }
            }
        }
        (other, _) => fatal!("interrupt {other}, which was not switched on"),
    }
}
