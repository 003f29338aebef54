// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares the register accesses of each operation of the APIC with the sequence that the manual requires.

use super::*;
use crate::fake::{Fake, Op, X2APIC, XAPIC};
use crate::regs::Register as Reg;
use std::vec;
use std::vec::Vec;

const V: Vector = Vector::RFC_V2;

/// Makes the APIC of `fake`, and empties the log of `fake`.
fn apic(fake: &Fake) -> LocalApic<&Fake> {
    let apic = LocalApic::new(fake).unwrap();
    fake.take();
    apic
}

#[test]
fn an_xapic_doorbell_waits_for_idle_then_writes_both_halves_with_interrupts_off() {
    let fake = Fake::new(XAPIC);
    assert_eq!(apic(&fake).ring(PhysCpuId(3), V), Ok(()));
    let sent = [
        Op::Disable,
        Op::Read(Reg::IcrLow),
        Op::Write(Reg::IcrHigh, 0x0300_0000),
        Op::Write(Reg::IcrLow, 0x40ea),
    ];
    assert_eq!(fake.take(), [&sent[..], &[Op::Restore(true)]].concat());

    fake.interrupts.set(false);
    assert_eq!(apic(&fake).ring(PhysCpuId(3), V), Ok(()));
    assert_eq!(fake.take().last(), Some(&Op::Restore(false)), "interrupts that were off stay off");
}

#[test]
fn an_x2apic_doorbell_is_a_fence_then_one_wrmsr() {
    let fake = Fake::new(X2APIC);
    assert_eq!(apic(&fake).ring(PhysCpuId(0x1_0203), V), Ok(()));
    assert_eq!(fake.take(), [Op::Fence, Op::WrMsr(0x830, 0x0001_0203_0000_40ea)]);
}

#[test]
fn an_xapic_doorbell_polls_until_the_last_one_has_left() {
    for n in [1, 2, IDLE_POLLS - 1] {
        let fake = Fake::new(XAPIC);
        fake.busy.set(n);
        assert_eq!(apic(&fake).ring(PhysCpuId(0), V), Ok(()));
        let ops = fake.take();
        assert_eq!(ops[0], Op::Disable);
        let (wait, rest) = ops[1..].split_at(2 * n as usize);
        assert!(wait.chunks(2).all(|turn| turn == [Op::Read(Reg::IcrLow), Op::Pause]));
        assert_eq!(
            rest,
            [
                Op::Read(Reg::IcrLow),
                Op::Write(Reg::IcrHigh, 0),
                Op::Write(Reg::IcrLow, 0x40ea),
                Op::Restore(true)
            ]
        );
    }
}

#[test]
fn a_doorbell_that_never_becomes_idle_is_stuck_and_writes_nothing() {
    let fake = Fake::new(XAPIC);
    fake.busy.set(u32::MAX);
    assert_eq!(apic(&fake).ring(PhysCpuId(0), V), Err(DoorbellError::Stuck));
    let ops = fake.take();
    assert_eq!(ops.iter().filter(|op| **op == Op::Read(Reg::IcrLow)).count(), IDLE_POLLS as usize);
    assert!(!ops.iter().any(|op| matches!(op, Op::Write(..))));
    assert_eq!((ops[0], ops.last()), (Op::Disable, Some(&Op::Restore(true))));
}

#[test]
fn ids_beyond_the_mode_and_the_broadcast_id_are_unreachable_and_touch_nothing() {
    let max = u64::from(u32::MAX);
    let xapic =
        [(0, true), (1, true), (254, true), (255, false), (256, false), (max, false), (1 << 32, false)];
    let x2apic = [(0, true), (1, true), (254, true), (255, true), (256, true), (max - 1, true), (max, false)];
    let too_long = [(1 << 32, false), (1 << 32 | 1, false), (u64::MAX, false)];
    for (base, ids) in [(XAPIC, &xapic), (X2APIC, &x2apic)] {
        for (id, reached) in ids.iter().chain(&too_long).copied() {
            let (fake, cpu) = (Fake::new(base), PhysCpuId(id));
            let apic = apic(&fake);
            let expected = if reached { Ok(()) } else { Err(DoorbellError::Unreachable(cpu)) };
            assert_eq!(apic.check(cpu, V), expected, "{id:#x}");
            assert_eq!(fake.take(), [], "check accesses no register");
            assert_eq!(apic.ring(cpu, V), expected, "{id:#x}");
            assert_eq!(fake.take().is_empty(), !reached);
            assert_eq!(apic.ring_from_nmi(cpu, V), expected, "{id:#x}");
            assert_eq!(fake.take().is_empty(), !reached);
        }
    }
}

#[test]
fn every_vector_and_id_is_in_its_field() {
    for id in [0u32, 1, 0x7f, 0xfe] {
        for v in 0x20..=0xfe {
            let vector = Vector::new(v).unwrap();
            let (x, x2) = (Fake::new(XAPIC), Fake::new(X2APIC));
            apic(&x).ring(PhysCpuId(id.into()), vector).unwrap();
            apic(&x2).ring(PhysCpuId(id.into()), vector).unwrap();
            let low = 0x4000 | u32::from(v);
            assert_eq!(x.take()[2..4], [Op::Write(Reg::IcrHigh, id << 24), Op::Write(Reg::IcrLow, low)]);
            assert_eq!(x2.take()[1], Op::WrMsr(0x830, u64::from(id) << 32 | u64::from(low)));
        }
    }
}

#[test]
fn a_command_too_long_for_xapic_mode_is_refused_and_interrupts_come_back() {
    let fake = Fake::new(XAPIC);
    // SAFETY: a fake reaches no CPU.
    let sent = unsafe { apic(&fake).send(Icr::init(256)) };
    assert_eq!(sent, Err(DoorbellError::Unreachable(PhysCpuId(256))));
    assert_eq!(fake.take(), [Op::Disable, Op::Restore(true)]);
    assert!(fake.interrupts.get());
}

#[test]
fn a_send_from_nmi_puts_back_the_interrupted_sends_destination() {
    // The NMI has interrupted a send to CPU 9. That send has found the APIC idle, and has written the high half.
    for busy_after_send in [0, 5] {
        let fake = Fake { busy_after_send, ..Fake::new(XAPIC) };
        fake.icr_high.set(0x0900_0000);
        assert_eq!(apic(&fake).ring_from_nmi(PhysCpuId(3), V), Ok(()));
        let ops = fake.take();
        let writes: Vec<_> = ops.iter().filter(|op| matches!(op, Op::Write(..))).copied().collect();
        let (mine, low) = (Op::Write(Reg::IcrHigh, 0x0300_0000), Op::Write(Reg::IcrLow, 0x40ea));
        assert_eq!(writes, [mine, low, Op::Write(Reg::IcrHigh, 0x0900_0000)]);
        assert_eq!(fake.busy.get(), 0, "the APIC is idle when the interrupted send continues");
    }
    let fake = Fake::new(X2APIC);
    assert_eq!(apic(&fake).ring_from_nmi(PhysCpuId(3), V), Ok(()));
    assert_eq!(fake.take(), [Op::Fence, Op::WrMsr(0x830, 0x0000_0003_0000_40ea)]);
}

#[test]
fn the_apic_id_is_the_top_byte_in_xapic_mode_and_32_bits_in_x2apic_mode() {
    for id in [0, 1, 0xfe, 0xff] {
        let fake = Fake { id, ..Fake::new(XAPIC) };
        assert_eq!(apic(&fake).apic_id(), PhysCpuId(id.into()));
        assert_eq!(fake.take(), [Op::Read(Reg::Id)]);
    }
    for id in [0, 0x100, 0xffff_fffe] {
        let fake = Fake { id, ..Fake::new(X2APIC) };
        assert_eq!(apic(&fake).apic_id(), PhysCpuId(id.into()));
        assert_eq!(fake.take(), [Op::RdMsr(0x802)]);
    }
}

#[test]
fn eoi_writes_0() {
    for (base, op) in [(XAPIC, Op::Write(Reg::Eoi, 0)), (X2APIC, Op::WrMsr(0x80b, 0))] {
        let fake = Fake::new(base);
        apic(&fake).eoi();
        assert_eq!(fake.take(), [op]);
    }
}

#[test]
fn errors_are_written_0_then_read_with_interrupts_off_and_reported_once() {
    let x = [Op::Disable, Op::Write(Reg::ErrorStatus, 0), Op::Read(Reg::ErrorStatus), Op::Restore(true)];
    let x2 = [Op::Disable, Op::WrMsr(0x828, 0), Op::RdMsr(0x828), Op::Restore(true)];
    for (base, ops) in [(XAPIC, x), (X2APIC, x2)] {
        let fake = Fake::new(base);
        fake.errors.set(0x60);
        let apic = apic(&fake);
        let both = ErrorStatus::SEND_ILLEGAL_VECTOR | ErrorStatus::RECEIVED_ILLEGAL_VECTOR;
        assert_eq!(apic.read_errors(), both);
        assert_eq!(fake.take(), ops);
        assert!(apic.read_errors().is_empty());
    }
}

#[test]
fn each_error_has_the_manuals_bit() {
    type E = ErrorStatus;
    let errors = [
        E::SEND_CHECKSUM,
        E::RECEIVE_CHECKSUM,
        E::SEND_ACCEPT,
        E::RECEIVE_ACCEPT,
        E::REDIRECTABLE_IPI,
        E::SEND_ILLEGAL_VECTOR,
        E::RECEIVED_ILLEGAL_VECTOR,
        E::ILLEGAL_REGISTER,
    ];
    for (bit, error) in errors.into_iter().enumerate() {
        let fake = Fake::new(XAPIC);
        fake.errors.set(1 << bit);
        assert_eq!(apic(&fake).read_errors(), error);
    }
    let fake = Fake::new(XAPIC);
    fake.errors.set(u32::MAX);
    assert_eq!(apic(&fake).read_errors().bits(), u32::MAX, "reserved bits are kept");
}

#[test]
fn enabling_opens_every_priority_and_sets_bit_8_of_the_spurious_vector() {
    let x = [Op::Write(Reg::TaskPriority, 0), Op::Write(Reg::SpuriousVector, 0x1ff)];
    let x2 = [Op::WrMsr(0x808, 0), Op::WrMsr(0x80f, 0x1ff)];
    let looked = |op: &Op| matches!(op, Op::Read(_) | Op::RdMsr(_));
    for (base, ops) in [(XAPIC, x), (X2APIC, x2)] {
        let fake = Fake::new(base);
        // SAFETY: a fake interrupts no CPU.
        unsafe { apic(&fake).enable(SpuriousVector::DEFAULT) };
        let done = fake.take();
        let (looks, writes) = done.split_at(8);
        assert!(looks.iter().all(looked));
        assert_eq!(writes, ops);
    }
}

#[test]
fn enabling_first_ends_what_a_former_kernel_left_in_service() {
    let (x, x2) = (Op::Write(Reg::Eoi, 0), Op::WrMsr(0x80b, 0));
    let (x_on, x2_on) = (Op::Write(Reg::SpuriousVector, 0x1ff), Op::WrMsr(0x80f, 0x1ff));
    for (base, eoi, on) in [(XAPIC, x, x_on), (X2APIC, x2, x2_on)] {
        for left in [
            [0; 8],
            [0, 0, 0, 0, 0, 0, 0, 1],
            [1 << 31, 0, 0, 0, 0, 0, 0, 0],
            [0, 1, 0, 2, 0, 0, 0, 0x400 | 1 << 31],
            [u32::MAX; 8],
        ] {
            let fake = Fake::new(base);
            fake.in_service.set(left);
            // SAFETY: a fake interrupts no CPU.
            unsafe { apic(&fake).enable(SpuriousVector::DEFAULT) };
            assert_eq!(fake.in_service.get(), [0; 8]);
            let ops = fake.take();
            let ends = left.iter().map(|word| word.count_ones()).sum::<u32>();
            assert_eq!(ops.iter().filter(|op| **op == eoi).count(), ends as usize, "one EOI for each bit");
            let last_end = ops.iter().rposition(|op| *op == eoi);
            assert!(last_end < ops.iter().position(|op| *op == on), "EOI comes before the enable");
        }
    }
}

#[test]
fn an_apic_that_ends_nothing_is_enabled_all_the_same() {
    for (base, on) in [(XAPIC, Op::Write(Reg::SpuriousVector, 0x1ff)), (X2APIC, Op::WrMsr(0x80f, 0x1ff))] {
        let fake = Fake { ends: false, ..Fake::new(base) };
        fake.in_service.set([0, 0, 1, 0, 0, 0, 0, 0]);
        // SAFETY: a fake interrupts no CPU.
        unsafe { apic(&fake).enable(SpuriousVector::DEFAULT) };
        assert_eq!(fake.take().last(), Some(&on));
    }
}

/// The flag of the CPU that booted the machine, in `IA32_APIC_BASE`.
const BSP: u64 = 0x100;

#[test]
fn the_boot_cpu_is_known_by_its_flag_or_told_and_the_flag_counts_more() {
    for (base, id) in [(XAPIC, 7), (X2APIC, 0x107)] {
        let me = Some(PhysCpuId(id.into()));
        let (boot, other) = (Fake { id, ..Fake::new(base | BSP) }, Fake { id, ..Fake::new(base) });
        assert_eq!(LocalApic::new(&boot).unwrap().boot_cpu(), me);
        assert_eq!(LocalApic::new(&boot).unwrap().with_boot_cpu(PhysCpuId(3)).boot_cpu(), me);
        let apic = LocalApic::new(&other).unwrap();
        assert_eq!(apic.boot_cpu(), None);
        let told = apic.with_boot_cpu(PhysCpuId(3));
        assert_eq!(told.boot_cpu(), Some(PhysCpuId(3)));
        assert_eq!(told.with_boot_cpu(PhysCpuId(4)).boot_cpu(), Some(PhysCpuId(4)));
    }
}

#[test]
fn the_boot_cpus_flag_and_its_id_are_read_with_interrupts_off() {
    let fake = Fake::new(X2APIC | BSP);
    LocalApic::new(&fake).unwrap();
    let ops = [Op::RdMsr(0x1b), Op::Disable, Op::RdMsr(0x1b), Op::RdMsr(0x802), Op::Restore(true)];
    assert_eq!(fake.take(), ops);
}

#[test]
fn a_doorbell_looks_at_the_error_status_if_that_was_asked_for() {
    let (low, high) = (Op::Read(Reg::IcrLow), Op::Write(Reg::IcrHigh, 0x0300_0000));
    let x_errors =
        [Op::Disable, Op::Write(Reg::ErrorStatus, 0), Op::Read(Reg::ErrorStatus), Op::Restore(false)];
    let x_send = [Op::Disable, low, high, Op::Write(Reg::IcrLow, 0x40ea), Op::Restore(false), low];
    let x2_errors = [Op::Disable, Op::WrMsr(0x828, 0), Op::RdMsr(0x828), Op::Restore(false)];
    let x2_send = [Op::Fence, Op::WrMsr(0x830, 0x0000_0003_0000_40ea)];
    for (base, errors, send) in [(XAPIC, x_errors, &x_send[..]), (X2APIC, x2_errors, &x2_send[..])] {
        let fake = Fake::new(base);
        let apic = apic(&fake).with_error_check();
        assert_eq!(apic.ring(PhysCpuId(3), V), Ok(()));
        let (on, off) = ([Op::Disable], [Op::Restore(true)]);
        assert_eq!(fake.take(), [&on, &errors[..], send, &errors[..], &off].concat());
        assert!(fake.interrupts.get());
        fake.errors.set(u32::MAX);
        assert_eq!(apic.ring(PhysCpuId(3), V), Ok(()), "errors from before the ring are not reported");
        assert_eq!(apic.ring_from_nmi(PhysCpuId(3), V), Ok(()));
    }
}

#[test]
fn a_doorbell_that_no_cpu_accepted_is_refused_where_the_apic_says_so() {
    for base in [XAPIC, X2APIC] {
        for (errors, result) in [
            (0x04, Err(DoorbellError::Refused(0x04))),
            (0x10, Err(DoorbellError::Refused(0x10))),
            (0xff, Err(DoorbellError::Refused(0x35))),
            (0xffff_ffca, Ok(())),
        ] {
            let fake = Fake { errors_of_send: errors, ..Fake::new(base) };
            assert_eq!(apic(&fake).with_error_check().ring(PhysCpuId(3), V), result);
            assert!(fake.interrupts.get());
            assert_eq!(apic(&fake).ring(PhysCpuId(3), V), Ok(()), "the error check is off");
        }
    }
    let fake = Fake { busy_after_send: u32::MAX, errors_of_send: 4, ..Fake::new(XAPIC) };
    assert_eq!(apic(&fake).with_error_check().ring(PhysCpuId(3), V), Err(DoorbellError::Stuck));
    assert!(fake.interrupts.get());
}

#[test]
fn an_xapic_that_does_not_hold_the_cpus_id_is_refused() {
    let made = |base, long_id| LocalApic::new(&Fake { long_id, ..Fake::new(base) }).map(|apic| apic.mode());
    for id in [255, 256, 0x0100_0007, u32::MAX] {
        assert_eq!(made(XAPIC, Some(id)), Err(ModeError::IdTooLong(id)));
        assert_eq!(made(X2APIC, Some(id)), Ok(Mode::X2Apic));
    }
    for id in [None, Some(0), Some(254)] {
        assert_eq!(made(XAPIC, id), Ok(Mode::XApic));
    }
    let mut fake = Fake::new(XAPIC);
    let mode = apic(&fake).mode();
    fake.long_id = Some(300);
    let apic = LocalApic { io: &fake, mode, boot_cpu: BootCpu::Unknown, checks_errors: false };
    assert_eq!(apic.confirm_mode(), Err(ModeError::IdTooLong(300)));
}

#[test]
fn a_spurious_vector_is_no_exception() {
    assert!((0..=255u8).all(|v| SpuriousVector::new(v).is_some() == (v >= 0x20)));
    assert_eq!(SpuriousVector::new(0xef).unwrap().enabled(), 0x1ef);
}

#[test]
fn an_apic_is_made_in_the_machines_mode_or_not_at_all() {
    let made = |fake: &Fake| LocalApic::new(fake).map(|apic| apic.mode());
    assert_eq!(made(&Fake::new(XAPIC)), Ok(Mode::XApic));
    assert_eq!(made(&Fake { mmio: false, ..Fake::new(XAPIC) }), Err(ModeError::NotMapped));
    assert_eq!(made(&Fake { mmio: false, ..Fake::new(X2APIC) }), Ok(Mode::X2Apic));
    assert_eq!(made(&Fake::new(0xfee0_0000)), Err(ModeError::Disabled));
    assert_eq!(made(&Fake::new(0xfee0_0400)), Err(ModeError::Invalid));
}

#[test]
fn a_cpu_in_another_mode_is_told() {
    let fake = Fake::new(XAPIC);
    let apic = apic(&fake);
    assert_eq!(apic.confirm_mode(), Ok(()));
    for (base, error) in [
        (X2APIC, ModeError::Differs(Mode::X2Apic)),
        (0xfee0_0000, ModeError::Disabled),
        (0xfee0_0400, ModeError::Invalid),
    ] {
        fake.base.set(base);
        assert_eq!(apic.confirm_mode(), Err(error));
    }
    assert_eq!(fake.take(), vec![Op::RdMsr(0x1b); 4]);
}
