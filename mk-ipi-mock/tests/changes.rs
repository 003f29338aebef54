// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines that change while kernels run: CPUs and instances that come and go, regions that end, hosts of any size, and a bad
//! third. Each test is the right outcome (SPEC D-7 to D-10, N-12, N-17).
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic"
)]

use mk_ipi_abi::directory::{directory_size, EntryFlags, InstanceRecord, Layout, State};
use mk_ipi_abi::native::{header, Attached, Geometry, StampError};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::directory::{Directory, DirectoryWriter};
use mk_ipi_core::platform::{Access, Mapping, PeerEvent, PhysMemory};
use mk_ipi_core::{
    AddError, DestroyError, Endpoint, Followed, InstanceConfig, JoinError, LinkConfig, SendError,
};
use mk_ipi_mock::{Callback, Link, Machine, MockPlatform, MockWord};
use std::sync::{Arc, Mutex};

const TYPE: MessageType = MessageType(7);
const LINES: u32 = 8;
const BELL: Vector = Vector::RFC_V2;

fn id(kernel: usize) -> InstanceId {
    InstanceId::new(kernel as u8)
}

fn life(n: u32) -> Incarnation {
    Incarnation::new(n).unwrap()
}

type Seen = Arc<Mutex<Vec<(usize, u8)>>>;

/// Kernels that know of each other what the directory says; kernel 0 writes it.
struct World {
    machine: Machine,
    geometry: Geometry,
    regions: Vec<PhysRange>,
    range: PhysRange,
    host: Mapping<MockWord>,
    links: Vec<Arc<Link>>,
    seen: Vec<Seen>,
}

impl World {
    /// Kernels with these CPUs, instances in the directory by that number, each rung at its first CPU; nobody has joined.
    fn new(cpus: &[&[u64]], room: u32) -> Self {
        let builder = cpus.iter().fold(Machine::builder(), |b, k| b.kernel(k));
        let machine = builder.memory(4096).pool(id(1), 64).build();
        let geometry = Geometry::new(cpus.len() as u32 + 1, LINES, 256).unwrap();
        let regions: Vec<_> = cpus.iter().map(|_| machine.native_region(geometry)).collect();
        let nr = cpus.len() as u32 + 1;
        let range = machine.reserve(directory_size(nr, room));
        let host = machine.kernel(0).map(range, Access::ReadWrite).unwrap();
        DirectoryWriter::create(host.words(), nr, room).unwrap();
        let seen = cpus.iter().map(|_| Arc::default()).collect();
        let world = Self { machine, geometry, regions, range, host, links: Vec::new(), seen };
        for (k, cpus) in cpus.iter().enumerate() {
            world.write(world.record(k), cpus);
        }
        world
    }

    /// As `new`, and all have joined and heard of each other.
    fn joined(cpus: &[&[u64]]) -> Self {
        let mut world = Self::new(cpus, 8);
        (0..cpus.len()).for_each(|k| world.join(k, None));
        world.settle();
        (0..cpus.len()).for_each(|k| drop(world.events(k)));
        world
    }

    /// The next kernel joins; it takes doorbells at `own`, if it has a vector of its own.
    fn join(&mut self, k: usize, own: Option<(PhysCpuId, Vector)>) {
        let (kernel, link) = (self.machine.kernel(k), Arc::new(Link::new(self.machine.kernel(k))));
        let (interrupt, deferred) = (link.clone(), link.clone());
        kernel.set_vector(own.map_or(BELL, |(_, vector)| vector), move || interrupt.on_interrupt());
        kernel.set_deferred(move || _ = deferred.run_deferred());
        kernel.read_directory(self.range);
        let seen = self.seen[k].clone();
        let note = move |m: &mk_ipi_core::Message<'_>| {
            seen.lock().unwrap().push((m.sender().unwrap().index(), m.payload()[0]));
        };
        let _ = link.register(TYPE, Callback::new(note)).unwrap();
        if let Some((cpu, vector)) = own {
            link.begin_at(cpu, vector).unwrap();
        }
        self.with_directory(k, |d| link.join(self.regions[k].start(), d)).unwrap();
        self.links.push(link);
    }

    /// The host makes instance 1 anew, with a region from its pool.
    fn pooled(&self) -> PhysRange {
        let (host, one) = (&self.links[0], self.kernel(1));
        host.destroy_instance(id(1)).unwrap();
        let link = LinkConfig::Native(Some(self.geometry));
        host.create_instance(&InstanceConfig { link, ..one.native_config(id(1), life(1)) }).unwrap()
    }
    fn kernel(&self, k: usize) -> MockPlatform {
        self.machine.kernel(k)
    }
    fn record(&self, k: usize) -> InstanceRecord {
        InstanceRecord {
            instance: id(k),
            incarnation: life(1),
            state: State::Running,
            layout: Layout::Native,
            flags: EntryFlags::empty(),
            region: Some(self.regions[k]),
            doorbell_cpu: self.kernel(k).cpus()[0],
            vector: BELL,
            nr_cpus: 0,
        }
    }
    /// The host writes an entry.
    fn write(&self, record: InstanceRecord, cpus: &[u64]) -> u32 {
        let cpus: Vec<_> = cpus.iter().copied().map(PhysCpuId).collect();
        DirectoryWriter::take_over(self.host.words()).unwrap().write(&record, &cpus).unwrap()
    }
    fn with_directory<R>(&self, k: usize, f: impl FnOnce(&Directory<'_, MockWord>) -> R) -> R {
        let mapping = self.kernel(k).map(self.range, Access::ReadOnly).unwrap();
        let result = f(&Directory::open(mapping.words()).unwrap());
        // SAFETY: mapped above, and nothing is borrowed from it any more.
        unsafe { self.kernel(k).unmap(mapping) };
        result
    }
    fn follow(&self, k: usize) -> (Result<u32, JoinError>, Vec<(InstanceId, Followed)>) {
        let mut news = Vec::new();
        let followed = self.with_directory(k, |d| self.links[k].follow(d, |id, what| news.push((id, what))));
        (followed, news)
    }
    /// Who has `k`'s region mapped and is behind.
    fn behind(&self, k: usize, generation: u32) -> Vec<InstanceId> {
        let mut behind = Vec::new();
        self.links[k].behind(generation, |id, _| behind.push(id)).unwrap();
        behind
    }
    fn settle(&self) {
        self.machine.run(|_| ()).unwrap();
    }
    fn send(&self, from: usize, to: usize, n: u8) -> Result<(), SendError> {
        self.links[from].send(id(to), TYPE, &[n]).map(drop)
    }
    fn seen(&self, k: usize) -> Vec<(usize, u8)> {
        std::mem::take(&mut *self.seen[k].lock().unwrap())
    }
    fn events(&self, k: usize) -> Vec<(InstanceId, PeerEvent)> {
        self.kernel(k).peer_events()
    }
    fn tick(&self, k: usize) -> Vec<(InstanceId, PeerEvent)> {
        self.links[k].tick(1, 10);
        self.events(k)
    }
}

// ---- nobody is kept out by a third party ----

#[test]
fn of_ten_peers_nine_are_joined_whatever_the_tenth_is_and_that_one_later() {
    let cpus: Vec<_> = (0..11).map(|k| [k * 3]).collect();
    let cpus: Vec<&[u64]> = cpus.iter().map(|c| &c[..]).collect();
    let world = World::new(&cpus, 8);
    let bad = world.regions[5].start();
    let lanes = PhysAddr(bad.0 + 8);
    let good = [bad, lanes].map(|at| world.machine.peek(at));
    let few = Geometry::new(1, LINES, 256).unwrap();
    let entry = PhysAddr(world.range.start().0 + 64 + 5 * (64 + 64) + 56);
    // A destroyed stamp, a foreign layout, too few lanes for us, a list of CPUs that makes no sense.
    type Break<'a> = (&'a dyn Fn(), fn(JoinError) -> bool);
    let breaks: [Break<'_>; 4] = [
        (&|| world.machine.poke(bad, 0), |e| matches!(e, JoinError::Instance(_, AddError::Stamp(_)))),
        (&|| world.machine.poke(lanes, 9), |e| {
            matches!(e, JoinError::Instance(_, AddError::Stamp(StampError::Version(_))))
        }),
        (&|| world.machine.make_native_region(world.regions[5], few), |e| {
            matches!(e, JoinError::Instance(_, AddError::NoLane(_)))
        }),
        (&|| world.machine.poke(entry, 99), |e| matches!(e, JoinError::Entry(..))),
    ];
    for (n, (spoil, is_why)) in breaks.into_iter().enumerate() {
        spoil();
        let link = Link::new(world.kernel(1));
        let mut left_out = Vec::new();
        let joined = world.with_directory(1, |d| {
            link.join_and(world.regions[1].start(), d, |id, why| left_out.push((id, why)))
        });
        assert_eq!(joined, Ok(10), "case {n}: all but one");
        assert!(
            matches!(left_out[..], [(who, why)] if who == id(5) && is_why(why)),
            "case {n}: {left_out:?}"
        );
        // Mended, and its entry written anew.
        world.machine.make_native_region(world.regions[5], world.geometry);
        [bad, lanes].into_iter().zip(good).for_each(|(at, word)| world.machine.poke(at, word));
        let generation = world.write(world.record(5), &[15]);
        let mut news = Vec::new();
        let followed = world.with_directory(1, |d| link.follow(d, |id, what| news.push((id, what))));
        assert_eq!((followed, news), (Ok(generation), vec![(id(5), Followed::Added)]), "case {n}");
        assert!(link.instance(id(5)).is_ok());
        for k in 0..11 {
            link.destroy_instance(id(k)).unwrap();
        }
    }
}

// ---- hosts of any size ----

#[test]
fn a_kernel_of_one_cpu_joins_a_host_of_512_with_sparse_and_large_ids() {
    let cpus: Vec<u64> = (0..512).map(|n| if n < 500 { n * 2 } else { n << 24 }).collect();
    let world = World::new(&[&cpus, &[1]], 512);
    let kernel = world.kernel(1);
    kernel.read_directory(world.range);
    let link = Endpoint::<_, Callback, 1, 4, 4, 2>::new(kernel);
    let joined = world.with_directory(1, |d| link.join(world.regions[1].start(), d));
    assert_eq!(joined, Ok(2));
    assert!(link.send(id(0), TYPE, &[1]).is_ok());
    let listed = |cpu| link.send_to_cpu(id(0), PhysCpuId(cpu), TYPE, &[2]);
    assert_eq!(listed(3), Err(SendError::NotItsCpu(PhysCpuId(3))));
    assert!(listed(0).is_ok());
    // Ids that it has no room for are left out by name, not dropped.
    let mut record = world.record(1);
    record.instance = id(2);
    record.doorbell_cpu = PhysCpuId(5);
    record.region = Some(world.machine.native_region(world.geometry));
    world.write(record, &[5]);
    let mut news = Vec::new();
    world.with_directory(1, |d| link.follow(d, |id, what| news.push((id, what)))).unwrap();
    let why = JoinError::Instance(id(2), AddError::BeyondTable(id(2)));
    assert_eq!(news, [(id(2), Followed::LeftOut(why))]);
}

// ---- a vector of one's own ----

#[test]
fn nobody_is_rung_before_it_listens_nor_elsewhere_than_where_it_listens() {
    let mut world = World::new(&[&[0], &[10, 11], &[20]], 8);
    world.join(0, None);
    world.send(0, 1, 1).unwrap();
    world.settle();
    assert_eq!([10, 11].map(|cpu| world.machine.doorbells_at(PhysCpuId(cpu))), [0, 0], "nobody listens");
    world.join(1, Some((PhysCpuId(11), Vector::new(0x41).unwrap())));
    world.join(2, None);
    world.settle();
    for k in [0, 2] {
        world.send(k, 1, 7).unwrap();
        world.settle();
    }
    assert_eq!(world.seen(1), [(0, 1), (0, 7), (2, 7)]);
    assert_eq!(world.machine.doorbells_at(PhysCpuId(10)), 0, "where the directory says");
    assert!(world.machine.doorbells_at(PhysCpuId(11)) >= 2);
    let too_long = PhysCpuId(1 << 48);
    assert!(world.links[1].begin_at(too_long, BELL).is_err(), "no word can say so");
}

#[test]
fn a_life_that_has_not_begun_is_not_rung_where_the_one_before_it_listened() {
    let mut world = World::joined(&[&[0], &[10], &[20]]);
    let rung = |world: &World| world.machine.doorbells_at(PhysCpuId(10));
    // Instance 1 dies: armed, as it was. Its next life starts, and has not joined yet.
    world.write(InstanceRecord { state: State::Dead, ..world.record(1) }, &[10]);
    let next = InstanceRecord { state: State::Starting, incarnation: life(2), ..world.record(1) };
    world.write(next, &[10]);
    let before = rung(&world);
    for k in [0, 2] {
        world.follow(k).0.unwrap();
        world.send(k, 1, k as u8).unwrap();
        world.links[k].ring(id(1)).unwrap();
    }
    world.links[0].stop(id(1), life(1)).unwrap();
    world.settle();
    assert_eq!(rung(&world), before, "it has no vector yet");
    // It joins, finds what waits, and is rung from then on.
    let former = world.links.remove(1);
    drop(former);
    let last = world.links.pop().unwrap();
    world.join(1, None);
    world.links.push(last);
    world.settle();
    assert_eq!(world.seen(1), [(0, 0), (2, 2)]);
    world.send(0, 1, 7).unwrap();
    world.settle();
    assert_eq!(world.seen(1), [(0, 7)]);
    assert!(rung(&world) > before);
}

// ---- CPU lists change ----

#[test]
fn a_cpu_goes_to_another_kernel_and_no_vector_follows_it() {
    let world = World::joined(&[&[0], &[10, 11], &[20], &[30]]);
    // Instance 1 is rung at CPU 11; all peers have found that out.
    world.links[1].move_doorbell(PhysCpuId(11), BELL).unwrap();
    world.settle();
    for k in [0, 2, 3] {
        world.send(k, 1, k as u8).unwrap();
        world.settle();
    }
    assert_eq!(world.seen(1), [(0, 0), (2, 2), (3, 3)]);
    // It gives CPU 11 up: first its doorbell, then the entry, then everybody follows.
    world.links[1].move_doorbell(PhysCpuId(10), BELL).unwrap();
    world.settle();
    let generation = world.write(world.record(1), &[10]);
    assert_eq!(world.behind(1, generation), [id(0), id(2), id(3)]);
    for k in [0, 2] {
        assert_eq!(world.follow(k).0, Ok(generation));
    }
    assert_eq!(world.behind(1, generation), [id(3)], "by name");
    assert_eq!(world.follow(3).0, Ok(generation));
    assert_eq!(world.behind(1, generation), []);
    // A life that insists on it is not rung there: the directory says whose it is.
    world.links[1].move_doorbell(PhysCpuId(11), BELL).unwrap_err();
    let bell = mk_ipi_abi::native::Bell { cpu: PhysCpuId(11), vector: BELL }.to_word().unwrap();
    let at = PhysAddr(world.regions[1].start().0 + 8 * mk_ipi_abi::native::receiver::BELL as u64);
    world.machine.poke(at, bell);
    world.send(0, 1, 9).unwrap();
    world.settle();
    assert_eq!(world.seen(1), [(0, 9)], "rung where the directory says");
    let rung_at_11 = world.machine.doorbells_at(PhysCpuId(11));
    world.send(0, 1, 8).unwrap();
    world.settle();
    assert_eq!(world.machine.doorbells_at(PhysCpuId(11)), rung_at_11, "no stray vector");
    let asked = |events: &[_]| events.contains(&(id(1), PeerEvent::ReadDirectory));
    assert!(asked(&world.tick(0)), "and told to read the directory again");
}

#[test]
fn a_cpu_that_was_good_is_not_rung_any_more_once_the_directory_was_followed() {
    let world = World::joined(&[&[0], &[10, 11]]);
    world.links[1].move_doorbell(PhysCpuId(11), BELL).unwrap();
    world.settle();
    world.send(0, 1, 1).unwrap();
    world.settle();
    // Its kernel does not move the doorbell back, or not yet.
    world.write(world.record(1), &[10]);
    world.follow(0).0.unwrap();
    let before = world.machine.doorbells_at(PhysCpuId(11));
    world.send(0, 1, 2).unwrap();
    world.settle();
    assert_eq!(world.machine.doorbells_at(PhysCpuId(11)), before);
    assert_eq!(world.seen(1), [(0, 1), (0, 2)]);
}

#[test]
fn a_cpu_is_added_to_a_running_instance_and_rung_there() {
    let world = World::joined(&[&[0, 1], &[10]]);
    let before = world.record(0);
    world.write(InstanceRecord { doorbell_cpu: PhysCpuId(1), ..before }, &[0, 1]);
    assert_eq!(world.follow(1).1, [(id(0), Followed::Changed)]);
    let rung = world.machine.doorbells_at(PhysCpuId(1));
    world.send(1, 0, 4).unwrap();
    world.settle();
    assert_eq!((world.seen(0), world.machine.doorbells_at(PhysCpuId(1))), (vec![(1, 4)], rung + 1));
    assert_eq!(world.events(0), [], "nobody is accused");
    assert_eq!(world.follow(1).1, []);
}

#[test]
fn a_cpu_that_was_added_speaks_to_a_peer_that_has_not_followed() {
    let world = World::joined(&[&[0, 1], &[10]]);
    world.write(world.record(0), &[0]);
    world.follow(1).0.unwrap();
    // Kernel 1 has read that instance 0 has CPU 0 alone; CPU 1 comes, and speaks at once.
    world.write(world.record(0), &[0, 1]);
    let sent = Mutex::new(Err(SendError::NotNative));
    let added = PhysCpuId(1);
    world
        .machine
        .run(|cpu| {
            if cpu.id() == added {
                *sent.lock().unwrap() = world.send(0, 1, 2);
            }
        })
        .unwrap();
    assert_eq!((*sent.lock().unwrap(), world.seen(1)), (Ok(()), vec![(0, 2)]));
    world.send(0, 1, 3).unwrap();
    world.settle();
    assert_eq!((world.seen(1), world.tick(1)), (vec![(0, 3)], vec![(id(0), PeerEvent::Up(life(1)))]));
}

/// Whatever a kernel writes over its own sign of life: that it stands still is noticed.
#[test]
fn a_peer_whose_sign_of_life_is_gone_is_suspect() {
    for garbage in [0, 0x4141_4141_4141_4141, 1 << 40, 1] {
        let world = World::joined(&[&[0], &[10]]);
        world.tick(1);
        world.tick(0);
        let at = world.regions[1].start().0 + 8 * mk_ipi_abi::native::receiver::LIFE as u64;
        world.machine.poke(PhysAddr(at), garbage);
        (1..200).for_each(|now| world.links[0].tick(now, 10));
        let suspects = world.events(0).iter().filter(|e| **e == (id(1), PeerEvent::Suspect)).count();
        assert_eq!(suspects, 1, "{garbage:#x}");
    }
}

#[test]
fn what_is_attached_by_an_old_entry_is_put_right() {
    let world = World::joined(&[&[0], &[10, 11]]);
    let one = world.kernel(1);
    let old = one.native_config(id(1), life(1));
    let generation = world.write(InstanceRecord { doorbell_cpu: PhysCpuId(11), ..world.record(1) }, &[11]);
    assert_eq!(world.follow(0).0, Ok(generation));
    world.links[0].destroy_instance(id(1)).unwrap();
    world.links[0].attach_instance(&old, Some(world.regions[1])).unwrap();
    assert_eq!(world.behind(1, generation), [id(0)]);
    assert_eq!(world.follow(0), (Ok(generation), vec![(id(1), Followed::Changed)]));
    assert_eq!(world.behind(1, generation), []);
}

#[test]
fn what_is_otherwise_in_the_next_life_is_attached_anew() {
    let world = World::joined(&[&[0], &[10, 11]]);
    let next = InstanceRecord { incarnation: life(2), flags: EntryFlags::ONE_DOORBELL, ..world.record(1) };
    world.write(InstanceRecord { state: State::Dead, ..world.record(1) }, &[10, 11]);
    world.write(next, &[10, 11]);
    assert_eq!(world.follow(0).1, [(id(1), Followed::Removed), (id(1), Followed::Added)]);
    assert!(world.links[0].instance(id(1)).unwrap().one_doorbell());
    // Its region has another layout: what is there is none of that.
    world.write(InstanceRecord { state: State::Dead, ..next }, &[10, 11]);
    let flags = EntryFlags::empty();
    let slots = InstanceRecord { incarnation: life(3), layout: Layout::RfcV2, flags, ..next };
    world.write(slots, &[10, 11]);
    assert_eq!(world.follow(0).1, [(id(1), Followed::Removed), (id(1), Followed::Added)]);
    let exclusive = InstanceRecord { incarnation: life(4), flags: EntryFlags::EXCLUSIVE, ..slots };
    world.write(InstanceRecord { state: State::Dead, ..slots }, &[10, 11]);
    world.write(exclusive, &[10, 11]);
    assert_eq!(world.follow(0).1, [(id(1), Followed::Removed), (id(1), Followed::Added)]);
    assert_eq!(world.links[0].instance(id(1)).unwrap().policy(), Some(mk_ipi_core::SlotPolicy::Exclusive));
}

#[test]
fn the_dead_are_not_rung_and_the_next_life_is() {
    let world = World::joined(&[&[0], &[10], &[20]]);
    world.machine.stop_kernel(1);
    let dead = InstanceRecord { state: State::Dead, ..world.record(1) };
    world.write(dead, &[10]);
    assert_eq!(world.follow(0).1, [(id(1), Followed::Changed)]);
    let rung = world.machine.doorbells_at(PhysCpuId(10));
    world.send(0, 1, 1).unwrap();
    world.links[0].ring(id(1)).unwrap();
    assert_eq!(world.machine.doorbells_at(PhysCpuId(10)), rung, "its CPU may be another's by now");
    world.write(InstanceRecord { incarnation: life(2), ..world.record(1) }, &[10]);
    // That life has begun by now, and listens.
    world
        .machine
        .poke(PhysAddr(world.regions[1].start().0 + 8 * mk_ipi_abi::native::receiver::LIFE as u64), 2);
    assert_eq!(world.follow(0).1, [(id(1), Followed::Changed)]);
    assert_eq!(world.machine.doorbells_at(PhysCpuId(10)), rung + 1, "what was sent meanwhile is rung for");
}

#[test]
fn a_kernel_that_is_taken_for_dead_learns_of_it() {
    let world = World::joined(&[&[0], &[10]]);
    world.write(InstanceRecord { state: State::Dead, ..world.record(1) }, &[10]);
    assert_eq!(world.follow(1).1, [(id(1), Followed::TakenForDead)]);
}

#[test]
fn what_cannot_be_read_of_a_known_instance_is_not_followed() {
    let world = World::joined(&[&[0], &[10]]);
    let at = PhysAddr(world.range.start().0 + 64 + (64 + 64) + 16);
    let good = world.machine.peek(at);
    world.write(world.record(0), &[0]);
    world.machine.poke(at, good & !0xff | 9);
    let unknown = mk_ipi_abi::directory::EntryError::UnknownState(9);
    assert_eq!(world.follow(0).0, Err(JoinError::Entry(id(1), unknown)));
    world.machine.poke(at, good);
    assert!(world.follow(0).0.is_ok());
}

// ---- regions end ----

#[test]
fn a_pooled_region_goes_back_when_its_peers_have_let_go() {
    let world = World::joined(&[&[0], &[10], &[20]]);
    let host = &world.links[0];
    let region = world.pooled();
    let old = InstanceRecord { state: State::Dead, ..world.record(1) };
    world.write(old, &[10]);
    let new = InstanceRecord { region: Some(region), incarnation: life(2), ..world.record(1) };
    world.write(new, &[10]);
    assert_eq!(world.follow(2).1, [(id(1), Followed::Removed), (id(1), Followed::Added)]);
    world.links[2].send(id(1), TYPE, &[5]).unwrap();
    // Kernel 1 is dead. The host wants the region back: kernel 2 has it mapped.
    assert_eq!(host.destroy_instance(id(1)), Err(DestroyError::Mapped(id(2), life(1))));
    assert!(host.send(id(1), TYPE, &[1]).is_ok(), "nothing has changed");
    world.write(InstanceRecord { state: State::Dead, ..new }, &[10]);
    let generation = world.write(InstanceRecord { state: State::Ending, ..new }, &[10]);
    assert_eq!(
        host.destroy_instance(id(1)),
        Err(DestroyError::Mapped(id(2), life(1))),
        "it has not answered"
    );
    world.events(2);
    // Who uses it meanwhile holds that up, and it is tried again.
    let held = world.links[2].instance(id(1)).unwrap();
    assert_eq!(world.follow(2).0, Err(JoinError::InUse(id(1))));
    assert_eq!(world.follow(2).0, Err(JoinError::InUse(id(1))));
    drop(held);
    assert_eq!(world.follow(2), (Ok(generation), vec![(id(1), Followed::Removed)]));
    assert!(matches!(world.events(2)[..], [(peer, PeerEvent::Unsettled { after: 0, .. })] if peer == id(1)));
    world.events(0);
    host.destroy_instance(id(1)).unwrap();
    assert_eq!(world.machine.pool_used(id(1)), 0);
    assert!(matches!(world.events(0)[..], [(_, PeerEvent::Unsettled { .. })]), "what the host had sent");
}

#[test]
fn who_never_answers_keeps_the_region_until_its_cpus_have_stopped() {
    let world = World::joined(&[&[0], &[10], &[20]]);
    let host = &world.links[0];
    let region = world.pooled();
    world.links[2].destroy_instance(id(1)).unwrap();
    world.links[2].attach_instance(&world.kernel(1).native_config(id(1), life(1)), Some(region)).unwrap();
    let mut asked = Vec::new();
    let refused = host.destroy_with(id(1), |who, life| {
        asked.push((who, life));
        false
    });
    assert_eq!((refused, &asked[..]), (Err(DestroyError::Mapped(id(2), life(1))), &[(id(2), life(1))][..]));
    // Another life than the one that has it mapped has stopped.
    assert!(host.destroy_with(id(1), |who, n| who == id(2) && n == life(7)).is_err());
    world.machine.stop_kernel(2);
    host.destroy_with(id(1), |who, n| who == id(2) && n == life(1)).unwrap();
    assert_eq!(world.machine.pool_used(id(1)), 0);
}

#[test]
fn a_region_that_was_in_use_is_looked_at_again() {
    let world = World::joined(&[&[0], &[10], &[20]]);
    let host = &world.links[0];
    let (one, region) = (world.kernel(1), world.pooled());
    let held = host.instance(id(1)).unwrap();
    assert_eq!(host.destroy_instance(id(1)), Err(DestroyError::InUse(1)));
    // Somebody attaches it by an entry that it read before.
    world.links[2].destroy_instance(id(1)).unwrap();
    world.links[2].attach_instance(&one.native_config(id(1), life(1)), Some(region)).unwrap();
    drop(held);
    assert_eq!(host.destroy_instance(id(1)), Err(DestroyError::Mapped(id(2), life(1))));
    assert!(host.send(id(1), TYPE, &[1]).is_ok(), "it is there again");
    // Who did not make it can ask, too.
    let mut by = Vec::new();
    world.links[2].mapped_by(id(1), |id, _| by.push(id)).unwrap();
    host.mapped_by(id(1), |id, life| by.push((id, life).0)).unwrap();
    assert_eq!(by, [id(0), id(2)]);
    world.links[2].destroy_instance(id(1)).unwrap();
    host.destroy_instance(id(1)).unwrap();
    assert_eq!(world.machine.pool_used(id(1)), 0);
}

#[test]
fn its_own_receiver_keeps_a_region_until_its_goodbye() {
    let machine = Machine::builder().memory(2048).kernel(&[0]).kernel(&[3]).pool(id(1), 64).build();
    let geometry = Geometry::new(2, LINES, 256).unwrap();
    let host = machine.kernel(0).boot(id(0), life(1));
    let kernel = machine.kernel(1);
    let link = LinkConfig::Native(Some(geometry));
    let config = InstanceConfig { link, ..kernel.native_config(id(1), life(1)) };
    let region = host.create_instance(&config).unwrap();
    let one = machine.kernel(1).boot(id(1), life(4));
    one.attach_instance(&machine.kernel(1).native_config(id(1), life(4)), Some(region)).unwrap();
    assert_eq!(host.destroy_instance(id(1)), Err(DestroyError::Mapped(id(1), life(4))));
    // Also if it has let go of its own lane.
    let lane = geometry.lane_at(1).unwrap() + 8 * header::ATTACHED as u64;
    machine.poke(PhysAddr(region.start().0 + lane), 0);
    assert_eq!(host.destroy_instance(id(1)), Err(DestroyError::Mapped(id(1), life(4))));
    one.goodbye();
    one.destroy_instance(id(1)).unwrap();
    host.destroy_instance(id(1)).unwrap();
}

#[test]
fn a_region_that_is_made_anew_below_a_peer_is_noticed() {
    let world = World::joined(&[&[0], &[10]]);
    world.send(0, 1, 1).unwrap();
    world.settle();
    world.machine.stop_kernel(1);
    for n in 2..4 {
        world.send(0, 1, n).unwrap();
    }
    let number = world.links[0].lane_stats(id(1)).unwrap().number;
    world.machine.make_native_region(world.regions[1], world.geometry);
    assert_eq!(world.send(0, 1, 4), Err(SendError::RegionGone));
    assert_eq!(world.links[0].post_many(id(1), TYPE, &[&[1], &[2]]), Err(SendError::RegionGone));
    assert_eq!(world.links[0].send_from_nmi(id(1), TYPE, &[4]), Err(SendError::RegionGone));
    let told = world.tick(0);
    let lost = PeerEvent::Unsettled { after: 0, to: number };
    assert_eq!(told, [(id(1), lost), (id(1), PeerEvent::ReadDirectory)]);
    assert_eq!(world.tick(0), [], "once");
    // Whoever reads the directory again attaches it again.
    world.write(InstanceRecord { state: State::Dead, ..world.record(1) }, &[10]);
    world.write(InstanceRecord { incarnation: life(2), ..world.record(1) }, &[10]);
    assert_eq!(world.follow(0).1, [(id(1), Followed::Removed), (id(1), Followed::Added)]);
    world.send(0, 1, 5).unwrap();
}

#[test]
fn one_region_is_not_two_instances() {
    let world = World::joined(&[&[0], &[10], &[20]]);
    world.links[0].destroy_instance(id(2)).unwrap();
    let two = world.kernel(2);
    let config = two.native_config(id(2), life(1));
    let attach = |at: u64, len| {
        let range = PhysRange::new(PhysAddr(world.regions[1].start().0 + at), len);
        world.links[0].attach_instance(&config, range)
    };
    for (at, len) in [(0, world.regions[1].len()), (4096, 4096), (0, 4096)] {
        assert_eq!(attach(at, len), Err(AddError::Overlaps(id(1))));
    }
    world.links[0].attach_instance(&config, Some(world.regions[2])).unwrap();
}

#[test]
fn what_a_detached_sender_said_of_itself_is_gone() {
    let world = World::joined(&[&[0], &[10]]);
    let lane = world.geometry.lane_at(0).unwrap() + 8 * header::ATTACHED as u64;
    let at = PhysAddr(world.regions[1].start().0 + lane);
    let attached = |at| Attached::from_word(world.machine.peek(at));
    assert_eq!(attached(at).map(|a| a.incarnation), Some(life(1)));
    world.links[0].destroy_instance(id(1)).unwrap();
    assert_eq!(attached(at), None);
    world.follow(0).0.unwrap();
}

// ---- lives ----

#[test]
fn up_is_told_once_for_each_life_however_often_it_is_attached() {
    let world = World::joined(&[&[0], &[10]]);
    let up = |events: Vec<(InstanceId, PeerEvent)>| {
        events.into_iter().filter(|(_, event)| matches!(event, PeerEvent::Up(_))).count()
    };
    assert_eq!(up(world.tick(0)), 1);
    for _ in 0..3 {
        world.links[0].destroy_instance(id(1)).unwrap();
        let one = world.kernel(1);
        let config = one.native_config(id(1), life(1));
        world.links[0].attach_instance(&config, Some(world.regions[1])).unwrap();
        assert_eq!(up(world.tick(0)), 0);
    }
}
