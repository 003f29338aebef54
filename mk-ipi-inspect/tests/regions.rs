// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of native regions, healthy and damaged. If the inspector predicts what a kernel will do, the test runs the kernel, and
//! checks that it does this.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod world;

use mk_ipi_abi::native::{control, header, receiver, Breach, Hello, Life, LineTag, MessageInfo, Phase};
use mk_ipi_inspect::native::{Region, State};
use mk_ipi_inspect::Severity;
use world::{elf_core, id, life, World, LINES, TYPE};

/// True if there is a finding of this severity that contains `text`.
fn says(region: &Region, severity: Severity, text: &str) -> bool {
    region.findings.iter().any(|finding| finding.severity == severity && finding.what.contains(text))
}

/// How many messages of instance `from` the receiver has counted as handed out.
fn received(region: &Region, from: u32) -> u64 {
    region.lanes.iter().find(|lane| lane.instance == from).unwrap().control.received
}

/// True if all findings are notes.
fn is_sound(region: &Region) -> bool {
    region.findings.iter().all(|finding| finding.severity == Severity::Note)
}

#[test]
fn a_machine_at_rest_is_sound() {
    let world = World::booted(3);
    world.send(1, 0, b"hello");
    world.settle();
    let machine = world.inspect();
    assert_eq!(machine.regions.len(), 3);
    assert!(!machine.is_broken(), "{:?}", machine.findings());
    for k in 0..3 {
        let region = world.region(k);
        assert!(is_sound(&region), "{:?}", region.findings);
        assert_eq!(region.shape.as_ref().map(|s| (s.lanes, s.lines, s.max_len)), Some((3, LINES, 256)));
        let receiver = region.receiver.as_ref().unwrap();
        assert_eq!((receiver.life, receiver.over, receiver.armed), (Some(1), false, true));
        assert_eq!(region.lanes.len() + region.unused_lanes, 3);
        assert!(region.lanes.iter().all(|lane| lane.state == State::Open && lane.lines.unread == 0));
    }
    let lane = world.region(0).lanes.into_iter().find(|lane| lane.instance == 1).unwrap();
    assert_eq!((lane.control.received, lane.control.credit, lane.next), (1, 1, Some(1)));
}

#[test]
fn what_is_unread_is_told_message_by_message() {
    let world = World::booted(2);
    let numbers = [world.send(1, 0, b"one"), world.send(1, 0, &[2; 100]), world.send(1, 0, b"three")];
    let region = world.region(0);
    let lane = region.lanes.iter().find(|lane| lane.instance == 1).unwrap();
    let told: Vec<_> = lane.lines.messages.iter().map(|m| (m.number, m.len, m.msg_type, m.cpu)).collect();
    assert_eq!(told, [(numbers[0], 3, TYPE.0, 3), (numbers[1], 100, TYPE.0, 3), (numbers[2], 5, TYPE.0, 3)]);
    assert_eq!(lane.lines.messages[0].begins, "6f6e65");
    assert_eq!((lane.lines.unread, lane.lines.unread_lines), (3, 4));
    // The receiver was rung, and has not looked for messages yet. This is normal for a short time.
    assert!(says(&region, Severity::Suspect, "there are 3 unread messages"), "{:?}", region.findings);
    world.settle();
    assert!(is_sound(&world.region(0)));
}

#[test]
fn a_lane_that_was_not_looked_at_yet_can_be_sent_on() {
    let mut world = World::new(2);
    world.boot(1, 1);
    world.send(1, 0, b"early");
    let region = world.region(0);
    assert!(says(&region, Severity::Note, "has not begun a life"));
    assert!(says(&region, Severity::Note, "1 messages wait for the receiver's next life"));
    let lane = &region.lanes[0];
    assert_eq!((lane.instance, lane.state, lane.lines.unread), (1, State::NeverAnswered, 1));
}

#[test]
fn who_waits_is_told() {
    let world = World::booted(2);
    (0..LINES).for_each(|_| _ = world.send(1, 0, b"x"));
    assert_eq!(world.link(1).want_space(id(0), 1), Ok(false));
    let region = world.region(0);
    assert!(says(&region, Severity::Note, "the sender waits for space: CREDIT is 0, and must become 1"));
    assert_eq!(region.lanes.iter().find(|lane| lane.instance == 1).unwrap().lines.unread, u64::from(LINES));
    world.settle();
    assert!(is_sound(&world.region(0)), "{:?}", world.region(0).findings);
}

#[test]
fn a_breach_is_foretold_and_comes() {
    let cases: [(usize, u64, Breach, &str); 3] = [
        (0, LineTag::first(1).to_word(7), Breach::Tag, "a wrong tag"),
        (0, LineTag::further(0).to_word(0), Breach::Tag, "a wrong tag"),
        (1, MessageInfo { len: 257, cpu: 0 }.to_word(), Breach::Length, "longer than the region allows"),
    ];
    for (word, value, breach, text) in cases {
        let world = World::booted(2);
        if word == 1 {
            world.send(1, 0, b"x");
        }
        world.machine.poke(mk_ipi_abi::PhysAddr(world.tag(1, 0, 0).0 + 8 * word as u64), value);
        let region = world.region(0);
        assert!(says(&region, Severity::Broken, text), "{:?}", region.findings);
        world.link(0).poll().unwrap();
        world.settle();
        assert!(world.quarantined(0, 1, breach), "{breach:?}");
        let region = world.region(0);
        assert!(says(&region, Severity::Broken, "in quarantine: "), "{:?}", region.findings);
        assert_eq!(region.lanes.iter().find(|lane| lane.instance == 1).unwrap().state, State::Quarantined);
    }
}

#[test]
fn a_hello_that_is_none_is_foretold_and_comes() {
    let world = World::booted(2);
    world.machine.poke(world.lane(1, 0, header::HELLO), 0xdead);
    assert!(says(&world.region(0), Severity::Broken, "HELLO is 0xdead"));
    world.link(0).poll().unwrap();
    world.settle();
    assert!(world.quarantined(0, 1, Breach::Hello));
    // A HELLO of 0 is wrong, but it is not a breach.
    let world = World::booted(2);
    world.machine.poke(world.lane(1, 0, header::HELLO), 0);
    assert!(says(&world.region(0), Severity::Broken, "HELLO is 0"));
    world.link(0).poll().unwrap();
    world.settle();
    assert!(world.machine.kernel(0).peer_events().is_empty());
}

#[test]
fn a_gap_holds_up_what_lies_behind_it() {
    let world = World::booted(2);
    world.send(1, 0, b"a");
    world.send(1, 0, b"b");
    world.machine.poke(world.tag(1, 0, 0), 0);
    let region = world.region(0);
    assert!(says(&region, Severity::Suspect, "1 messages come after position 0"), "{:?}", region.findings);
    world.settle();
    assert_eq!(received(&world.region(0), 1), 0);
}

#[test]
fn words_of_the_receiver_that_cannot_be_are_named() {
    let cases: [(usize, u64, &str); 6] = [
        (receiver::LIFE, 7 << 40, "LIFE is"),
        (receiver::LIFE, 0, "LIFE is 0, but the receiver has answered"),
        (receiver::ARMED, 2, "ARMED is"),
        (receiver::BELL, 5, "BELL is"),
        (receiver::CONTROL + receiver::CONTROL_WORDS + control::HANDED, 1 << 62, "cannot both be right"),
        (receiver::CONTROL + receiver::CONTROL_WORDS + control::ANSWER, 77, "ANSWER is"),
    ];
    for (word, value, text) in cases {
        let world = World::booted(2);
        world.machine.poke(world.word(0, word), value);
        assert!(says(&world.region(0), Severity::Broken, text), "{text}: {:?}", world.region(0).findings);
    }
    let world = World::booted(2);
    world.machine.poke(world.word(0, receiver::LIFE), Life { incarnation: life(1), over: true }.to_word());
    assert!(says(&world.region(0), Severity::Note, "life 1 of the receiver has said goodbye"));
}

#[test]
fn a_stop_word_counts_in_the_hosts_lane_alone() {
    let world = World::booted(3);
    world.machine.poke(world.lane(0, 1, header::STOP), 1);
    world.machine.poke(world.lane(2, 1, header::STOP), 1);
    let region = world.region(1);
    assert!(says(&region, Severity::Note, "the host tells life 1 of the receiver to stop"));
    assert!(says(&region, Severity::Broken, "an instance that is not the host"));
}

#[test]
fn a_message_whose_receiver_died_in_its_handler_is_in_doubt() {
    let mut world = World::booted(2);
    let number = world.send(1, 0, b"x");
    // HANDED has this value if the receiver dies while the handler runs.
    world.machine.poke(world.control(1, 0, control::HANDED), number);
    assert!(says(&world.region(0), Severity::Note, "message 1 is being handled"));
    world.boot(0, 2);
    world.settle();
    let region = world.region(0);
    assert!(
        says(&region, Severity::Note, "1 messages were in doubt since the region was made; the last ones: 1"),
        "{:?}",
        region.findings
    );
    assert_eq!(region.receiver.unwrap().life, Some(2));
}

#[test]
fn a_sender_that_waits_for_an_answer_is_told() {
    let world = World::booted(2);
    let said = world.machine.peek(world.lane(1, 0, header::HELLO));
    let begin = Hello { phase: Phase::Begin, session: 9, ..Hello::from_word(said).unwrap() };
    world.send(1, 0, b"left");
    world.machine.poke(world.lane(1, 0, header::HELLO), begin.to_word());
    let region = world.region(0);
    assert!(says(&region, Severity::Suspect, "waits for an answer"));
    // The messages that the sender's former life has published are handed out first.
    let lane = region.lanes.iter().find(|lane| lane.instance == 1).unwrap();
    assert_eq!((lane.state, lane.lines.unread), (State::WaitsForReceiver, 1));
    world.link(0).poll().unwrap();
    world.settle();
    assert_eq!(received(&world.region(0), 1), 1);
    let region = world.region(0);
    assert!(says(&region, Severity::Suspect, "the sender has not continued"), "{:?}", region.findings);
}

#[test]
fn stamps_are_refused_as_kernels_refuse_them() {
    let cases: [(usize, u64, &str); 4] = [
        (0, 7, "no stamp"),
        (1, 1 | 2 << 32, "version 1.0"),
        (1, 2 | 999 << 32, "999 lanes"),
        (2, 4096, "does not follow"),
    ];
    for (word, value, text) in cases {
        let world = World::booted(2);
        world.machine.poke(world.word(0, word), value);
        let region = world.region(0);
        assert!(region.shape.is_none() && region.lanes.is_empty());
        assert!(says(&region, Severity::Broken, text), "{text}: {:?}", region.findings);
    }
}

#[test]
fn an_elf_core_says_the_same_as_a_raw_dump() {
    let world = World::booted(3);
    world.send(2, 1, b"hello");
    world.write_directory(|_| ());
    let core = elf_core(&world.bytes(), mk_ipi_mock::MEMORY_START.0);
    let memory = mk_ipi_inspect::Memory::of_bytes(core, None).unwrap();
    let machine = mk_ipi_inspect::Machine::find(&memory, 4).unwrap();
    assert_eq!(machine, world.inspect());
    assert_eq!((machine.directories.len(), machine.regions.len()), (1, 3));
}
