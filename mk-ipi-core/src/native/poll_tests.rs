// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which lanes drains and polls visit, in which order, and how many messages they take (SPEC N-10, N-13).

use super::arena_for_tests::*;
use super::*;
use crate::message::Message;
use crate::platform::{Peer, PeerEvent};
use crate::sync::Ordering;
use mk_ipi_abi::native::{control, header, Geometry, Hello, Phase};
use mk_ipi_abi::{Incarnation, InstanceId};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::vec::Vec;

/// A kernel that knows three instances, and records who has sent each message.
#[derive(Default)]
struct Senders {
    of: Vec<u8>,
    /// The next handler unwinds.
    unwinds: bool,
}

impl Events for Senders {
    fn version(&self) -> u32 {
        1
    }
    fn knows(&self, id: InstanceId) -> bool {
        id.get() < 3
    }
    fn deliver(&mut self, message: &Message<'_>) {
        assert_eq!(message.msg_type(), TYPE);
        self.of.push(message.sender().unwrap().get());
        assert!(!core::mem::take(&mut self.unwinds), "the handler unwinds");
    }
    fn ring(&self, _: InstanceId) {}
    fn event(&mut self, _: Peer, _: PeerEvent) {}
}

/// A region with three lanes of 64 lines, and its senders.
struct Three {
    arena: Arena,
    own: OwnRegion<Watched>,
    receiver: Receiver<8>,
}

impl Three {
    fn new() -> Self {
        let arena = Arena::new(Geometry::new(3, 64, 256).unwrap());
        let own = OwnRegion::map(&arena, arena.range()).unwrap();
        let receiver = Receiver::new();
        receiver.begin(&own, Incarnation::FIRST, false, 0);
        Self { arena, own, receiver }
    }

    fn senders(&self) -> [Sender<Watched>; 3] {
        [0, 1, 2].map(|id| {
            let region = PeerRegion::map(&self.arena, self.arena.range(), InstanceId::new(id)).unwrap();
            Sender::begin(region, Incarnation::FIRST)
        })
    }

    fn drain(&self, to: &mut Senders, budget: usize) -> bool {
        self.receiver.hold().unwrap().drain(&self.own, to, budget, false)
    }

    /// Polls up to `count` times.
    fn poll(&self, to: &mut Senders, count: usize) {
        let mut hold = self.receiver.hold().unwrap();
        for _ in 0..count {
            if !hold.finds_nothing(&self.own) {
                hold.poll(&self.own, to);
            }
        }
    }
}

fn send(sender: &Sender<Watched>) {
    sender.send(TYPE, 7, &[], swap).unwrap();
}

#[test]
fn a_drain_takes_turns_and_continues_where_the_last_one_stopped() {
    let three = Three::new();
    let senders = three.senders();
    let mut to = Senders::default();
    assert!(!three.drain(&mut to, 64), "the hellos are answered");
    (0..4).for_each(|_| senders.iter().for_each(send));
    for _ in 0..12 {
        assert!(three.drain(&mut to, 1));
    }
    assert!(!three.drain(&mut to, 1));
    for round in to.of.chunks(3) {
        let mut round = round.to_vec();
        round.sort_unstable();
        assert_eq!(round, [0, 1, 2], "each lane has its turn: {:?}", to.of);
    }
}

#[test]
fn a_visit_takes_sixteen_messages_before_other_lanes_have_their_turn() {
    let three = Three::new();
    let senders = three.senders();
    let mut to = Senders::default();
    three.drain(&mut to, 64);
    for sender in &senders {
        (0..40).for_each(|_| send(sender));
    }
    assert!(!three.drain(&mut to, 200), "one drain takes all");
    let runs: Vec<usize> = to.of.chunk_by(|a, b| a == b).map(<[u8]>::len).collect();
    assert_eq!((to.of.len(), runs), (120, std::vec![16, 16, 16, 16, 16, 16, 8, 8, 8]));
}

#[test]
fn one_drain_takes_all_messages_of_a_lane_behind_idle_ones() {
    let three = Three::new();
    let senders = three.senders();
    let mut to = Senders::default();
    three.drain(&mut to, 64);
    for lane in [2, 0, 1, 2] {
        (0..50).for_each(|_| send(&senders[lane]));
        to.of.clear();
        assert!(!three.drain(&mut to, 64));
        assert!(to.of.iter().all(|&of| usize::from(of) == lane) && to.of.len() == 50);
    }
}

#[test]
fn a_drain_takes_exactly_its_budget() {
    let three = Three::new();
    let senders = three.senders();
    let mut to = Senders::default();
    three.drain(&mut to, 64);
    (0..60).for_each(|_| send(&senders[1]));
    let mut taken = 0;
    for budget in [3, 16, 17, 1, 20, 3] {
        assert!(three.drain(&mut to, budget));
        taken += budget;
        assert_eq!(to.of.len(), taken);
    }
    assert!(!three.drain(&mut to, 1));
}

#[test]
fn a_poll_finds_each_message_of_the_lane_at_once() {
    for (lane, per_poll) in [(0, 1), (1, 1), (2, 1), (2, 2), (0, 3)] {
        let three = Three::new();
        let senders = three.senders();
        let mut to = Senders::default();
        three.drain(&mut to, 64);
        send(&senders[usize::from(lane)]);
        three.drain(&mut to, 64);
        // Two laps, so that messages lie at every line.
        for round in 0..130 {
            (0..per_poll).for_each(|_| send(&senders[usize::from(lane)]));
            to.of.clear();
            three.poll(&mut to, 1);
            assert_eq!(to.of, std::vec![lane; per_poll], "round {round}");
            assert_eq!(senders[usize::from(lane)].unsettled(), None, "credit is given at once");
            three.poll(&mut to, 1);
        }
    }
}

#[test]
fn polls_alone_find_messages_and_hellos_in_all_lanes() {
    let three = Three::new();
    let mut to = Senders::default();
    three.drain(&mut to, 64);
    // These hellos are new, and each lane has one message.
    let senders = three.senders();
    for round in 0..4 {
        for lane in [0, 1, 2, 0] {
            send(&senders[lane]);
            to.of.clear();
            three.poll(&mut to, 256);
            assert_eq!(to.of.iter().map(|&of| usize::from(of)).collect::<Vec<_>>(), [lane], "round {round}");
        }
    }
    let again = three.senders();
    three.poll(&mut to, 256);
    assert_eq!(again.each_ref().map(Sender::open), [Opening::HelloSent; 3], "Begin was answered");
    three.poll(&mut to, 256);
    assert_eq!(again.each_ref().map(Sender::open), [Opening::Open; 3], "Clean was answered");
}

#[test]
fn a_poll_says_what_it_found_and_whether_it_has_visited_all_lanes() {
    let three = Three::new();
    let senders = three.senders();
    let mut to = Senders::default();
    three.drain(&mut to, 64);
    let mut hold = three.receiver.hold().unwrap();
    let (mut found, mut all, mut since) = (0, 0, 0);
    for round in 0..1000 {
        if round % 50 == 0 {
            send(&senders[round % 3]);
        }
        since += 1;
        if !hold.finds_nothing(&three.own) {
            let (more, visited_all) = hold.poll(&three.own, &mut to);
            found += more;
            all += usize::from(visited_all);
            assert!(since <= 256, "all lanes are visited at the latest after 256 polls");
            since = if visited_all { 0 } else { since };
        }
    }
    assert_eq!((found, to.of.len()), (20, 20));
    assert!((3..=100).contains(&all), "{all}");
}

#[test]
fn a_message_whose_handler_unwinds_is_delivered_once() {
    // The message is found by a drain, or by a poll: alone, or before another one.
    for (by_poll, count) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
        let three = Three::new();
        let senders = three.senders();
        let mut to = Senders::default();
        three.drain(&mut to, 64);
        send(&senders[1]);
        three.drain(&mut to, 64);
        to = Senders { of: Vec::new(), unwinds: true };
        (0..count).for_each(|_| send(&senders[1]));
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            if by_poll {
                three.poll(&mut to, 1);
            } else {
                three.drain(&mut to, 64);
            }
        }));
        assert!(unwound.is_err() && !to.unwinds);
        three.poll(&mut to, 256);
        assert_eq!(to.of.len(), count, "{by_poll}");
        three.drain(&mut to, 64);
        send(&senders[1]);
        three.poll(&mut to, 256);
        assert_eq!(to.of.len(), count + 1, "{by_poll}");
    }
}

#[test]
fn a_poll_takes_no_message_of_a_life_that_is_not_in_force() {
    // A lane in quarantine, and one whose life has ended: the lines are handed out by the visits, without regard to their tags.
    for ended in [false, true] {
        let arena = Arena::new(SMALL);
        let link = arena.link();
        let mut inbox = Inbox::default();
        link.run(&mut inbox);
        link.send(&[]).unwrap();
        link.run(&mut inbox);
        if ended {
            let begin = Hello { incarnation: Incarnation::FIRST, session: 9, phase: Phase::Begin };
            arena.header(header::HELLO).store(begin.to_word(), Ordering::Relaxed);
            link.run(&mut inbox);
            assert_eq!(arena.control(control::ANSWER), begin.to_word());
        } else {
            arena.spoil(1);
            link.run(&mut inbox);
            assert_ne!(arena.control(control::BREACH), 0);
        }
        let next = arena.control(control::CREDIT);
        arena.plant(next, 0);
        let mut hold = link.receiver.hold().unwrap();
        for _ in 0..300 {
            if !hold.finds_nothing(&link.own) {
                assert_eq!(hold.poll(&link.own, &mut inbox).0, 0);
            }
        }
        assert_eq!(inbox.messages.len(), 1, "{ended}");
    }
}

#[test]
fn polls_hand_out_the_lines_of_a_life_that_has_ended_and_no_more() {
    let arena = Arena::new(SMALL);
    let link = arena.link();
    let mut inbox = Inbox::default();
    link.run(&mut inbox);
    link.send(&[]).unwrap();
    link.run(&mut inbox);
    let begin = Hello { incarnation: Incarnation::FIRST, session: 9, phase: Phase::Begin };
    arena.header(header::HELLO).store(begin.to_word(), Ordering::Relaxed);
    // The hello is found, and the lines are not read yet.
    assert!(link.receiver.hold().unwrap().drain(&link.own, &mut inbox, 1, false));
    arena.plant(1, 257);
    arena.plant(2, 0);
    let mut hold = link.receiver.hold().unwrap();
    let mut polls = 0;
    while arena.control(control::ANSWER) != begin.to_word() {
        polls += 1;
        assert!(polls < 600);
        if !hold.finds_nothing(&link.own) {
            hold.poll(&link.own, &mut inbox);
        }
    }
    assert_eq!((inbox.numbers.as_slice(), arena.control(control::CREDIT)), (&[1, 3][..], 9));
    assert_eq!(
        inbox.events,
        [PeerEvent::Began(Incarnation::FIRST)],
        "a bad message is left out, not reported"
    );
}

#[test]
fn a_poll_reports_a_life_before_its_first_message() {
    let arena = Arena::new(SMALL);
    let mut link = arena.link();
    link.run(&mut Inbox::default());
    link.restart(2, false);
    let mut inbox = Inbox::default();
    // This drain visits the lane, and finds nothing.
    link.run(&mut inbox);
    link.send(&[]).unwrap();
    let mut hold = link.receiver.hold().unwrap();
    (0..256).for_each(|_| {
        if !hold.finds_nothing(&link.own) {
            hold.poll(&link.own, &mut inbox);
        }
    });
    assert_eq!(
        (inbox.messages.len(), inbox.events.as_slice()),
        (1, &[PeerEvent::Began(Incarnation::FIRST)][..])
    );
}

#[test]
fn a_run_of_messages_is_prefetched_and_hardly_a_line_that_is_still_being_written() {
    for (len, lines) in [(0, 1), (104, 2), (256, 5)] {
        let arena = Arena::new(LARGE);
        let link = arena.link();
        link.run(&mut Inbox::default());
        let published = 60 / lines * lines;
        (0..60 / lines).for_each(|_| _ = link.send(&bytes(len)).unwrap());
        arena.prefetches(false);
        arena.forget_loads();
        link.receiver.hold().unwrap().drain(&link.own, &mut Inbox::default(), 64, false);
        let counts = arena.prefetches(false);
        let (good, other) = counts.split_at(published);
        let fetched = |counts: &[u64]| counts.iter().filter(|&&count| count != 0).count();
        // The line with which the next look ahead begins, and after long messages the lines that the next one would take.
        let more = if lines == 1 { 1 } else { 5 };
        assert!(fetched(other) <= more, "{len}: {counts:?}");
        assert!(fetched(&good[16..44]) >= 24, "{len}: {counts:?}");
        assert!(counts.iter().all(|&count| count <= 2), "{len}: {counts:?}");
        let looks: Vec<_> = (0..128).map(|at| arena.line(at)[0].loads()).collect();
        assert!(
            looks.iter().all(|&count| count <= 3),
            "{len}: no line is looked at again and again: {looks:?}"
        );
    }
}

#[test]
fn in_a_short_lane_nothing_is_prefetched_for_a_run_of_messages() {
    // A line that is half of the lane ahead is one that the sender will write soon.
    for (lines, prefetched) in [(8, false), (16, false), (32, false), (64, true)] {
        let arena = Arena::new(Geometry::new(1, lines, 256).unwrap());
        let link = arena.link();
        link.run(&mut Inbox::default());
        (0..lines).for_each(|_| _ = link.send(&[]).unwrap());
        link.run(&mut Inbox::default());
        assert_eq!(arena.prefetches(false).iter().any(|&count| count != 0), prefetched, "{lines}");
    }
}

#[test]
fn a_batch_prefetches_the_free_lines_behind_it_and_no_other() {
    for batch in [1, 4] {
        let arena = Arena::new(LARGE);
        let link = arena.link();
        arena.prefetches(true);
        let payloads = std::vec![&[0u8][..]; batch];
        for _ in 0..128 / batch {
            link.sender.post(TYPE, 7, &payloads, swap).unwrap();
        }
        // The line after a message, and sixteen more: that line is the first one that is prefetched.
        let expected: Vec<_> = (0..128).map(|line| u64::from(line > 16)).collect();
        assert_eq!(arena.prefetches(true), expected, "no line is free in the next lap");
    }
    // All lines of a message are prefetched before the first of them is filled.
    let arena = Arena::new(LARGE);
    let link = arena.link();
    arena.prefetches(true);
    link.send(&bytes(256)).unwrap();
    assert_eq!(arena.prefetches(true)[..6], [1, 1, 1, 1, 1, 0]);
}

#[test]
fn the_lines_of_the_next_long_message_are_prefetched_while_the_lane_is_empty() {
    for (len, long) in [(48, false), (49, true), (256, true)] {
        let arena = Arena::new(LARGE);
        let link = arena.link();
        link.run(&mut Inbox::default());
        let next = usize::try_from(link.send(&bytes(len)).unwrap()).unwrap();
        arena.prefetches(false);
        link.run(&mut Inbox::default());
        let counts = arena.prefetches(false);
        assert!(counts[next + 1..next + 5].iter().all(|&count| (count != 0) == long), "{len}: {counts:?}");
    }
}
