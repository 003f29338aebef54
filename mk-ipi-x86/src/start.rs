// SPDX-License-Identifier: MIT OR Apache-2.0
//! Start of another CPU: INIT, start-up, start-up (Intel SDM vol. 3A, 8.4.4.1). And its stop: INIT alone.

use crate::apic::LocalApic;
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
    /// The target runs this very call.
    Itself,
    /// The APIC did not send this step. After INIT the target waits for a start: begin again with INIT.
    NotSent(StartStep, DoorbellError),
}

impl StartError {
    /// `EINVAL` for the CPU itself, else that of the doorbell.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Itself => Errno::EINVAL,
            Self::NotSent(_, why) => why.errno(),
        }
    }
}

/// Starts the CPU `target` at `page`. `delay` returns after at least the time that it is given.
///
/// `Ok` says that all was sent, not that a CPU has this id or came up: have its code say so in memory, and
/// bound the wait for it. A CPU that started at the first start-up interrupt ignores the second.
///
/// # Safety
///
/// `target` belongs to this kernel and runs nothing that is needed: INIT stops it wherever it is. `page` has
/// real-mode code that may run there, until it has.
pub unsafe fn start_cpu<Io: ApicIo>(
    apic: &LocalApic<Io>,
    target: PhysCpuId,
    page: StartPage,
    mut delay: impl FnMut(Microseconds),
) -> Result<(), StartError> {
    if apic.apic_id() == target {
        return Err(StartError::Itself);
    }
    let id = apic.reach(target).map_err(|why| StartError::NotSent(StartStep::Init, why))?;
    for (step, icr, wait) in [
        (StartStep::Init, Icr::init(id), AFTER_INIT),
        (StartStep::FirstStartUp, Icr::start_up(page, id), AFTER_START_UP),
        (StartStep::SecondStartUp, Icr::start_up(page, id), AFTER_START_UP),
    ] {
        // SAFETY: the caller may reset the target and let it run the page.
        unsafe { apic.send(icr) }.map_err(|why| StartError::NotSent(step, why))?;
        delay(wait);
    }
    Ok(())
}

/// Stops the CPU `target` wherever it is: after INIT it waits for a start ([`start_cpu`]), and its APIC takes no
/// doorbell. `delay` returns after at least the time that it is given; `wait` is how long the CPU is given to stop.
///
/// `Ok` says that INIT was sent: no register tells when it has arrived. [`AFTER_INIT`] is enough on a machine; an emulated
/// CPU stops when its thread runs next.
///
/// # Safety
///
/// `target` belongs to this kernel, or to one that this kernel may end, and nobody needs what it was doing.
pub unsafe fn stop_cpu<Io: ApicIo>(
    apic: &LocalApic<Io>,
    target: PhysCpuId,
    wait: Microseconds,
    delay: impl FnOnce(Microseconds),
) -> Result<(), StartError> {
    if apic.apic_id() == target {
        return Err(StartError::Itself);
    }
    let not_sent = |why| StartError::NotSent(StartStep::Init, why);
    let id = apic.reach(target).map_err(not_sent)?;
    // SAFETY: the caller may reset the target.
    unsafe { apic.send(Icr::init(id)) }.map_err(not_sent)?;
    delay(wait);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Op, X2APIC, XAPIC};
    use mk_ipi_abi::PhysAddr;
    use std::vec::Vec;

    /// Starts CPU `target` at 0x8000 and gives what the fake saw, with reads and interrupt switches left out.
    fn start(fake: &Fake, target: u64) -> (Result<(), StartError>, Vec<Op>) {
        let (apic, page) = (LocalApic::new(fake).unwrap(), StartPage::new(PhysAddr(0x8000)).unwrap());
        fake.take();
        // SAFETY: a fake starts nothing.
        let result = unsafe { start_cpu(&apic, PhysCpuId(target), page, |us| fake.record(Op::Delay(us.0))) };
        let kept = |op: &Op| matches!(op, Op::Write(..) | Op::WrMsr(..) | Op::Delay(_));
        (result, fake.take().into_iter().filter(kept).collect())
    }

    #[test]
    fn a_start_is_init_10_ms_start_up_200_us_start_up() {
        use crate::regs::Register::{IcrHigh, IcrLow};
        let (result, ops) = start(&Fake::new(XAPIC), 3);
        assert_eq!(result, Ok(()));
        let high = Op::Write(IcrHigh, 0x0300_0000);
        let (init, sipi) = (Op::Write(IcrLow, 0x4500), Op::Write(IcrLow, 0x4608));
        let (ms10, us200) = (Op::Delay(10_000), Op::Delay(200));
        assert_eq!(ops, [high, init, ms10, high, sipi, us200, high, sipi, us200]);

        let (result, ops) = start(&Fake::new(X2APIC), 0x1_0003);
        assert_eq!(result, Ok(()));
        let (init, sipi) = (Op::WrMsr(0x830, 0x0001_0003_0000_4500), Op::WrMsr(0x830, 0x0001_0003_0000_4608));
        assert_eq!(ops, [init, ms10, sipi, us200, sipi, us200]);
    }

    #[test]
    fn a_cpu_does_not_start_itself_nor_one_it_cannot_address() {
        for base in [XAPIC, X2APIC] {
            let fake = Fake { id: 7, ..Fake::new(base) };
            assert_eq!(start(&fake, 7), (Err(StartError::Itself), Vec::new()));
            for id in [if base == XAPIC { 255 } else { 0xffff_ffff }, 1 << 32] {
                let why = DoorbellError::Unreachable(PhysCpuId(id));
                assert_eq!(start(&fake, id), (Err(StartError::NotSent(StartStep::Init, why)), Vec::new()));
            }
        }
    }

    #[test]
    fn a_stop_is_init_alone() {
        let stop = |fake: &Fake, target| {
            let apic = LocalApic::new(fake).unwrap();
            fake.take();
            // SAFETY: a fake stops nothing.
            unsafe { stop_cpu(&apic, PhysCpuId(target), Microseconds(7), |us| fake.record(Op::Delay(us.0))) }
        };
        let fake = Fake::new(X2APIC);
        assert_eq!(stop(&fake, 3), Ok(()));
        let sent = fake.take().into_iter().filter(|op| matches!(op, Op::WrMsr(..) | Op::Delay(_)));
        assert_eq!(sent.collect::<Vec<_>>(), [Op::WrMsr(0x830, 0x0000_0003_0000_4500), Op::Delay(7)]);

        let fake = Fake { id: 7, ..Fake::new(X2APIC) };
        assert_eq!(stop(&fake, 7), Err(StartError::Itself));
        let fake = Fake::new(XAPIC);
        let why = DoorbellError::Unreachable(PhysCpuId(255));
        assert_eq!(stop(&fake, 255), Err(StartError::NotSent(StartStep::Init, why)));
        fake.busy.set(u32::MAX);
        assert_eq!(stop(&fake, 3), Err(StartError::NotSent(StartStep::Init, DoorbellError::Stuck)));
    }

    #[test]
    fn a_start_that_is_stuck_says_at_which_step() {
        let fake = Fake::new(XAPIC);
        fake.busy.set(u32::MAX);
        let (result, ops) = start(&fake, 3);
        assert_eq!(result, Err(StartError::NotSent(StartStep::Init, DoorbellError::Stuck)));
        assert_eq!(ops, []);

        let fake = Fake { busy_after_send: u32::MAX, ..Fake::new(XAPIC) };
        let (result, ops) = start(&fake, 3);
        assert_eq!(result, Err(StartError::NotSent(StartStep::FirstStartUp, DoorbellError::Stuck)));
        assert_eq!(ops.len(), 3, "INIT's two writes and its delay");
    }
}
