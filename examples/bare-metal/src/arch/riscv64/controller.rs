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
use mk_ipi_riscv::{Hardware, Hsm, Identity, Imsic, ImsicFiles, SbiDoorbell, SbiError};

/// How to send interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As it is found.
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

impl From<TreeError> for ControllerError {
    fn from(e: TreeError) -> Self {
        Self::Tree(e)
    }
}

/// Ticks of the counter from one tick of ours to the next: 2 ms.
const PERIOD: u64 = clock::SECOND / clock::TICK / 500;

/// Who sends doorbells.
enum Sender {
    Firmware(SbiDoorbell<Hardware>),
    Imsics(Imsic<ImsicFiles>),
}

/// The firmware below whichever hart runs the call, and that hart's IMSIC, if it is used.
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
        // SAFETY: supervisor mode on an SBI firmware, which started us.
        let hardware = unsafe { Hardware::new() };
        let hsm = Hsm::new(hardware)?;
        let (sender, found, enabled) = match mode {
            Mode::Present | Mode::Sbi => {
                let doorbell = SbiDoorbell::new(hardware)?;
                // What was pending for a former kernel of this hart.
                doorbell.acknowledge();
                (Sender::Firmware(doorbell), Mode::Sbi, SOFTWARE)
            }
            Mode::Imsic => {
                let imsic = imsics()?;
                let [Some(doorbell), Some(spare)] = [DOORBELL, SPARE_VECTOR].map(Identity::of_vector) else {
                    fatal!("a doorbell has identity 0")
                };
                // SAFETY: interrupts are off; `on_interrupt` knows both.
                unsafe { imsic.enable(&[doorbell, spare]) };
                (Sender::Imsics(imsic), Mode::Imsic, EXTERNAL)
            }
        };
        set_timer();
        // SAFETY: the trap entry of boot.s knows these.
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
        // SAFETY: boot.s has written it before any Rust ran, and nobody does later.
        PhysCpuId(unsafe { boot_hart })
    }

    /// The hart that booted the machine, if that is known: it runs the first kernel.
    pub fn boot_cpu(&self) -> Option<PhysCpuId> {
        (own::kernel() == 0).then(|| self.cpu_id())
    }

    /// Vectors lead where they do.
    pub fn lead(&self, _: Vector, _: bool) {}

    /// Whether there is a second vector, for the conformance suite.
    pub fn has_spare(&self) -> bool {
        matches!(self.sender, Sender::Imsics(_))
    }

    /// It is open.
    pub fn open_spare(&self) {}

    /// Interrupts that are nobody's are acknowledged in any case.
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

impl Controller {
    fn doorbell(&self) -> &dyn Doorbell {
        match &self.sender {
            Sender::Firmware(doorbell) => doorbell,
            Sender::Imsics(imsic) => imsic,
        }
    }
}

// SAFETY: passed on to the firmware's doorbell or to the IMSICs', which keep the duty.
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

/// The IMSICs' files for supervisor mode, as the device tree has them: of the nodes that are IMSICs theirs is the one that is led to
/// interrupt 9, supervisor external.
fn imsics() -> Result<Imsic<ImsicFiles>, TreeError> {
    const PATH: [&str; 2] = ["soc", "interrupt-controller@"];
    const COMPATIBLE: &[u8] = b"riscv,imsics";
    let tree = device_tree::of(Kernel.boot())?;
    // One of machine mode, and one of supervisor mode.
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
    // SAFETY: as the device tree says; boot.s maps devices one to one.
    let files = unsafe { ImsicFiles::new(first as usize, stride as usize, (len / stride) as usize) };
    // SAFETY: a machine with IMSICs has the AIA's registers.
    Ok(unsafe { Imsic::new(files) })
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
        (other, _) => fatal!("interrupt {other}, which nobody switched on"),
    }
}
