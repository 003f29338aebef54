// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a sender reports of its receiver and of its own messages (SPEC N-4, N-11, N-14).

use super::arena_for_tests::*;
use super::*;
use crate::platform::PeerEvent;
use crate::sync::Ordering;
use core::cell::RefCell;
use mk_ipi_abi::native::{control, header, receiver, Breach, Life};
use std::vec::Vec;

/// The events of one check at this time. A heartbeat may stand still for 10 units of time.
fn look(watch: &Watch, sender: &Sender<Watched>, now: u64) -> Vec<PeerEvent> {
    let events = RefCell::new(Vec::new());
    watch.look(sender, now, 10, |event| events.borrow_mut().push(event));
    events.into_inner()
}

/// A life of the sender whose messages have the numbers 12 and 13, and a watch that has seen the receiver's life.
fn watched(arena: &Arena) -> (Link, Watch) {
    let mut link = arena.link();
    (0..3).for_each(|_| _ = link.send(&[]).unwrap());
    assert_eq!(link.received().len(), 3);
    link.sender = arena.life(2);
    link.connect(&mut Inbox::default());
    assert_eq!([link.send(&[]), link.send(&[])], [Ok(12), Ok(13)]);
    let watch = Watch::new(&link.sender);
    assert_eq!(look(&watch, &link.sender, 0), [PeerEvent::Up(life(1))]);
    (link, watch)
}

#[test]
fn each_change_of_the_receivers_life_is_reported_once() {
    let arena = Arena::new(SMALL);
    let sender = arena.life(1);
    let watch = Watch::new(&sender);
    // `LIFE`, the event, and the life, if the word is valid.
    let over = |incarnation| Life { incarnation, over: true }.to_word();
    let alive = |number| Some(Life { incarnation: life(number), over: false });
    let words = [
        (0, None, None),
        (3, Some(PeerEvent::Up(life(3))), alive(3)),
        (over(life(3)), Some(PeerEvent::Dead(life(3))), Some(Life { incarnation: life(3), over: true })),
        (4, Some(PeerEvent::Up(life(4))), alive(4)),
        (5, Some(PeerEvent::Up(life(5))), alive(5)),
        (1 << 33 | 5, None, None),
        (5, Some(PeerEvent::Up(life(5))), alive(5)),
        (1 << 32, None, None),
    ];
    for (word, event, found) in words {
        arena.receiver(receiver::LIFE).store(word, Ordering::Relaxed);
        assert_eq!(look(&watch, &sender, 0), Vec::from_iter(event), "{word:#x}");
        assert_eq!(look(&watch, &sender, 0), [], "{word:#x}");
        assert_eq!(sender.life(), found, "{word:#x}");
        assert_eq!(sender.begun(), (word != 0).then_some(found), "{word:#x}");
        let is_over = found.is_some_and(|life| life.over);
        let lives = (word != 0 && !is_over).then(|| found.map(|life| life.incarnation));
        assert_eq!(sender.lives(), lives, "{word:#x}");
    }
}

#[test]
fn a_receiver_whose_heartbeat_stands_still_for_too_long_is_suspect() {
    let arena = Arena::new(SMALL);
    let sender = arena.life(1);
    let watch = Watch::new(&sender);
    let [alive, up, suspect] = [PeerEvent::Alive, PeerEvent::Up(life(1)), PeerEvent::Suspect];
    // The time, `LIFE`, `HEARTBEAT`, the event, and whether the receiver is suspect after the check.
    let over = Life { incarnation: life(1), over: true }.to_word();
    let steps = [
        (100, 1, 0, Some(up), false),
        (200, 1, 0, None, false),
        (200, 1, 1, None, false),
        (210, 1, 1, None, false),
        (205, 1, 1, None, false),
        (211, 1, 1, Some(suspect), true),
        (300, 1, 1, None, true),
        (301, 1, 2, Some(alive), false),
        (311, 1, 2, None, false),
        (312, 1, 2, Some(suspect), true),
        // The word for a life is wrong, so the heartbeat is all that there is.
        (313, 1 << 40, 2, None, false),
        (323, 1 << 40, 2, None, false),
        (324, 1 << 40, 2, Some(suspect), true),
        (400, 1, 2, Some(up), false),
        (401, over, 2, Some(PeerEvent::Dead(life(1))), false),
        (900, over, 2, None, false),
        (901, over, 3, None, false),
    ];
    for (n, (now, word, heartbeat, event, is_suspect)) in steps.into_iter().enumerate() {
        arena.receiver(receiver::LIFE).store(word, Ordering::Relaxed);
        arena.receiver(receiver::HEARTBEAT).store(heartbeat, Ordering::Relaxed);
        assert_eq!(look(&watch, &sender, now), Vec::from_iter(event), "step {n}");
        assert_eq!(watch.is_suspect(), is_suspect, "step {n}");
    }
}

#[test]
fn only_one_cpu_checks_at_a_time() {
    let arena = Arena::new(SMALL);
    let sender = arena.life(1);
    let watch = Watch::new(&sender);
    arena.receiver(receiver::LIFE).store(1, Ordering::Relaxed);
    let events = RefCell::new(Vec::new());
    watch.look(&sender, 0, 10, |event| {
        events.borrow_mut().push(event);
        arena.receiver(receiver::LIFE).store(2, Ordering::Relaxed);
        assert_eq!(look(&watch, &sender, 0), []);
    });
    assert_eq!(events.into_inner(), [PeerEvent::Up(life(1))]);
    assert_eq!(look(&watch, &sender, 0), [PeerEvent::Up(life(2))]);
}

#[test]
fn doubts_are_reported_once_and_only_for_messages_of_this_life() {
    let arena = Arena::new(SMALL);
    let (link, watch) = watched(&arena);
    let doubt = |nth: u64, number| arena.set_control(control::DOUBT + (nth % 4) as usize, number);
    // The doubts before these, their numbers, and which of them are reported.
    let steps: [(u64, &[u64], &[u64]); 6] = [
        (0, &[12], &[12]),
        (1, &[], &[]),
        (1, &[13, 11, 14], &[13]),
        (4, &[0, u64::MAX, 12, 13], &[12, 13]),
        // More than the four words can hold: the oldest ones are lost.
        (8, &[12, 12, 12, 13, 11, 13, 12], &[13, 13, 12]),
        (15, &[], &[]),
    ];
    for (before, numbers, reported) in steps {
        (before..).zip(numbers).for_each(|(nth, &number)| doubt(nth, number));
        arena.set_control(control::DOUBTS, before + numbers.len() as u64);
        let expected: Vec<_> = reported.iter().map(|&number| PeerEvent::InDoubt { number }).collect();
        assert_eq!(look(&watch, &link.sender, 0), expected, "{before}");
    }
    // A watch that begins now reports nothing of what was told before.
    assert_eq!(look(&Watch::new(&link.sender), &link.sender, 0), [PeerEvent::Up(life(1))]);
    // A hostile receiver that counts backwards or without end costs no more than four words.
    for doubts in [3, u64::MAX] {
        arena.set_control(control::DOUBTS, doubts);
        assert!(look(&watch, &link.sender, 0).len() <= 4);
    }
}

#[test]
fn discards_are_reported_once_and_only_for_messages_of_this_life() {
    // `DISCARD_FROM` and `DISCARD_TO` at several checks, and the ranges that are reported.
    type Range = (u64, u64);
    let cases: [&[(Range, Option<Range>)]; 9] = [
        &[((11, 13), Some((11, 13))), ((11, 13), None)],
        &[((0, 12), Some((11, 12))), ((0, 13), Some((12, 13)))],
        &[((12, 13), Some((12, 13)))],
        &[((11, 12), Some((11, 12))), ((12, 13), Some((12, 13)))],
        // No message of this life has such a number.
        &[((11, 14), None), ((11, 13), Some((11, 13)))],
        &[((0, u64::MAX), None)],
        &[((9, 11), None), ((9, 10), None)],
        &[((13, 13), None), ((13, 12), None)],
        // A former life of the receiver has stored a wrong position.
        &[((0, 1 << 40), None), ((0, 12), Some((11, 12)))],
    ];
    for (n, steps) in cases.into_iter().enumerate() {
        let arena = Arena::new(SMALL);
        let (link, watch) = watched(&arena);
        for &((from, to), reported) in steps {
            arena.set_control(control::DISCARD_FROM, from);
            arena.set_control(control::DISCARD_TO, to);
            let expected = reported.map(|(after, to)| PeerEvent::Discarded { after, to });
            assert_eq!(look(&watch, &link.sender, 0), Vec::from_iter(expected), "{n}: {from} to {to}");
        }
    }
}

#[test]
fn a_refusal_is_reported_once() {
    let arena = Arena::new(SMALL);
    let (link, watch) = watched(&arena);
    arena.set_control(control::BREACH, Breach::Length as u64);
    assert_eq!(look(&watch, &link.sender, 0), [PeerEvent::Refused(Breach::Length)]);
    assert_eq!(look(&watch, &link.sender, 0), []);
    assert!(!watch.newly_refused());
    assert!(Watch::new(&link.sender).newly_refused());
}

#[test]
fn a_region_that_was_made_again_is_reported_with_the_messages_that_it_lost() {
    let arena = Arena::new(SMALL);
    let (link, watch) = watched(&arena);
    arena.set_control(control::CREDIT, 12);
    assert_eq!(link.sender.unsettled(), Some((12, 13)));
    arena.header(header::ATTACHED).store(0, Ordering::Relaxed);
    let lost = PeerEvent::Unsettled { after: 11, to: 13 };
    assert_eq!(look(&watch, &link.sender, 0), [lost, PeerEvent::ReadDirectory]);
    assert_eq!(look(&watch, &link.sender, 0), []);
    assert_eq!(link.sender.unsettled(), None);
}
