// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::config_of;
use crate::link::LinkConfig;
use crate::rfc_v2::SlotPolicy;
use crate::sync::AtomicU64;
use mk_ipi_abi::directory::{directory_size, EntryFlags, Layout, State, Version};
use mk_ipi_abi::{Errno, Incarnation, PhysAddr, PhysRange, Vector};
use std::vec::Vec;

#[path = "writer_tests.rs"]
mod writer;

const NR: u32 = 4;
const CPUS: usize = NR as usize;
const ENTRY: usize = ENTRY_WORDS + CPUS;
const TWO: InstanceId = InstanceId::new(2);

fn memory(instances: u32) -> Vec<AtomicU64> {
    let words = directory_size(instances, NR) / 8;
    (0..words).map(|n| AtomicU64::new(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

fn ids(list: &[u64]) -> Vec<PhysCpuId> {
    list.iter().copied().map(PhysCpuId).collect()
}

/// Instance 2 with the CPUs 7 and 9. Its doorbell CPU is 9.
fn record() -> InstanceRecord {
    InstanceRecord {
        instance: TWO,
        incarnation: Incarnation::new(5).unwrap(),
        state: State::Running,
        layout: Layout::RfcV2,
        flags: EntryFlags::EXCLUSIVE,
        region: PhysRange::new(PhysAddr(0x20_0000), 2720),
        doorbell_cpu: PhysCpuId(9),
        vector: Vector::RFC_V2,
        nr_cpus: 2,
    }
}

fn values(words: &[AtomicU64]) -> Vec<u64> {
    words.iter().map(|w| w.load(Ordering::Relaxed)).collect()
}

/// A word that also stores the time of its last change.
struct Timed(AtomicU64, AtomicU64);
std::thread_local!(static CLOCK: core::cell::Cell<u64> = const { core::cell::Cell::new(1) });

impl Word for Timed {
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }
    fn store(&self, value: u64, order: Ordering) {
        if self.0.load(Ordering::Relaxed) != value {
            self.1.store(CLOCK.replace(CLOCK.get() + 1), Ordering::Relaxed);
        }
        self.0.store(value, order);
    }
    fn compare_exchange(&self, current: u64, new: u64, order: Ordering) -> Result<u64, u64> {
        self.0.compare_exchange(current, new, order)
    }
}

#[test]
fn the_header_has_the_specs_words_and_the_magic_comes_last() {
    let words: Vec<_> = memory(3).into_iter().map(|w| Timed(w, AtomicU64::new(0))).collect();
    let writer = DirectoryWriter::create(&words, 3, NR).unwrap();
    let found: Vec<_> = words.iter().map(|w| w.0.load(Ordering::Relaxed)).collect();
    let size = 64 + 3 * (64 + 8 * CPUS as u64);
    assert_eq!(found[..4], [u64::from_le_bytes(*b"MKIPIDIR"), 0x1_0001 | (3 << 32), size, CPUS as u64]);
    assert!(
        found[4..].iter().all(|&w| w == 0),
        "the entries are zeroed, whatever the memory contained before"
    );
    let times: Vec<_> = words.iter().map(|w| w.1.load(Ordering::Relaxed)).collect();
    assert!(times[1..].iter().all(|&at| 0 < at && at < times[0]), "{times:?}");
    let writer = writer.at(PhysAddr(0x7000)).boot_cpu(PhysCpuId(0));
    let found = [4, 5, 6, 7].map(|at: usize| words[at].0.load(Ordering::Relaxed));
    assert_eq!((found, writer.reader().boot_cpu()), ([0, 1, 0x7000, 0], Some(PhysCpuId(0))));
}

#[test]
fn an_entry_has_the_specs_words_and_its_sequence_is_even_and_larger() {
    let words = memory(3);
    let mut writer = DirectoryWriter::create(&words, 3, NR).unwrap();
    let at = HEADER_WORDS + 2 * ENTRY;
    for sequence in [2, 4] {
        writer.write(&record(), &ids(&[7, 9])).unwrap();
        let entry = values(&words[at..at + ENTRY]);
        let fixed = [2 | (5 << 32), 2 | (1 << 32), 1 | (0xea << 32), 0x20_0000, 2720, 9, 2];
        assert_eq!(entry, [&[sequence], &fixed[..], &[7, 9, 0, 0]].concat());
    }
    let mut cpus = ids(&[0; CPUS]);
    assert_eq!(writer.reader().read(TWO, &mut cpus), Ok(record()));
    assert_eq!(cpus[..2], ids(&[7, 9]));
    let absent = |id| writer.reader().read(InstanceId::new(id), &mut ids(&[0; CPUS]));
    assert_eq!([0, 1, 3, 255].map(|id| absent(id).unwrap_err()), {
        use EntryError::{Absent, OutOfRange};
        [Absent, Absent, OutOfRange, OutOfRange]
    });
    assert_eq!(Directory::open(&words).unwrap().ids().map(InstanceId::get).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn an_entry_is_odd_while_it_changes() {
    let words: Vec<_> = memory(3).into_iter().map(|w| Timed(w, AtomicU64::new(0))).collect();
    let mut writer = DirectoryWriter::create(&words, 3, NR).unwrap();
    let entry = &words[HEADER_WORDS + 2 * ENTRY..][..ENTRY];
    writer.write(&record(), &ids(&[7, 9])).unwrap();
    let changed = entry[1..ENTRY - 2].iter().map(|w| w.1.load(Ordering::Relaxed)).max().unwrap();
    assert!(entry[0].1.load(Ordering::Relaxed) > changed, "the sequence becomes even after all other stores");
    // A host died while it wrote the entry.
    entry[0].0.store(3, Ordering::Relaxed);
    assert_eq!(writer.reader().read(TWO, &mut ids(&[0; CPUS])), Err(EntryError::Changing));
    writer.write(&record(), &ids(&[7, 9])).unwrap();
    assert_eq!(
        entry[0].0.load(Ordering::Relaxed),
        4,
        "the new sequence is larger than the one that the former life left"
    );
    assert_eq!(writer.reader().read(TWO, &mut ids(&[0; CPUS])), Ok(record()));
}

/// A word whose every load returns the next even number.
struct Restless(AtomicU64);

impl Word for Restless {
    fn load(&self, order: Ordering) -> u64 {
        self.0.fetch_add(2, order)
    }
    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }
    fn compare_exchange(&self, current: u64, new: u64, order: Ordering) -> Result<u64, u64> {
        self.0.compare_exchange(current, new, order)
    }
}

#[test]
fn a_reader_gives_up_on_a_host_that_does_not_come_to_rest() {
    let words: Vec<_> = (0..HEADER_WORDS + ENTRY).map(|_| Restless(AtomicU64::new(0))).collect();
    let header = DirectoryHeader::new(1, NR).unwrap();
    let directory = Directory(Entries { words: &words, header });
    let read = directory.read(InstanceId::new(0), &mut ids(&[0; CPUS]));
    assert_eq!(read, Err(EntryError::Changing));
    let loads = words[HEADER_WORDS].0.load(Ordering::Relaxed) / 2;
    assert_eq!(
        loads,
        3 * 64,
        "64 attempts with three loads each: before the copy, in the copy, and after it"
    );
}

#[test]
fn a_bad_header_is_no_directory() {
    let words = memory(3);
    let open = |words| Directory::<AtomicU64>::open(words).map(|d| d.nr_instances());
    assert_eq!(open(&words), Err(DirectoryError::NoStamp(0)));
    DirectoryWriter::create(&words, 3, NR).unwrap();
    assert_eq!(open(&words), Ok(3));
    let shown = std::format!("{:?}", Directory::open(&words).unwrap());
    assert!(shown.contains("DirectoryHeader"), "{shown}");
    for short in [0, 7] {
        assert_eq!(open(&words[..short]), Err(DirectoryError::TooSmall(64)));
    }
    let size = words.len() as u64 * 8;
    assert_eq!(open(&words[..words.len() - 1]), Err(DirectoryError::TooSmall(size)));
    let with = |word: usize, value| {
        let old = words[word].load(Ordering::Relaxed);
        words[word].store(value, Ordering::Relaxed);
        let found = open(&words).unwrap_err();
        words[word].store(old, Ordering::Relaxed);
        found
    };
    assert_eq!(with(0, MAGIC + 1), DirectoryError::NoStamp(MAGIC + 1));
    assert_eq!(with(1, 2 | (3 << 32)), DirectoryError::Version(Version { major: 2, minor: 0 }));
    for nr in [0, 2, 257, u64::from(u32::MAX)] {
        assert_eq!(with(1, 1 | (nr << 32)), DirectoryError::Geometry, "{nr} instances");
    }
    assert_eq!(with(2, size + 8), DirectoryError::Geometry);
    assert_eq!(with(3, 1025), DirectoryError::Geometry);
    assert_eq!(open(&words), Ok(3));
    let create = |n, cpus| DirectoryWriter::create(&words, n, cpus).map(drop);
    assert_eq!(create(257, 1), Err(DirectoryError::Geometry));
    assert!(matches!(create(256, 4), Err(DirectoryError::TooSmall(_))));
    assert_eq!(open(&words), Ok(3), "the refused calls have written nothing");
}

#[test]
fn what_readers_would_refuse_is_not_written() {
    let words = memory(3);
    let mut writer = DirectoryWriter::create(&words, 3, NR).unwrap();
    let before = values(&words);
    let good = record();
    let mut bad = |r: InstanceRecord, cpus: &[u64]| writer.write(&r, &ids(cpus)).unwrap_err();
    assert_eq!(bad(good, &[]), WriteError::BadCpus);
    assert_eq!(bad(good, &[7, 8]), WriteError::DoorbellNotListed(PhysCpuId(9)));
    assert_eq!(bad(good, &[9; CPUS + 1]), WriteError::BadCpus);
    let beyond = InstanceRecord { instance: InstanceId::new(3), ..good };
    assert_eq!(bad(beyond, &[9]), WriteError::Entry(EntryError::OutOfRange));
    for range in [(0x20_0008, 272), (0x20_0000, 271)] {
        let region = PhysRange::new(PhysAddr(range.0), range.1);
        let e = bad(InstanceRecord { region, ..good }, &[9]);
        assert_eq!((e, e.errno()), (WriteError::Entry(EntryError::BadRegion), Errno::EINVAL));
    }
    assert_eq!(values(&words), before);
}

#[test]
fn a_reader_checks_its_copy() {
    let words = memory(3);
    let mut writer = DirectoryWriter::create(&words, 3, NR).unwrap();
    writer.write(&record(), &ids(&[7, 9])).unwrap();
    let read = |room: usize| writer.reader().read(TWO, &mut ids(&[0; 2 * CPUS])[..room]);
    assert_eq!(read(1), Err(EntryError::BadCpus), "the buffer is too short for the CPUs");
    let entry = &words[HEADER_WORDS + 2 * ENTRY..][..ENTRY];
    for (word, value, error) in [
        (1, 1 | (5 << 32), EntryError::WrongInstance(1)),
        (1, 2, EntryError::NoIncarnation),
        (2, 5 | (1 << 32), EntryError::UnknownState(5)),
        (2, 2 | (3 << 32), EntryError::UnknownLayout(3)),
        (3, 1 | (0x1f << 32), EntryError::BadVector(0x1f)),
        (4, 8, EntryError::BadRegion),
        (6, 8, EntryError::BadCpus),
        (7, CPUS as u64 + 1, EntryError::BadCpus),
        (7, 0, EntryError::BadCpus),
    ] {
        let old = entry[word].load(Ordering::Relaxed);
        entry[word].store(value, Ordering::Relaxed);
        assert_eq!((read(CPUS), read(2 * CPUS)), (Err(error), Err(error)), "word {word}");
        assert_eq!(writer.reader().record(TWO), Err(error), "word {word}");
        entry[word].store(old, Ordering::Relaxed);
    }
    let one_doorbell = EntryFlags::ONE_DOORBELL.bits();
    entry[3].store(u64::from(!one_doorbell) | (0xea << 32), Ordering::Relaxed);
    assert_eq!(read(CPUS), Ok(record()), "unknown flags are ignored");
    assert!(!config_of(&record(), &ids(&[7, 9])).one_doorbell);
    entry[3].store(u64::from(one_doorbell) | (0xea << 32), Ordering::Relaxed);
    assert!(config_of(&read(CPUS).unwrap(), &ids(&[7, 9])).one_doorbell);
}

#[test]
fn garbage_is_refused_or_makes_sense() {
    let words = memory(3);
    DirectoryWriter::create(&words, 3, NR).unwrap();
    let mut x = 0x1234_5678_9abc_def1_u64;
    let mut refused = 0;
    let rounds = if cfg!(miri) { 20 } else { 2000 };
    for _ in 0..rounds {
        for word in &words[HEADER_WORDS..] {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            // Small numbers are frequent. Otherwise nearly every entry would fail at the first check.
            word.store(if x % 3 == 0 { x } else { (x >> 20) & 3 | (1 << 32) }, Ordering::Relaxed);
        }
        let directory = Directory::open(&words).unwrap();
        for id in directory.ids() {
            let mut cpus = ids(&[0; CPUS]);
            match directory.read(id, &mut cpus) {
                Ok(r) => {
                    assert!(r.instance == id && cpus[..r.nr_cpus as usize].contains(&r.doorbell_cpu));
                    assert!(r.region.is_none_or(|at| at.start().is_page_aligned() && at.len() >= 272));
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > rounds * 5 / 2, "{refused}");
}

const fn slots(slots: u32, policy: SlotPolicy) -> LinkConfig {
    LinkConfig::RfcV2 { slots, policy }
}

#[test]
fn an_instance_of_the_directory_has_as_many_slots_as_its_region() {
    let cpus = ids(&[7, 9, 0, 0]);
    let config = config_of(&record(), &cpus);
    assert_eq!((config.link, config.cpus), (slots(10, SlotPolicy::Exclusive), &cpus[..2]));
    assert_eq!((config.id, config.incarnation.get(), config.doorbell_cpu), (TWO, 5, PhysCpuId(9)));
    let rest = PhysRange::new(PhysAddr(0x20_0000), 2719);
    let overwritten = InstanceRecord { flags: EntryFlags::empty(), region: rest, ..record() };
    let config = config_of(&overwritten, &cpus);
    assert_eq!(config.link, slots(9, SlotPolicy::Overwrite));
    assert_eq!(
        config_of(&InstanceRecord { region: None, ..record() }, &cpus).link,
        slots(u32::MAX, SlotPolicy::Exclusive)
    );
    let native = InstanceRecord { layout: Layout::Native, ..record() };
    assert_eq!(config_of(&native, &cpus).link, LinkConfig::Native(None));
}
