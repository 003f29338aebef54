// SPDX-License-Identifier: MIT OR Apache-2.0
//! A spawned kernel finds its own entry, and the entries of the others, in the directory that the host wrote.

use mk_ipi_abi::directory::{directory_size, EntryError, EntryFlags, InstanceRecord, Layout, State};
use mk_ipi_abi::{Errno, Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::directory::{Directory, DirectoryWriter};
use mk_ipi_core::platform::{Access, MapError, Mapping, PhysMemory};
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_core::{config_of, AddError, JoinError, LookupError};
use mk_ipi_mock::{Callback, Link, Machine, MockPlatform, MockWord, Mode};
use std::sync::{Arc, Mutex};

const TYPE: MessageType = MessageType(7);
const SLOTS: u64 = 8;
const CPUS: u32 = 2;
/// The number of words of an entry.
const ENTRY: u64 = 8 + CPUS as u64;

/// Three kernels, and a directory with five entries, which the host (kernel 0) has mapped. Entries 3 and 4 have the state Absent.
struct Bench {
    machine: Machine,
    range: PhysRange,
    regions: [PhysRange; 3],
    host: Mapping<MockWord>,
    /// The instances that the last join left out, and why.
    left_out: Mutex<Vec<(InstanceId, JoinError)>>,
}

fn id(n: usize) -> InstanceId {
    InstanceId::try_from(n as i64).unwrap()
}

impl Bench {
    fn new(seed: u64) -> Self {
        let builder = Machine::builder().kernel(&[0]).kernel(&[3]).kernel(&[5, 7]);
        let machine = builder.mode(Mode::Stepped { seed }).build();
        let range = machine.reserve(directory_size(5, CPUS));
        let regions = std::array::from_fn(|_| machine.reserve(SLOTS * 272));
        let host = machine.kernel(0).map(range, Access::ReadWrite).unwrap();
        let bench = Self { machine, range, regions, host, left_out: Mutex::default() };
        let mut writer = DirectoryWriter::create(bench.host.words(), 5, CPUS).unwrap();
        for (n, kernel) in bench.machine.kernels().enumerate() {
            writer.write(&bench.record(n), kernel.cpus()).unwrap();
        }
        bench
    }

    /// Returns the entry of kernel `n`.
    fn record(&self, n: usize) -> InstanceRecord {
        InstanceRecord {
            instance: id(n),
            incarnation: Incarnation::new(40 + n as u32).unwrap(),
            state: if n == 1 { State::Starting } else { State::Running },
            layout: Layout::RfcV2,
            flags: EntryFlags::EXCLUSIVE,
            region: PhysRange::new(self.regions[n].start(), SLOTS * 272),
            doorbell_cpu: *self.machine.kernel(n).cpus().last().unwrap(),
            vector: Vector::RFC_V2,
            nr_cpus: 0,
        }
    }

    /// Stores to word `word` of entry `n`.
    fn set(&self, n: u64, word: u64, value: u64) {
        self.machine.poke(PhysAddr(self.range.start().0 + 8 * (8 + n * ENTRY + word)), value);
    }

    /// Makes a new endpoint for `kernel`, and joins with it. `shared` is the address of the kernel's own region.
    fn join(&self, kernel: &MockPlatform, shared: PhysAddr) -> (Arc<Link>, Result<usize, JoinError>) {
        let link = Arc::new(Link::new(kernel.clone()));
        let mapping = kernel.map(self.range, Access::ReadOnly).unwrap();
        let mut left_out = self.left_out.lock().unwrap();
        left_out.clear();
        let directory = Directory::open(mapping.words()).unwrap();
        let joined = link.join_and(shared, &directory, |id, e| left_out.push((id, e)));
        // SAFETY: mapped above by this kernel, and nothing borrows from it any more.
        unsafe { kernel.unmap(mapping) };
        (link, joined)
    }
}

#[test]
fn a_kernel_finds_itself_by_its_region_and_the_others() {
    let bench = Bench::new(1);
    let kernels: Vec<_> = bench.machine.kernels().collect();
    let links: Vec<_> = (0..3).map(|k| bench.join(&kernels[k], bench.regions[k].start())).collect();
    let got = Arc::new(AtomicU64::new(0));
    for (k, (link, joined)) in links.iter().enumerate() {
        assert_eq!((*joined, &*bench.left_out.lock().unwrap()), (Ok(3), &vec![]));
        assert_eq!(link.identity(), Some((id(k), Incarnation::new(40 + k as u32).unwrap())));
        let other = link.instance(id(2)).unwrap();
        assert_eq!(other.doorbell_cpu(), PhysCpuId(7));
        assert!(
            link.instance(id(3)).is_err_and(|e| e == LookupError::Unknown),
            "an absent instance is not attached"
        );
        let (interrupt, deferred, got) = (link.clone(), link.clone(), got.clone());
        kernels[k].set_vector(Vector::RFC_V2, move || interrupt.on_interrupt());
        kernels[k].set_deferred(move || {
            deferred.run_deferred();
        });
        let count = Callback::new(move |_| {
            got.fetch_add(1, Ordering::Relaxed);
        });
        let _kept = link.register(TYPE, count).unwrap();
    }
    let run = bench.machine.run(|cpu| {
        let others = (0..3).filter(|&to| to != cpu.kernel() && cpu.index() == 0);
        for to in others {
            while links[cpu.kernel()].0.send(id(to), TYPE, &[1]).is_err() {
                cpu.relax();
            }
        }
    });
    run.unwrap();
    assert_eq!(got.load(Ordering::Relaxed), 6, "each kernel gets a message from each other kernel");
}

#[test]
fn a_kernel_whose_region_is_in_no_live_entry_is_not_listed() {
    let bench = Bench::new(1);
    let kernel = bench.machine.kernel(1);
    let refused = |shared: PhysAddr| {
        let (link, joined) = bench.join(&kernel, shared);
        assert_eq!((link.identity(), kernel.live_mappings()), (None, 0));
        (0..5).for_each(|n| assert!(link.instance(id(n)).is_err()));
        joined.unwrap_err()
    };
    let shared = bench.regions[1].start();
    for wrong in [PhysAddr(0), PhysAddr(shared.0 + 4096 * 16)] {
        let error = refused(wrong);
        assert_eq!((error, error.errno()), (JoinError::NotListed(wrong), Errno::ENODEV));
    }
    let mut writer = DirectoryWriter::create(bench.host.words(), 5, CPUS).unwrap();
    for state in [State::Dead, State::Absent] {
        writer.write(&InstanceRecord { state, ..bench.record(1) }, &[PhysCpuId(3)]).unwrap();
        assert_eq!(refused(shared), JoinError::NotListed(shared), "{state:?}");
    }
    writer.write(&bench.record(1), &[PhysCpuId(3)]).unwrap();
    assert_eq!(bench.join(&kernel, shared).1, Ok(1));
}

#[test]
fn the_dead_and_the_senseless_are_left_out() {
    let bench = Bench::new(1);
    let (kernel, shared) = (bench.machine.kernel(1), bench.regions[1].start());
    // Words of entry 2: first the state Dead, and then a bad vector, a bad doorbell CPU and a bad incarnation.
    for (word, value) in [(2, 3 | (1 << 32)), (3, 1), (6, 99), (1, 2)] {
        let bench = Bench::new(1);
        let kernel = bench.machine.kernel(1);
        bench.set(2, word, value);
        let (link, joined) = bench.join(&kernel, bench.regions[1].start());
        assert_eq!(joined, Ok(2), "word {word}");
        let left_out = bench.left_out.lock().unwrap().clone();
        let senseless = matches!(left_out[..], [(who, JoinError::Entry(..))] if who == id(2));
        // A dead instance is left out without a report.
        assert!(senseless || (word == 2 && left_out.is_empty()), "word {word}: {left_out:?}");
        assert!(link.instance(id(0)).is_ok() && link.instance(id(2)).is_err());
    }
    bench.set(1, 3, 1);
    let senseless = Err(JoinError::Entry(id(1), EntryError::BadVector(0)));
    assert_eq!(bench.join(&kernel, shared).1, senseless, "our own entry must be valid");
}

#[test]
fn on_an_error_nothing_stays_added() {
    let bench = Bench::new(1);
    let (kernel, shared) = (bench.machine.kernel(1), bench.regions[1].start());
    let failed = |expected: JoinError, errno| {
        let (link, joined) = bench.join(&kernel, shared);
        assert_eq!(joined, Err(expected));
        assert_eq!((expected.errno(), link.identity(), kernel.live_mappings()), (errno, None, 0));
        (0..5).for_each(|n| assert!(link.instance(id(n)).is_err()));
    };
    // First our own region is too small for CPU 3. Then an entry is being changed.
    bench.set(1, 5, 3 * 272);
    failed(JoinError::Instance(id(1), AddError::BeyondRegion(PhysCpuId(3))), Errno::EINVAL);
    bench.set(1, 5, SLOTS * 272);
    bench.set(2, 0, 7);
    failed(JoinError::Changing(id(2)), Errno::EAGAIN);
    bench.set(2, 0, 8);
    assert_eq!(bench.join(&kernel, shared).1, Ok(3));
    kernel.keep_private(bench.regions[1]);
    let (link, joined) = bench.join(&kernel, shared);
    let own = JoinError::Instance(id(1), AddError::Map(MapError::NotAllowed));
    assert_eq!((joined, own.errno(), link.identity()), (Err(own), Errno::ENOMEM, None));
}

#[test]
fn one_bad_neighbour_is_left_out_and_told_of() {
    let bench = Bench::new(1);
    let (kernel, shared) = (bench.machine.kernel(1), bench.regions[1].start());
    let end = bench.machine.memory().end().0;
    // Bad words for the region of entry 2: its start and its length.
    let bad = [
        (4, end, bench.regions[2].start().0, AddError::Map(MapError::NotAllowed)),
        (5, 5 * 272, SLOTS * 272, AddError::BeyondRegion(PhysCpuId(7))),
    ];
    for (word, value, good, why) in bad {
        bench.set(2, word, value);
        let (link, joined) = bench.join(&kernel, shared);
        assert_eq!(joined, Ok(2));
        assert_eq!(*bench.left_out.lock().unwrap(), [(id(2), JoinError::Instance(id(2), why))]);
        assert!(link.instance(id(0)).is_ok() && link.instance(id(2)).is_err());
        assert_eq!(link.identity().map(|(me, _)| me), Some(id(1)));
        bench.set(2, word, good);
        let mapping = kernel.map(bench.range, Access::ReadOnly).unwrap();
        let directory = Directory::open(mapping.words()).unwrap();
        let mut cpus = [PhysCpuId(0); 2];
        let record = directory.read(id(2), &mut cpus).unwrap();
        link.attach_instance(&config_of(&record, &cpus), record.region).unwrap();
        assert!(
            link.instance(id(2)).is_ok(),
            "the instance can be attached later, when its entry is correct"
        );
    }
}

#[test]
fn who_is_already_in_the_table_is_an_error() {
    let bench = Bench::new(1);
    let kernel = bench.machine.kernel(1);
    let (link, joined) = bench.join(&kernel, bench.regions[1].start());
    assert_eq!(joined, Ok(3));
    let mapping = kernel.map(bench.range, Access::ReadOnly).unwrap();
    let again = link.join(bench.regions[1].start(), &Directory::open(mapping.words()).unwrap());
    assert_eq!(again, Err(JoinError::Instance(id(1), AddError::Exists)), "a kernel cannot join twice");
    assert!((0..3).all(|n| link.instance(id(n)).is_ok()), "the instances of the first `join` stay attached");
}

#[test]
fn garbage_joins_nobody_and_leaves_nothing() {
    for seed in 0..300 {
        let bench = Bench::new(seed);
        let kernel = bench.machine.kernel(1);
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for (n, word) in (0..5).flat_map(|n| (0..ENTRY).map(move |word| (n, word))) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random % 4 == 0 && (n, word) != (1, 4) {
                bench.set(n, word, if random % 8 == 0 { random } else { random >> 40 & 0xff });
            }
        }
        let (link, joined) = bench.join(&kernel, bench.regions[1].start());
        let known = (0..5).filter(|&n| link.instance(id(n)).is_ok()).count();
        assert_eq!((known, link.identity().is_some()), (joined.unwrap_or(0), joined.is_ok()), "{joined:?}");
        assert!(joined.is_ok() || kernel.live_mappings() == 0);
    }
}

/// The host rewrites an entry while another kernel reads it. A reader must never get parts of two versions.
#[test]
fn an_entry_is_read_whole_under_every_seed() {
    let changing = AtomicU64::new(0);
    for seed in 0..200 {
        let bench = Bench::new(seed);
        let run = bench.machine.run(|cpu| match (cpu.kernel(), cpu.index()) {
            (0, _) => {
                let mut writer = DirectoryWriter::create(bench.host.words(), 5, CPUS).unwrap();
                for n in [0, 1, 0, 1, 0, 1, 2] {
                    let region = PhysRange::new(PhysAddr(0x4000 << n), 272 << n);
                    let cpus = [PhysCpuId(n), PhysCpuId(n + 10)];
                    let record = InstanceRecord {
                        region,
                        doorbell_cpu: cpus[0],
                        // The region of a live instance must not change.
                        state: State::Dead,
                        ..bench.record(2)
                    };
                    writer.write(&record, &cpus).unwrap();
                }
            }
            (1, _) => {
                let mapping = cpu.platform().map(bench.range, Access::ReadOnly).unwrap();
                let mut n = 0;
                while n != 2 {
                    let Ok(directory) = Directory::open(mapping.words()) else { continue };
                    let mut cpus = [PhysCpuId(99); 2];
                    let Ok(record) = directory.read(id(2), &mut cpus) else {
                        changing.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    n = record.doorbell_cpu.0;
                    if n <= 2 {
                        assert_eq!(record.region, PhysRange::new(PhysAddr(0x4000 << n), 272 << n));
                        assert_eq!(
                            cpus,
                            [PhysCpuId(n), PhysCpuId(n + 10)],
                            "the entry has parts of two versions"
                        );
                    }
                }
                // SAFETY: mapped above, and nothing borrows from it any more.
                unsafe { cpu.platform().unmap(mapping) };
            }
            _ => (),
        });
        run.unwrap();
    }
    assert!(
        changing.load(Ordering::Relaxed) > 0,
        "no reader read the entry while it was changed, so this run has tested nothing"
    );
}
