// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doorbell: whatever is sent is seen or rung for, whoever waits is rung (SPEC N-10, N-12).

use super::*;
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
        let (sender, kernel) = linked(&[]);
        match before {
            Before::Armed => {}
            Before::Interrupted => kernel.own.disarm(),
            Before::Busy => {
                assert!(send(&sender, 1).unwrap());
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
    send(sender, 2).unwrap()
}

fn post_one(sender: &Sender<Shared>) -> bool {
    post(sender, 2);
    sender.flush()
}

/// armed: no message is left behind by a receiver that goes to sleep.
#[test]
fn loom_native_what_is_sent_is_seen_or_rung_for() {
    seen_or_rung(Before::Armed, send_one);
    sent_when_interrupted();
    sent_when_busy();
}
fn sent_when_interrupted() {
    seen_or_rung(Before::Interrupted, send_one);
}
fn sent_when_busy() {
    seen_or_rung(Before::Busy, send_one);
}

/// armed: nor one that was posted.
#[test]
fn loom_native_what_is_posted_is_seen_or_rung_for() {
    seen_or_rung(Before::Armed, post_one);
    seen_or_rung(Before::Interrupted, post_one);
    posted_when_busy();
}
fn posted_when_busy() {
    seen_or_rung(Before::Busy, post_one);
}

/// armed: a sender that waits for space finds it, or is rung when there is.
#[test]
fn loom_native_who_wants_space_finds_it_or_is_rung() {
    space();
}
fn space() {
    check(|first| {
        let (sender, kernel) = linked(&[]);
        assert!([1, 2].map(|n| send(&sender, n)).iter().all(Result::is_ok) && !sender.has_space());
        let wants = {
            let sender = sender.clone();
            move || (sender.want_space(), sender.has_space())
        };
        let ((rung, found), mut seen) = both(first, wants, runs(&kernel));
        if rung {
            kernel.interrupt(&mut seen);
        }
        assert!(found || *seen.rings.borrow() != 0);
        assert!(sender.has_space());
    });
}

/// Somebody who waits for space, as the endpoint does it: asks, and looks again when a doorbell has rung.
struct Waiter {
    sender: Tx,
    told: Cell<bool>,
    /// The receiver is to be rung.
    rings: Cell<bool>,
}

impl Waiter {
    fn ask(&self) {
        self.note(self.sender.want_space());
        if self.sender.has_space() {
            self.told.set(true);
        }
    }

    /// At once when the receiver rings: any later there is more space.
    fn deferred(&self) {
        if self.sender.has_space_at_last(|wanted| self.note(wanted)) {
            self.told.set(true);
        }
    }

    fn note(&self, rings: bool) {
        self.rings.set(self.rings.get() || rings);
    }
}

/// armed: others take what space there is. It is told of all the same when there is more.
#[test]
fn loom_native_space_that_others_took_is_asked_for_again() {
    // They ask too, just before the waiter says what it has seen.
    taken(1, true);
    // They only take it, when the waiter has asked and perhaps is being rung.
    taken(usize::MAX, false);
}
/// Others come at the waiter's access number `at` to the region, or when it has asked.
fn taken(at: usize, ask: bool) {
    check(move |first| {
        let (sender, kernel) = linked(&[]);
        assert!([1, 2].map(|n| send(&sender, n)).iter().all(Result::is_ok));
        let waiter = Rc::new(Waiter { sender, told: Cell::new(false), rings: Cell::new(false) });
        let others = {
            let waiter = waiter.clone();
            move || {
                waiter.note(ask && waiter.sender.want_space());
                [3, 4].iter().for_each(|n| waiter.note(send(&waiter.sender, *n) == Ok(true)));
            }
        };
        let asks = {
            let waiter = waiter.clone();
            move || {
                interrupt_at(at, others);
                waiter.ask();
                if let Some((_, _, others)) = TRAP.take() {
                    others();
                }
            }
        };
        let mut seen = {
            let waiter = waiter.clone();
            Seen { on_ring: Some(Box::new(move || waiter.deferred())), ..Seen::default() }
        };
        let ((), mut seen) = both(first, asks, {
            let kernel = kernel.clone();
            move || {
                kernel.run(&mut seen);
                seen
            }
        });
        while waiter.rings.take() {
            kernel.interrupt(&mut seen);
        }
        assert!(waiter.told.get());
    });
}

/// bell: a receiver that armed after it had moved its doorbell is rung there.
#[test]
fn loom_native_a_doorbell_is_rung_where_it_has_moved() {
    moved_bell();
}
fn moved_bell() {
    const CPUS: [PhysCpuId; 2] = [PhysCpuId(4), PhysCpuId(5)];
    check(|first| {
        let (sender, kernel) = linked(&[receiver::BELL]);
        kernel.own.disarm();
        let moves = move || {
            kernel.own.set_bell(Bell { cpu: 1, vector: Vector::RFC_V2 });
            kernel.run(&mut Seen::default());
        };
        let sends = move || {
            if send(&sender, 1).unwrap() {
                let (cpu, _) = sender.bell(&CPUS, (CPUS[0], Vector::RFC_V2));
                assert_eq!(cpu, CPUS[1]);
            }
        };
        both(first, moves, sends);
    });
}

/// receiver-held, receiver-again: a drain that was refused is made up for by whoever drains.
#[test]
fn loom_native_a_refused_drain_is_made_up_for() {
    refused();
}
fn refused() {
    fn drain(kernel: &Kernel) -> Vec<u8> {
        let mut seen = Seen::default();
        while kernel.drain(&mut seen, false) {}
        seen.messages()
    }
    check(|first| {
        let (sender, kernel) = linked(&[]);
        assert!(send(&sender, 1).unwrap());
        let posts = {
            let kernel = kernel.clone();
            move || {
                post(&sender, 2);
                drain(&kernel)
            }
        };
        let (mut messages, others) = both(first, move || drain(&kernel), posts);
        messages.extend(others);
        messages.sort_unstable();
        assert_eq!(messages, [1, 2]);
    });
}

/// armed, receiver-again: a doorbell rings at one CPU while another drains for a reason of its own. When both are through the
/// message was read, and the next one is rung for.
#[test]
fn loom_native_an_interrupt_leaves_nobody_disarmed() {
    interrupted();
}
fn interrupted() {
    check(|first| {
        let (sender, kernel) = linked(&[]);
        assert!(send(&sender, 1).unwrap());
        let interrupt = {
            let kernel = kernel.clone();
            move || {
                let mut seen = Seen::default();
                kernel.interrupt(&mut seen);
                seen
            }
        };
        let (mut seen, others) = both(first, runs(&kernel), interrupt);
        seen.steps.extend(others.steps);
        assert_eq!(seen.messages(), [1]);
        assert!(send(&sender, 2).unwrap());
    });
}

twins! {
    loom_native_broken_send: sent_when_busy without "armed (fence)", 0;
    loom_native_broken_flush: posted_when_busy without "armed (fence)", 1;
    loom_native_broken_want: space without "armed (fence)", 1;
    loom_native_broken_hint: sent_when_interrupted without "armed (fence)", 2;
    loom_native_broken_arm: sent_when_busy without "armed (fence)", 3;
    loom_native_broken_arm_for_space: space without "armed (fence)", 3;
    loom_native_broken_move: moved_bell without "bell (release)", 0;
    loom_native_broken_bell: moved_bell without "bell (acquire)", 0;
    loom_native_broken_hold: refused without "receiver-held (acquire)", 0;
    loom_native_broken_release: refused without "receiver-held (release)", 0;
    loom_native_broken_refusal: refused without "receiver-again (release)", 0;
}
