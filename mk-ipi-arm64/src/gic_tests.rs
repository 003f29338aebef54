// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares the register accesses of each operation of the CPU interface with the sequence that the manual requires.

use super::*;
use crate::fake::{Fake, Op};
use crate::regs::SystemRegister as Reg;
use std::vec::Vec;

/// The vector of SGI 1.
const V: Vector = Vector::new(0x21).unwrap();

/// Makes the CPU interface of `fake`, and empties the log of `fake`.
fn gic(fake: &Fake) -> Gic<&Fake> {
    let gic = Gic::new(fake).unwrap();
    fake.take();
    gic
}

#[test]
fn a_doorbell_is_a_barrier_then_one_write_then_isb() {
    let fake = Fake::new();
    let sent = |value| [Op::Fence, Op::Write(Reg::SendSgi, value), Op::Synchronize];
    assert_eq!(gic(&fake).ring(PhysCpuId(0x103), V), Ok(()));
    assert_eq!(fake.take(), sent(1 << 24 | 1 << 16 | 1 << 3));
    assert_eq!(gic(&fake).ring_from_nmi(PhysCpuId(3), V), Ok(()));
    assert_eq!(fake.take(), sent(1 << 24 | 1 << 3));
}

#[test]
fn every_sgi_and_affinity_is_in_its_field() {
    let fake = Fake::new();
    let gic = gic(&fake).with_range_selector();
    for n in 0..16u8 {
        for (cpu, fields) in [
            (0, 1),
            (0x7, 1 << 7),
            (0x1f, 1 << 44 | 1 << 15),
            (0xab00, 0xab << 16 | 1),
            (0xcd_0001, 0xcd << 32 | 2),
            (0xef_0000_0000, 0xef << 48 | 1),
        ] {
            gic.ring(PhysCpuId(cpu), Vector::new(0x20 + n).unwrap()).unwrap();
            assert_eq!(fake.take()[1], Op::Write(Reg::SendSgi, fields | u64::from(n) << 24), "{cpu:#x}");
        }
    }
}

#[test]
fn what_cannot_be_rung_is_refused_and_touches_nothing() {
    const ALL: u64 = 1 << 18 | 1 << 15;
    // For each case: `ICC_CTLR_EL1`; true if `with_range_selector` is called; the CPU; true if it can be reached.
    for (control, ranges, cpu, reached) in [
        (ALL, true, 0xff_00ff_ffff, true),
        (ALL, true, 0x10, true),
        (ALL, false, 0x10, false),
        (ALL, false, 0x0f, true),
        (1 << 15, true, 0x10, false),
        (1 << 18, true, 0x1_0000_0000, false),
        (1 << 18, true, 0xff_ff0f, true),
        (0, false, 0xff_ff0f, true),
        (0, false, 0x1_0000_000f, false),
        (ALL, true, 1 << 24, false),
        (ALL, true, 0x8000_0001, false),
        (ALL, true, 1 << 40, false),
        (ALL, true, u64::MAX, false),
    ] {
        let (fake, cpu) = (Fake { control, ..Fake::new() }, PhysCpuId(cpu));
        let gic = gic(&fake);
        let gic = if ranges { gic.with_range_selector() } else { gic };
        let expected = if reached { Ok(()) } else { Err(DoorbellError::Unreachable(cpu)) };
        assert_eq!(gic.check(cpu, V), expected, "{cpu:x?}");
        assert_eq!(fake.take(), [], "check accesses no register");
        assert_eq!(gic.ring(cpu, V), expected);
        assert_eq!(fake.take().is_empty(), !reached);
        assert_eq!(gic.ring_from_nmi(cpu, V), expected);
        assert_eq!(fake.take().is_empty(), !reached);
    }
}

#[test]
fn a_vector_that_is_no_sgi_is_refused_and_touches_nothing() {
    let fake = Fake::new();
    let gic = gic(&fake);
    for v in 0x20..=0xfe {
        let vector = Vector::new(v).unwrap();
        let expected = if v < 0x30 { Ok(()) } else { Err(DoorbellError::NoSuchVector(vector)) };
        assert_eq!(gic.check(PhysCpuId(0), vector), expected);
        assert_eq!(gic.ring(PhysCpuId(0), vector), expected);
        assert_eq!(fake.take().is_empty(), v >= 0x30);
    }
}

#[test]
fn the_id_is_the_affinity_of_mpidr() {
    let fake = Fake { mpidr: 0x0000_0012_c134_5678, ..Fake::new() };
    assert_eq!(gic(&fake).cpu_id(), PhysCpuId(0x12_0034_5678));
    assert_eq!(fake.take(), [Op::Read(Reg::Mpidr)]);
}

#[test]
fn an_interrupt_is_read_once_and_settled_and_its_end_is_written_back() {
    for intid in [0, 1, 15, 16, 31, 1019, 1024, 8192, 0xff_ffff] {
        let fake = Fake::new();
        fake.pending.replace([intid].into());
        let gic = gic(&fake);
        // SAFETY: a fake interrupts no CPU.
        let found = unsafe { gic.acknowledge() }.unwrap();
        assert_eq!(fake.take(), [Op::Read(Reg::Acknowledge), Op::Settle]);
        assert_eq!(u64::from(found.intid()), intid);
        assert_eq!(found.sgi().map(|sgi| u64::from(sgi.intid())), (intid < 16).then_some(intid));
        // SAFETY: as above.
        unsafe { gic.eoi(found) };
        assert_eq!(fake.take(), [Op::Write(Reg::EndOfInterrupt, intid), Op::Synchronize]);
    }
}

#[test]
fn the_special_intids_are_no_interrupt() {
    for intid in 1020..=1023 {
        let fake = Fake::new();
        fake.pending.replace([intid].into());
        // SAFETY: a fake interrupts no CPU.
        assert_eq!(unsafe { gic(&fake).acknowledge() }, None);
    }
}

#[test]
fn enabling_forgets_active_priorities_opens_all_and_has_an_end_deactivate() {
    use Reg::{
        ActivePriorities as R0, ActivePriorities1 as R1, ActivePriorities2 as R2, ActivePriorities3 as R3,
    };
    // For each case: PRIbits, which is the number of priority bits minus 1, and the registers that are cleared.
    for (priority_bits, registers) in
        [(3, &[R0][..]), (4, &[R0]), (5, &[R0, R1]), (6, &[R0, R1, R2, R3]), (7, &[R0, R1, R2, R3])]
    {
        let fixed = 1 << 15 | priority_bits << 8;
        let fake = Fake { control: fixed | 1 << 1, ..Fake::new() };
        // SAFETY: a fake interrupts no CPU.
        unsafe { gic(&fake).enable() };
        let ops = fake.take();
        let written: Vec<Op> = ops.iter().filter(|op| matches!(op, Op::Write(..))).copied().collect();
        let forgotten = registers.iter().map(|register| Op::Write(*register, 0));
        let opened = [
            Op::Write(Reg::PriorityMask, 0xff),
            Op::Write(Reg::BinaryPoint, 0),
            Op::Write(Reg::Control, fixed),
            Op::Write(Reg::GroupEnable, 1),
        ];
        assert_eq!(written, forgotten.chain(opened).collect::<Vec<_>>());
        assert_eq!(ops.last(), Some(&Op::Synchronize));
    }
}

#[test]
fn system_registers_are_switched_on_once_or_it_is_said_that_they_cannot_be() {
    // SAFETY: no code uses a memory-mapped CPU interface of a fake.
    let switch_on = |fake: &Fake| unsafe { Gic::use_system_registers(&fake) };
    let (read, write) = (Op::Read(Reg::SystemRegisterEnable), Op::Write(Reg::SystemRegisterEnable, 7));
    let off = Fake { sre: 0.into(), ..Fake::new() };
    assert_eq!(Gic::new(&off).map(drop), Err(GicError::NoSystemRegisters));
    off.take();
    assert_eq!(switch_on(&off), Ok(()));
    assert_eq!(off.take(), [read, write, Op::Synchronize, read]);
    assert_eq!(switch_on(&off), Ok(()));
    assert_eq!(off.take(), [read, read], "nothing is written again");
    assert!(Gic::new(&off).unwrap().confirm().is_ok());

    let never = Fake { sre: 0.into(), sre_can_change: false, ..Fake::new() };
    assert_eq!(switch_on(&never), Err(GicError::NoSystemRegisters));
}

#[test]
fn a_cpu_whose_interface_is_not_on_is_told() {
    let fake = Fake::new();
    let gic = gic(&fake);
    fake.sre.set(0);
    assert_eq!(gic.confirm(), Err(GicError::NoSystemRegisters));
}
