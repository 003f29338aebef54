// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines whose directory changes while kernels run: CPUs and instances are added and removed, hosts have one or many CPUs, and
//! entries are bad (SPEC D-7 to D-10, N-12, N-17).

use crate::changing::{id, life, World, BELL, LINES, TYPE};
use core::mem::offset_of;
use mk_ipi_abi::directory::{DirectoryHeader, EntryFlags, InstanceRecord, Layout, State};
use mk_ipi_abi::native::{Geometry, StampError};
use mk_ipi_abi::{InstanceId, PhysAddr, PhysCpuId, Vector};
use mk_ipi_core::platform::{Observer, PeerEvent};
use mk_ipi_core::{AddError, Endpoint, Followed, JoinError, SendError};
use mk_ipi_mock::{Callback, Link};
use std::sync::Mutex;

// ---- a bad instance does not keep others from joining ----

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
    // Each break makes instance 5 unusable: a stamp without its magic, a stamp of another version, a region without a lane for
    // kernel 1, and an entry with more CPUs than an entry has space for.
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
        assert_eq!(joined, Ok(10), "case {n}: kernel 1 has attached all instances except one");
        assert!(
            matches!(left_out[..], [(who, why)] if who == id(5) && is_why(why)),
            "case {n}: {left_out:?}"
        );
        // The region of instance 5 is repaired, and its entry is written again.
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
    // The id of this instance is too large for the endpoint's table. `follow` leaves it out, and reports which one it is.
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

// ---- at which CPU and vector a kernel is rung ----

#[test]
fn nobody_is_rung_before_it_listens_nor_elsewhere_than_where_it_listens() {
    let mut world = World::new(&[&[0], &[10, 11], &[20]], 8);
    world.join(0, None);
    world.send(0, 1, 1).unwrap();
    world.settle();
    assert_eq!(
        [10, 11].map(|cpu| world.machine.doorbells_at(PhysCpuId(cpu))),
        [0, 0],
        "a kernel that has not joined is not rung"
    );
    world.join(1, Some((PhysCpuId(11), Vector::new(0x41).unwrap())));
    world.join(2, None);
    world.settle();
    for k in [0, 2] {
        world.send(k, 1, 7).unwrap();
        world.settle();
    }
    assert_eq!(world.seen(1), [(0, 1), (0, 7), (2, 7)]);
    let at_10 = world.machine.doorbells_at(PhysCpuId(10));
    assert_eq!(at_10, 0, "a kernel whose BELL names another CPU is not rung at the directory's CPU");
    assert!(world.machine.doorbells_at(PhysCpuId(11)) >= 2);
    let too_long = PhysCpuId(1 << 48);
    assert!(
        world.links[1].begin_at(too_long, BELL).is_err(),
        "a CPU id of more than 48 bits does not fit into BELL"
    );
}

#[test]
fn a_life_that_has_not_begun_is_not_rung_where_the_one_before_it_listened() {
    let mut world = World::joined(&[&[0], &[10], &[20]]);
    let rung = |world: &World| world.machine.doorbells_at(PhysCpuId(10));
    // Instance 1 dies while its ARMED is 1. Its next life starts, and has not joined yet.
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
    assert_eq!(rung(&world), before, "a life that has not begun is not rung");
    // Now the life begins. It must find the messages that were sent before, and must be rung for later ones.
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
    // Instance 1 moves its doorbell to CPU 11, and all peers have read its BELL.
    world.links[1].move_doorbell(PhysCpuId(11), BELL).unwrap();
    world.settle();
    for k in [0, 2, 3] {
        world.send(k, 1, k as u8).unwrap();
        world.settle();
    }
    assert_eq!(world.seen(1), [(0, 0), (2, 2), (3, 3)]);
    // CPU 11 is taken from instance 1: first its doorbell moves to CPU 10, then its entry changes, then all peers follow.
    world.links[1].move_doorbell(PhysCpuId(10), BELL).unwrap();
    world.settle();
    let generation = world.write(world.record(1), &[10]);
    assert_eq!(world.behind(1, generation), [id(0), id(2), id(3)]);
    for k in [0, 2] {
        assert_eq!(world.follow(k).0, Ok(generation));
    }
    assert_eq!(
        world.behind(1, generation),
        [id(3)],
        "`behind` reports only the kernel that has not followed"
    );
    assert_eq!(world.follow(3).0, Ok(generation));
    assert_eq!(world.behind(1, generation), []);
    // Even if its BELL names CPU 11 again, instance 1 must not be rung there: the directory does not list CPU 11 for it.
    world.links[1].move_doorbell(PhysCpuId(11), BELL).unwrap_err();
    let bell = mk_ipi_abi::native::Bell { cpu: PhysCpuId(11), vector: BELL }.to_word().unwrap();
    let at = PhysAddr(world.regions[1].start().0 + 8 * mk_ipi_abi::native::receiver::BELL as u64);
    world.machine.poke(at, bell);
    world.send(0, 1, 9).unwrap();
    world.settle();
    assert_eq!(world.seen(1), [(0, 9)], "the message arrives, because the directory's CPU is rung");
    let rung_at_11 = world.machine.doorbells_at(PhysCpuId(11));
    world.send(0, 1, 8).unwrap();
    world.settle();
    assert_eq!(world.machine.doorbells_at(PhysCpuId(11)), rung_at_11, "CPU 11 is not rung");
    let asked = |events: &[_]| events.contains(&(id(1), PeerEvent::ReadDirectory));
    assert!(asked(&world.tick(0)), "the sender gets the event ReadDirectory");
}

#[test]
fn a_cpu_that_was_good_is_not_rung_any_more_once_the_directory_was_followed() {
    let world = World::joined(&[&[0], &[10, 11]]);
    world.links[1].move_doorbell(PhysCpuId(11), BELL).unwrap();
    world.settle();
    world.send(0, 1, 1).unwrap();
    world.settle();
    // CPU 11 is removed from the entry of instance 1, although its BELL still names CPU 11.
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
    assert_eq!(world.events(0), [], "kernel 0 gets no event, so it found no breach");
    assert_eq!(world.follow(1).1, []);
}

#[test]
fn a_cpu_that_was_added_speaks_to_a_peer_that_has_not_followed() {
    let world = World::joined(&[&[0, 1], &[10]]);
    world.write(world.record(0), &[0]);
    world.follow(1).0.unwrap();
    // Kernel 1 has read that instance 0 has only CPU 0. Then CPU 1 is added, and sends at once.
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

/// LIFE of a kernel is overwritten with several values. Each time its peers must report the kernel as suspect, because its
/// heartbeat does not change.
#[test]
fn a_peer_whose_sign_of_life_is_gone_is_suspect() {
    for garbage in [0, 0x4141_4141_4141_4141, 1 << 40, 1] {
        let world = World::joined(&[&[0], &[10]]);
        world.tick(1);
        world.tick(0);
        let at = world.regions[1].start().0 + 8 * mk_ipi_abi::native::receiver::LIFE as u64;
        world.machine.poke(PhysAddr(at), garbage);
        let suspect = || world.links[0].instance(id(1)).unwrap().is_suspect();
        assert!(!suspect());
        (1..200).for_each(|now| world.links[0].tick(now, 10));
        assert!(suspect());
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
    let layout = || world.links[0].instance(id(1)).unwrap().layout();
    assert!(!world.links[0].instance(id(0)).unwrap().one_doorbell());
    assert!(world.links[0].instance(id(1)).unwrap().one_doorbell() && layout() == Some(Layout::Native));
    // In the next life the region has the layout of RFC v2.
    world.write(InstanceRecord { state: State::Dead, ..next }, &[10, 11]);
    let flags = EntryFlags::empty();
    let slots = InstanceRecord { incarnation: life(3), layout: Layout::RfcV2, flags, ..next };
    world.write(slots, &[10, 11]);
    assert_eq!(world.follow(0).1, [(id(1), Followed::Removed), (id(1), Followed::Added)]);
    assert_eq!(layout(), Some(Layout::RfcV2));
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
    let live = || world.links[0].instance(id(1)).unwrap().is_live();
    assert!(live());
    assert_eq!(world.follow(0).1, [(id(1), Followed::Changed)]);
    assert!(!live());
    let rung = world.machine.doorbells_at(PhysCpuId(10));
    world.send(0, 1, 1).unwrap();
    world.links[0].ring(id(1)).unwrap();
    assert_eq!(
        world.machine.doorbells_at(PhysCpuId(10)),
        rung,
        "the CPU of a dead instance is not rung, because it can belong to another kernel now"
    );
    world.write(InstanceRecord { incarnation: life(2), ..world.record(1) }, &[10]);
    // LIFE says that this life has begun, so it can be rung.
    world
        .machine
        .poke(PhysAddr(world.regions[1].start().0 + 8 * mk_ipi_abi::native::receiver::LIFE as u64), 2);
    assert_eq!(world.follow(0).1, [(id(1), Followed::Changed)]);
    assert_eq!(
        world.machine.doorbells_at(PhysCpuId(10)),
        rung + 1,
        "`follow` rings the new life once, for the messages that were sent before"
    );
}

#[test]
fn a_kernel_that_is_taken_for_dead_learns_of_it() {
    let world = World::joined(&[&[0], &[10]]);
    world.write(InstanceRecord { state: State::Dead, ..world.record(1) }, &[10]);
    assert_eq!(world.follow(1).1, [(id(1), Followed::TakenForDead)]);
    assert_eq!(world.follow(1).1, [], "the directory has not changed since");
    world.write(world.record(0), &[0]);
    assert_eq!(world.follow(1).1, [(id(1), Followed::TakenForDead)]);
}

#[test]
fn a_directory_without_a_generation_is_read_each_time() {
    let world = World::joined(&[&[0], &[10, 11]]);
    world.write(InstanceRecord { doorbell_cpu: PhysCpuId(11), ..world.record(1) }, &[10, 11]);
    let generation = PhysAddr(world.range.start().0 + offset_of!(DirectoryHeader, generation) as u64);
    world.machine.poke(generation, 0);
    assert_eq!(world.follow(0), (Ok(0), vec![(id(1), Followed::Changed)]));
    world.write(world.record(1), &[10, 11]);
    world.machine.poke(generation, 0);
    assert_eq!(world.follow(0), (Ok(0), vec![(id(1), Followed::Changed)]));
}

#[test]
fn a_dead_instance_is_not_suspect_and_its_goodbye_is_reported() {
    let world = World::joined(&[&[0], &[10]]);
    // Only a kernel whose heartbeat has changed once can become suspect.
    world.tick(1);
    world.tick(0);
    world.write(InstanceRecord { state: State::Dead, ..world.record(1) }, &[10]);
    world.follow(0).0.unwrap();
    (2..50).for_each(|now| world.links[0].tick(now, 10));
    assert_eq!(world.events(0), []);
    // Other events of a dead instance are reported: here LIFE says that its life is over.
    let at = |word| PhysAddr(world.regions[1].start().0 + 8 * word as u64);
    world.machine.poke(at(mk_ipi_abi::native::receiver::LIFE), 1 | 1 << 32);
    world.links[0].tick(60, 10);
    assert_eq!(world.events(0), [(id(1), PeerEvent::Dead(life(1)))]);
}

#[test]
fn follow_rings_only_for_what_has_changed() {
    let world = World::joined(&[&[0], &[10], &[20, 21]]);
    world.links[0].post(id(1), TYPE, &[1]).unwrap();
    world.write(InstanceRecord { doorbell_cpu: PhysCpuId(21), ..world.record(2) }, &[20, 21]);
    let rung = world.machine.doorbells_at(PhysCpuId(10));
    assert_eq!(world.follow(0).1, [(id(2), Followed::Changed)]);
    assert_eq!(world.machine.doorbells_at(PhysCpuId(10)), rung);
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

// ---- another CPU adds an instance while `follow` runs ----

#[test]
fn an_instance_that_is_added_by_an_older_entry_meanwhile_is_followed_again() {
    let world = World::joined(&[&[0], &[10, 11], &[20, 21]]);
    let link = &world.links[0];
    let one = world.kernel(1);
    let older = one.native_config(id(1), life(1));
    link.destroy_instance(id(1)).unwrap();
    for k in [1, 2] {
        let second = world.kernel(k).cpus()[1];
        world.write(InstanceRecord { doorbell_cpu: second, ..world.record(k) }, &[10 * k as u64, second.0]);
    }
    // `follow` reports the change of instance 2 after it has read the entry of instance 1. At this moment the callback
    // attaches instance 1 as its older entry describes it.
    let followed = world.with_directory(0, |d| {
        link.follow(d, |who, _| {
            if who == id(2) {
                link.attach_instance(&older, Some(world.regions[1])).unwrap();
            }
        })
    });
    assert_eq!(followed, Err(JoinError::Busy));
    assert_eq!(world.follow(0).1, [(id(1), Followed::Changed)]);
    assert_eq!(link.instance(id(1)).unwrap().doorbell_cpu(), PhysCpuId(11));
}

#[test]
fn no_lane_claims_an_entry_that_was_not_applied() {
    for seed in 0..300 {
        let world = World::joined_with(seed, &[&[0, 1], &[10, 11]]);
        let link = &world.links[0];
        let one = world.kernel(1);
        let older = one.native_config(id(1), life(1));
        link.destroy_instance(id(1)).unwrap();
        let entry = InstanceRecord { doorbell_cpu: PhysCpuId(11), ..world.record(1) };
        let generation = world.write(entry, &[10, 11]);
        let add = || link.attach_instance(&older, Some(world.regions[1]));
        world
            .machine
            .run(|cpu| match cpu.id().0 {
                0 => drop(world.follow(0)),
                // This fails if `follow` has added the instance before.
                1 => drop(add()),
                _ => (),
            })
            .unwrap();
        let bell = || link.instance(id(1)).unwrap().doorbell_cpu();
        assert!(bell() == PhysCpuId(11) || world.behind(1, generation) == [id(0)], "seed {seed}");
        assert_eq!(world.follow(0).0, Ok(generation));
        assert_eq!((bell(), world.behind(1, generation)), (PhysCpuId(11), vec![]), "seed {seed}");
    }
}

#[test]
fn what_was_posted_is_rung_for_at_the_doorbell_of_the_new_entry() {
    let world = World::joined(&[&[0], &[10, 11]]);
    world.links[0].post(id(1), TYPE, &[3]).unwrap();
    let rung = world.machine.doorbells_at(PhysCpuId(11));
    world.write(InstanceRecord { doorbell_cpu: PhysCpuId(11), ..world.record(1) }, &[10, 11]);
    assert_eq!(world.follow(0).1, [(id(1), Followed::Changed)]);
    assert_eq!(world.machine.doorbells_at(PhysCpuId(11)), rung + 1);
    world.settle();
    assert_eq!(world.seen(1), [(0, 3)]);
}

#[test]
fn slots_of_a_dead_instance_are_kept_and_not_rung() {
    let world = World::joined(&[&[0], &[10], &[20]]);
    let slots = InstanceRecord { incarnation: life(2), layout: Layout::RfcV2, ..world.record(1) };
    world.write(InstanceRecord { state: State::Dead, ..world.record(1) }, &[10]);
    world.write(slots, &[10]);
    assert_eq!(world.follow(0).1, [(id(1), Followed::Removed), (id(1), Followed::Added)]);
    let rung = || world.machine.doorbells_at(PhysCpuId(10));
    let before = rung();
    world.links[0].ring(id(1)).unwrap();
    assert_eq!(rung(), before + 1);
    world.write(InstanceRecord { state: State::Dead, ..slots }, &[10]);
    assert_eq!(world.follow(0).1, [(id(1), Followed::Changed)], "the region is the same");
    world.links[0].ring(id(1)).unwrap();
    assert_eq!(rung(), before + 1);
}

#[test]
fn dead_is_told_once_for_each_life_however_often_it_is_attached() {
    let world = World::joined(&[&[0], &[10]]);
    world.links[1].goodbye();
    let dead = |events: Vec<(InstanceId, PeerEvent)>| {
        events.into_iter().filter(|(_, event)| *event == PeerEvent::Dead(life(1))).count()
    };
    assert_eq!(dead(world.tick(0)), 1);
    for _ in 0..3 {
        world.links[0].destroy_instance(id(1)).unwrap();
        let config = world.kernel(1);
        let config = config.native_config(id(1), life(1));
        world.links[0].attach_instance(&config, Some(world.regions[1])).unwrap();
        assert_eq!(dead(world.tick(0)), 0);
    }
}

#[test]
fn a_kernel_that_was_started_again_has_no_directory_yet() {
    let world = World::joined(&[&[0], &[10]]);
    let has_cpu = || world.kernel(1).peer_has_cpu(id(0), PhysCpuId(0));
    assert_eq!(has_cpu(), Some(true));
    world.machine.stop_kernel(1);
    world.machine.restart_kernel(1);
    assert_eq!(has_cpu(), None);
}

#[test]
fn after_follow_no_cpu_rings_by_the_former_entry_under_any_seed() {
    let mut others = 0;
    for seed in 0..200 {
        let world = World::joined_with(seed, &[&[0, 1], &[10, 11]]);
        world.write(InstanceRecord { doorbell_cpu: PhysCpuId(11), ..world.record(1) }, &[10, 11]);
        let rung = || world.machine.doorbells_at(PhysCpuId(10));
        let before = rung();
        let followed = Mutex::new(0);
        let run = world.machine.run(|cpu| match cpu.id().0 {
            0 => {
                while world.follow(0).0.is_err() {
                    cpu.relax();
                }
                *followed.lock().unwrap() = rung();
            }
            1 => (0..4).for_each(|n| _ = world.send(0, 1, n)),
            _ => (),
        });
        run.unwrap();
        assert_eq!(rung(), *followed.lock().unwrap(), "seed {seed}");
        others += u64::from(rung() != before);
    }
    assert!(others > 10, "CPU 1 rang by the former entry under {others} seeds only");
}

#[test]
fn a_doorbell_that_moved_to_a_listed_cpu_needs_no_newer_directory() {
    let world = World::joined(&[&[0], &[10, 11]]);
    world.links[1].move_doorbell(PhysCpuId(11), BELL).unwrap();
    world.settle();
    world.send(0, 1, 1).unwrap();
    assert!(!world.tick(0).contains(&(id(1), PeerEvent::ReadDirectory)));
}

#[test]
fn an_instance_beyond_the_directory_is_told_what_was_followed_too() {
    let world = World::joined(&[&[0], &[10, 11]]);
    let region = world.machine.native_region(world.geometry);
    let one = world.kernel(1);
    let config = one.native_config(id(9), life(1));
    world.links[0].attach_instance(&config, Some(region)).unwrap();
    let entry = InstanceRecord { doorbell_cpu: PhysCpuId(11), ..world.record(1) };
    let generation = world.write(entry, &[10, 11]);
    world.follow(0).0.unwrap();
    let lane = world.geometry.lane_at(0).unwrap() + 8 * mk_ipi_abi::native::header::ATTACHED as u64;
    assert_eq!(world.machine.peek(PhysAddr(region.start().0 + lane)) >> 32, u64::from(generation));
}
