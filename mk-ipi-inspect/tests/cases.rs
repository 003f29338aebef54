// SPDX-License-Identifier: MIT OR Apache-2.0
//! Situations in which a real or an earlier system failed. Each test brings kernels into such a situation, and checks what they
//! do. It also checks that the inspector says where something was found, how bad it is, and what it means for the kernels.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod world;

use mk_ipi_abi::directory::{InstanceRecord, State};
use mk_ipi_abi::native::{control, header, receiver, Geometry, Hello, LineTag, Phase};
use mk_ipi_abi::{PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::directory::{Directory, WriteError};
use mk_ipi_core::platform::{Access, PeerEvent, PhysMemory};
use mk_ipi_core::{Endpoint, JoinError};
use mk_ipi_inspect::native::State as LaneState;
use mk_ipi_inspect::{Machine, Severity};
use mk_ipi_mock::Callback;
use std::sync::Arc;
use world::{id, life, Listed, World, LINES, TYPE};
use Severity::{Broken, Note, Suspect};

/// True if one finding has this severity, a place that ends with `place`, and contains `what` in the text that says what was
/// found, and `meaning` in the text that says what it means.
fn says(machine: &Machine, severity: Severity, place: &str, what: &str, meaning: &str) -> bool {
    machine.findings().iter().any(|finding| {
        finding.severity == severity
            && finding.place.ends_with(place)
            && finding.what.contains(what)
            && finding.meaning.contains(meaning)
    })
}

/// True if a finding contains `what` in the text that says what was found.
fn mentions(machine: &Machine, what: &str) -> bool {
    machine.findings().iter().any(|finding| finding.what.contains(what))
}

/// Fails if the inspector has no such finding. See [`says`].
#[track_caller]
fn assert_says(world: &World, severity: Severity, place: &str, what: &str, meaning: &str) {
    let machine = world.inspect();
    assert!(says(&machine, severity, place, what, meaning), "{what}: {:#?}", machine.findings());
}

/// Fails if the inspector has no such finding about the region of kernel `k`.
#[track_caller]
fn region_says(world: &World, k: usize, severity: Severity, what: &str, meaning: &str) {
    assert_says(world, severity, &region(world, k), what, meaning);
}

/// The place that findings about the region of kernel `k` have.
fn region(world: &World, k: usize) -> String {
    format!("region {:#x}", world.regions[k].start().0)
}

/// Makes kernels with these CPUs. All of them run, and have followed a directory that lists all of them.
fn listed(cpus: &[&[u64]]) -> (World, Listed) {
    let world = World::with_cpus(cpus).boot_all();
    let directory = world.make_directory(2, |_| ());
    (0..cpus.len()).for_each(|k| _ = world.follow(k, &directory).unwrap());
    world.settle();
    assert!(world.inspect().findings().is_empty(), "{:?}", world.inspect().findings());
    (world, directory)
}

/// The address of word `word` of entry `k` in the directory. The list of CPUs begins at word 8.
fn entry(directory: &Listed, k: u64, word: u64) -> PhysAddr {
    PhysAddr(directory.range.start().0 + 64 + 80 * k + 8 * word)
}

/// The entry of kernel `k`, with this state.
fn in_state(world: &World, k: usize, state: State) -> InstanceRecord {
    InstanceRecord { state, ..world.record(k) }
}

#[test]
fn a_bell_of_a_former_life_is_called_that() {
    let (mut world, directory) = listed(&[&[0], &[3, 4]]);
    let vector = Vector::new(0x80).unwrap();
    let link = world.links[1].clone().unwrap();
    world.machine.kernel(1).set_vector(vector, move || link.on_interrupt());
    world.link(1).move_doorbell(PhysCpuId(4), vector).unwrap();
    world.settle();
    assert!(world.inspect().findings().is_empty());
    assert_eq!(world.region(1).receiver.unwrap().bell, Some((4, 0x80)));
    world.machine.stop_kernel(1);
    directory.write(in_state(&world, 1, State::Dead), &[3, 4]).unwrap();
    region_says(&world, 1, Note, "life 1 is dead, and it has not said goodbye", "was stopped");
    region_says(&world, 1, Note, "BELL is CPU 4, vector 0x80", "No kernel rings there");
    let next = InstanceRecord { incarnation: life(2), ..in_state(&world, 1, State::Starting) };
    directory.write(next, &[3, 4]).unwrap();
    region_says(&world, 1, Suspect, "life 1, and the directory names life 2", "No kernel rings it");
    region_says(&world, 1, Note, "BELL is CPU 4, vector 0x80", "No kernel rings there");
    // The kernels do what the inspector says: no kernel rings there.
    world.follow(0, &directory).unwrap();
    let rung = [3, 4].map(|cpu| world.machine.doorbells_at(PhysCpuId(cpu)));
    world.send(0, 1, b"x");
    assert_eq!([3, 4].map(|cpu| world.machine.doorbells_at(PhysCpuId(cpu))), rung);
    world.machine.restart_kernel(1);
    world.boot(1, 2);
    world.settle();
    assert_eq!(world.region(1).receiver.unwrap().bell, None);
    assert!(!mentions(&world.inspect(), "BELL"));
}

/// Posts a message from CPU `cpu` of kernel 0 to kernel 1.
fn post_at(world: &World, cpu: PhysCpuId) {
    let post = || _ = world.link(0).post(id(1), TYPE, b"x").unwrap();
    world
        .machine
        .run(|at| {
            if at.id() == cpu {
                post()
            }
        })
        .unwrap();
}

#[test]
fn a_cpu_that_the_directory_does_not_give_is_information() {
    let (world, directory) = listed(&[&[0, 1], &[3]]);
    directory.write(world.record(0), &[0]).unwrap();
    region_says(
        &world,
        1,
        Suspect,
        "lane 0: its sender has followed the directory to generation 2, not to 3",
        "It can still ring CPUs",
    );
    (0..2).for_each(|k| _ = world.follow(k, &directory).unwrap());
    let added = PhysCpuId(1);
    post_at(&world, added);
    region_says(&world, 1, Note, "lane 0: message 1 names CPU 1", "handed out all the same");
    assert!(!world.inspect().is_broken());
    world.link(1).poll().unwrap();
    world.settle();
    assert_eq!(world.region(1).lanes[0].control.received, 1, "the lane is not in quarantine");
    // If the CPU is in the list, there is no finding.
    directory.write(world.record(0), &[0, 1]).unwrap();
    (0..2).for_each(|k| _ = world.follow(k, &directory).unwrap());
    post_at(&world, added);
    assert!(!mentions(&world.inspect(), "names CPU"));
}

#[test]
fn a_bell_at_a_cpu_of_another_kernel_names_its_owner() {
    let (world, directory) = listed(&[&[0], &[3, 4], &[6]]);
    world.link(1).move_doorbell(PhysCpuId(4), Vector::RFC_V2).unwrap();
    world.settle();
    directory.write(world.record(1), &[3]).unwrap();
    region_says(
        &world,
        1,
        Suspect,
        "CPU 4, vector 0xea, but in the directory that CPU belongs to no live instance",
        "rings the receiver's doorbell CPU in the directory",
    );
    directory.write(world.record(2), &[6, 4]).unwrap();
    region_says(
        &world,
        1,
        Suspect,
        "that CPU belongs to instance 2",
        "rings the receiver's doorbell CPU in the directory",
    );
    // Kernel 0 follows; kernel 2 does not.
    world.follow(0, &directory).unwrap();
    assert!(!mentions(&world.inspect(), "lane 0: its sender has followed"));
    region_says(
        &world,
        1,
        Suspect,
        "lane 2: its sender has followed the directory to generation 3, not to 5",
        "It can still ring CPUs",
    );
    let rung = world.machine.doorbells_at(PhysCpuId(4));
    world.send(0, 1, b"x");
    world.settle();
    assert_eq!(world.machine.doorbells_at(PhysCpuId(4)), rung);
    assert_eq!(world.region(1).lanes[0].control.received, 1);
    assert!(world.machine.kernel(0).peer_events().is_empty());
    world.link(0).tick(1, 10);
    assert!(world.machine.kernel(0).peer_events().contains(&(id(1), PeerEvent::ReadDirectory)));
}

#[test]
fn a_kernel_that_has_never_followed_is_named() {
    let world = World::booted(2);
    world.write_directory(|_| ());
    region_says(
        &world,
        1,
        Suspect,
        "lane 0: its sender has not followed the directory",
        "The host waits for it",
    );
    // A kernel does not wait for itself in its own region.
    assert!(!says(&world.inspect(), Suspect, &region(&world, 1), "lane 1: ", ""));
}

#[test]
fn whatever_a_host_must_not_write_is_named() {
    let (world, directory) = listed(&[&[0], &[3], &[6]]);
    let (start, place) = (world.regions[1].start(), format!("directory {:#x}", directory.range.start().0));
    let with = |start: PhysAddr| InstanceRecord {
        region: PhysRange::new(start, world.regions[2].len()),
        ..in_state(&world, 2, State::Dead)
    };
    // `DirectoryWriter` refuses each of these entries.
    directory.write(in_state(&world, 2, State::Dead), &[6]).unwrap();
    assert_eq!(directory.write(with(start), &[6]), Err(WriteError::RegionTaken(id(1))));
    assert_eq!(directory.write(with(directory.range.start()), &[6]), Err(WriteError::OnDirectory));
    let next = InstanceRecord { incarnation: life(2), ..world.record(2) };
    assert_eq!(directory.write(next, &[6, 3]), Err(WriteError::CpuTaken(PhysCpuId(3), id(1))));
    assert_eq!(directory.write(next, &[6, 6]), Err(WriteError::CpuTwice(PhysCpuId(6))));
    directory.write(next, &[6]).unwrap();
    // A host that does not use `DirectoryWriter` can write them.
    type Case = (&'static [(u64, u64)], &'static str, &'static str, &'static str);
    let cases: [Case; 3] = [
        (&[(7, 2), (9, 3)], "", "instances 1 and 2 both have CPU 3", "can arrive at the other"),
        (
            &[(7, 2), (9, 6)],
            "",
            "CPU 6 is in the list of instance 2 twice",
            "as if the CPU were in the list once",
        ),
        (
            &[(6, 1 << 48), (8, 1 << 48)],
            ", entry 2",
            "an id of more than 48 bits",
            "leaves this instance out",
        ),
    ];
    let at = |word| entry(&directory, 2, word);
    let same = (start.0, "the regions of instances 1 and 2 overlap", "written into the region of the other");
    let part = (start.0 + 4096, same.1, same.2);
    let on = (
        directory.range.start().0,
        "the region of instance 2 overlaps the directory",
        "write over the directory",
    );
    let poke = |word, value| {
        let before = world.machine.peek(at(word));
        world.machine.poke(at(word), value);
        (word, before)
    };
    for (value, what, meaning) in [same, part, on] {
        let (word, before) = poke(4, value);
        assert_says(&world, Broken, &place, what, meaning);
        world.machine.poke(at(word), before);
    }
    for (words, entry, what, meaning) in cases {
        let before: Vec<_> = words.iter().map(|(word, value)| poke(*word, *value)).collect();
        assert_says(&world, Broken, &format!("{place}{entry}"), what, meaning);
        before.into_iter().for_each(|(word, before)| world.machine.poke(at(word), before));
    }
    assert!(!world.inspect().is_broken());
}

#[test]
fn a_host_of_many_cpus_is_joined_and_all_of_them_are_told() {
    let cpus: Vec<u64> = (0..16).collect();
    let mut world = World::with_cpus(&[&cpus, &[100]]);
    let directory = world.make_directory(16, |_| ());
    world.boot(0, 1);
    world.follow(0, &directory).unwrap();
    let kernel = world.machine.kernel(1);
    let small = Arc::new(Endpoint::<_, Callback, 1, 4, 4, 2>::new(kernel.clone()));
    let (interrupt, deferred) = (small.clone(), small.clone());
    kernel.set_vector(Vector::RFC_V2, move || interrupt.on_interrupt());
    kernel.set_deferred(move || _ = deferred.run_deferred());
    let mapping = kernel.map(directory.range, Access::ReadOnly).unwrap();
    let joined = small.join(world.regions[1].start(), &Directory::open(mapping.words()).unwrap());
    assert_eq!(joined, Ok(2));
    assert!(small.send(id(0), TYPE, b"x").is_ok());
    world.settle();
    let machine = world.inspect();
    assert_eq!(machine.directories[0].instances[0].cpus, cpus);
    assert!(!mentions(&machine, "has not attached"), "{:?}", machine.findings());
    assert_eq!(world.region(0).lanes[1].control.received, 1);
}

#[test]
fn a_host_that_is_left_out_is_named() {
    let (world, _) = listed(&[&[0], &[3]]);
    world.link(1).destroy_instance(id(0)).unwrap();
    region_says(
        &world,
        0,
        Suspect,
        "instance 1 is running, and has not attached this region",
        "It cannot send here",
    );
    // If the region has no lane for a kernel, that kernel can never attach it.
    let few = Geometry::new(1, LINES, 256).unwrap();
    world.machine.make_native_region(world.regions[0], few);
    region_says(
        &world,
        0,
        Suspect,
        "instance 1 is running, and the region has 1 lanes",
        "can never send here",
    );

    let (world, entries) = listed(&[&[0], &[3]]);
    world.machine.poke(entry(&entries, 0, 7), 99);
    let place = format!("directory {:#x}, entry 0", entries.range.start().0);
    assert_says(
        &world,
        Broken,
        &place,
        "longer than an entry has room for",
        "cannot follow the directory until",
    );
    assert!(!mentions(&world.inspect(), "has no entry for instance 0"));
    // No kernel can follow the next change of the directory.
    let generation = PhysAddr(entries.range.start().0 + 32);
    world.machine.poke(generation, world.machine.peek(generation) + 1);
    assert!(matches!(world.follow(1, &entries), Err(JoinError::Entry(..))));

    let (world, entries) = listed(&[&[0], &[3]]);
    world.machine.poke(entry(&entries, 0, 2), 2 << 32);
    let place = format!("directory {:#x}", entries.range.start().0);
    assert_says(
        &world,
        Suspect,
        &place,
        "the directory has no entry for instance 0, the host",
        "do not attach the host",
    );
    region_says(&world, 0, Suspect, "lane 1: life 1 of the sender is live", "It can still write here");
}

#[test]
fn a_life_word_that_is_gone_is_told_and_who_rings_then() {
    for (garbage, what, meaning, rung) in [
        (0, "LIFE is 0, but the receiver has answered lane 0", "No kernel rings this receiver", 0),
        (0x4141_4141_4141_4141, "LIFE is 0x4141414141414141", "ring the receiver all the same", 1),
        (1 << 40, "LIFE is 0x10000000000, which does not name a life", "ring the receiver all the same", 1),
    ] {
        let (world, _) = listed(&[&[0], &[3]]);
        world.link(1).tick(0, 10);
        world.link(0).tick(0, 10);
        world.machine.kernel(0).peer_events();
        world.machine.poke(world.word(1, receiver::LIFE), garbage);
        let machine = world.inspect();
        region_says(&world, 1, Broken, what, meaning);
        assert!(!mentions(&machine, "has not begun a life"), "{:?}", machine.findings());
        let broken = machine.findings().iter().filter(|finding| finding.severity == Broken).count();
        assert_eq!(broken, 1, "one wrong word gives one finding: {:?}", machine.findings());
        assert_eq!(mentions(&machine, "life 1 is running, and LIFE is 0"), garbage == 0);
        // The kernels do what the inspector says.
        let before = world.machine.doorbells_at(PhysCpuId(3));
        world.send(0, 1, b"x");
        assert_eq!(world.machine.doorbells_at(PhysCpuId(3)) - before, rung, "{garbage:#x}");
        (1..20).for_each(|now| world.link(0).tick(now, 10));
        assert!(world.machine.kernel(0).peer_events().contains(&(id(1), PeerEvent::Suspect)));
    }
    // The directory says that a kernel is running, and the kernel has not begun a life.
    let world = World::new(2);
    world.write_directory(|_| ());
    region_says(&world, 1, Note, "has not begun a life", "Messages that are sent wait");
    region_says(&world, 1, Suspect, "life 1 is running, and LIFE is 0", "before the kernel had joined");
}

#[test]
fn a_goodbye_that_the_host_has_not_noticed_is_told() {
    let (world, directory) = listed(&[&[0], &[3]]);
    world.link(1).goodbye();
    region_says(
        &world,
        1,
        Suspect,
        "life 1 has said goodbye, and the directory says that it is running",
        "until the host writes",
    );
    directory.write(in_state(&world, 1, State::Dead), &[3]).unwrap();
    assert!(!mentions(&world.inspect(), "the directory says that it is running"));
}

#[test]
fn who_still_has_a_region_that_ends_is_named() {
    let (world, directory) = listed(&[&[0], &[3], &[6]]);
    let place = region(&world, 1);
    world.machine.stop_kernel(1);
    directory.write(in_state(&world, 1, State::Dead), &[3]).unwrap();
    directory.write(in_state(&world, 1, State::Ending), &[3]).unwrap();
    for lane in ["lane 0", "lane 2"] {
        let what =
            format!("{lane}: the region ends, and life 1 of the sender says that it has the region mapped");
        assert_says(&world, Suspect, &place, &what, "must not reuse the memory until");
    }
    assert_says(
        &world,
        Suspect,
        &place,
        "the region ends, and life 1 of its receiver has not said goodbye",
        "known to have stopped",
    );
    world.follow(0, &directory).unwrap();
    assert!(!mentions(&world.inspect(), "lane 0: the region ends"));
    // The host does not wait for kernel 2, and makes the entry absent.
    directory.write(in_state(&world, 1, State::Absent), &[3]).unwrap();
    assert_says(&world, Note, &place, "no directory names this region", "left from an earlier boot");
    assert_says(
        &world,
        Suspect,
        &place,
        "lane 2: life 1 of the sender is live, and says that it has this region mapped",
        "can write into memory of another owner",
    );
    // Kernel 2 does write into the region.
    let line = world.tag(2, 1, 0);
    let before = world.machine.peek(line);
    world.send(2, 1, b"x");
    assert_ne!(world.machine.peek(line), before);
    world.follow(2, &directory).unwrap();
    assert!(!mentions(&world.inspect(), "that it has this region mapped"));
}

/// A hostile life writes lines that look like messages of its next life.
#[test]
fn what_a_dead_life_planted_is_not_called_a_message_of_the_next() {
    let mut world = World::booted(2);
    let said = world.machine.peek(world.lane(1, 0, header::HELLO));
    let begin = Hello { phase: Phase::Begin, session: 9, ..Hello::from_word(said).unwrap() };
    world.machine.poke(world.lane(1, 0, header::HELLO), begin.to_word());
    world.link(0).poll().unwrap();
    world.settle();
    (0..u64::from(LINES))
        .for_each(|n| world.machine.poke(world.tag(1, 0, n), world.geometry.first_tag(n).to_word(7)));
    let planted = world.region(0).lanes[1].clone();
    assert_eq!((planted.state, planted.lines.unread), (LaneState::WaitsForSender, 0));
    assert_says(
        &world,
        Suspect,
        ", lane 1",
        "the receiver has answered, and the sender has not continued",
        "`Unanswered`",
    );
    // HELLO is Clean of a session whose Begin was not answered.
    let clean = Hello { phase: Phase::Clean, session: 20, ..begin };
    world.machine.poke(world.lane(1, 0, header::HELLO), clean.to_word());
    assert_says(
        &world,
        Broken,
        ", lane 1",
        "does not accept this life of the sender",
        "answers the HELLO as a Begin",
    );
    assert_eq!(world.region(0).lanes[1].lines.unread, 0);
    // The next life of the sender is not hostile.
    world.boot(1, 2);
    world.settle();
    let lane = world.region(0).lanes[1].clone();
    assert_eq!((lane.state, lane.lines.unread, lane.control.received), (LaneState::Open, 0, 0));
    assert!(!world.inspect().is_broken(), "{:?}", world.inspect().findings());
}

/// One kernel destroys its own stamp.
#[test]
fn one_stamp_that_is_bad_is_told_of_that_region_alone() {
    let mut world = World::new(3);
    let directory = world.make_directory(2, |_| ());
    world.machine.poke(world.word(2, 0), 0);
    let kernel = world.machine.kernel(1);
    let link = kernel.boot(id(1), life(1));
    let mapping = kernel.map(directory.range, Access::ReadOnly).unwrap();
    let joined = link.join(world.regions[1].start(), &Directory::open(mapping.words()).unwrap());
    assert_eq!(joined, Ok(2), "itself and the host");
    world.links[1] = Some(link);
    let machine = world.inspect();
    region_says(
        &world,
        2,
        Broken,
        "no stamp: the first eight bytes are 0x0000000000000000",
        "No kernel can attach this region",
    );
    let broken: Vec<_> =
        machine.findings().into_iter().filter(|finding| finding.severity == Broken).collect();
    assert_eq!(broken.len(), 1, "{broken:?}");
}

/// Messages are unread, the receiver's ARMED is 0, and the receiver does not drain.
#[test]
fn messages_at_a_receiver_that_is_awake_are_told() {
    let world = World::booted(2);
    world.machine.poke(world.word(0, receiver::ARMED), 0);
    let before = world.machine.doorbells_at(PhysCpuId(0));
    world.send(1, 0, b"x");
    assert_eq!(world.machine.doorbells_at(PhysCpuId(0)), before, "the receiver is not rung");
    region_says(
        &world,
        0,
        Note,
        "there are 1 unread messages, and no sender rings for more, because ARMED is 0",
        "the receiver's next tick or poll finds them",
    );
    world.link(0).tick(1, 10);
    world.settle();
    assert_eq!(world.region(0).lanes[1].control.received, 1);
    assert!(!mentions(&world.inspect(), "ARMED is 0"));
}

#[test]
fn a_poll_that_finds_nothing_leaves_nothing_to_tell() {
    let world = World::booted(2);
    let before = world.inspect();
    world.link(1).poll().unwrap();
    world.settle();
    assert_eq!(world.inspect(), before);
}

/// A kernel that is not in the directory any more continues to write into its lane.
#[test]
fn a_lane_of_nobody_is_told() {
    let (world, directory) = listed(&[&[0], &[3], &[6]]);
    directory.write(in_state(&world, 2, State::Dead), &[6]).unwrap();
    directory.write(in_state(&world, 2, State::Absent), &[6]).unwrap();
    world.follow(1, &directory).unwrap();
    world.machine.poke(world.tag(2, 1, 0), LineTag::first(1).to_word(7));
    region_says(
        &world,
        1,
        Note,
        "lane 2: its sender, instance 2, is not in the directory",
        "does not look at this lane",
    );
    world.link(1).poll().unwrap();
    world.settle();
    assert_eq!(
        world.machine.peek(world.control(2, 1, control::BREACH)),
        0,
        "the receiver does not look at the lane"
    );
}

/// A life of the sender published messages, and the receiver never looked at this life.
#[test]
fn what_an_unseen_life_published_is_called_unread_and_handed_on() {
    let mut world = World::booted(2);
    world.boot(1, 2);
    world.settle();
    world.send(1, 0, b"1");
    world.send(1, 0, b"2");
    world.boot(1, 3);
    let lane = world.region(0).lanes[1].clone();
    assert_eq!((lane.state, lane.lines.unread), (LaneState::WaitsForReceiver, 2));
    assert_says(
        &world,
        Suspect,
        ", lane 1",
        "the sender waits for an answer to its hello",
        "until the receiver looks",
    );
    world.settle();
    assert_eq!(world.region(0).lanes[1].control.received, 2);
}
