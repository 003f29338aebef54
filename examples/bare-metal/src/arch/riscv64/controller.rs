// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sends and receives doorbells, by the SBI firmware or by the IMSICs. The firmware also sets the timer, and starts and stops
//! harts.

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

/// The way in which doorbells are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The way that needs no other hardware: [`Self::Sbi`].
    Present,
    /// Software interrupts, sent by calls of the SBI firmware.
    Sbi,
    /// Messages to the IMSICs.
    Imsic,
}

impl Mode {
    /// Returns the mode with this name; `None` if there is none.
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

/// Why doorbells cannot be used, or why a hart cannot be started or stopped.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
pub enum ControllerError {
    /// The firmware returned this error.
    Firmware(SbiError),
    /// The device tree does not describe what this kernel needs.
    Tree(TreeError),
    /// This hart was told to stop and did not do so in time. It probably takes no interrupts. SBI cannot stop another hart.
    TakesNoInterrupts(PhysCpuId),
    /// The doorbell that tells the hart to stop cannot be sent.
    Doorbell(DoorbellError),
    /// This kernel cannot have a second hart on this architecture.
    OneCpu,
}

impl From<SbiError> for ControllerError {
    fn from(e: SbiError) -> Self {
        Self::Firmware(e)
    }
}

/// The time between two checks whether a hart has stopped.
const STOP_TURN: Microseconds = Microseconds(100);
/// [`Controller::stop`] multiplies its parameter `wait` by this number. The longer wait is needed because the hart stops itself.
/// It must first take the interrupt. Then its interrupt handler stops it.
const STOP_WAITS: u64 = 20;

impl From<TreeError> for ControllerError {
    fn from(e: TreeError) -> Self {
        Self::Tree(e)
    }
}

/// The time between two ticks of this kernel, in ticks of the counter: 2 ms.
const PERIOD: u64 = clock::SECOND / clock::TICK / 500;

/// The backend that sends doorbells.
enum Sender {
    Firmware(SbiDoorbell<Hardware>),
    Imsics(Imsic<ImsicFiles>),
}

/// Sends doorbells, and starts and stops harts. In the mode [`Mode::Imsic`] it uses the IMSIC of the hart that makes the call.
pub struct Controller {
    sender: Sender,
    hsm: Hsm<Hardware>,
}

/// Bit of `sie`: supervisor software interrupts.
const SOFTWARE: u64 = 1 << 1;
/// Bit of `sie`: supervisor timer interrupts.
const TIMER: u64 = 1 << 5;
/// Bit of `sie`: supervisor external interrupts.
const EXTERNAL: u64 = 1 << 9;

impl Controller {
    /// Makes this hart accept doorbells, and starts the tick. Interrupts must be off, and stay off. Also returns the mode in use.
    pub fn set_up(mode: Mode) -> Result<(Self, Mode), ControllerError> {
        // SAFETY: this is supervisor mode on an SBI firmware, which started this kernel.
        let hardware = unsafe { Hardware::new() };
        let hsm = Hsm::new(hardware)?;
        let (sender, found, enabled) = match mode {
            Mode::Present | Mode::Sbi => {
                let doorbell = SbiDoorbell::new(hardware)?;
                // Clears a doorbell that is still pending for the kernel that ran on this hart before.
                doorbell.acknowledge();
                (Sender::Firmware(doorbell), Mode::Sbi, SOFTWARE)
            }
            Mode::Imsic => {
                let imsic = imsics()?;
                let [Some(doorbell), Some(spare)] = [DOORBELL, SPARE_VECTOR].map(Identity::of_vector) else {
                    fatal!("identity 0 cannot be used for a doorbell")
                };
                // SAFETY: interrupts are off. `on_interrupt` handles both identities.
                unsafe { imsic.enable(&[doorbell, spare]) };
                (Sender::Imsics(imsic), Mode::Imsic, EXTERNAL)
            }
        };
        set_timer();
        // SAFETY: the trap entry of boot.s handles these interrupts.
        unsafe { asm!("csrs sie, {}", in(reg) TIMER | enabled, options(nostack)) };
        Ok((Self { sender, hsm }, found))
    }

    /// Always fails, because this kernel cannot have a second hart on this architecture.
    pub fn enter_second(&self) -> Result<(), ControllerError> {
        Err(ControllerError::OneCpu)
    }

    /// The id of this hart. The entry in boot.s gets it in a0.
    pub fn cpu_id(&self) -> PhysCpuId {
        extern "C" {
            static boot_hart: u64;
        }
        // SAFETY: boot.s writes `boot_hart` before it calls Rust code. It is not written later.
        PhysCpuId(unsafe { boot_hart })
    }

    /// The hart that booted the machine. Only kernel 0 knows it, because it runs on that hart; in other kernels this is `None`.
    pub fn boot_cpu(&self) -> Option<PhysCpuId> {
        (own::kernel() == 0).then(|| self.cpu_id())
    }

    /// On x86-64 this sets the handler of a vector. Here it does nothing: `on_interrupt` handles the interrupts of all vectors.
    pub fn lead(&self, _: Vector, _: bool) {}

    /// Returns whether the conformance suite can use a second vector. Only the IMSICs have one.
    pub fn has_spare(&self) -> bool {
        matches!(self.sender, Sender::Imsics(_))
    }

    /// Does nothing: if there is a second vector, its interrupts are always enabled.
    pub fn open_spare(&self) {}

    /// Does nothing: `on_interrupt` acknowledges unknown external interrupts anyway.
    pub fn ignore_strays(&self) {}

    /// Starts the hart `cpu` at `entry`, with `argument` in a1. The last parameter, a delay, is not used: the firmware needs no
    /// waits.
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
        // SAFETY: the caller keeps the safety rules of this function.
        Ok(unsafe { self.hsm.start(cpu, PhysAddr(entry), argument) }?)
    }

    /// Stops the hart `cpu`. The caller has set the word that tells the kernel on that hart to stop itself at its next doorbell.
    /// This function rings that doorbell, and waits until the firmware reports that the hart has stopped. After each check that
    /// finds the hart still running, it calls `meanwhile` with a time. `meanwhile` must return only after this time. If the
    /// hart still runs after [`STOP_WAITS`] times `wait`, this function fails with [`ControllerError::TakesNoInterrupts`].
    ///
    /// A kernel that takes no interrupts cannot be stopped, because the firmware stops only the hart that calls it.
    ///
    /// # Safety
    ///
    /// The hart belongs to a kernel that the caller may end. Nothing depends on the work that the hart was doing.
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

    /// Makes the firmware stop this hart, and does not return. The doorbell's handler calls this if the host has told this kernel
    /// to stop.
    pub fn stop_this(&self) {
        // SAFETY: interrupts are off, and the kernel ends here.
        let refused = unsafe { self.hsm.stop() };
        fatal!("the firmware did not stop this hart: {refused:?}")
    }

    /// Implements `ThisCpu::compare_exchange_alone`.
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

// SAFETY: each call is passed on to the firmware's doorbell or to the IMSICs', which implement the trait as required.
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

/// Finds the IMSICs' interrupt files for supervisor mode in the device tree. They are described by the IMSIC node whose
/// interrupts are number 9, supervisor external.
fn imsics() -> Result<Imsic<ImsicFiles>, TreeError> {
    const PATH: [&str; 2] = ["soc", "interrupt-controller@"];
    const COMPATIBLE: &[u8] = b"riscv,imsics";
    let tree = device_tree::of(Kernel.boot())?;
    // The tree has two IMSIC nodes: one for machine mode, and one for supervisor mode.
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
    // SAFETY: the device tree says that the files are at this address, and boot.s maps devices one to one.
    let files = unsafe { ImsicFiles::new(first as usize, stride as usize, (len / stride) as usize) };
    // SAFETY: a machine with IMSICs has the AIA's registers.
    Ok(unsafe { Imsic::new(files) })
}

/// Sets the timer to the next tick, with its interrupt enabled: `sbi_set_timer` of the extension `TIME` (SBI, "Timer Extension").
fn set_timer() {
    let at = clock::ticks().wrapping_add(PERIOD);
    // SAFETY: this is a call of the firmware, which changes only a0 and a1. A firmware without this extension returns an
    // error, and this kernel has no tick.
    unsafe {
        asm!(
            "ecall",
            inlateout("a0") at => _, lateout("a1") _,
            in("a6") 0, in("a7") 0x5449_4d45,
            options(nostack),
        );
    }
}

/// boot.s calls this for each interrupt, with the content of `scause`.
#[no_mangle]
extern "C" fn on_interrupt(cause: u64) {
    // The highest bit of `scause` is set for every interrupt. The shifts remove it.
    match (cause << 1 >> 1, &Kernel.controller().sender) {
        (1, Sender::Firmware(doorbell)) => doorbell.handle(platform::on_doorbell),
        (5, _) => {
            set_timer();
            platform::on_tick();
        }
        (9, Sender::Imsics(imsic)) => {
            // SAFETY: this is the handler of external interrupts, and interrupts are off.
            while let Some(identity) = unsafe { imsic.claim() } {
                match u8::try_from(identity).ok().and_then(Vector::of_number) {
                    Some(DOORBELL) => platform::on_doorbell(),
                    Some(SPARE_VECTOR) => conformance::on_spare(),
                    _ => platform::on_foreign(),
                }
            }
        }
        (other, _) => fatal!("interrupt {other}, which was not enabled"),
    }
}
