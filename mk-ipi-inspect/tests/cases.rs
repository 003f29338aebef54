// SPDX-License-Identifier: MIT OR Apache-2.0
//! Situations that went wrong on a real or an earlier machine. Each test brings kernels into one of them, checks what they do, and
//! checks that the inspector names the place, how bad it is, and what it means.
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

/// True if one finding has this severity, a place that ends with `place`, and these words in what was found and what it means.
fn says(machine: &Machine, severity: Severity, place: &str, what: &str, meaning: &str) -> bool {
    machine.findings().iter().any(|finding| {
        finding.severity == severity
            && finding.place.ends_with(place)
            && finding.what.contains(what)
            && finding.meaning.contains(meaning)
    })
}

/// True if any finding contains these words.
fn mentions(machine: &Machine, what: &str) -> bool {
    machine.findings().iter().any(|finding| finding.what.contains(what))
}

macro_rules! assert_says {
    ($machine:expr, $severity:expr, $place:expr, $what:expr, $meaning:expr) => {
        let machine = $machine;
        let findings = machine.findings();
        assert!(says(&machine, $severity, &$place, $what, $meaning), "{}: {findings:#?}", $what);
    };
}

/// The place of the region of kernel `k`.
fn region(world: &World, k: usize) -> String {
    format!("region {:#x}", world.regions[k].start().0)
}

/// Kernels with these CPUs that run, and have followed a directory that lists all of them.
fn listed(cpus: &[&[u64]]) -> (World, Listed) {
    let world = World::with_cpus(cpus).boot_all();
    let directory = world.make_directory(2, |_| ());
    (0..cpus.len()).for_each(|k| _ = world.follow(k, &directory).unwrap());
    world.settle();
    assert!(world.inspect().findings().is_empty(), "{:?}", world.inspect().findings());
    (world, directory)
}

/// The address of word `word` of entry `k`; the CPUs begin at word 8.
fn entry(directory: &Listed, k: u64, word: u64) -> PhysAddr {
    PhysAddr(directory.range.start().0 + 64 + 80 * k + 8 * word)
}

fn in_state(world: &World, k: usize, state: State) -> InstanceRecord {
    InstanceRecord { state, ..world.record(k) }
}

// ---- bell_survives_restart; f2 of native_link ----

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
    assert_says!(
        world.inspect(),
        Note,
        region(&world, 1),
        "life 1 is dead, and it has not said goodbye",
        "was stopped"
    );
    assert_says!(
        world.inspect(),
        Note,
        region(&world, 1),
        "BELL is CPU 4, vector 0x80",
        "No kernel rings there"
    );
    let next = InstanceRecord { incarnation: life(2), ..in_state(&world, 1, State::Starting) };
    directory.write(next, &[3, 4]).unwrap();
    assert_says!(
        world.inspect(),
        Suspect,
        region(&world, 1),
        "life 1, the directory life 2",
        "No kernel rings it"
    );
    assert_says!(
        world.inspect(),
        Note,
        region(&world, 1),
        "BELL is CPU 4, vector 0x80",
        "No kernel rings there"
    );
    // What it says is what happens.
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

// ---- cpu_added_quarantines; f6 of native_link ----

#[test]
fn a_cpu_that_the_directory_does_not_give_is_information() {
    let (world, directory) = listed(&[&[0, 1], &[3]]);
    directory.write(world.record(0), &[0]).unwrap();
    assert_says!(
        world.inspect(),
        Suspect,
        region(&world, 1),
        "lane 0: its sender has followed the directory to generation 2, not to 3",
        "It can still ring CPUs"
    );
    (0..2).for_each(|k| _ = world.follow(k, &directory).unwrap());
    let added = PhysCpuId(1);
    world
        .machine
        .run(|cpu| {
            if cpu.id() == added {
                _ = world.link(0).post(id(1), TYPE, b"x").unwrap()
            }
        })
        .unwrap();
    assert_says!(
        world.inspect(),
        Note,
        region(&world, 1),
        "lane 0: message 1 names CPU 1",
        "handed out all the same"
    );
    assert!(!world.inspect().is_broken());
    world.link(1).poll().unwrap();
    world.settle();
    assert_eq!(world.region(1).lanes[0].control.received, 1, "and no quarantine");
    // With the CPU in the list there is nothing to say.
    directory.write(world.record(0), &[0, 1]).unwrap();
    (0..2).for_each(|k| _ = world.follow(k, &directory).unwrap());
    world
        .machine
        .run(|cpu| {
            if cpu.id() == added {
                _ = world.link(0).post(id(1), TYPE, b"x").unwrap()
            }
        })
        .unwrap();
    assert!(!mentions(&world.inspect(), "names CPU"));
}

// ---- cpu_removed_stray_ipi ----

#[test]
fn a_bell_at_a_cpu_of_another_kernel_names_its_owner() {
    let (world, directory) = listed(&[&[0], &[3, 4], &[6]]);
    world.link(1).move_doorbell(PhysCpuId(4), Vector::RFC_V2).unwrap();
    world.settle();
    directory.write(world.record(1), &[3]).unwrap();
    assert_says!(
        world.inspect(),
        Suspect,
        region(&world, 1),
        "CPU 4, vector 0xea, but in the directory that CPU is not its own",
        "rings its doorbell CPU in the directory"
    );
    directory.write(world.record(2), &[6, 4]).unwrap();
    assert_says!(
        world.inspect(),
        Suspect,
        region(&world, 1),
        "that CPU belongs to instance 2",
        "rings its doorbell CPU in the directory"
    );
    // Kernel 0 follows; kernel 2 does not.
    world.follow(0, &directory).unwrap();
    assert!(!mentions(&world.inspect(), "lane 0: its sender has followed"));
    assert_says!(
        world.inspect(),
        Suspect,
        region(&world, 1),
        "lane 2: its sender has followed the directory to generation 3, not to 5",
        "It can still ring CPUs"
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
    assert_says!(
        world.inspect(),
        Suspect,
        region(&world, 1),
        "lane 0: its sender has not followed the directory",
        "The host waits for it"
    );
    // Nobody waits for a kernel in its own region.
    assert!(!says(&world.inspect(), Suspect, &region(&world, 1), "lane 1: ", ""));
}

// ---- directory_conflicts ----

#[test]
fn whatever_a_host_must_not_write_is_named() {
    let (world, directory) = listed(&[&[0], &[3], &[6]]);
    let (start, place) = (world.regions[1].start(), format!("directory {:#x}", directory.range.start().0));
    let with = |start: PhysAddr| InstanceRecord {
        region: PhysRange::new(start, world.regions[2].len()),
        ..in_state(&world, 2, State::Dead)
    };
    // An honest host is kept from each.
    directory.write(in_state(&world, 2, State::Dead), &[6]).unwrap();
    assert_eq!(directory.write(with(start), &[6]), Err(WriteError::RegionTaken(id(1))));
    assert_eq!(directory.write(with(directory.range.start()), &[6]), Err(WriteError::OnDirectory));
    let next = InstanceRecord { incarnation: life(2), ..world.record(2) };
    assert_eq!(directory.write(next, &[6, 3]), Err(WriteError::CpuTaken(PhysCpuId(3), id(1))));
    assert_eq!(directory.write(next, &[6, 6]), Err(WriteError::CpuTwice(PhysCpuId(6))));
    directory.write(next, &[6]).unwrap();
    // A broken one writes it.
    type Case = (&'static [(u64, u64)], &'static str, &'static str, &'static str);
    let cases: [Case; 3] = [
        (&[(7, 2), (9, 3)], "", "instances 1 and 2 both have CPU 3", "can arrive at the other"),
        (&[(7, 2), (9, 6)], "", "CPU 6 is in the list of instance 2 twice", "as if the CPU were there once"),
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
        assert_says!(world.inspect(), Broken, place, what, meaning);
        world.machine.poke(at(word), before);
    }
    for (words, entry, what, meaning) in cases {
        let before: Vec<_> = words.iter().map(|(word, value)| poke(*word, *value)).collect();
        assert_says!(world.inspect(), Broken, format!("{place}{entry}"), what, meaning);
        before.into_iter().for_each(|(word, before)| world.machine.poke(at(word), before));
    }
    assert!(!world.inspect().is_broken());
}

// ---- host_left_out_of_join ----

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
    assert_says!(
        world.inspect(),
        Suspect,
        region(&world, 0),
        "instance 1 is running, and has not attached this region",
        "It cannot send here"
    );
    // A region without a lane for it: it is left out whatever it does.
    let few = Geometry::new(1, LINES, 256).unwrap();
    world.machine.make_native_region(world.regions[0], few);
    assert_says!(
        world.inspect(),
        Suspect,
        region(&world, 0),
        "instance 1 is running, and the region has 1 lanes",
        "can never send here"
    );

    let (world, entries) = listed(&[&[0], &[3]]);
    world.machine.poke(entry(&entries, 0, 7), 99);
    let place = format!("directory {:#x}, entry 0", entries.range.start().0);
    assert_says!(
        world.inspect(),
        Broken,
        place,
        "more than an entry has room for",
        "cannot follow the directory until"
    );
    assert!(!mentions(&world.inspect(), "it has no entry for instance 0"));
    // The next change of the directory is not followed.
    let generation = PhysAddr(entries.range.start().0 + 32);
    world.machine.poke(generation, world.machine.peek(generation) + 1);
    assert!(matches!(world.follow(1, &entries), Err(JoinError::Entry(..))));

    let (world, entries) = listed(&[&[0], &[3]]);
    world.machine.poke(entry(&entries, 0, 2), 2 << 32);
    let place = format!("directory {:#x}", entries.range.start().0);
    assert_says!(
        world.inspect(),
        Suspect,
        place,
        "it has no entry for instance 0, the host",
        "do not attach the host"
    );
    assert_says!(
        world.inspect(),
        Suspect,
        region(&world, 0),
        "lane 1: life 1 of that instance lives",
        "It can still write here"
    );
}

// ---- life_word_gone_never_suspect ----

#[test]
fn a_life_word_that_is_gone_is_told_and_who_rings_then() {
    for (garbage, what, meaning, rung) in [
        (0, "there is no life in LIFE, and lane 0 was answered", "No kernel rings this receiver", 0),
        (0x4141_4141_4141_4141, "LIFE is 0x4141414141414141, which is no life", "ring it all the same", 1),
        (1 << 40, "LIFE is 0x10000000000, which is no life", "ring it all the same", 1),
    ] {
        let (world, _) = listed(&[&[0], &[3]]);
        world.link(1).tick(0, 10);
        world.link(0).tick(0, 10);
        world.machine.kernel(0).peer_events();
        world.machine.poke(world.word(1, receiver::LIFE), garbage);
        let machine = world.inspect();
        assert_says!(&machine, Broken, region(&world, 1), what, meaning);
        assert!(!mentions(&machine, "has not begun a life"), "{:?}", machine.findings());
        let broken = machine.findings().iter().filter(|finding| finding.severity == Broken).count();
        assert_eq!(broken, 1, "one word, one cause: {:?}", machine.findings());
        assert_eq!(mentions(&machine, "life 1 is running, and LIFE is 0"), garbage == 0);
        // What it says is what happens.
        let before = world.machine.doorbells_at(PhysCpuId(3));
        world.send(0, 1, b"x");
        assert_eq!(world.machine.doorbells_at(PhysCpuId(3)) - before, rung, "{garbage:#x}");
        (1..20).for_each(|now| world.link(0).tick(now, 10));
        assert!(world.machine.kernel(0).peer_events().contains(&(id(1), PeerEvent::Suspect)));
    }
    // A kernel that the host calls running, and that never began.
    let world = World::new(2);
    world.write_directory(|_| ());
    assert_says!(
        world.inspect(),
        Note,
        region(&world, 1),
        "has not begun a life",
        "Messages that are sent wait"
    );
    assert_says!(
        world.inspect(),
        Suspect,
        region(&world, 1),
        "life 1 is running, and LIFE is 0",
        "before the kernel had joined"
    );
}

#[test]
fn a_goodbye_that_the_host_has_not_noticed_is_told() {
    let (world, directory) = listed(&[&[0], &[3]]);
    world.link(1).goodbye();
    assert_says!(
        world.inspect(),
        Suspect,
        region(&world, 1),
        "life 1 has said goodbye, and the directory says that it is running",
        "until the host writes"
    );
    directory.write(in_state(&world, 1, State::Dead), &[3]).unwrap();
    assert!(!mentions(&world.inspect(), "the directory says that it is running"));
}

// ---- region_freed_below_peer ----

#[test]
fn who_still_has_a_region_that_ends_is_named() {
    let (world, directory) = listed(&[&[0], &[3], &[6]]);
    let place = region(&world, 1);
    world.machine.stop_kernel(1);
    directory.write(in_state(&world, 1, State::Dead), &[3]).unwrap();
    directory.write(in_state(&world, 1, State::Ending), &[3]).unwrap();
    for lane in ["lane 0", "lane 2"] {
        let what = format!("{lane}: the region ends, and life 1 of that instance says that it has it mapped");
        assert_says!(world.inspect(), Suspect, place, &what, "must not reuse the memory until");
    }
    assert_says!(
        world.inspect(),
        Suspect,
        place,
        "the region ends, and life 1 of its receiver has not said goodbye",
        "known to have stopped"
    );
    world.follow(0, &directory).unwrap();
    assert!(!mentions(&world.inspect(), "lane 0: the region ends"));
    // The host does not wait for kernel 2, and takes the entry away.
    directory.write(in_state(&world, 1, State::Absent), &[3]).unwrap();
    assert_says!(world.inspect(), Note, place, "no directory names this region", "left from an earlier boot");
    assert_says!(
        world.inspect(),
        Suspect,
        place,
        "lane 2: life 1 of that instance lives, and says that it has this region mapped",
        "writes into what another owner has there"
    );
    // It does write there.
    let line = world.tag(2, 1, 0);
    let before = world.machine.peek(line);
    world.send(2, 1, b"x");
    assert_ne!(world.machine.peek(line), before);
    world.follow(2, &directory).unwrap();
    assert!(!mentions(&world.inspect(), "that it has this region mapped"));
}

// ---- native_link ----

/// 1. A hostile life writes lines for its successor.
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
    assert_says!(
        world.inspect(),
        Suspect,
        ", lane 1",
        "the receiver has answered, and the sender does not go on",
        "`Unanswered`"
    );
    // Clean of a session whose Begin was not answered.
    let clean = Hello { phase: Phase::Clean, session: 20, ..begin };
    world.machine.poke(world.lane(1, 0, header::HELLO), clean.to_word());
    assert_says!(
        world.inspect(),
        Broken,
        ", lane 1",
        "does not know this life of the sender",
        "answers it as a Begin"
    );
    assert_eq!(world.region(0).lanes[1].lines.unread, 0);
    // An honest life comes.
    world.boot(1, 2);
    world.settle();
    let lane = world.region(0).lanes[1].clone();
    assert_eq!((lane.state, lane.lines.unread, lane.control.received), (LaneState::Open, 0, 0));
    assert!(!world.inspect().is_broken(), "{:?}", world.inspect().findings());
}

/// 3. One kernel destroys its own stamp.
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
    assert_says!(
        &machine,
        Broken,
        region(&world, 2),
        "no stamp: the first eight bytes are 0x0000000000000000",
        "No kernel can attach this region"
    );
    let broken: Vec<_> =
        machine.findings().into_iter().filter(|finding| finding.severity == Broken).collect();
    assert_eq!(broken.len(), 1, "{broken:?}");
}

/// 4. Messages at a receiver that is not armed, and that nobody drains.
#[test]
fn messages_at_a_receiver_that_is_awake_are_told() {
    let world = World::booted(2);
    world.machine.poke(world.word(0, receiver::ARMED), 0);
    let before = world.machine.doorbells_at(PhysCpuId(0));
    world.send(1, 0, b"x");
    assert_eq!(world.machine.doorbells_at(PhysCpuId(0)), before, "nobody is rung");
    assert_says!(
        world.inspect(),
        Note,
        region(&world, 0),
        "1 messages are there, and no sender rings for more, because ARMED is 0",
        "its next tick or poll finds them"
    );
    world.link(0).tick(1, 10);
    world.settle();
    assert_eq!(world.region(0).lanes[1].control.received, 1);
    assert!(!mentions(&world.inspect(), "ARMED is 0"));
}

/// 5. A poll that finds nothing leaves nothing to tell.
#[test]
fn a_poll_that_finds_nothing_leaves_nothing_to_tell() {
    let world = World::booted(2);
    let before = world.inspect();
    world.link(1).poll().unwrap();
    world.settle();
    assert_eq!(world.inspect(), before);
}

/// 8. A kernel that is in no table any more goes on writing into its lane.
#[test]
fn a_lane_of_nobody_is_told() {
    let (world, directory) = listed(&[&[0], &[3], &[6]]);
    directory.write(in_state(&world, 2, State::Dead), &[6]).unwrap();
    directory.write(in_state(&world, 2, State::Absent), &[6]).unwrap();
    world.follow(1, &directory).unwrap();
    world.machine.poke(world.tag(2, 1, 0), LineTag::first(1).to_word(7));
    assert_says!(
        world.inspect(),
        Note,
        region(&world, 1),
        "lane 2: the directory has no such instance",
        "does not look at its lane"
    );
    world.link(1).poll().unwrap();
    world.settle();
    assert_eq!(world.machine.peek(world.control(2, 1, control::BREACH)), 0, "nobody looks");
}

/// 12. What a life published that was never looked at.
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
    assert_says!(
        world.inspect(),
        Suspect,
        ", lane 1",
        "the sender waits for an answer to its hello",
        "until the receiver looks"
    );
    world.settle();
    assert_eq!(world.region(0).lanes[1].control.received, 2);
}
