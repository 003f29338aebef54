// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a sender does with every answer of its receiver, whatever the receiver has stored to its words (SPEC N-8, N-9).

use super::arena_for_tests::*;
use super::send::{PREPARING, UNANSWERED};
use super::*;
use crate::sync::Ordering;
use core::cell::Cell;
use mk_ipi_abi::native::{control, header, receiver, Attached, Bell, Breach, Geometry, Hello, Phase};
use mk_ipi_abi::{PhysCpuId, Vector};

/// Number of lines of the lane.
const K: u64 = SMALL.lines() as u64;

fn no_such_doorbell(_: Bell) -> bool {
    false
}

/// The second life of the sender, which begins at position 11 and has sent two messages.
fn second_life(arena: &Arena) -> Link {
    let mut link = arena.link();
    for number in 1..=3 {
        assert_eq!((link.send(&[]), link.received().len()), (Ok(number), 1));
    }
    link.sender = arena.life(2);
    link.connect(&mut Inbox::default());
    assert_eq!(link.sender.stats().number, 0, "the number of a message of the former life is not counted");
    assert_eq!([link.send(&[]), link.send(&[])], [Ok(3 + K + 1), Ok(3 + K + 2)]);
    link
}

#[test]
fn a_life_begins_with_first_only_in_a_lane_that_was_never_used() {
    let other = Hello { incarnation: life(1), session: 1, phase: Phase::First }.to_word();
    for set in 0..16 {
        let arena = Arena::new(SMALL);
        let [said, answered, breach, credit] = [1, 2, 4, 8].map(|bit| set & bit != 0);
        arena.header(header::HELLO).store(if said { other } else { 0 }, Ordering::Relaxed);
        arena.header(header::WANT).store(9, Ordering::Relaxed);
        arena.set_control(control::ANSWER, if answered { other } else { 0 });
        arena.set_control(control::BREACH, breach.into());
        arena.set_control(control::CREDIT, credit.into());
        let sender = arena.life(3);
        let hello = Hello::from_word(arena.header(header::HELLO).load(Ordering::Relaxed)).unwrap();
        let phase = if set == 0 { Phase::First } else { Phase::Begin };
        assert_eq!((hello.phase, hello.incarnation), (phase, life(3)), "{set:04b}");
        assert!(hello.session != 0 && (!(said || answered) || hello.session != 1), "{set:04b}");
        assert_eq!(sender.is_fresh(), !said);
        assert_eq!(
            arena.header(header::WANT).load(Ordering::Relaxed),
            0,
            "a new life does not wait for space"
        );
        assert_eq!(arena.header(header::ATTACHED).load(Ordering::Relaxed), 3);
        let sent = sender.send(TYPE, 7, &[], swap);
        assert_eq!(sent, if set == 0 { Ok(1) } else { Err(Unsent::Unanswered) }, "{set:04b}");
        assert_eq!(sender.open(), if set == 0 { Opening::Open } else { Opening::Waiting }, "{set:04b}");
    }
}

/// What SPEC N-9 says of a sender that waits for an answer: what it does next, and its `HELLO` after that. `clean` is its last
/// hello.
fn next_step(clean: Hello, answer: u64, said: u64, base: u64) -> (Opening, u64) {
    let (clean, begin) = (clean.to_word(), clean.in_phase(Phase::Begin).to_word());
    if answer == clean && base < 1 << 62 {
        (Opening::Open, said)
    } else if answer == begin && said == begin {
        (Opening::HelloSent, clean)
    } else if answer == clean || (said == clean && answer != begin) {
        // The position is impossible, or the answer is not the one that this life waits for: it begins again.
        (Opening::HelloSent, begin)
    } else {
        (Opening::Waiting, said)
    }
}

#[test]
fn the_sender_continues_the_handshake_as_the_answer_says() {
    let cases = [5, (1 << 62) - 1, 1 << 62, u64::MAX].into_iter().flat_map(|base| {
        let words = (0..6).flat_map(|answer| (0..3).map(move |said| (answer, said)));
        words.flat_map(move |(answer, said)| [false, true].map(|busy| (base, answer, said, busy)))
    });
    for (base, answer, said, busy) in cases {
        let arena = Arena::new(SMALL);
        let _ = arena.life(1);
        let sender = arena.life(2);
        let clean = sender.hello.to_word();
        let begin = sender.hello.in_phase(Phase::Begin).to_word();
        let other = Hello { session: 70, ..sender.hello };
        let answer = [0, 1, begin, clean, other.to_word(), other.in_phase(Phase::Begin).to_word()][answer];
        let said = [begin, clean, other.to_word()][said];
        arena.set_control(control::ANSWER, answer);
        arena.set_control(control::BASE, base);
        arena.header(header::HELLO).store(said, Ordering::Relaxed);
        (0..K).for_each(|at| arena.plant(at, 0));
        // While another CPU continues the handshake, this one does nothing.
        let (result, then) =
            if busy { (Opening::Waiting, said) } else { next_step(sender.hello, answer, said, base) };
        let tail = if busy { PREPARING } else { UNANSWERED };
        sender.tail.store(tail, Ordering::Relaxed);

        let case = std::format!("BASE {base:#x}, ANSWER {answer:#x}, HELLO {said:#x}, busy {busy}");
        assert_eq!(sender.open(), result, "{case}");
        assert_eq!(arena.header(header::HELLO).load(Ordering::Relaxed), then, "{case}");
        let wiped = result == Opening::HelloSent && then == clean;
        let tags = (0..K).map(|at| arena.line(at)[0].value.load(Ordering::Relaxed));
        assert!(
            tags.into_iter().all(|tag| (tag == 0) == wiped),
            "{case}: lines are cleaned before Clean only"
        );
        if result == Opening::Open {
            assert_eq!(sender.open(), Opening::Open, "{case}");
            assert_eq!(sender.send(TYPE, 7, &[], swap), Ok(base + 1), "{case}");
        } else {
            assert_eq!(sender.tail.load(Ordering::Relaxed), tail, "{case}");
            assert_eq!(sender.send(TYPE, 7, &[], swap), Err(Unsent::Unanswered), "{case}");
        }
    }
}

#[test]
fn a_life_may_send_while_the_answer_names_its_session() {
    for first in [true, false] {
        let arena = Arena::new(SMALL);
        let sender = if first { arena.life(2) } else { second_life(&arena).sender };
        let own = |phase| sender.hello.in_phase(phase).to_word();
        let other = |phase| Hello { session: 70, phase, ..sender.hello }.to_word();
        let answers = [
            (0, first),
            (1, false),
            (own(Phase::First), first),
            (own(Phase::Begin), first),
            (own(Phase::Clean), !first),
            (other(Phase::First), false),
            (other(Phase::Begin), false),
            (other(Phase::Clean), false),
        ];
        for (answer, good) in answers {
            arena.set_control(control::ANSWER, answer);
            assert_eq!(sender.is_in_force(), good, "{first} {answer:#x}");
        }
    }
}

#[test]
fn a_full_lane_says_why_nothing_was_sent() {
    // What the receiver has stored after `CREDIT` 4 was read and four more messages were sent, and the result of the next send.
    type Words<'a> = &'a [(usize, u64)];
    let cases: [(Words<'_>, Result<u64, Unsent>); 10] = [
        (&[], Err(Unsent::Full)),
        (&[(control::CREDIT, 3)], Err(Unsent::Broken)),
        (&[(control::CREDIT, 5)], Ok(13)),
        (&[(control::CREDIT, 12)], Ok(13)),
        (&[(control::CREDIT, 13)], Err(Unsent::Broken)),
        (&[(control::CREDIT, u64::MAX)], Err(Unsent::Broken)),
        (&[(control::ANSWER, 1)], Err(Unsent::Broken)),
        (&[(control::ANSWER, 1), (control::CREDIT, 5)], Err(Unsent::Broken)),
        (&[(control::BREACH, 2)], Err(Unsent::Quarantined)),
        (&[(control::BREACH, 2), (control::ANSWER, 1)], Err(Unsent::Broken)),
    ];
    for (n, (words, result)) in cases.into_iter().enumerate() {
        let arena = Arena::new(SMALL);
        let sender = arena.life(1);
        let send = || sender.send(TYPE, 7, &[], swap);
        (1..=8).for_each(|number| assert_eq!(send(), Ok(number)));
        arena.set_control(control::CREDIT, 4);
        (9..=12).for_each(|number| assert_eq!(send(), Ok(number)));
        words.iter().for_each(|&(word, value)| arena.set_control(word, value));
        // If the lane is broken or in quarantine, no space will come, so nobody has to wait.
        let waits = result == Err(Unsent::Full);
        let counts = matches!(result, Err(Unsent::Full | Unsent::Quarantined));
        let falls = words.contains(&(control::CREDIT, 3));
        assert_eq!(sender.has_space(0), !waits && !falls, "{n}");
        assert_eq!(send(), result, "{n}");
        assert_eq!(sender.stats().full, u64::from(counts), "{n}: only a full lane is counted");
        arena.header(header::ATTACHED).store(0, Ordering::Relaxed);
        assert_eq!(send(), Err(Unsent::Gone), "{n}");
    }
}

#[test]
fn who_waits_asks_for_exactly_the_credit_that_is_missing() {
    let arena = Arena::new(SMALL);
    let link = arena.link();
    let sender = &link.sender;
    link.run(&mut Inbox::default());
    (0..6).for_each(|_| _ = link.send(&[]).unwrap());
    assert!(!sender.is_waited_for() && sender.has_space(104) && !sender.has_space(105), "two lines are free");
    let called = Cell::new(0);
    let wait = || called.set(called.get() + 1);
    assert!(sender.want_space(104, wait));
    assert_eq!((sender.asked_for(), called.get(), sender.is_waited_for()), (0, 0, false));
    assert!(!sender.want_space(256, wait), "five lines are missing three");
    assert_eq!((sender.asked_for(), called.get(), sender.is_waited_for()), (3, 1, true));
    assert!(!sender.want_space(105, wait));
    assert_eq!((sender.asked_for(), called.get()), (3, 2), "the larger request stays");
    for credit in 0..=6 {
        arena.set_control(control::CREDIT, credit);
        assert_eq!(sender.has_space_for_waiter(), credit == 3, "{credit}: told once");
        assert_eq!(sender.is_waited_for(), credit < 3);
    }
    assert!(!sender.end_waiting());
}

#[test]
fn nothing_that_belongs_to_a_former_life_counts_for_one_that_is_not_answered() {
    let arena = Arena::new(SMALL);
    let _ = arena.life(1);
    let sender = arena.life(2);
    arena.set_control(control::BREACH, Breach::Tag as u64);
    arena.set_control(control::CREDIT, 5);
    for tail in [UNANSWERED, PREPARING] {
        sender.tail.store(tail, Ordering::Relaxed);
        assert_eq!((sender.breach(), sender.handled(), sender.unsettled()), (None, Some(0), None));
        assert_eq!((sender.positions(), sender.stats().number), ((0, 0), 0));
        // It waits for its answer, not for a credit.
        assert!(!sender.has_space(0) && !sender.want_space(0, || ()));
        assert_eq!(sender.asked_for(), 0);
    }
    sender.tail.store(1, Ordering::Relaxed);
    assert_eq!(sender.breach(), Some(Breach::Tag));
}

#[test]
fn the_sender_knows_which_of_its_messages_were_handled() {
    // The messages of this life have the numbers 12 and 13. `CREDIT`, what was handled, what is unsettled.
    let cases = [
        (0, Some(0), Some((11, 13))),
        (10, Some(0), Some((11, 13))),
        (11, Some(11), Some((11, 13))),
        (12, Some(12), Some((12, 13))),
        (13, Some(13), None),
        (14, None, Some((11, 13))),
        (u64::MAX, None, Some((11, 13))),
    ];
    for (credit, handled, unsettled) in cases {
        let arena = Arena::new(SMALL);
        let Link { sender, .. } = second_life(&arena);
        arena.set_control(control::CREDIT, credit);
        assert_eq!((sender.handled(), sender.unsettled()), (handled, unsettled), "{credit}");
        assert_eq!((sender.positions(), sender.stats().number), ((11, 13), 13));
        // If the region was created again, its `CREDIT` says nothing about these messages.
        arena.header(header::ATTACHED).store(0, Ordering::Relaxed);
        assert_eq!(sender.unsettled(), Some((11, 13)), "{credit}");
    }
    let arena = Arena::new(SMALL);
    let sender = arena.life(1);
    arena.set_control(control::CREDIT, 9);
    assert_eq!((sender.handled(), sender.unsettled()), (Some(0), None), "a life that has sent nothing");
}

#[test]
fn a_doorbell_is_checked_once_and_again_after_it_changes() {
    let arena = Arena::new(SMALL);
    let sender = arena.life(1);
    let bell = |cpu: u64| Bell { cpu: PhysCpuId(cpu), vector: Vector::new(0x40).unwrap() };
    let store = |word: u64| arena.receiver(receiver::BELL).store(word, Ordering::Relaxed);
    let asked = Cell::new(0);
    let is_its_cpu = |good: bool| {
        let asked = &asked;
        move |_: Bell| {
            asked.set(asked.get() + 1);
            good
        }
    };
    assert_eq!((sender.bell(is_its_cpu(true)), asked.get()), (None, 0), "no doorbell");
    store(bell(3).to_word().unwrap());
    assert_eq!((sender.bell(is_its_cpu(false)), asked.get()), (None, 1), "a CPU of another kernel");
    assert_eq!((sender.bell(is_its_cpu(true)), asked.get()), (Some(bell(3)), 2));
    assert_eq!((sender.bell(no_such_doorbell), asked.get()), (Some(bell(3)), 2), "known");
    store(bell(4).to_word().unwrap());
    assert_eq!(sender.bell(no_such_doorbell), None);
    assert_eq!(sender.bell(is_its_cpu(true)), Some(bell(4)));
    sender.forget_bell();
    assert_eq!(sender.bell(no_such_doorbell), None, "the directory has changed");
    store(7);
    assert_eq!(sender.bell(is_its_cpu(true)), None, "no valid doorbell");
}

#[test]
fn the_sender_says_what_it_uses_and_what_it_has_followed() {
    let arena = Arena::new(SMALL);
    let attached = || Attached::from_word(arena.header(header::ATTACHED).load(Ordering::Relaxed));
    let sender = arena.life(5);
    assert_eq!(attached(), Some(Attached { incarnation: life(5), generation: 0 }));
    sender.follow(9);
    assert_eq!(attached(), Some(Attached { incarnation: life(5), generation: 9 }));
    sender.stop(life(77));
    assert_eq!(arena.header(header::STOP).load(Ordering::Relaxed), 77);
    sender.count_rung();
    sender.count_rung();
    assert_eq!(sender.stats().rung, 2);
    assert!(!sender.is_gone());
    let _ = sender.into_region();
    assert_eq!(attached(), None, "after its last use");

    let sender = arena.life(5);
    arena.header(header::ATTACHED).store(0, Ordering::Relaxed);
    assert!(sender.is_gone());
    sender.follow(9);
    assert_eq!(attached(), None, "the region was created again: this kernel is not attached to it");
}

#[test]
fn a_message_of_one_full_line_is_sent_if_the_region_allows_it() {
    for (max_len, allowed) in [(47, false), (48, true), (256, true)] {
        let arena = Arena::new(Geometry::new(1, 8, max_len).unwrap());
        let link = arena.link();
        let line = |len: usize| link.sender.send_line(TYPE, 7, &bytes(len), swap);
        assert_eq!([0, 47, 49].map(line), [None; 3], "{max_len}: a message that does not fill a line");
        for number in 1..=K {
            assert_eq!(line(48), allowed.then_some(number), "{max_len}");
        }
        assert_eq!(line(48), None, "the lane is full");
        assert_eq!(link.received(), std::vec![bytes(48); if allowed { 8 } else { 0 }]);
    }
}
