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
        let say = |hello| arena.header(header::HELLO).store(hello, Ordering::Relaxed);
        let mut link = match self {
            Self::First(count) => used(arena, count),
            Self::Begun | Self::Clean | Self::Quarantine => used(arena, 2),
            _ => arena.link(),
        };
        match self {
            Self::First(_) => {}
            Self::Unused => say(0),
            Self::Nonsense => say(1),
            Self::Begun => link.sender = arena.life(2),
            Self::Clean => {
                link.sender = arena.life(2);
                link.connect(&mut inbox);
            }
            Self::Quarantine => arena.spoil(2),
            Self::HalfAnswered => {
                arena.set_control(control::ANSWER, link.sender.hello.in_phase(Phase::Begin).to_word());
            }
            Self::HalfHandedOn => {
                [(control::ANSWER, 1), (control::CREDIT, 2), (control::HANDED, 2)]
                    .into_iter()
                    .for_each(|(word, value)| arena.set_control(word, value));
            }
        }
        if self.is_restart() {
            say(0);
            link.restart(2, false);
        }
        link.run(&mut inbox);
        link
    }

    /// Whether this life of the receiver continues what a former one has begun.
    fn is_restart(self) -> bool {
        matches!(self, Self::HalfAnswered | Self::HalfHandedOn)
    }
}

/// The receiver's words in the lane, and what it has called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    answer: u64,
    breach: u64,
    /// `BASE`, if a life has come into force.
    base: Option<u64>,
    /// `CREDIT` and `HANDED`.
    positions: [u64; 2],
    /// Number of messages that were delivered.
    messages: u64,
    /// Number of quarantines that were reported.
    reported: usize,
    rung: bool,
}

impl Found {
    /// What SPEC N-9 and N-14 say of this hello. `was`: before it. In the lane, messages lie at the next position, at the one
    /// after it, and after a gap.
    fn by_spec(before: Before, was: Self, hello: u64, budget: u64) -> Self {
        let Self { answer, breach, positions: [next, _], .. } = was;
        let answered = Hello::from_word(answer);
        let in_force = breach == 0 && answered.is_some_and(Hello::may_send);
        let never_in_force = breach == 0 && (answered.is_none() || before == Before::HalfAnswered);
        // A life in force is read up to the gap. The first visit to the lane reads the hello, after as many messages as the
        // budget allows.
        let (all, read) = if in_force { (2, budget.min(2)) } else { (0, 0) };
        let unchanged = Self { positions: [next + all; 2], messages: all, ..was };
        let wrong =
            Self { breach: 3, positions: [next + read; 2], messages: read, reported: 1, rung: true, ..was };
        if hello == 0 || hello == answer {
            return unchanged;
        }
        let Some(said) = Hello::from_word(hello) else { return if breach == 0 { wrong } else { unchanged } };
        if said.phase == Phase::First {
            // For a lane that was never used.
            let first =
                Self { answer: hello, base: Some(0), positions: [2; 2], messages: 2, rung: true, ..was };
            return if never_in_force && next == 0 { first } else { wrong };
        }
        // The messages in one lap belong to the life that has ended. But not after `Begin` of this session was answered.
        let ends = (in_force || never_in_force) && answered != Some(said.in_phase(Phase::Begin));
        let (position, messages) = if ends { (next + read + K, 3) } else { (next, 0) };
        let begun = Self { answer: hello, positions: [position; 2], messages, rung: true, ..was };
        if said.phase == Phase::Begin {
            return begun;
        }
        // The answer to `Clean` follows that to `Begin`. From here on the lines belong to this life.
        let own = if ends { 0 } else { 2 };
        let positions = [position + own; 2];
        Self { breach: 0, base: Some(position), positions, messages: messages + own, ..begun }
    }

    /// The words of the lane, and what `inbox` has seen since the words were `was`.
    fn new(arena: &Arena, inbox: &Inbox, was: Option<Self>) -> Self {
        let [answer, breach, base, credit, handed] =
            [control::ANSWER, control::BREACH, control::BASE, control::CREDIT, control::HANDED]
                .map(|word| arena.control(word));
        let in_force = breach == 0 && Hello::from_word(answer).is_some_and(Hello::may_send);
        let begins = in_force && was.is_some_and(|was| was.answer != answer);
        Self {
            answer,
            breach,
            base: begins.then_some(base),
            positions: [credit, handed],
            messages: inbox.messages.len() as u64,
            reported: quarantines(inbox).len(),
            rung: inbox.rings.get() != 0,
        }
    }
}

#[test]
fn each_hello_is_answered_as_the_state_of_the_lane_allows() {
    let phases = [Phase::First, Phase::Begin, Phase::Clean];
    let hellos = |answer: u64| {
        let same = Hello { incarnation: life(1), session: 9, phase: Phase::First };
        let same = Hello::from_word(answer).unwrap_or(same);
        let other = Hello { incarnation: life(3), session: 50, ..same };
        let valid =
            [same, other].into_iter().flat_map(move |hello| phases.map(|phase| hello.in_phase(phase)));
        [0, 1, u64::MAX].into_iter().chain(valid.map(Hello::to_word)).collect::<Vec<_>>()
    };
    for before in Before::ALL {
        for (n, budget) in (0..9).flat_map(|n| [(n, 1), (n, 64)]) {
            let arena = Arena::new(SMALL);
            let link = before.make(&arena);
            let was = Found::new(&arena, &Inbox::default(), None);
            let bad = arena.control(control::BAD);
            let [next, _] = was.positions;
            [next, next + 1, next + 3].into_iter().for_each(|position| arena.plant(position, 0));
            let hello = hellos(was.answer)[n];
            arena.header(header::HELLO).store(hello, Ordering::Relaxed);
            let mut inbox = Inbox::default();
            for _ in 0..40 {
                link.receiver.hold().unwrap().drain(&link.own, &mut inbox, budget, true);
            }
            let found = Found::new(&arena, &inbox, Some(was));
            let mut expected = Found::by_spec(before, was, hello, budget as u64);
            if before.is_restart() && expected.reported != 0 {
                // It can be the fault of the former life of the receiver. So the sender is disowned, if one is named at all.
                let named = [hello, was.answer].map(Hello::from_word) != [None; 2];
                let disowned = Hello::from_word(found.answer).is_some_and(|hello| !hello.may_send());
                let is_another = ![hello, was.answer].contains(&found.answer);
                assert_eq!((disowned, is_another), (named, named), "{before:?}, {hello:#x}");
                expected = Found { answer: found.answer, breach: 0, reported: 0, ..expected };
            }
            assert_eq!(found, expected, "{before:?}, hello {hello:#x} with budget {budget}");
            assert_eq!(arena.control(control::BAD) - bad, found.reported as u64, "{before:?}, {hello:#x}");
        }
    }
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
