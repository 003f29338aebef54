// SPDX-License-Identifier: MIT OR Apache-2.0
#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use super::arena_for_tests::*;
use super::*;
use crate::message::Message;
use crate::platform::{Peer, PeerEvent};
use crate::sync::{Ordering, Word};
use core::cell::{Cell, RefCell};
use mk_ipi_abi::native::{
    control, lines_of, receiver, Breach, Geometry, MessageInfo, FIRST_LINE_WORDS, FURTHER_LINE_WORDS,
    LINE_WORDS,
};
use mk_ipi_abi::{Incarnation, InstanceId};
use std::vec::Vec;

#[test]
fn every_word_of_a_message_is_read_once() {
    let lens = [0, 1, 8, 47, 48, 49, 104, 105, 255, 256, 4095, 4096];
    // Under Miri only some lengths, because all would take minutes.
    for &len in lens.iter().step_by(if cfg!(miri) { 6 } else { 1 }) {
        let arena = Arena::new(LARGE);
        let link = arena.link();
        assert_eq!(link.received(), [[0; 0]; 0], "no message, but this answers the sender's hello");
        link.send(&bytes(len)).unwrap();
        arena.forget_loads();
        assert_eq!(link.received(), [bytes(len)]);
        let lines = lines_of(len);
        for position in 0..lines {
            let loads: Vec<_> = arena.line(position).iter().map(Watched::loads).collect();
            assert_eq!(loads, [1; LINE_WORDS], "{len}: line {position}");
        }
        for position in lines..LARGE.lines().into() {
            let loads: Vec<_> = arena.line(position).iter().map(Watched::loads).collect();
            assert_eq!(loads[1..], [0; LINE_WORDS - 1], "of the lines after the message only tags are read");
        }
    }
}

#[test]
fn every_word_of_a_message_that_is_polled_for_is_read_once() {
    for len in [0, 48, 49, 256, 4096].into_iter().step_by(if cfg!(miri) { 2 } else { 1 }) {
        let arena = Arena::new(LARGE);
        let link = arena.link();
        assert_eq!(link.received(), [[0; 0]; 0]);
        let mut inbox = Inbox::default();
        let mut hold = link.receiver.hold().unwrap();
        arena.forget_loads();
        assert!(hold.finds_nothing(&link.own));
        let loads: Vec<_> = arena.words.iter().map(Watched::loads).collect();
        assert_eq!(loads.iter().sum::<u64>(), 1, "a poll without a message loads one word");
        // Several messages, so that the receiver prefetches lines.
        for _ in 0..4 {
            link.send(&bytes(len)).unwrap();
            if len > 2048 {
                break;
            }
        }
        arena.forget_loads();
        assert!(!hold.finds_nothing(&link.own));
        while hold.poll(&link.own, &mut inbox).0 != 0 {}
        assert!(inbox.messages.iter().all(|(_, payload)| *payload == bytes(len)));
        for position in 0..*inbox.numbers.last().unwrap() {
            // Not the tag: it is also loaded to find out whether there is a message. That value is not used for anything else.
            let loads: Vec<_> = arena.line(position).iter().skip(1).map(Watched::loads).collect();
            assert_eq!(loads, [1; LINE_WORDS - 1], "{len}: line {position}");
        }
    }
}

#[test]
fn the_first_tag_is_stored_last_and_far_lines_first() {
    for len in [256, 49, 48, 1, 0] {
        let arena = Arena::new(SMALL);
        arena.link().send(&bytes(len)).unwrap();
        let stored = |at: u64| arena.line(at).iter().map(Watched::stored).collect::<Vec<_>>();
        let first = stored(0);
        let (near, unused) = first[2..].split_at(len.div_ceil(8).min(FIRST_LINE_WORDS));
        assert!(near.iter().chain(&first[1..2]).all(|&at| at != 0 && at < first[0]), "{len}: {first:?}");
        assert!(unused.iter().all(|&at| at < first[1]), "no word after the payload is stored: {first:?}");
        for line in (1..lines_of(len)).map(stored) {
            let before = *first[1..].iter().filter(|&&at| at != 0).min().unwrap();
            assert!(line.iter().all(|&at| at < before), "the first line is stored last: {line:?}");
            assert!(line[1..].iter().all(|&at| at < line[0]), "{line:?}");
        }
    }
}

#[test]
fn no_payload_is_taken_for_a_tag() {
    let arena = Arena::new(SMALL);
    let link = arena.link();
    let laps = if cfg!(miri) { 1 } else { 300 };
    let (mut next, mut len) = (0u64, 0usize);
    while next < laps * u64::from(SMALL.lines()) {
        for ahead in [0, 1, 8] {
            // A payload of tags that the receiver expects now, in the next lines or in the next lap.
            let tags =
                (0..16).map(|n| next + ahead + n).flat_map(|at| [SMALL.first_tag(at), SMALL.further_tag(at)]);
            let payload: Vec<_> = tags.flat_map(|tag| tag.to_word(TYPE.0).to_le_bytes()).take(len).collect();
            next += lines_of(len);
            assert_eq!(link.send(&payload), Ok(next));
            assert_eq!(link.received(), [payload]);
        }
        len = (len + 8 * 11) % 257;
    }
}

/// Sends a message of each of these lengths, each beginning at line `place` of the lane. Checks that each is received unchanged.
/// `next` is the position after the last message.
fn arrives(link: &Link, next: &mut u64, place: u64, lens: impl IntoIterator<Item = usize>) {
    let lines = u64::from(link.own.geometry.lines());
    for len in lens {
        while *next % lines != place {
            *next = link.sender.send(TYPE, 7, &[], swap).unwrap();
            assert_eq!(link.received(), [[0; 0]]);
        }
        *next += lines_of(len);
        assert_eq!(link.send(&bytes(len)), Ok(*next));
        let mut inbox = Inbox::default();
        link.run(&mut inbox);
        assert_eq!((inbox.messages, inbox.numbers), (std::vec![(TYPE, bytes(len))], std::vec![*next]));
        assert_eq!(link.sender.handled(), Some(*next));
    }
}

#[test]
fn every_size_arrives_at_every_place() {
    let arena = Arena::new(SMALL);
    let (link, mut next) = (arena.link(), 0);
    for place in (0..SMALL.lines().into()).step_by(if cfg!(miri) { 7 } else { 1 }) {
        arrives(&link, &mut next, place, (0..=256).step_by(if cfg!(miri) { 128 } else { 1 }));
    }
    assert_eq!(link.send(&bytes(257)), Err(Unsent::TooLong));

    let arena = Arena::new(LARGE);
    let (link, mut next) = (arena.link(), 0);
    let places: &[u64] = if cfg!(miri) { &[0] } else { &[0, 1, 54, 55, 64, 126, 127] };
    for &place in places {
        // Lengths that just fill their last line, and those one byte shorter and longer.
        let ends = (48..=4096).step_by(FURTHER_LINE_WORDS * 8).flat_map(|end| [end - 1, end, end + 1]);
        let few = if cfg!(miri) { 0 } else { usize::MAX };
        arrives(&link, &mut next, place, ends.take(few).chain([4096]));
    }
    assert_eq!(link.send(&bytes(4097)), Err(Unsent::TooLong));
}

#[test]
fn after_each_drain_a_whole_lane_fits_again() {
    let arena = Arena::new(SMALL);
    let link = arena.link();
    for round in 0..10 {
        let sent = [1; 9].map(|_| link.send(&[round]).map(drop));
        let (whole, more) = sent.split_at(8);
        assert_eq!((whole, more), (&[Ok(()); 8][..], &[Err(Unsent::Full)][..]), "round {round}");
        assert_eq!(link.received(), [[round]; 8]);
        // Messages of several lines take as many as they have.
        assert_eq!([49, 256, 0].map(|len| link.send(&bytes(len)).is_ok()), [true; 3]);
        assert_eq!(link.send(&[]), Err(Unsent::Full));
        assert!(!link.sender.has_space(0));
        assert_eq!(link.received(), [bytes(49), bytes(256), bytes(0)]);
        // 19 lines per round, so that the next round begins at another line of the lane.
        assert_eq!(link.send(&bytes(144)), Ok((u64::from(round) + 1) * 19));
        assert_eq!(link.received(), [bytes(144)]);
    }
    assert_eq!(link.sender.stats().full, 20);
}

#[test]
fn of_many_those_are_posted_that_fit() {
    let arena = Arena::new(SMALL);
    let link = arena.link();
    let post = |lens: &[usize]| {
        let payloads: Vec<_> = lens.iter().map(|&len| bytes(len)).collect();
        let payloads: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
        link.sender.post(TYPE, 7, &payloads, swap).map(|(count, _)| count)
    };
    assert_eq!(post(&[]), Ok(0));
    assert_eq!(post(&[1; 7]), Ok(7));
    assert_eq!(post(&[1; 7]), Ok(1));
    assert_eq!(post(&[1; 7]), Err(Unsent::Full));
    assert_eq!(link.received(), [[0]; 8]);
    assert_eq!(post(&[1; 12]), Ok(8));
    assert_eq!(link.received(), [[0]; 8]);
    // These take five lines, two and one. The fourth message does not fit.
    assert_eq!(post(&[256, 50, 3, 4]), Ok(3));
    assert_eq!(link.received(), [bytes(256), bytes(50), bytes(3)]);
    // A message that does not fit ends the batch, also if a shorter one after it would fit.
    assert_eq!(post(&[256, 256, 0]), Ok(1));
    assert_eq!(post(&[256, 0]), Err(Unsent::Full));
    assert_eq!(post(&[0, 257]), Err(Unsent::TooLong), "if one message is too long, none is posted");
    assert_eq!(link.received(), [bytes(256)]);
}

/// A hostile former life of the receiver stored an older answer again, and impossible positions.
#[test]
fn a_disowned_sender_can_begin_again() {
    let arena = Arena::new(SMALL);
    let mut link = arena.link();
    link.run(&mut Inbox::default());
    let older = arena.control(control::ANSWER);
    // The sender attaches again, and waits for the answer to its Clean.
    link.sender = arena.life(1);
    link.run(&mut Inbox::default());
    assert_eq!(link.sender.open(), Opening::HelloSent);
    let poke =
        |word: usize, value| arena.words[receiver::CONTROL + word].value.store(value, Ordering::Relaxed);
    poke(control::ANSWER, older);
    poke(control::HANDED, arena.control(control::CREDIT) + 9);
    link.receiver = Receiver::new();
    link.receiver.begin(&link.own, Incarnation::FIRST, false, 0);
    let opens = (0..5).any(|_| {
        link.run(&mut Inbox::default());
        link.sender.open() == Opening::Open
    });
    assert!(opens, "the sender waits for an answer that never comes");
    link.send(b"again").unwrap();
    assert_eq!(link.received(), [b"again"]);
}

#[test]
fn what_no_honest_sender_stores_ends_the_lane() {
    const NEXT: u64 = 9;
    let about = |len: u32| MessageInfo { len, cpu: 7 }.to_word();
    const LAP: u64 = SMALL.lines() as u64;
    let tag = SMALL.first_tag(NEXT).to_word(3);
    let further = SMALL.further_tag(NEXT);
    let ahead = SMALL.first_tag(NEXT + LAP);
    let behind = [SMALL.first_tag(NEXT - LAP), SMALL.further_tag(NEXT - LAP)].map(|tag| tag.to_word(3));
    // Words 0 and 1 of the line at `NEXT`, the tag of the line after it, and the breach that the receiver must report.
    let cases = [
        (ahead.to_word(3), about(1), 0, Some(Breach::Tag)),
        (further.to_word(3), about(1), 0, Some(Breach::Tag)),
        (tag, about(257), 0, Some(Breach::Length)),
        (tag, about(u32::MAX), 0, Some(Breach::Length)),
        (tag, about(49), SMALL.first_tag(NEXT + 1).to_word(0), Some(Breach::Tag)),
        (tag, about(49), SMALL.further_tag(NEXT + 1 - LAP).to_word(0), Some(Breach::Tag)),
        (tag, about(49), 0, Some(Breach::Tag)),
        // Tags of the lap before, and memory without tags: the receiver sees no message and no breach.
        (behind[0], about(u32::MAX), 0, None),
        (behind[1], about(u32::MAX), 0, None),
        (u64::MAX << 32, about(u32::MAX), 0, None),
    ];
    for (n, (first, second, behind, breach)) in
        cases.into_iter().enumerate().step_by(if cfg!(miri) { 4 } else { 1 })
    {
        let arena = Arena::new(SMALL);
        let link = arena.link();
        for _ in 0..NEXT {
            link.send(&[]).unwrap();
            assert_eq!(link.received().len(), 1);
        }
        arena.line(NEXT)[1].store(second, Ordering::Relaxed);
        arena.line(NEXT)[0].store(first, Ordering::Relaxed);
        arena.line(NEXT + 1)[0].store(behind, Ordering::Relaxed);
        let mut inbox = Inbox::default();
        link.run(&mut inbox);
        assert_eq!(inbox.messages, [], "{n}");
        assert_eq!(inbox.events, Vec::from_iter(breach.map(PeerEvent::Quarantined)), "{n}");
        assert_eq!((link.sender.breach(), link.sender.stats().last_breach), (breach, breach), "{n}");
        let Some(breach) = breach else { continue };
        // The receiver takes no more messages, and the sender's send reports the quarantine.
        (0..8).for_each(|_| _ = link.send(&[]));
        assert_eq!((link.send(&[]), link.received().len()), (Err(Unsent::Quarantined), 0), "{n}");
        // The next life of the sender can send.
        let next = Link { sender: arena.life(2), ..link };
        let mut inbox = Inbox::default();
        next.run(&mut inbox);
        assert_eq!(next.sender.open(), Opening::HelloSent);
        next.run(&mut inbox);
        assert_eq!((next.sender.open(), next.sender.breach()), (Opening::Open, None));
        next.send(&[1]).unwrap();
        next.run(&mut inbox);
        assert_eq!((inbox.messages, inbox.rings.get()), (std::vec![(TYPE, std::vec![1])], 2), "{n}");
        assert_eq!(arena.control(control::LAST_BREACH), breach as u64);
    }
}

/// Calls a function whenever the receiver asks for the version of the table. It does this at the start of each drain,
/// and once in the check after arming.
struct Meanwhile<F>(Inbox, F);

impl<F: Fn()> Events for Meanwhile<F> {
    fn version(&self) -> u32 {
        (self.1)();
        1
    }
    fn knows(&self, id: InstanceId) -> bool {
        self.0.knows(id)
    }
    fn deliver(&mut self, message: &Message<'_>) {
        self.0.deliver(message);
    }
    fn ring(&self, id: InstanceId) {
        self.0.ring(id);
    }
    fn event(&mut self, peer: Peer, event: PeerEvent) {
        self.0.event(peer, event);
    }
}

#[test]
fn who_arms_looks_once_more() {
    let arena = Arena::new(SMALL);
    let Link { sender, own, receiver } = arena.link();
    let armed = || arena.words[receiver::ARMED].value.load(Ordering::Relaxed) == 1;
    let (looks, asked) = (Cell::new(0), RefCell::new(Vec::new()));
    let meanwhile = || {
        looks.set(looks.get() + 1);
        if looks.get() % 2 == 0 && looks.get() <= 4 {
            sender.send(TYPE, 7, &[looks.get()], swap).unwrap();
            asked.borrow_mut().push(sender.flush());
        }
    };
    let mut to = Meanwhile(Inbox::default(), meanwhile);
    let mut drain = |arm| receiver.hold().unwrap().drain(&own, &mut to, 16, arm);
    for _ in 0..2 {
        assert!(drain(true), "the message was sent after the lanes were visited");
        assert!(!armed() && !sender.flush());
    }
    assert!(!drain(true) && armed() && sender.flush());
    // A drain that does not arm leaves `ARMED` as it is.
    assert!(!drain(false) && armed());
    own.disarm();
    assert!(!drain(false) && !armed());
    assert_eq!(asked.take(), [true; 2], "the receiver was armed when each message was sent");
    assert_eq!(to.0.messages, [2, 4].map(|n| (TYPE, std::vec![n])));
}

#[test]
fn who_arms_sees_hello_and_want_too() {
    let arena = Arena::new(SMALL);
    let link = arena.link();
    let mut inbox = Inbox::default();
    link.run(&mut inbox);
    (0..8).for_each(|_| _ = link.send(&[]).unwrap());
    assert!(!link.sender.want_space(256, || ()));
    link.run(&mut inbox);
    assert_eq!((inbox.messages.len(), inbox.rings.get()), (8, 2), "one ring for the answer, one for space");
    assert!(link.sender.has_space_for_waiter() && !link.sender.has_space_for_waiter());
    // Another life of the sender stores its hello after the lanes were visited.
    let looks = Cell::new(0);
    let mut to = Meanwhile(Inbox::default(), || {
        looks.set(looks.get() + 1);
        if looks.get() == 2 {
            arena.life(2);
        }
    });
    assert!(link.receiver.hold().unwrap().drain(&link.own, &mut to, 16, true));
    assert!(!link.receiver.hold().unwrap().drain(&link.own, &mut to, 16, true));
    assert_eq!(to.0.rings.get(), 1, "the hello was answered");
}

#[test]
fn a_budget_is_kept_and_more_is_told() {
    let arena = Arena::new(SMALL);
    let link = arena.link();
    assert!(link.received().is_empty());
    (0..8).for_each(|n| _ = link.send(&[n]).unwrap());
    let mut inbox = Inbox::default();
    let mut drain = |budget| link.receiver.hold().unwrap().drain(&link.own, &mut inbox, budget, true);
    assert!(drain(3) && drain(3) && !drain(3));
    assert!(inbox.messages.iter().map(|(_, payload)| payload[0]).eq(0..8));
}

#[test]
fn one_holds_the_receiver_and_others_leave_it_a_drain() {
    let receiver = Receiver::<8>::new();
    let hold = receiver.hold().unwrap();
    assert!(!hold.release());
    let hold = receiver.hold().unwrap();
    assert!(receiver.hold().is_none() && receiver.hold().is_none());
    assert!(hold.release());
    drop(receiver.hold().unwrap());
    assert!(!receiver.hold().unwrap().release());
}

/// Records the senders of the messages. There are three instances.
struct SenderLog(Vec<u8>);

impl Events for SenderLog {
    fn version(&self) -> u32 {
        1
    }
    fn knows(&self, id: InstanceId) -> bool {
        id.get() < 3
    }
    fn deliver(&mut self, message: &Message<'_>) {
        self.0.push(message.sender().unwrap().get());
    }
    fn ring(&self, _: InstanceId) {}
    fn event(&mut self, _: Peer, _: PeerEvent) {}
}

#[test]
fn no_look_passes_over_a_lane() {
    let arena = Arena::new(Geometry::new(3, 8, 256).unwrap());
    let Link { own, receiver, sender } = arena.link();
    let others = [1, 2].map(|id| {
        let region = PeerRegion::map(&arena, arena.range(), InstanceId::new(id)).unwrap();
        Sender::begin(region, Incarnation::FIRST)
    });
    let [one, two] = others;
    let (senders, mut log) = ([sender, one, two], SenderLog(Vec::new()));
    // All combinations of the senders of the first messages (3 bits of `round`), the senders of the second messages (3 bits), and
    // the budget of the drain in between, which decides with which lane the next round begins.
    for round in (0..512).step_by(if cfg!(miri) { 61 } else { 1 }) {
        let speak = |set: u8| (0..3u8).filter(move |lane| set & 1 << lane != 0);
        for lane in speak(round as u8 & 7) {
            senders[usize::from(lane)].send(TYPE, 7, &[], swap).unwrap();
        }
        // The budget can end this drain before all lanes were visited.
        receiver.hold().unwrap().drain(&own, &mut log, round / 64 % 3, false);
        receiver.hold().unwrap().drain(&own, &mut log, 64, false);
        for lane in speak((round / 8) as u8 & 7) {
            senders[usize::from(lane)].send(TYPE, 7, &[], swap).unwrap();
        }
        log.0.clear();
        receiver.hold().unwrap().drain(&own, &mut log, 64, false);
        log.0.sort_unstable();
        assert_eq!(log.0, speak((round / 8) as u8 & 7).collect::<Vec<_>>(), "round {round}");
    }
}
