// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads a directory that can have any content, joins with it, and follows it (SPEC chapter D).

use arbitrary::{Arbitrary, Unstructured};
use mk_ipi_abi::directory::{EntryFlags, Layout, State};
use mk_ipi_abi::{Incarnation, InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::directory::{Directory, DirectoryWriter, InstanceRecord};
use mk_ipi_core::sync::{Ordering::Relaxed, Word};
use mk_ipi_core::{Endpoint, Followed, JoinError, Message};
use mk_ipi_mock::{Machine, MockPlatform, MockWord, MEMORY_START};

type Callback = &'static (dyn Fn(&Message<'_>) + Send + Sync);
type End = Endpoint<MockPlatform, Callback, 4, 1, 1>;

/// A directory that a host writes, and changes of its words.
#[derive(Arbitrary, Debug)]
struct Input {
    /// Whether no host writes the directory. Then it has only zeros before the changes.
    raw: bool,
    instances: u8,
    cpus: u8,
    records: [Record; 5],
    /// Changes of words in entries or in the header, before the directory is read: the entry, the word in it, and the change.
    patches: Vec<(u8, u8, Patch)>,
    /// The same, after a kernel has joined.
    later: Vec<(u8, u8, Patch)>,
    room: u8,
    shared: u8,
}

#[derive(Arbitrary, Debug)]
struct Record {
    id: u8,
    life: u32,
    state: u32,
    page: u8,
    slots: u8,
    cpu: u8,
    exclusive: bool,
}

#[derive(Arbitrary, Debug)]
enum Patch {
    Word(u64),
    Halves(u8, u8),
    Flip(u8),
}

/// The address of one of 20 pages. The machine has memory for the first 16 of them only.
fn page(number: u8) -> PhysAddr {
    PhysAddr(MEMORY_START.0 + u64::from(number % 20) * 4096)
}

/// Opens the directory that the bytes describe, reads all of its entries, and joins with it.
pub fn directory(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    let words: Vec<MockWord> = (0..1024).map(|_| MockWord::new(0)).collect();
    if !input.raw {
        write(&words, &input);
    }
    let patch = |patches: &[(u8, u8, Patch)]| patch(&words, input.cpus, patches);
    patch(&input.patches);
    let Ok(directory) = Directory::open(&words) else { return };
    read_all(&directory, &words, input.room.into());
    let shared = input.records.get(usize::from(input.shared) % 6).map_or(input.shared, |r| r.page);
    join(&directory, page(shared), || patch(&input.later));
}

/// Applies the changes to the words of the directory.
fn patch(words: &[MockWord], cpus: u8, patches: &[(u8, u8, Patch)]) {
    for (entry, field, patch) in patches {
        let stride = 8 + usize::from(cpus % 8);
        let word = match usize::from(*entry) % 13 {
            12 => &words[usize::from(*field) % 8],
            entry => &words[8 + entry * stride + usize::from(*field) % stride],
        };
        let old = word.load(Relaxed);
        let new = match patch {
            Patch::Word(value) => *value,
            Patch::Halves(low, high) => u64::from(*low) | u64::from(*high) << 32,
            Patch::Flip(bit) => old ^ 1 << (bit % 64),
        };
        word.store(new, Relaxed);
    }
}

/// Calls `change`, and then follows the directory. What `follow` reports must agree with the instances in the kernel's table, and
/// it must return the generation of the directory.
fn follow(end: &End, directory: &Directory<'_, MockWord>, change: impl Fn()) {
    for _ in 0..2 {
        change();
        let mut out = Vec::new();
        let followed = end.follow(directory, |id, what| out.push((id, what)));
        let Ok(generation) = followed else { continue };
        assert_eq!(generation, directory.generation());
        for (id, what) in out {
            let known = end.instance(id).is_ok();
            let is = matches!(what, Followed::Added | Followed::Changed | Followed::TakenForDead);
            // An instance that was removed may have been added again.
            assert!(known == is || what == Followed::Removed, "{id:?} {what:?}");
        }
        // Without a further change, `follow` must report nothing. But if the generation is 0, the host does not count its
        // changes. Then `follow` reads all entries each time, and may report something.
        if generation != 0 {
            assert_eq!(end.follow(directory, |id, what| panic!("{id:?} {what:?}")), Ok(generation));
        }
    }
}

fn write(words: &[MockWord], input: &Input) {
    let (instances, cpus) = (u32::from(input.instances % 12), u32::from(input.cpus % 8));
    let Ok(writer) = DirectoryWriter::create(words, instances, cpus) else { return };
    let mut writer = writer.at(page(3));
    for r in &input.records {
        let record = InstanceRecord {
            instance: InstanceId::new(r.id % 12),
            incarnation: Incarnation::new(r.life).unwrap_or(Incarnation::FIRST),
            state: State::from_u32(r.state % 5).expect("below 5"),
            layout: Layout::RfcV2,
            flags: EntryFlags::from_bits_truncate(r.exclusive.into()),
            region: PhysRange::new(page(r.page), u64::from(r.slots % 64) * 272),
            doorbell_cpu: PhysCpuId((r.cpu % 8).into()),
            vector: Vector::RFC_V2,
            nr_cpus: 0,
        };
        let cpus = [record.doorbell_cpu, PhysCpuId(1), PhysCpuId(300)];
        let listed = [1, 1, 1, 2, 2, 2, 2, 3][usize::from(r.cpu / 8) % 8];
        let before = writer.reader().generation();
        let written = writer.write(&record, &cpus[..listed]);
        assert_eq!(written.unwrap_or(before), writer.reader().generation());
        assert_eq!(written.is_ok(), writer.reader().generation() != before);
        has_no_conflict(&writer.reader());
    }
}

/// Checks that no region overlaps the directory or another region, that no entry has a CPU twice, and that no two live entries
/// have the same CPU (SPEC D-9).
fn has_no_conflict(directory: &Directory<'_, MockWord>) {
    let mut cpus = [PhysCpuId(0); 8];
    let mut seen: Vec<(InstanceRecord, Vec<PhysCpuId>)> = Vec::new();
    for id in directory.ids() {
        let Ok(record) = directory.read(id, &mut cpus) else { continue };
        let listed = cpus[..record.nr_cpus as usize].to_vec();
        let on = PhysRange::new(page(3), 64).expect("a range");
        assert!(!record.region.is_some_and(|region| region.overlaps(on)), "{record:?} on the directory");
        for (other, others) in &seen {
            let overlap = record.region.zip(other.region).is_some_and(|(a, b)| a.overlaps(b));
            assert!(!overlap, "{record:?} {other:?}");
            let live = record.state.is_live() && other.state.is_live();
            assert!(!live || listed.iter().all(|cpu| !others.contains(cpu)), "{record:?} {other:?}");
        }
        for (n, cpu) in listed.iter().enumerate() {
            assert!(!listed[..n].contains(cpu), "{record:?} has {cpu:?} twice");
            let is_live = record.state.is_live();
            assert_eq!(directory.has_cpu(id, *cpu), Ok(is_live));
        }
        assert_eq!(directory.record(id), Ok(record));
        seen.push((record, listed));
    }
}

/// Reads all entries. Checks that each entry that is accepted has the values of the words in memory, and that all values are in
/// the documented bounds.
fn read_all(directory: &Directory<'_, MockWord>, words: &[MockWord], room: usize) {
    let header: Vec<u64> = words[..4].iter().map(|w| w.load(Relaxed)).collect();
    assert_eq!(header[0].to_le_bytes(), *b"MKIPIDIR");
    let (nr_instances, nr_cpus) = (header[1] >> 32, header[3] & 0xffff_ffff);
    assert!((1..=256).contains(&nr_instances) && (1..=1024).contains(&nr_cpus) && header[1] & 0xffff == 1);
    assert_eq!(header[2], 64 + nr_instances * (64 + 8 * nr_cpus));
    assert!(header[2] <= 8 * words.len() as u64);
    assert_eq!(directory.ids().count() as u64, nr_instances);
    for id in (0..=255).map(InstanceId::new) {
        let mut cpus = vec![PhysCpuId(0); room];
        let Ok(r) = directory.read(id, &mut cpus) else { continue };
        let at = 8 + id.index() * (8 + usize::try_from(nr_cpus).unwrap());
        let entry: Vec<u64> = words[at..at + 8].iter().map(|w| w.load(Relaxed)).collect();
        assert_eq!(entry[0] % 2, 0);
        assert_eq!(entry[1], u64::from(id.get()) | u64::from(r.incarnation.get()) << 32);
        assert_eq!(entry[2], r.state as u64 | 1 << 32);
        assert_eq!(entry[3] & 1, u64::from(r.flags.contains(EntryFlags::EXCLUSIVE)));
        assert_eq!(entry[3] >> 32, u64::from(r.vector.get()));
        assert_eq!((entry[6], entry[7] & 0xffff_ffff), (r.doorbell_cpu.0, r.nr_cpus.into()));
        assert!(id.index() < usize::try_from(nr_instances).unwrap() && r.instance == id);
        assert!(r.state != State::Absent && (0x20..=0xfe).contains(&r.vector.get()));
        assert!((1..=nr_cpus).contains(&r.nr_cpus.into()) && r.nr_cpus as usize <= room);
        assert!(cpus[..r.nr_cpus as usize].contains(&r.doorbell_cpu));
        match r.region {
            None => assert_eq!((entry[4], entry[5]), (0, 0)),
            Some(region) => {
                assert_eq!((entry[4], entry[5]), (region.start().0, region.len()));
                assert!(region.start().0 % 4096 == 0 && region.len() >= 272 && region.end().0 <= 1 << 52);
            }
        }
    }
}

/// Joins. Afterwards all live instances must be in the kernel's table, except those that were reported as left out. If joining
/// fails, the table must be empty.
fn join(directory: &Directory<'_, MockWord>, shared: PhysAddr, change: impl Fn()) {
    let machine = Machine::builder().kernel(&[1]).memory(16).build();
    let end = End::new(machine.kernel(0));
    let records = directory.ids().filter_map(|id| directory.record(id).ok());
    let alive = records.filter(|r| matches!(r.state, State::Starting | State::Running)).count();
    let known = || (0..=255).map(InstanceId::new).filter(|&id| end.instance(id).is_ok()).count();
    let mut left_out = Vec::new();
    match end.join_and(shared, directory, |id, e| left_out.push((id, e))) {
        Ok(added) => {
            let (me, life) = end.identity().expect("joined");
            let own = end.instance(me).expect("its own instance");
            assert_eq!((own.incarnation(), own.region().map(|r| r.start())), (life, Some(shared)));
            drop(own);
            for (id, e) in &left_out {
                let (JoinError::Instance(of, _) | JoinError::Entry(of, _)) = *e else { panic!("{e:?}") };
                assert!(of == *id && *id != me && end.instance(*id).is_err());
            }
            let unreadable = left_out.iter().filter(|(_, e)| matches!(e, JoinError::Entry(..))).count();
            assert_eq!((known(), added + left_out.len()), (added, alive + unreadable));
            end.on_interrupt();
            end.run_deferred();
            follow(&end, directory, change);
            for id in (0..=255).map(InstanceId::new) {
                let _ = end.send(id, mk_ipi_abi::MessageType(1), b"hello");
                let _ = end.destroy_instance(id);
            }
        }
        Err(_) => assert!(end.identity().is_none()),
    }
    assert_eq!((known(), machine.kernel(0).live_mappings()), (0, 0));
}
