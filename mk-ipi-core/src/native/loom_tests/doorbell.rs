// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doorbell: the receiver sees each message, or is rung for it. A sender that waits for space finds it, or is rung (SPEC
//! N-10, N-12).

use super::*;
use crate::sync::AtomicBool;
use core::cell::Cell;
use mk_ipi_abi::native::Bell;
use mk_ipi_abi::Vector;
use std::rc::Rc;

/// The state of the receiver when message 2 is sent.
#[derive(Clone, Copy)]
enum Before {
    /// The receiver is armed, and drains without a reason.
    Armed,
    /// The receiver is disarmed by an interrupt, and has no message: it took the message of the interrupt before.
    Interrupted,
    /// The receiver is disarmed by an interrupt, and message 1 is unread.
    Busy,
}

/// `how` sends message 2 while the receiver drains and arms. Checks that the receiver sees the message, or is rung and then sees
/// it.
fn seen_or_rung(before: Before, how: fn(&Sender<Shared>) -> bool) {
    check(move |first| {
        let (sender, kernel) = Region::new(&[receiver::ARMED, tag(0), tag(1)]).linked();
        match before {
            Before::Armed => {}
            Before::Interrupted => kernel.own.disarm(),
            Before::Busy => {
                assert!(send(&sender, 1, SHORT).unwrap());
                kernel.own.disarm();
            }
        }
        let (rung, mut seen) = both(first, move || how(&sender), runs(&kernel));
        if rung {
            kernel.interrupt(&mut seen);
        }
        assert_eq!(seen.messages().last(), Some(&2));
    });
}

/// Sends message 2. Returns whether the receiver must be rung.
fn send_one(sender: &Sender<Shared>) -> bool {
    send(sender, 2, SHORT).unwrap()
}

/// Posts message 2, and flushes. Returns whether the receiver must be rung.
fn post_one(sender: &Sender<Shared>) -> bool {
    post(sender, 2, TWO_LINES).unwrap();
    sender.flush()
}

/// armed: a receiver that arms and then sleeps misses no message that is sent at the same time.
#[test]
fn loom_native_what_is_sent_is_seen_or_rung_for() {
    seen_or_rung(Before::Armed, send_one);
    seen_or_rung(Before::Interrupted, send_one);
    sent_when_busy();
}
fn sent_when_busy() {
    seen_or_rung(Before::Busy, send_one);
}

/// armed: the same for a message that is posted.
#[test]
fn loom_native_what_is_posted_is_seen_or_rung_for() {
    for before in [Before::Armed, Before::Interrupted, Before::Busy] {
        seen_or_rung(before, post_one);
    }
}

/// A sender and a receiver whose lane is full. The words in `more` are live.
fn full(more: &[usize]) -> (Tx, Rx) {
    let words = [control_word(control::CREDIT), header_word(header::WANT)];
    let (sender, kernel) = Region::new(&[&[receiver::ARMED], &words[..], more].concat()).linked();
    assert!([1, 2].map(|n| send(&sender, n, HALF)).iter().all(Result::is_ok) && !sender.has_space(0));
    (sender, kernel)
}

/// armed: a sender that waits for space finds it, or is rung when the receiver gives it.
#[test]
fn loom_native_who_wants_space_finds_it_or_is_rung() {
    space();
}
fn space() {
    check(|first| {
        let (sender, kernel) = full(&[]);
        let wants = {
            let sender = sender.clone();
            move || {
                let found = sender.want_space(SHORT, || ());
                (!found && sender.flush(), found || sender.has_space(SHORT))
            }
        };
        let ((rung, found), mut seen) = both(first, wants, runs(&kernel));
        if rung {
            kernel.interrupt(&mut seen);
        }
        assert!(found || *seen.rings.borrow() != 0);
        assert!(sender.has_space(SHORT));
    });
}

/// A sender that waits for space, as in the endpoint: a CPU asks for the space. After a doorbell, the deferred work checks
/// whether there is space.
struct Waiter {
    sender: Tx,
    /// Whether the deferred work must check for space.
    wanting: AtomicBool,
    /// Whether the deferred work has told the waiter that there is space.
    told: Cell<bool>,
    /// Whether the receiver must be rung.
    rings: Cell<bool>,
    /// Whether the deferred work must run once more.
    again: Cell<bool>,
}

impl Waiter {
    fn new(sender: Tx) -> Rc<Self> {
        let [told, rings, again] = [false; 3].map(Cell::new);
        Rc::new(Self { sender, wanting: AtomicBool::new(false), told, rings, again })
    }

    /// As `Endpoint::want_space`.
    fn ask(&self) -> bool {
        let wait = || _ = self.wanting.load(Ordering::Relaxed) || self.wanting.swap(true, Ordering::Relaxed);
        if self.sender.want_space(HALF, wait) {
            return true;
        }
        self.note(self.sender.flush());
        self.sender.has_space(HALF)
    }

    /// As `Endpoint::tell_of_space`.
    fn deferred(&self) {
        if !self.wanting.load(Ordering::Relaxed) {
            return;
        }
        let asked = self.sender.asked_for();
        if self.sender.has_space_for_waiter() {
            self.told.set(true);
        } else if self.sender.is_waited_for() {
            return self.note(self.sender.asked_for() != asked && self.sender.flush());
        }
        self.wanting.swap(false, Ordering::Relaxed);
        if self.sender.is_waited_for() {
            self.wanting.swap(true, Ordering::Relaxed);
            self.again.set(true);
        }
    }

    /// Remembers that the receiver must be rung, if `rings` is true.
    fn note(&self, rings: bool) {
        self.rings.set(self.rings.get() || rings);
    }

    /// The waiter asks for space while the receiver drains, and rings the waiter when there is space. Before the waiter's access
    /// number `at` to the region, or after it has asked if there are fewer accesses, other sends take the space. At the end runs
    /// the deferred work and the interrupts that are still due. Returns whether the waiter found space when it asked.
    fn asks_and_is_rung(self: &Rc<Self>, at: usize, first: First, kernel: &Rx) -> bool {
        let [waiter, others, rung] = [(); 3].map(|()| self.clone());
        let others =
            move || [3, 4].iter().for_each(|n| others.note(send(&others.sender, *n, HALF) == Ok(true)));
        let asks = move || {
            interrupt_at(at, others);
            let found = waiter.ask();
            if let Some((_, _, others)) = TRAP.take() {
                others();
            }
            found
        };
        let runs = sees(kernel, move |kernel, seen| {
            seen.on_ring = Some(Box::new(move || rung.deferred()));
            kernel.run(seen);
        });
        let (found, mut seen) = both(first, asks, runs);
        loop {
            if self.again.take() {
                self.deferred();
            } else if self.rings.take() {
                kernel.interrupt(&mut seen);
            } else {
                return found;
            }
        }
    }
}

/// armed: other sends take the space that the receiver gave. The waiter still learns of the next space.
#[test]
fn loom_native_space_that_others_took_is_asked_for_again() {
    // The other sends come before or between the waiter's accesses to the region.
    for at in 0..4 {
        taken(at);
    }
    // The other sends come after the waiter has asked, when the receiver may already have rung.
    taken(usize::MAX);
}
fn taken(at: usize) {
    check(move |first| {
        let (sender, kernel) = full(&[tag(0), tag(4)]);
        let waiter = Waiter::new(sender);
        let found = waiter.asks_and_is_rung(at, first, &kernel);
        assert!(found || waiter.told.get(), "{at}");
    });
}

/// waiting: a sender begins to wait while the deferred work ends the wait of an earlier sender. The later sender finds space, or
/// its wait goes on until it is told.
#[test]
fn loom_native_who_waits_last_is_told_too() {
    waits_last();
}
fn waits_last() {
    check(|first| {
        let (sender, kernel) = full(&[tag(0), tag(4)]);
        let waiter = Waiter::new(sender);
        assert!(!waiter.ask());
        let found = waiter.asks_and_is_rung(0, first, &kernel);
        assert!(waiter.told.get() && (found || !waiter.sender.is_waited_for()));
    });
}

/// bell: the receiver moves its doorbell, and arms after that. A sender that finds it armed rings the new doorbell.
#[test]
fn loom_native_a_doorbell_is_rung_where_it_has_moved() {
    moved_bell();
}
fn moved_bell() {
    check(|first| {
        let (sender, kernel) = Region::new(&[receiver::ARMED, receiver::BELL, tag(0)]).linked();
        kernel.own.disarm();
        let bell = Bell { cpu: PhysCpuId(5), vector: Vector::RFC_V2 };
        let moves = move || {
            assert!(kernel.own.set_bell(bell));
            kernel.run(&mut Seen::default());
        };
        let sends = move || {
            if send(&sender, 1, SHORT).unwrap() {
                assert_eq!(sender.bell(|moved| moved == bell), Some(bell));
            }
        };
        both(first, moves, sends);
    });
}

twins! {
    loom_native_broken_send: sent_when_busy without "armed (fence)", 0;
    loom_native_broken_want: space without "armed (fence)", 0;
    loom_native_broken_arm: sent_when_busy without "armed (fence)", 1;
    loom_native_broken_arm_for_space: space without "armed (fence)", 1;
    loom_native_broken_wait: waits_last without "waiting (acquire)", 0;
    loom_native_broken_forgetting: waits_last without "waiting (release)", 0;
    loom_native_broken_move: moved_bell without "bell (release)", 0;
    loom_native_broken_bell: moved_bell without "bell (acquire)", 0;
}
