// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doorbell: whatever is sent is seen or rung for, whoever waits is rung (SPEC N-10, N-12).

use super::*;
use crate::sync::AtomicBool;
use core::cell::Cell;
use mk_ipi_abi::native::Bell;
use mk_ipi_abi::Vector;
use std::rc::Rc;

/// How the receiver stands when a message comes.
#[derive(Clone, Copy)]
enum Before {
    /// It armed, and then looks again for no reason.
    Armed,
    /// An interrupt has come, whose message it has read already.
    Interrupted,
    /// It drains a lane that it knows to be active.
    Busy,
}

/// A message is sent by `how` while the receiver drains, and arms: it is seen, or the receiver is rung.
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

fn send_one(sender: &Sender<Shared>) -> bool {
    send(sender, 2, SHORT).unwrap()
}

fn post_one(sender: &Sender<Shared>) -> bool {
    post(sender, 2, TWO_LINES).unwrap();
    sender.flush()
}

/// armed: no message is left behind by a receiver that goes to sleep.
#[test]
fn loom_native_what_is_sent_is_seen_or_rung_for() {
    seen_or_rung(Before::Armed, send_one);
    seen_or_rung(Before::Interrupted, send_one);
    sent_when_busy();
}
fn sent_when_busy() {
    seen_or_rung(Before::Busy, send_one);
}

/// armed: nor one that was posted.
#[test]
fn loom_native_what_is_posted_is_seen_or_rung_for() {
    for before in [Before::Armed, Before::Interrupted, Before::Busy] {
        seen_or_rung(before, post_one);
    }
}

/// A full lane, of which `more` words change.
fn full(more: &[usize]) -> (Tx, Rx) {
    let words = [control_word(control::CREDIT), header_word(header::WANT)];
    let (sender, kernel) = Region::new(&[&[receiver::ARMED], &words[..], more].concat()).linked();
    assert!([1, 2].map(|n| send(&sender, n, HALF)).iter().all(Result::is_ok) && !sender.has_space(0));
    (sender, kernel)
}

/// armed: a sender that waits for space finds it, or is rung when there is.
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

/// Those who wait for space, as the endpoint has them: one asks, and deferred work looks again when a doorbell has rung.
struct Waiter {
    sender: Tx,
    /// The deferred work looks.
    wanting: AtomicBool,
    told: Cell<bool>,
    /// The receiver is to be rung.
    rings: Cell<bool>,
    /// The deferred work runs once more.
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

    fn note(&self, rings: bool) {
        self.rings.set(self.rings.get() || rings);
    }

    /// Asks while the receiver drains, and rings when there is space; and then all that is left to be done is. At the waiter's
    /// access number `at` to the region, or when it has asked, others take what space there is. Whether it was found.
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

/// armed: others take what space there is. It is told of all the same when there is more.
#[test]
fn loom_native_space_that_others_took_is_asked_for_again() {
    // Just before the waiter says what it has seen.
    for at in 0..4 {
        taken(at);
    }
    // When the waiter has asked, and perhaps is being rung.
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

/// waiting: somebody begins to wait while all who waited so far are told.
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

/// bell: a receiver that armed after it had moved its doorbell is rung there.
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
