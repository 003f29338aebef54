// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts another CPU by INIT and two start-up interrupts (Intel SDM vol. 3A, 8.4.4.1), and stops another CPU by INIT alone.
//!
//! Both calls refuse the CPU that booted the machine. Every other CPU waits for a start-up interrupt after INIT. But after INIT
//! the boot CPU executes the first instruction of the firmware (8.4.2 and 10.4.7.3), which resets the machine. So both calls must
//! know which CPU booted the machine: [`LocalApic::boot_cpu`].

use crate::apic::{ErrorStatus, LocalApic};
use crate::icr::Icr;
pub use crate::page::{InvalidStartPage, StartPage};
use crate::regs::ApicIo;
use mk_ipi_abi::{Errno, PhysCpuId};
use mk_ipi_core::platform::DoorbellError;

/// A time in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Microseconds(pub u32);

/// The wait after INIT.
pub const AFTER_INIT: Microseconds = Microseconds(10_000);
/// The wait after each start-up interrupt.
pub const AFTER_START_UP: Microseconds = Microseconds(200);

/// The steps of a start. Each step sends one interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartStep {
    /// INIT.
    Init,
    /// The first start-up interrupt.
    FirstStartUp,
    /// The second start-up interrupt.
    SecondStartUp,
}

/// Why a CPU was not started or not stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The target is the CPU that runs this call.
    Itself,
    /// The target is the CPU that booted the machine. INIT would reset the machine, so nothing was sent.
    BootCpu,
    /// It is not known which CPU booted the machine. It could be the target, so nothing was sent. Name the boot CPU by
    /// [`LocalApic::with_boot_cpu`].
    BootCpuUnknown,
    /// The interrupt of this step was not sent, for the given reason. If INIT was sent before, the target has stopped and waits
    /// for a start-up interrupt. A new call of [`start_cpu`] begins with INIT again.
    NotSent(StartStep, DoorbellError),
    /// The APIC reports that the interrupt of this step reached no CPU. Usually no CPU has this id. Later steps were not sent.
    ///
    /// AMD's CPUs report this. Intel's CPUs have not reported it since the Pentium 4, see [`ErrorStatus::SEND_ACCEPT`].
    NotAccepted(StartStep, ErrorStatus),
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Itself => f.write_str("a CPU cannot start or stop itself"),
            Self::BootCpu => f.write_str("the CPU booted the machine, and INIT would reset the machine"),
            Self::BootCpuUnknown => f.write_str("it is not known which CPU booted the machine"),
            Self::NotSent(step, e) => write!(f, "the interrupt {step:?} was not sent: {e}"),
            Self::NotAccepted(step, status) => {
                write!(f, "no CPU accepted the interrupt {step:?}: {status:?}")
            }
        }
    }
}

impl core::error::Error for StartError {}

impl StartError {
    /// [`DoorbellError::errno`] for [`NotSent`](Self::NotSent), else `EINVAL`.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Itself | Self::BootCpu | Self::BootCpuUnknown | Self::NotAccepted(..) => Errno::EINVAL,
            Self::NotSent(_, why) => why.errno(),
        }
    }
}

/// The errors that end a start or a stop. The illegal vector is not one of them: a start-up interrupt has the number of the page
/// in the vector field, and this number is below 16 if the page is below 0x10000.
const OF_A_STEP: ErrorStatus = ErrorStatus::SEND.difference(ErrorStatus::SEND_ILLEGAL_VECTOR);

/// Checks whether INIT may be sent to `target`, and returns the destination field for `target`.
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

/// Sends the interrupt of a step, waits, and then checks the error status.
///
/// # Safety
///
/// The same as for [`LocalApic::send`].
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
    // If `delay` sleeps, the code can continue on another CPU. The errors of that CPU have nothing to do with this step.
    let state = apic.io().disable();
    let errors = if apic.apic_id() == me { apic.read_errors() } else { ErrorStatus::empty() };
    apic.io().restore(state);
    match errors.intersection(OF_A_STEP) {
        errors if errors.is_empty() => Ok(()),
        errors => Err(StartError::NotAccepted(step, errors)),
    }
}

/// Starts the CPU `target` at `page`. `delay` must wait at least for the time in its argument.
///
/// `Ok` means that all three interrupts were sent. It does not mean that a CPU has this id, nor that it runs, because few CPUs
/// report [`NotAccepted`](StartError::NotAccepted). So the started code should write to memory that it runs, and the caller
/// should wait for this with a time limit. A CPU that was started by the first start-up interrupt ignores the second one.
///
/// The call refuses the CPU that booted the machine ([`StartError::BootCpu`]) and the CPU that makes the call
/// ([`StartError::Itself`]). Each step clears the errors that the APIC recorded before it, so
/// [`read_errors`](LocalApic::read_errors) does not return them any more.
///
/// # Safety
///
/// `target` belongs to this kernel, and nothing that it executes is needed, because INIT stops it. `page` contains real-mode code
/// that this CPU may execute, and the code stays there until it has run.
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
        // SAFETY: the caller promises that the target may be reset, and may execute the page.
        unsafe { send(apic, step, &mut delay)? };
    }
    Ok(())
}

/// Stops the CPU `target` by INIT, whatever it executes. It then waits for a start-up interrupt ([`start_cpu`]), and its APIC
/// takes no doorbells. The call waits for the time `wait`, in which the CPU stops. `delay` must wait at least for the time in its
/// argument.
///
/// `Ok` means that INIT was sent. No register tells when INIT has arrived. The time [`AFTER_INIT`] is enough on a real machine.
/// An emulated CPU stops only when the emulator runs the thread of this CPU again, which can take longer.
///
/// The call refuses the same CPUs as [`start_cpu`], and also clears the errors that the APIC recorded before.
///
/// # Safety
///
/// `target` belongs to this kernel, or to a kernel that this kernel may end. Nothing that it executes is needed any more.
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
