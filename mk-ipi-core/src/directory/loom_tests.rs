// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models in which the host writes the directory while another kernel reads it.
use super::*;
use crate::sync::AtomicU64;
use loom::sync::Arc;
use loom::thread;
use mk_ipi_abi::directory::{EntryFlags, Layout, State};
use mk_ipi_abi::{Incarnation, PhysAddr, PhysRange, Vector};
use std::vec::Vec;

const ME: InstanceId = InstanceId::new(0);

fn memory() -> Arc<Vec<AtomicU64>> {
    Arc::new((0..=HEADER_WORDS + ENTRY_WORDS).map(|_| AtomicU64::new(0)).collect())
}

/// A directory entry whose incarnation, region and doorbell CPU are made from `n`.
fn record(n: u64) -> InstanceRecord {
    InstanceRecord {
        instance: ME,
        incarnation: Incarnation::new(n as u32).unwrap(),
        state: State::Dead,
        layout: Layout::RfcV2,
        flags: EntryFlags::EXCLUSIVE,
        region: PhysRange::new(PhysAddr(n << 12), 272 * n),
        doorbell_cpu: PhysCpuId(n),
        vector: Vector::RFC_V2,
        nr_cpus: 1,
    }
}

fn check(bounded: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(2));
    model.check(bounded);
}

/// directory-entry: a reader gets all of the old entry or all of the new one, never parts of both.
#[test]
fn loom_an_entry_is_read_whole() {
    check(|| {
        let words = memory();
        let mut writer = DirectoryWriter::create(&words, 1, 1).unwrap();
        writer.write(&record(1), &[PhysCpuId(1)]).unwrap();
        let reader = {
            let words = words.clone();
            thread::spawn(move || {
                let mut cpus = [PhysCpuId(0)];
                let read = Directory::open(&words).unwrap().read(ME, &mut cpus);
                assert!(read == Ok(record(1)) || read == Ok(record(2)), "{read:?}");
                assert_eq!(cpus[0], read.unwrap().doorbell_cpu);
            })
        };
        writer.write(&record(2), &[PhysCpuId(2)]).unwrap();
        reader.join().unwrap();
    });
}

/// directory-generation: a reader that sees the new generation also sees the new entry. The fences of the entry alone would
/// ensure this too.
#[test]
fn loom_who_follows_a_generation_has_its_entries() {
    check(|| {
        let words = memory();
        let mut writer = DirectoryWriter::create(&words, 1, 1).unwrap();
        writer.write(&record(1), &[PhysCpuId(1)]).unwrap();
        let reader = {
            let words = words.clone();
            thread::spawn(move || {
                let directory = Directory::open(&words).unwrap();
                let generation = directory.generation();
                let read = directory.record(ME).unwrap();
                assert!(generation == 1 || read == record(2), "{generation}: {read:?}");
            })
        };
        writer.write(&record(2), &[PhysCpuId(2)]).unwrap();
        reader.join().unwrap();
    });
}

/// directory-stamped: a reader that sees the magic sees the header too.
#[test]
fn loom_a_directory_is_seen_whole_or_not_at_all() {
    check(|| {
        let words = memory();
        let reader = {
            let words = words.clone();
            thread::spawn(move || match Directory::open(&words) {
                Ok(directory) => assert_eq!(directory.nr_instances(), 1),
                Err(e) => assert_eq!(e, DirectoryError::NoStamp(0)),
            })
        };
        DirectoryWriter::create(&words, 1, 1).unwrap();
        reader.join().unwrap();
    });
}
