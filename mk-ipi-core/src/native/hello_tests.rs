// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a receiver answers each hello in each state of a lane (SPEC N-9).

use super::arena_for_tests::*;
use crate::sync::Ordering;
use mk_ipi_abi::native::{control, header, Hello, Phase};
use std::vec::Vec;

/// Number of lines of the lane.
const K: u64 = SMALL.lines() as u64;

/// What happened in the lane before the hello of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Nothing.
    Unused,
    /// A hello that is none, and nothing else.
    Nonsense,
    /// `First` was answered. `u64`: how many messages were delivered.
    First(u64),
    /// The `Begin` of a second life was answered.
    Begun,
    /// The second life is in force.
    Clean,
    /// The first life was put into quarantine.
    Quarantine,
    /// A former life of the receiver died between its two stores to `ANSWER` for `First`.
    HalfAnswered,
    /// A former life of the receiver died while it delivered the messages of a life that was never answered.
    HalfHandedOn,
}

impl Before {
    const ALL: [Self; 9] = [
        Self::Unused,
        Self::Nonsense,
        Self::First(0),
        Self::First(2),
        Self::Begun,
        Self::Clean,
        Self::Quarantine,
        Self::HalfAnswered,
        Self::HalfHandedOn,
    ];

    fn make(self, arena: &Arena) -> Link {
        let mut inbox = Inbox::default();
        let mut link = match self {
            Self::Unused => {
                let link = arena.link();
                arena.header(header::HELLO).store(0, Ordering::Relaxed);
                link
            }
            Self::Nonsense => {
                let link = arena.link();
                arena.header(header::HELLO).store(1, Ordering::Relaxed);
                link
            }
            Self::First(count) => used(arena, count),
            Self::HalfAnswered | Self::HalfHandedOn => arena.link(),
            _ => used(arena, 2),
        };
        match self {
            Self::Begun | Self::Clean => link.sender = arena.life(2),
            Self::Quarantine => arena.spoil(2),
            Self::HalfAnswered => {
                arena.set_control(control::ANSWER, link.sender.hello.in_phase(Phase::Begin).to_word())
            }
            Self::HalfHandedOn => {
                arena.set_control(control::ANSWER, 1);
                for word in [control::CREDIT, control::HANDED] {
                    arena.set_control(word, 2);
                }
            }
            _ => {}
        }
        match self {
            Self::Clean => link.connect(&mut inbox),
            Self::HalfAnswered | Self::HalfHandedOn => {
                arena.header(header::HELLO).store(0, Ordering::Relaxed);
                link.restart(2, false);
            }
            _ => link.run(&mut inbox),
        }
        link
    }
}

/// Every hello in every state of the lane, in which messages lie at the next position, at the one after it, and after a gap.
#[test]
fn each_hello_is_answered_as_the_state_of_the_lane_allows() {
    let phases = [Phase::First, Phase::Begin, Phase::Clean];
    let hellos = |answered: Option<Hello>| {
        let same = answered.unwrap_or(Hello { incarnation: life(1), session: 9, phase: Phase::First });
        let other = Hello { incarnation: life(3), session: 50, ..same };
        let valid =
            [same, other].into_iter().flat_map(move |hello| phases.map(|phase| hello.in_phase(phase)));
        [0, 1, u64::MAX].into_iter().chain(valid.map(Hello::to_word)).collect::<Vec<_>>()
    };
    for before in Before::ALL {
        for (n, budget) in (0..9).flat_map(|n| [(n, 1), (n, 64)]).step_by(under_miri(5)) {
            let arena = Arena::new(SMALL);
            let link = before.make(&arena);
            let answer = arena.control(control::ANSWER);
            let answered = Hello::from_word(answer);
            let next = arena.control(control::CREDIT);
            let breach = arena.control(control::BREACH);
            let bad = arena.control(control::BAD);
            for position in [next, next + 1, next + 3] {
                arena.plant(position, 0);
            }
            let word = hellos(answered)[n];
            arena.header(header::HELLO).store(word, Ordering::Relaxed);
            let mut inbox = Inbox::default();
            for _ in 0..40 {
                link.receiver.hold().unwrap().drain(&link.own, &mut inbox, budget, true);
            }

            let (in_force, never) = (answered.is_some_and(Hello::may_send), answered.is_none());
            let in_force = in_force && breach == 0;
            let never = (never || before == Before::HalfAnswered) && breach == 0;
            // A life in force is read up to the gap. The first visit to the lane reads the hello, after as many messages as the
            // budget allows. When the life ends, the receiver goes on through one lap from there.
            let all = if in_force { 2 } else { 0 };
            let read = all.min(budget as u64);
            // `Clean` after the answered `Begin` of its session: the lines belong to this life.
            let begun = answered
                .is_some_and(|hello| !hello.may_send() && word == hello.in_phase(Phase::Clean).to_word());
            let lap = if (in_force || never) && !begun { 3 } else { 0 };
            let position = if lap == 0 { next } else { next + read + K };
            // After a restart of the receiver, it disowns the sender for a wrong hello, and reports no breach.
            let excused = matches!(before, Before::HalfAnswered | Before::HalfHandedOn);
            let ok = (breach, word);
            let (expected, messages, at) = match Hello::from_word(word) {
                _ if word == answer || word == 0 => ((breach, answer), all, next + all),
                None if breach != 0 => ((breach, answer), 0, next),
                None => ((3, answer), read, next + read),
                Some(hello) => match hello.phase {
                    // `First` is for a lane that was never used.
                    Phase::First if next == 0 && !in_force && breach == 0 => (ok, 2, 2),
                    Phase::First => ((3, answer), read, next + read),
                    Phase::Begin => (ok, lap, position),
                    // Of a life that was in quarantine, no message was delivered: the lines belong to this life.
                    Phase::Clean if lap == 0 => ((0, word), 2, next + 2),
                    Phase::Clean => ((0, word), lap, position),
                },
            };
            let case = std::format!("{before:?}, hello {word:#x} with budget {budget}");
            assert_eq!(inbox.messages.len() as u64, messages, "{case}");
            let found = (arena.control(control::BREACH), arena.control(control::ANSWER));
            if excused && expected.0 == 3 {
                assert_eq!((found.0, arena.control(control::BAD)), (0, 0), "{case}");
                assert!(!is_answer(&arena, word), "{case}");
            } else {
                assert_eq!(found, expected, "{case}");
                let new_breach = match Hello::from_word(word) {
                    None => word != 0 && word != answer && breach == 0,
                    Some(hello) => hello.phase == Phase::First && word != answer && expected.0 == 3,
                };
                assert_eq!(arena.control(control::BAD) - bad, u64::from(new_breach), "{case}");
                assert_eq!(quarantines(&inbox).len(), usize::from(new_breach), "{case}");
                assert_eq!(inbox.rings.get() != 0, new_breach || found != (breach, answer), "{case}");
            }
            assert_eq!([control::CREDIT, control::HANDED].map(|word| arena.control(word)), [at; 2], "{case}");
            if found != (breach, answer)
                && Hello::from_word(found.1).is_some_and(Hello::may_send)
                && found.0 == 0
            {
                let base = if lap == 0 { next } else { position };
                let base = if Hello::from_word(word).unwrap().phase == Phase::First { 0 } else { base };
                assert_eq!(arena.control(control::BASE), base, "{case}");
            }
        }
    }
}

/// Whether `ANSWER` allows the life with this hello to send.
fn is_answer(arena: &Arena, hello: u64) -> bool {
    arena.control(control::ANSWER) == hello
}

#[test]
fn hellos_that_follow_one_another_do_not_prolong_the_end_of_a_life() {
    let arena = Arena::new(SMALL);
    let link = used(&arena, 3);
    let mut inbox = Inbox::default();
    let hello = |n: u16| Hello { incarnation: life(2), session: 20 + n, phase: Phase::Begin }.to_word();
    for (n, hello) in (0..40).map(hello).enumerate() {
        arena.header(header::HELLO).store(hello, Ordering::Relaxed);
        link.receiver.hold().unwrap().drain(&link.own, &mut inbox, 1, false);
        if n == 0 {
            // The last line of this lap, and the first line of the next one, which belongs to no life.
            arena.plant(3 + K - 1, 0);
            arena.plant(3 + K, 0);
        }
    }
    assert_eq!((inbox.messages.len(), arena.control(control::CREDIT)), (1, 3 + K), "exactly one lap");
    assert_eq!(arena.control(control::ANSWER), hello(39));
}

#[test]
fn of_a_life_that_has_ended_a_message_must_lie_within_the_lap() {
    for (at, len, delivered) in
        [(3 + K - 1, 49, false), (3 + K - 2, 49, true), (3 + K - 5, 256, true), (3, 257, false)]
    {
        let arena = Arena::new(SMALL);
        let mut link = used(&arena, 3);
        link.sender = arena.life(2);
        let mut inbox = Inbox::default();
        // This drain finds the hello. After that, no line of the lap is a breach.
        assert!(link.receiver.hold().unwrap().drain(&link.own, &mut inbox, 1, false));
        arena.plant(at, len);
        link.run(&mut inbox);
        assert_eq!(inbox.messages.len(), usize::from(delivered), "{len} bytes at {at}");
        assert_eq!(arena.control(control::CREDIT), 3 + K);
        assert_eq!(quarantines(&inbox), [], "a life that has ended is not put into quarantine");
    }
}
