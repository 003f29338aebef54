// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares the interrupts that start and stop a CPU with those that the manual requires.

use super::*;
use crate::fake::{Fake, Op, X2APIC, XAPIC};
use crate::regs::Register::{ErrorStatus as Errors, IcrHigh, IcrLow};
use mk_ipi_abi::PhysAddr;
use std::vec::Vec;

/// The flag of the CPU that booted the machine, in `IA32_APIC_BASE`.
const BSP: u64 = 0x100;
/// The id of the boot CPU in tests that do not choose another one.
const BOOT: u64 = 0x40;
const MS10: Op = Op::Delay(10_000);
const US200: Op = Op::Delay(200);
/// The write of the error status register in xAPIC mode.
const X_CLEAR: Op = Op::Write(Errors, 0);
/// The write of the error status register in x2APIC mode.
const X2_CLEAR: Op = Op::WrMsr(0x828, 0);

/// The result of a call, and what the fake recorded of it.
type Outcome = (Result<(), StartError>, Vec<Op>);

/// Makes the APIC of `fake`, with `boot` as the boot CPU, and empties the log of `fake`.
fn apic(fake: &Fake, boot: Option<u64>) -> LocalApic<&Fake> {
    let apic = LocalApic::new(fake).unwrap();
    fake.take();
    boot.map_or(apic, |id| apic.with_boot_cpu(PhysCpuId(id)))
}

/// Returns the writes and delays that the fake has recorded since the last call.
fn written(fake: &Fake) -> Vec<Op> {
    let kept = |op: &Op| matches!(op, Op::Write(..) | Op::WrMsr(..) | Op::Delay(_));
    fake.take().into_iter().filter(kept).collect()
}

/// Starts CPU `target` at address 0x8000.
fn start_of(fake: &Fake, apic: &LocalApic<&Fake>, target: u64) -> Outcome {
    let page = StartPage::new(PhysAddr(0x8000)).unwrap();
    // SAFETY: a fake starts nothing.
    let result = unsafe { start_cpu(apic, PhysCpuId(target), page, |us| fake.record(Op::Delay(us.0))) };
    (result, written(fake))
}

fn start(fake: &Fake, target: u64) -> Outcome {
    start_of(fake, &apic(fake, Some(BOOT)), target)
}

/// Stops CPU `target`, and waits 7 us.
fn stop_of(fake: &Fake, apic: &LocalApic<&Fake>, target: u64) -> Outcome {
    // SAFETY: a fake stops nothing.
    let result =
        unsafe { stop_cpu(apic, PhysCpuId(target), Microseconds(7), |us| fake.record(Op::Delay(us.0))) };
    (result, written(fake))
}

fn stop(fake: &Fake, target: u64) -> Outcome {
    stop_of(fake, &apic(fake, Some(BOOT)), target)
}

#[test]
fn a_start_is_init_10_ms_start_up_200_us_start_up() {
    let sent =
        |ops: Vec<Op>| ops.into_iter().filter(|op| ![X_CLEAR, X2_CLEAR].contains(op)).collect::<Vec<_>>();
    let (result, ops) = start(&Fake::new(XAPIC), 3);
    assert_eq!(result, Ok(()));
    let high = Op::Write(IcrHigh, 0x0300_0000);
    let (init, sipi) = (Op::Write(IcrLow, 0x4500), Op::Write(IcrLow, 0x4608));
    assert_eq!(sent(ops), [high, init, MS10, high, sipi, US200, high, sipi, US200]);

    let (result, ops) = start(&Fake::new(X2APIC), 0x1_0003);
    assert_eq!(result, Ok(()));
    let (init, sipi) = (Op::WrMsr(0x830, 0x0001_0003_0000_4500), Op::WrMsr(0x830, 0x0001_0003_0000_4608));
    assert_eq!(sent(ops), [init, MS10, sipi, US200, sipi, US200]);
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
    let init = Op::WrMsr(0x830, 0x0000_0003_0000_4500);
    assert_eq!(stop(&Fake::new(X2APIC), 3), (Ok(()), [X2_CLEAR, init, Op::Delay(7), X2_CLEAR].into()));
    let fake = Fake::new(XAPIC);
    let why = DoorbellError::Unreachable(PhysCpuId(255));
    assert_eq!(stop(&fake, 255), (Err(StartError::NotSent(StartStep::Init, why)), Vec::new()));
    fake.busy.set(u32::MAX);
    assert_eq!(stop(&fake, 3).0, Err(StartError::NotSent(StartStep::Init, DoorbellError::Stuck)));
}

#[test]
fn a_cpu_does_not_stop_itself() {
    for base in [XAPIC, X2APIC, XAPIC | BSP, X2APIC | BSP] {
        let fake = Fake { id: 7, ..Fake::new(base) };
        assert_eq!(stop(&fake, 7), (Err(StartError::Itself), Vec::new()));
    }
}

#[test]
fn the_boot_cpu_is_sent_no_init() {
    for base in [XAPIC, X2APIC] {
        let fake = Fake { id: 7, ..Fake::new(base) };
        let apic = apic(&fake, Some(3));
        assert_eq!(start_of(&fake, &apic, 3), (Err(StartError::BootCpu), Vec::new()));
        assert_eq!(stop_of(&fake, &apic, 3), (Err(StartError::BootCpu), Vec::new()));
        assert_eq!((start_of(&fake, &apic, 4).0, stop_of(&fake, &apic, 4).0), (Ok(()), Ok(())));
    }
}

#[test]
fn nobody_is_sent_init_while_the_boot_cpu_is_not_known() {
    for base in [XAPIC, X2APIC] {
        let fake = Fake { id: 7, ..Fake::new(base) };
        let apic = apic(&fake, None);
        assert_eq!(start_of(&fake, &apic, 3), (Err(StartError::BootCpuUnknown), Vec::new()));
        assert_eq!(stop_of(&fake, &apic, 3), (Err(StartError::BootCpuUnknown), Vec::new()));
        assert_eq!(stop_of(&fake, &apic, 7).0, Err(StartError::Itself));
        // On the boot CPU, `new` finds the flag, so the boot CPU is known.
        let fake = Fake { id: 7, ..Fake::new(base | BSP) };
        let apic = LocalApic::new(&fake).unwrap();
        assert_eq!((start_of(&fake, &apic, 3).0, stop_of(&fake, &apic, 3).0), (Ok(()), Ok(())));
    }
}

#[test]
fn a_start_that_is_stuck_says_at_which_step() {
    let fake = Fake::new(XAPIC);
    fake.busy.set(u32::MAX);
    let (result, ops) = start(&fake, 3);
    assert_eq!(result, Err(StartError::NotSent(StartStep::Init, DoorbellError::Stuck)));
    assert_eq!(ops, [X_CLEAR]);
    assert!(fake.interrupts.get());

    let fake = Fake { busy_after_send: u32::MAX, ..Fake::new(XAPIC) };
    let (result, ops) = start(&fake, 3);
    assert_eq!(result, Err(StartError::NotSent(StartStep::FirstStartUp, DoorbellError::Stuck)));
    assert_eq!(ops.iter().filter(|op| matches!(op, Op::Write(IcrLow, _))).count(), 1, "only INIT was sent");
}

#[test]
fn a_step_that_no_cpu_accepted_ends_a_start_and_a_stop() {
    for base in [XAPIC, X2APIC] {
        for error in [ErrorStatus::SEND_ACCEPT, ErrorStatus::SEND_CHECKSUM, ErrorStatus::REDIRECTABLE_IPI] {
            let fake = Fake { errors_of_send: error.bits(), ..Fake::new(base) };
            let refused = Err(StartError::NotAccepted(StartStep::Init, error));
            let (result, ops) = start(&fake, 3);
            assert_eq!(result, refused);
            assert_eq!(ops.iter().filter(|op| matches!(op, Op::Delay(_))).collect::<Vec<_>>(), [&MS10]);
            assert_eq!(stop(&fake, 3).0, refused);
        }
    }
}

#[test]
fn each_step_of_a_start_is_looked_at() {
    let (page, steps) =
        (StartPage::new(PhysAddr(0x8000)).unwrap(), [StartStep::FirstStartUp, StartStep::SecondStartUp]);
    for (base, (n, step)) in
        [XAPIC, X2APIC].into_iter().flat_map(|base| [(base, (1, steps[0])), (base, (2, steps[1]))])
    {
        let fake = Fake::new(base);
        let mut delays = 0;
        let delay = |_| {
            fake.errors.set(if delays == n { 4 } else { 0 });
            delays += 1;
        };
        // SAFETY: a fake starts nothing.
        let result = unsafe { start_cpu(&apic(&fake, Some(BOOT)), PhysCpuId(3), page, delay) };
        assert_eq!(result, Err(StartError::NotAccepted(step, ErrorStatus::SEND_ACCEPT)));
        assert_eq!(delays, n + 1);
    }
}

#[test]
fn other_errors_are_not_those_of_a_start() {
    for base in [XAPIC, X2APIC] {
        // Errors from before the start are not reported.
        let fake = Fake::new(base);
        fake.errors.set(u32::MAX);
        assert_eq!(start(&fake, 3).0, Ok(()));
        fake.errors.set(u32::MAX);
        assert_eq!(stop(&fake, 3).0, Ok(()));
        // Errors of received interrupts are ignored. An illegal vector is ignored too, because the vector is a page number.
        let other = !ErrorStatus::SEND | ErrorStatus::SEND_ILLEGAL_VECTOR;
        let fake = Fake { errors_of_send: other.bits(), ..Fake::new(base) };
        assert_eq!((start(&fake, 3).0, stop(&fake, 3).0), (Ok(()), Ok(())));
    }
}

#[test]
fn a_caller_that_moved_meanwhile_blames_no_other_cpu() {
    let fake = Fake { errors_of_send: 4, ..Fake::new(X2APIC) };
    let elsewhere = |_| fake.moved.set(true);
    // SAFETY: a fake stops nothing.
    let result = unsafe { stop_cpu(&apic(&fake, Some(BOOT)), PhysCpuId(3), Microseconds(7), elsewhere) };
    assert_eq!(result, Ok(()));
}

#[test]
fn what_keeps_a_cpu_from_a_start_is_einval_but_for_the_doorbells_errors() {
    let step = StartStep::Init;
    for error in [
        StartError::Itself,
        StartError::BootCpu,
        StartError::BootCpuUnknown,
        StartError::NotAccepted(step, ErrorStatus::SEND_ACCEPT),
    ] {
        assert_eq!(error.errno(), Errno::EINVAL);
    }
    assert_eq!(StartError::NotSent(step, DoorbellError::Stuck).errno(), Errno::EAGAIN);
}
