// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a receiver begins a life in a lane with any words in it, and how it answers each hello (SPEC N-9, N-11).

use super::arena_for_tests::*;
use super::*;
use crate::platform::PeerEvent;
use crate::sync::Ordering;
use mk_ipi_abi::native::{control, header, receiver, Breach, Hello, Phase};
use std::vec::Vec;

/// Number of lines of the lane.
const K: u64 = SMALL.lines() as u64;
/// From this position on a position is wrong.
const WRONG: u64 = 1 << 61;

#[test]
fn a_new_life_of_the_receiver_continues_at_the_larger_position_or_disowns_the_sender() {
    for credit in [0, 1, 8, WRONG - 9, WRONG - 1, WRONG, WRONG + 1, u64::MAX - 8].into_iter() {
        for handed in [
            0,
            credit.saturating_sub(1),
            credit,
            credit.saturating_add(1),
            credit.saturating_add(K - 1),
            credit.saturating_add(K),
            credit.saturating_add(9),
            WRONG,
        ] {
            let case = std::format!("CREDIT {credit:#x}, HANDED {handed:#x}");
            let arena = Arena::new(SMALL);
            let mut link = used(&arena, 0);
            let answer = arena.control(control::ANSWER);
            arena.set_control(control::CREDIT, credit);
            arena.set_control(control::HANDED, handed);
            arena.receiver(receiver::HEARTBEAT).store(7, Ordering::Relaxed);
            arena.receiver(receiver::BELL).store(7, Ordering::Relaxed);
            assert_eq!(arena.receiver(receiver::ARMED).load(Ordering::Relaxed), 1);
            link.restart(2, false);
            let good = credit < WRONG && handed < WRONG && (handed < credit || handed - credit <= K);
            let next = if good { credit.max(handed) } else { K };
            assert_eq!(
                [control::CREDIT, control::HANDED].map(|word| arena.control(word)),
                [next; 2],
                "{case}"
            );
            let first = [receiver::HEARTBEAT, receiver::ARMED, receiver::BELL, receiver::LIFE];
            assert_eq!(first.map(|word| arena.receiver(word).load(Ordering::Relaxed)), [0, 0, 0, 2]);
            let told = good && handed > credit;
            assert_eq!(arena.control(control::DOUBTS), u64::from(told), "{case}");
            assert_eq!(arena.control(control::DOUBT), if told { handed } else { 0 }, "{case}");
            if good {
                assert_eq!(arena.control(control::ANSWER), answer, "{case}");
            } else {
                let [disowned, said] = [arena.control(control::ANSWER), answer].map(Hello::from_word);
                let (disowned, said) = (disowned.unwrap(), said.unwrap());
                assert_eq!(disowned.phase, Phase::Begin, "{case}");
                assert_ne!(disowned.session, said.session, "{case}");
                // The receiver answers this hello no more, but it answers the sender's next one.
                let mut inbox = Inbox::default();
                link.run(&mut inbox);
                assert_eq!(arena.control(control::ANSWER), disowned.to_word(), "{case}");
                link.sender = arena.life(1);
                link.connect(&mut inbox);
                assert_eq!((link.send(b"x"), link.received()), (Ok(2 * K + 1 - K), std::vec![b"x".to_vec()]));
            }
        }
    }
}

#[test]
fn a_message_in_doubt_is_told_once() {
    for doubts in 0..10 {
        for last in [4, 5] {
            let arena = Arena::new(SMALL);
            let mut link = used(&arena, 3);
            // The four words of `DOUBT` are used in turn.
            let word = |nth: u64| control::DOUBT + (nth % 4) as usize;
            (0..4).for_each(|nth| arena.set_control(word(nth), 100 + nth));
            // If nothing was ever in doubt, what these words hold has no meaning.
            arena.set_control(if doubts == 0 { word(3) } else { word(doubts - 1) }, last);
            arena.set_control(control::DOUBTS, doubts);
            arena.set_control(control::HANDED, 5);
            let before = [0, 1, 2, 3].map(|nth| arena.control(word(nth)));
            link.restart(2, false);
            let mut expected = before;
            let known = doubts != 0 && last == 5;
            if !known {
                expected[(doubts % 4) as usize] = 5;
            }
            assert_eq!(arena.control(control::DOUBTS), doubts + u64::from(!known), "{doubts} {last}");
            assert_eq!([0, 1, 2, 3].map(|nth| arena.control(word(nth))), expected, "{doubts} {last}");
        }
    }
}

#[test]
fn the_message_before_a_breach_was_handled_and_is_not_in_doubt() {
    let arena = Arena::new(SMALL);
    let mut link = used(&arena, 3);
    arena.set_control(control::HANDED, 4);
    arena.set_control(control::BREACH, 1);
    arena.plant(4, 0);
    link.restart(2, false);
    assert_eq!((arena.control(control::DOUBTS), arena.control(control::BREACH)), (0, 1));
    assert_eq!(link.received(), [[0; 0]; 0], "the quarantine does not end with the life of the receiver");
}

#[test]
fn a_quarantine_outlasts_the_lives_of_the_receiver() {
    for restarts in 0..3 {
        let arena = Arena::new(SMALL);
        let mut link = used(&arena, 3);
        arena.spoil(3);
        link.run(&mut Inbox::default());
        (2..2 + restarts).for_each(|number| link.restart(number, false));
        // Only `Begin` of a new session leads out of it.
        let answer = arena.control(control::ANSWER);
        arena.plant(3, 0);
        for hello in [0, 1, u64::MAX] {
            arena.header(header::HELLO).store(hello, Ordering::Relaxed);
            let mut inbox = Inbox::default();
            link.run(&mut inbox);
            assert_eq!(
                (inbox.messages.len(), inbox.events.len(), inbox.rings.get()),
                (0, 0, 0),
                "{restarts}"
            );
            assert_eq!(
                (arena.control(control::BREACH), arena.control(control::ANSWER)),
                (1, answer),
                "{restarts}"
            );
        }
        link.sender = arena.life(2);
        let mut inbox = Inbox::default();
        link.connect(&mut inbox);
        assert_eq!((inbox.messages.len(), arena.control(control::BREACH)), (0, 0), "{restarts}");
        assert_eq!((link.send(b"x"), link.received()), (Ok(4), std::vec![b"x".to_vec()]));
    }
}

/// The receiver's `LIFE` before it begins life 2, and whether this is a restart.
const LIVES: [(u64, bool); 7] = [
    (0, false),
    (1, true),
    (2, false),
    (3, true),
    (1 << 32 | 2, false),
    (1 << 32 | 1, true),
    (1 << 33 | 2, true),
];

#[test]
fn only_another_incarnation_discards_and_counts_as_a_restart() {
    for (before, restarted) in LIVES {
        for discard in [false, true] {
            let arena = Arena::new(SMALL);
            let mut link = used(&arena, 2);
            link.send(b"x").unwrap();
            arena.receiver(receiver::LIFE).store(before, Ordering::Relaxed);
            assert_eq!(link.sender.stats().resets, 1, "the first life of the sender");
            link.restart(2, discard);
            let mut inbox = Inbox::default();
            link.run(&mut inbox);
            assert_eq!(inbox.messages.len(), usize::from(!(restarted && discard)), "{before:#x} {discard}");
            assert_eq!(link.sender.stats().resets, 1 + u64::from(restarted), "{before:#x} {discard}");
            assert_eq!(link.sender.stats().received, 2 + inbox.messages.len() as u64);
            if !inbox.messages.is_empty() {
                assert_eq!(inbox.lives, [(Some(life(1)), Some(life(2)))]);
                assert_eq!(inbox.events, [PeerEvent::Began(life(1))], "told before the first message");
            }
            assert_eq!(link.send(b"y"), Ok(4));
            assert_eq!(link.received(), [b"y"]);
        }
    }
    // A life that attaches again has delivered what it handed out: only another incarnation is in doubt.
    for (before, restarted) in LIVES {
        let arena = Arena::new(SMALL);
        let mut link = used(&arena, 2);
        link.send(b"x").unwrap();
        arena.set_control(control::HANDED, 3);
        arena.receiver(receiver::LIFE).store(before, Ordering::Relaxed);
        link.restart(2, false);
        assert_eq!(arena.control(control::DOUBTS), u64::from(restarted), "{before:#x}");
        assert_eq!(arena.control(control::CREDIT), 3, "{before:#x}");
    }
    // In a lane in which nobody ever spoke there is nothing to restart.
    let arena = Arena::new(SMALL);
    let own = OwnRegion::map(&arena, arena.range()).unwrap();
    (1..3).for_each(|number| Receiver::<8>::new().begin(&own, life(number), true, 0));
    assert_eq!(arena.control(control::RESETS), 0);
}

#[test]
fn a_life_that_refuses_old_messages_discards_those_up_to_the_first_gap() {
    // The lengths of unread messages from position 3 on, what is done to the lane, and the position after the discarded ones.
    type Case<'a> = (&'a [usize], &'a dyn Fn(&Arena), u64);
    let gap_at =
        |position: u64| move |arena: &Arena| arena.line(position)[0].value.store(0, Ordering::Relaxed);
    let (gap_3, gap_5) = (gap_at(3), gap_at(5));
    let cases: [Case<'_>; 9] = [
        (&[], &|_| (), 3),
        (&[0], &|_| (), 4),
        (&[0; 8], &|_| (), 11),
        (&[256], &|_| (), 8),
        (&[256, 100], &|_| (), 10),
        (&[0; 6], &gap_5, 5),
        (&[0; 6], &gap_3, 3),
        // No correct sender does this: a message that is too long, and one that goes on after the last free line.
        (&[0], &|arena| arena.plant(4, 257), 4),
        (&[0; 8], &|arena| arena.line(10)[1].value.store(49, Ordering::Relaxed), 10),
    ];
    for (n, (lens, damage, to)) in cases.into_iter().enumerate() {
        for discard in [true, false] {
            let arena = Arena::new(SMALL);
            let mut link = used(&arena, 3);
            let watch = Watch::new(&link.sender);
            lens.iter().for_each(|&len| _ = link.send(&bytes(len)).unwrap());
            damage(&arena);
            let words = [control::DISCARD_FROM, control::DISCARD_TO];
            let before = words.map(|word| arena.control(word));
            link.restart(2, discard);
            let to = if discard { to } else { 3 };
            assert_eq!([control::CREDIT, control::HANDED].map(|word| arena.control(word)), [to; 2], "{n}");
            let told = if to == 3 { before } else { [3, to] };
            assert_eq!(words.map(|word| arena.control(word)), told, "{n}");
            let events = core::cell::RefCell::new(Vec::new());
            watch.look(&link.sender, 0, 1, |event| events.borrow_mut().push(event));
            events.borrow_mut().retain(|event| !matches!(event, PeerEvent::Up(_)));
            let discarded = PeerEvent::Discarded { after: 3, to };
            let possible = to <= link.sender.positions().1;
            assert_eq!(*events.borrow(), Vec::from_iter((to != 3 && possible).then_some(discarded)), "{n}");
            assert_eq!(arena.control(control::DOUBTS), 0);
            if !discard && n < 5 {
                assert_eq!(link.received(), lens.iter().map(|&len| bytes(len)).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn a_life_that_died_before_it_had_stored_credit_has_discarded_all_the_same() {
    // `DISCARD_FROM`, `DISCARD_TO`, `CREDIT`, `HANDED`, and the position where the next life continues.
    let cases = [
        ([3, 8], 3, 3, 8),
        ([0, 8], 3, 3, 8),
        ([3, 11], 3, 3, 11),
        ([5, 9], 3, 5, 9),
        // Discards of earlier lives, before this position.
        ([1, 3], 3, 3, 3),
        ([1, 2], 3, 3, 2 + 1),
        ([3, 3], 3, 3, 3),
        // Impossible ones: after this position, in wrong order, more than the lane holds.
        ([4, 8], 3, 3, 3),
        ([4, 2], 3, 3, 3),
        ([3, 12], 3, 3, 3),
        ([9, 20], 3, 3, 3),
        ([0, u64::MAX], 3, 3, 3),
    ];
    for (words, credit, handed, next) in cases {
        let arena = Arena::new(SMALL);
        let mut link = used(&arena, 3);
        arena.set_control(control::DISCARD_FROM, words[0]);
        arena.set_control(control::DISCARD_TO, words[1]);
        arena.set_control(control::CREDIT, credit);
        arena.set_control(control::HANDED, handed);
        link.restart(2, false);
        assert_eq!(
            [control::CREDIT, control::HANDED].map(|word| arena.control(word)),
            [next; 2],
            "{words:?}"
        );
        let after = [control::DISCARD_FROM, control::DISCARD_TO].map(|word| arena.control(word));
        assert_eq!(after, words, "these words change only when messages are discarded");
    }
}

#[test]
fn discards_of_two_lives_are_told_together_if_nothing_lies_between_them() {
    // `DISCARD_FROM` and `DISCARD_TO` of former lives, and `DISCARD_FROM` after the messages up to number 5 were discarded.
    for (words, from) in
        [([1, 3], 1), ([0, 2], 3), ([3, 3], 3), ([0, 0], 3), ([4, 3], 3), ([100, 3], 3), ([2, 100], 3)]
    {
        let arena = Arena::new(SMALL);
        let mut link = used(&arena, 3);
        (0..2).for_each(|_| _ = link.send(&[]).unwrap());
        arena.set_control(control::DISCARD_FROM, words[0]);
        arena.set_control(control::DISCARD_TO, words[1]);
        link.restart(2, true);
        let after = [control::DISCARD_FROM, control::DISCARD_TO].map(|word| arena.control(word));
        assert_eq!(after, [from, 5], "{words:?}");
    }
}

#[test]
fn a_breach_in_the_first_lap_of_a_later_life_is_not_held_against_the_sender() {
    for good in 0..=K {
        for about_hello in [false, true] {
            let arena = Arena::new(SMALL);
            let mut link = used(&arena, 3);
            link.restart(2, false);
            let mut inbox = Inbox::default();
            for _ in 0..good {
                link.send(&[]).unwrap();
                link.run(&mut inbox);
            }
            let rings = inbox.rings.get();
            if about_hello {
                arena.header(header::HELLO).store(u64::MAX, Ordering::Relaxed);
            } else {
                arena.spoil(3 + good);
            }
            link.run(&mut inbox);
            assert_eq!(inbox.messages.len() as u64, good);
            assert_eq!(inbox.rings.get(), rings + 1, "the sender is rung in both cases");
            // A hello does not lie at a position, so it is not known to be the fault of the sender.
            let excused = good < K || about_hello;
            let breach = Vec::from_iter((!excused).then_some(Breach::Tag));
            assert_eq!(quarantines(&inbox), breach, "{good} {about_hello}");
            assert_eq!(
                (arena.control(control::BAD), arena.control(control::BREACH) != 0),
                (breach.len() as u64, !excused)
            );
            assert_eq!(link.sender.is_in_force(), !excused);
            // Only the first breach is excused.
            link.sender = arena.life(1);
            let mut inbox = Inbox::default();
            link.connect(&mut inbox);
            let next = arena.control(control::CREDIT);
            assert_eq!((link.send(&[]), link.received().len()), (Ok(next + 1), 1));
            arena.spoil(next + 1);
            link.run(&mut inbox);
            assert_eq!(quarantines(&inbox), [Breach::Tag], "{good} {about_hello}");
        }
    }
}

#[test]
fn in_a_lane_that_was_never_used_every_breach_is_the_senders() {
    // A word of the receiver that is not 0 when its life begins, and its value.
    let arena = Arena::new(SMALL);
    let said = arena.life(1).hello;
    let other = Hello { session: 77, ..said };
    let cases = [
        (None, 0),
        (Some(receiver::LIFE), 1),
        (Some(receiver::LIFE), 2),
        (Some(receiver::CONTROL + control::ANSWER), said.to_word()),
        (Some(receiver::CONTROL + control::ANSWER), other.to_word()),
        (Some(receiver::CONTROL + control::CREDIT), 5),
        (Some(receiver::CONTROL + control::HANDED), 5),
        (Some(receiver::CONTROL + control::BREACH), 1),
    ];
    for (word, value) in cases {
        let arena = Arena::new(SMALL);
        let own = OwnRegion::map(&arena, arena.range()).unwrap();
        let mut link = Link { sender: arena.life(1), own, receiver: Receiver::new() };
        assert_eq!(link.sender.hello, said);
        if let Some(word) = word {
            arena.receiver(word).store(value, Ordering::Relaxed);
        }
        arena.spoil(0);
        link.restart(2, false);
        let mut inbox = Inbox::default();
        link.run(&mut inbox);
        let breach = Vec::from_iter(word.is_none().then_some(Breach::Tag));
        assert_eq!(quarantines(&inbox), breach, "{word:?} {value:#x}");
        assert_eq!(link.sender.is_in_force(), word.is_none(), "{word:?} {value:#x}");
        link.sender = arena.life(1);
        link.connect(&mut inbox);
        link.send(b"x").unwrap();
        assert_eq!(link.received(), [b"x"], "{word:?} {value:#x}");
    }
}
