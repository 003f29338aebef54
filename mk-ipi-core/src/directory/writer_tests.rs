// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checks of the writer: conflicts between two entries, and changes that a live entry does not allow.
use super::*;

const AT: PhysAddr = PhysAddr(0x40_0000);
const PAGE: u64 = 4096;

fn id(n: u8) -> InstanceId {
    InstanceId::new(n)
}

/// Instance `n` with incarnation `life`, a region of two pages at `start`, and the doorbell CPU `bell`.
fn instance(n: u8, life: u32, start: u64, bell: u64) -> InstanceRecord {
    InstanceRecord {
        instance: id(n),
        incarnation: Incarnation::new(life).unwrap(),
        layout: Layout::Native,
        region: PhysRange::new(PhysAddr(start), 2 * PAGE),
        doorbell_cpu: PhysCpuId(bell),
        ..record()
    }
}

fn in_state(state: State, record: InstanceRecord) -> InstanceRecord {
    InstanceRecord { state, ..record }
}

fn with_directory(f: impl FnOnce(&mut DirectoryWriter<'_, AtomicU64>)) {
    let words = memory(4);
    f(&mut DirectoryWriter::create(&words, 4, NR).unwrap().at(AT));
}

#[test]
fn what_another_instance_has_is_not_given_away() {
    with_directory(|writer| {
        let one = instance(1, 1, 0x10_0000, 3);
        writer.write(&one, &ids(&[3, 4])).unwrap();
        let mut bad = |r: InstanceRecord, cpus: &[u64]| writer.write(&r, &ids(cpus)).unwrap_err();
        for start in [0x10_0000 - PAGE, 0x10_0000, 0x10_0000 + PAGE] {
            assert_eq!(bad(instance(2, 1, start, 5), &[5]), WriteError::RegionTaken(id(1)));
        }
        assert_eq!(bad(instance(2, 1, 0x20_0000, 5), &[5, 4]), WriteError::CpuTaken(PhysCpuId(4), id(1)));
        assert_eq!(bad(instance(2, 1, 0x20_0000, 5), &[5, 6, 5]), WriteError::CpuTwice(PhysCpuId(5)));
        assert_eq!(bad(instance(2, 1, AT.0 - PAGE, 5), &[5]), WriteError::OnDirectory);
        assert_eq!(bad(instance(2, 1, AT.0, 5), &[5]), WriteError::OnDirectory);
        let e = bad(instance(2, 1, 0x10_0000, 5), &[5]);
        assert_eq!(e.errno(), Errno::EBUSY);
        // A region directly after or before another one, and a CPU of its own, are accepted.
        writer.write(&instance(2, 1, 0x10_0000 + 2 * PAGE, 5), &ids(&[5])).unwrap();
        writer.write(&instance(3, 1, AT.0 - 2 * PAGE, 6), &ids(&[6])).unwrap();
    });
}

#[test]
fn the_dead_keep_their_region_and_not_their_cpus() {
    with_directory(|writer| {
        let one = instance(1, 1, 0x10_0000, 3);
        writer.write(&one, &ids(&[3])).unwrap();
        writer.write(&in_state(State::Dead, one), &ids(&[3])).unwrap();
        let two = instance(2, 1, 0x20_0000, 3);
        writer.write(&two, &ids(&[3])).unwrap();
        let thief = InstanceRecord { region: one.region, ..instance(3, 1, 0, 4) };
        assert_eq!(writer.write(&thief, &ids(&[4])), Err(WriteError::RegionTaken(id(1))));
        // The region stays taken while its instance is ending, and becomes free when it is absent.
        writer.write(&in_state(State::Ending, one), &ids(&[3])).unwrap();
        assert_eq!(writer.write(&thief, &ids(&[4])), Err(WriteError::RegionTaken(id(1))));
        writer.write(&in_state(State::Absent, one), &ids(&[3])).unwrap();
        writer.write(&thief, &ids(&[4])).unwrap();
    });
}

#[test]
fn a_live_entry_keeps_what_its_peers_go_by() {
    with_directory(|writer| {
        let one = instance(1, 1, 0x10_0000, 3);
        writer.write(&in_state(State::Starting, one), &ids(&[3])).unwrap();
        writer.write(&one, &ids(&[3])).unwrap();
        // The CPUs and the doorbell of a live entry may change.
        writer.write(&instance(1, 1, 0x10_0000, 4), &ids(&[4, 5])).unwrap();
        let one = instance(1, 1, 0x10_0000, 4);
        let cpus = ids(&[4, 5]);
        let live = InstanceRecord { nr_cpus: 2, ..one };
        for changed in [
            instance(1, 2, 0x10_0000, 4),
            instance(1, 1, 0x11_0000, 4),
            InstanceRecord { region: None, ..one },
            InstanceRecord { layout: Layout::RfcV2, ..one },
            InstanceRecord { flags: EntryFlags::ONE_DOORBELL, ..one },
            in_state(State::Absent, one),
        ] {
            assert_eq!(writer.write(&changed, &cpus), Err(WriteError::Live(live)), "{changed:?}");
        }
        // A life that has ended cannot become live again.
        writer.write(&in_state(State::Dead, one), &cpus).unwrap();
        assert_eq!(writer.write(&one, &cpus), Err(WriteError::Over(id(1))));
        writer.write(&instance(1, 2, 0x11_0000, 4), &cpus).unwrap();
    });
}

#[test]
fn every_change_changes_the_generation_and_none_makes_it_0() {
    let words = memory(4);
    let mut writer = DirectoryWriter::create(&words, 4, NR).unwrap();
    assert_eq!(writer.reader().generation(), 0);
    let one = instance(1, 1, 0x10_0000, 3);
    assert_eq!(writer.write(&one, &ids(&[3])), Ok(1));
    assert!(writer.write(&one, &ids(&[])).is_err());
    assert_eq!((writer.write(&one, &ids(&[3, 4])), writer.reader().generation()), (Ok(2), 2));
    // The next life of the host takes over the directory and its generation.
    let mut writer = DirectoryWriter::take_over(&words).unwrap();
    assert_eq!((writer.reader().record(id(1)).unwrap().nr_cpus, writer.write(&one, &ids(&[3]))), (2, Ok(3)));
    words[GENERATION].store(u32::MAX.into(), Ordering::Relaxed);
    assert_eq!((writer.write(&one, &ids(&[3])), writer.reader().generation()), (Ok(1), 1));
    words[0].store(7, Ordering::Relaxed);
    assert_eq!(DirectoryWriter::take_over(&words).unwrap_err(), DirectoryError::NoStamp(7));
}

#[test]
fn a_cpu_is_looked_up_where_it_is_listed() {
    with_directory(|writer| {
        let one = instance(1, 1, 0x10_0000, 3);
        writer.write(&one, &ids(&[3, 4, 5])).unwrap();
        writer.write(&one, &ids(&[3, 4])).unwrap();
        let has = |writer: &DirectoryWriter<'_, _>, n, cpu| writer.reader().has_cpu(id(n), PhysCpuId(cpu));
        assert_eq!([3, 4, 5, 6].map(|cpu| has(writer, 1, cpu)), [Ok(true), Ok(true), Ok(false), Ok(false)]);
        assert_eq!([has(writer, 2, 3), has(writer, 9, 3)], [Ok(false); 2]);
        writer.write(&in_state(State::Dead, one), &ids(&[3, 4])).unwrap();
        assert_eq!(has(writer, 1, 3), Ok(false), "the dead have no CPUs");
    });
}
