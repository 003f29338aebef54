// SPDX-License-Identifier: MIT OR Apache-2.0
//! Start of another CPU: INIT, start-up, start-up (Intel SDM vol. 3A, 8.4.4.1). And its stop: INIT alone.
//!
//! Neither is for the CPU that booted the machine. INIT makes any other CPU wait for a start-up interrupt. But it sends
//! the boot CPU to the firmware's first instruction (8.4.2 and 10.4.7.3), which resets the machine. So both calls must
//! know which CPU that is: [`LocalApic::boot_cpu`].

use crate::apic::{ErrorStatus, LocalApic};
use crate::icr::Icr;
pub use crate::page::{InvalidStartPage, StartPage};
use crate::regs::ApicIo;
use mk_ipi_abi::{Errno, PhysCpuId};
use mk_ipi_core::platform::DoorbellError;

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Microseconds(pub u32);

/// The wait after INIT.
pub const AFTER_INIT: Microseconds = Microseconds(10_000);
/// The wait after each start-up interrupt.
pub const AFTER_START_UP: Microseconds = Microseconds(200);

/// The interrupts of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartStep {
    /// INIT.
    Init,
    /// The first start-up interrupt.
    FirstStartUp,
    /// The second one.
    SecondStartUp,
}

/// Why a CPU was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The target is the CPU that runs this call.
    Itself,
    /// The target booted the machine, and INIT would reset the machine. Nothing was sent.
    BootCpu,
    /// It is not known which CPU booted the machine, so it could be the target. Nothing was sent.
    /// [`LocalApic::with_boot_cpu`] tells it.
    BootCpuUnknown,
    /// The APIC did not send this step. After INIT the target waits for a start: begin again with INIT.
    NotSent(StartStep, DoorbellError),
    /// The APIC reports that this step reached no CPU, and why: no CPU has the id. Nothing was sent after it.
    ///
    /// AMD's CPUs report this. Intel's have not done so since the Pentium 4, see [`ErrorStatus::SEND_ACCEPT`].
    NotAccepted(StartStep, ErrorStatus),
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Itself => f.write_str("a CPU cannot start itself"),
            Self::BootCpu => f.write_str("the CPU booted the machine, and INIT would reset that"),
            Self::BootCpuUnknown => f.write_str("it is not known which CPU booted the machine"),
            Self::NotSent(step, e) => write!(f, "the step {step:?} of a start was not sent: {e}"),
            Self::NotAccepted(step, status) => {
                write!(f, "no CPU accepted the step {step:?} of a start: {status:?}")
            }
        }
    }
}

impl core::error::Error for StartError {}

impl StartError {
    /// `EINVAL`; for a step that was not sent, the doorbell's errno.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Itself | Self::BootCpu | Self::BootCpuUnknown | Self::NotAccepted(..) => Errno::EINVAL,
            Self::NotSent(_, why) => why.errno(),
        }
    }
}

/// The errors that count for INIT and for a start-up interrupt. Not the illegal vector: an APIC could report it for the
/// number of a page below 0x10000.
const OF_A_STEP: ErrorStatus = ErrorStatus::SEND.difference(ErrorStatus::SEND_ILLEGAL_VECTOR);

/// The destination field for `target`, if INIT may go there at all.
fn may_stop<Io: ApicIo>(apic: &LocalApic<Io>, target: PhysCpuId) -> Result<u32, StartError> {
    if apic.apic_id() == target {
        return Err(StartError::Itself);
    }
    match apic.boot_cpu() {
        None => Err(StartError::BootCpuUnknown),
        Some(boot) if boot == target => Err(StartError::BootCpu),
        Some(_) => apic.reach(target).map_err(|why| StartError::NotSent(StartStep::Init, why)),
    }
}

/// Sends a step, waits, and checks what the APIC reports of it.
///
/// # Safety
///
/// As for [`LocalApic::send`].
unsafe fn send<Io: ApicIo>(
    apic: &LocalApic<Io>,
    (step, icr, time): (StartStep, Icr, Microseconds),
    delay: impl FnOnce(Microseconds),
) -> Result<(), StartError> {
    let state = apic.io().disable();
    let me = apic.apic_id();
    apic.read_errors();
    // SAFETY: the caller promises it.
    let sent = unsafe { apic.send(icr) };
    apic.io().restore(state);
    sent.map_err(|why| StartError::NotSent(step, why))?;
    delay(time);
    // A delay that sleeps can end on another CPU, whose errors are not of this step.
    let state = apic.io().disable();
    let errors = if apic.apic_id() == me { apic.read_errors() } else { ErrorStatus::empty() };
    apic.io().restore(state);
    match errors.intersection(OF_A_STEP) {
        errors if errors.is_empty() => Ok(()),
        errors => Err(StartError::NotAccepted(step, errors)),
    }
}

/// Starts the CPU `target` at `page`. `delay` returns after at least the time that it is given.
///
/// `Ok` says that all was sent. It does not say that a CPU has this id or came up, because few CPUs report
/// [`NotAccepted`](StartError::NotAccepted). The started code should say so in memory, and the wait for it should be
/// bounded. A CPU that started at the first start-up interrupt ignores the second.
///
/// Not for the CPU that booted the machine ([`StartError::BootCpu`]). Each step loses the errors from before it, which
/// [`read_errors`](LocalApic::read_errors) would have given.
///
/// # Safety
///
/// `target` belongs to this kernel and runs nothing that is needed: INIT stops it whatever it runs. `page` has
/// real-mode code that may run there, until that code has run.
pub unsafe fn start_cpu<Io: ApicIo>(
    apic: &LocalApic<Io>,
    target: PhysCpuId,
    page: StartPage,
    mut delay: impl FnMut(Microseconds),
) -> Result<(), StartError> {
    let id = may_stop(apic, target)?;
    for step in [
        (StartStep::Init, Icr::init(id), AFTER_INIT),
        (StartStep::FirstStartUp, Icr::start_up(page, id), AFTER_START_UP),
        (StartStep::SecondStartUp, Icr::start_up(page, id), AFTER_START_UP),
    ] {
        // SAFETY: the caller may reset the target and let it run the page.
        unsafe { send(apic, step, &mut delay)? };
    }
    Ok(())
}

/// Stops the CPU `target`, whatever it runs: after INIT it waits for a start ([`start_cpu`]), and its APIC takes no
/// doorbell. `delay` returns after at least the time that it is given. `wait` is how long the CPU is given to stop.
///
/// `Ok` says that INIT was sent: no register tells when it has arrived. [`AFTER_INIT`] is enough on a real machine; an
/// emulated CPU stops when its thread runs next. Not for the CPU that booted the machine. Errors from before are lost
/// as in [`start_cpu`].
///
/// # Safety
///
/// `target` belongs to this kernel, or to one that this kernel may end, and its work is not needed any more.
pub unsafe fn stop_cpu<Io: ApicIo>(
    apic: &LocalApic<Io>,
    target: PhysCpuId,
    wait: Microseconds,
    delay: impl FnOnce(Microseconds),
) -> Result<(), StartError> {
    let id = may_stop(apic, target)?;
    // SAFETY: the caller may reset the target.
    unsafe { send(apic, (StartStep::Init, Icr::init(id), wait), delay) }
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
