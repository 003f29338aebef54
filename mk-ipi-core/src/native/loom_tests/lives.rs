// SPDX-License-Identifier: MIT OR Apache-2.0
//! Births and deaths at both ends (SPEC N-1, N-9, N-11).

use super::*;
use crate::instance::AddError;
use crate::peers::Watch;
use crate::platform::PeerEvent::{Began, Dead, Lost, Up};
use mk_ipi_abi::native::StampError;

const fn life(n: u32) -> Incarnation {
    match Incarnation::new(n) {
        Some(life) => life,
        None => panic!(),
    }
}

/// A send of a life that may have to wait for its answer.
fn is_sent(result: Result<bool, Unsent>) -> bool {
    match result {
        Ok(_) => true,
        Err(e) => {
            assert_eq!(e, Unsent::Unanswered);
            false
        }
    }
}

const THE_NEXT_LIFE: [Step; 3] = [Step::Message(1), Step::Event(Began(life(2))), Step::Message(9)];

/// lane-hello, lane-answer: what a former life published arrives before the new one is acknowledged, and what the new
/// one sends arrives behind that.
#[test]
fn loom_native_a_new_life_waits_for_its_answer() {
    next_life();
}
fn next_life() {
    check(|first| {
        let (former, kernel) = linked(&[]);
        // The receiver knows that there is something.
        former.flush();
        let begins = move || {
            post(&former, 1);
            let sender = former.region.sender(2);
            let sent = is_sent(send(&sender, 9));
            (sender, sent)
        };
        let ((sender, sent), mut seen) = both(first, begins, drains(&kernel, 1));
        kernel.run(&mut seen);
        assert!(sent || is_sent(send(&sender, 9)), "it was answered");
        kernel.run(&mut seen);
        assert_eq!(seen.steps, THE_NEXT_LIFE);
    });
}

/// lane-hello, lane-answer: a former life's CPU publishes what it had taken while its successor begins. That arrives before
/// the successor is acknowledged, or never.
#[test]
fn loom_native_a_dead_life_publishes_nothing() {
    check(|first| {
        let (former, kernel) = linked(&[]);
        former.flush();
        let posts = move || {
            let successor = Arc::new(RefCell::new(None));
            // Behind its payload: the head is still to come.
            interrupt_at(2, {
                let (region, successor) = (former.region.clone(), successor.clone());
                move || *successor.borrow_mut() = Some(region.sender(2))
            });
            post(&former, 1);
            successor.take().unwrap()
        };
        let (successor, mut seen) = both(first, posts, drains(&kernel, 2));
        kernel.run(&mut seen);
        assert!(is_sent(send(&successor, 9)));
        kernel.run(&mut seen);
        assert!(seen.steps == THE_NEXT_LIFE || seen.steps == THE_NEXT_LIFE[1..], "{:?}", seen.steps);
    });
}

/// lane-clean: what a former life left in the cells is not read as the new one's.
#[test]
fn loom_native_cells_are_read_when_they_were_cleaned() {
    cleaned();
}
fn cleaned() {
    check(|first| {
        let region = Region::new(&[]);
        let (former, kernel) = (region.sender(1), region.receiver());
        // In the lap in which the next life will begin.
        let base = geometry().next_life(0);
        former.end.region.cell(base).unwrap()[cell::HEAD]
            .store(geometry().lap(base).into(), Ordering::Relaxed);
        let sender = region.sender(2);
        sender.flush();
        assert_eq!(drains(&kernel, 1)().steps, [Step::Event(Began(life(2)))]);
        let (_, mut seen) = both(first, move || post(&sender, 9), drains(&kernel, 1));
        kernel.run(&mut seen);
        assert_eq!(seen.messages(), [9]);
    });
}

/// lane-prepared: two CPUs find the answer at once; one prepares the lane, and the other knows how.
#[test]
fn loom_native_two_cpus_find_the_answer() {
    prepared();
}
fn prepared() {
    check(|first| {
        let (former, kernel) = linked(&[]);
        former.flush();
        let sender = former.region.sender(2);
        let sends = |n| {
            let sender = sender.clone();
            move || {
                assert!(sender.sent() <= 1, "by the other one");
                is_sent(send(&sender, n))
            }
        };
        let cpus = [1, 2].map(sends);
        let receives = drains(&kernel, 1);
        let (sent, mut seen) = both(
            first,
            move || {
                let [one, other] = cpus;
                both(first, one, other)
            },
            receives,
        );
        assert_eq!(sender.sent(), u64::from(sent.0) + u64::from(sent.1));
        kernel.run(&mut seen);
        let mut messages = seen.messages();
        messages.sort_unstable();
        let sent: Vec<_> = [(sent.0, 1), (sent.1, 2)].iter().filter(|s| s.0).map(|s| s.1).collect();
        assert_eq!(messages, sent);
    });
}

/// A receiver in its first life, that has read one message and not the next.
fn half_read() -> (Tx, Rx) {
    let words = [control::LOST_FROM, control::LOST_TO, control::RECEIVED].map(control_word);
    let mut more = std::vec![receiver::INCARNATION, receiver::LIFE, lane_word(header::SEEN)];
    more.extend(words);
    let region = Region::new(&more);
    let (sender, kernel) = (region.sender(1), region.receiver());
    kernel.receiver.begin(&kernel.own, life(1));
    assert!(!send(&sender, 1).unwrap());
    kernel.run(&mut Seen::default());
    send(&sender, 2).unwrap();
    (sender, kernel)
}

/// The next life of a receiver begins.
fn restarts(kernel: &Rx) -> impl FnOnce() -> Rx {
    let region = kernel.region.clone();
    move || {
        let next = region.receiver();
        next.receiver.begin(&next.own, life(2));
        next
    }
}

/// lane-lost: the sender is told once what a restart of its receiver has lost.
#[test]
fn loom_native_what_a_restart_loses_is_told_once() {
    lost();
}
fn lost() {
    check(|first| {
        let (sender, kernel) = half_read();
        let takes = {
            let sender = sender.clone();
            move || sender.take_lost()
        };
        let (early, _) = both(first, takes, restarts(&kernel));
        assert_eq!(early.or(sender.take_lost()), Some((1, 1)));
        assert_eq!(sender.take_lost(), None);
    });
}

/// message-published, lane-credit: what two CPUs send to a receiver that restarts is lost or received, never both.
#[test]
fn loom_native_a_restart_loses_a_message_or_receives_it() {
    sent_to_restart();
}
fn sent_to_restart() {
    check(|first| {
        let (sender, kernel) = half_read();
        let sends = |n| {
            let sender = sender.clone();
            move || match send(&sender, n) {
                Ok(_) => 1,
                Err(e) => {
                    assert_eq!(e, Unsent::Full);
                    0
                }
            }
        };
        let cpus = [3, 4].map(sends);
        let sends = move || {
            let [one, other] = cpus;
            both(first, one, other)
        };
        let (sent, kernel) = both(first, sends, restarts(&kernel));
        let mut seen = Seen::default();
        kernel.run(&mut seen);
        let (from, lost) = sender.take_lost().unwrap();
        assert_eq!(from, 1);
        assert_eq!(lost + seen.messages().len() as u64, 1 + sent.0 + sent.1);
    });
}

/// lane-hello, lane-answer: both ends begin a life at once. The new one's message arrives, and nothing behind it.
#[test]
fn loom_native_both_ends_begin_a_life() {
    check(|first| {
        let (former, kernel) = half_read();
        let region = former.region.clone();
        let begins = move || {
            let sender = region.sender(2);
            let sent = is_sent(send(&sender, 9));
            (sender, sent)
        };
        let ((sender, sent), kernel) = both(first, begins, restarts(&kernel));
        assert!(!sent, "nobody has drained yet");
        let mut seen = Seen::default();
        kernel.run(&mut seen);
        assert!(is_sent(send(&sender, 9)));
        kernel.run(&mut seen);
        assert_eq!(seen.steps, THE_NEXT_LIFE[1..]);
    });
}

/// Looks at the receiver; what is new.
fn looks(watch: &Arc<Watch>, sender: &Tx) -> impl FnOnce() -> Vec<PeerEvent> {
    let (watch, sender) = (watch.clone(), sender.clone());
    move || {
        let events = RefCell::new(Vec::new());
        watch.look(&sender, 0, 1, |event| events.borrow_mut().push(event));
        events.into_inner()
    }
}

/// receiver-life: who learns that its receiver is up again has learnt what that has cost.
#[test]
fn loom_native_a_loss_is_told_before_the_new_life() {
    up_again();
}
fn up_again() {
    check(|first| {
        let (sender, kernel) = half_read();
        let watch = Arc::new(Watch::new());
        assert_eq!(looks(&watch, &sender)(), [Up(life(1))]);
        let (mut events, _) = both(first, looks(&watch, &sender), restarts(&kernel));
        events.extend(looks(&watch, &sender)());
        assert_eq!(events, [Lost { first: 1, count: 1 }, Up(life(2))]);
    });
}

/// receiver-life: who learns that its receiver is gone knows what it received.
#[test]
fn loom_native_a_goodbye_tells_what_was_received() {
    goodbye();
}
fn goodbye() {
    check(|first| {
        let (sender, kernel) = half_read();
        let watch = Arc::new(Watch::new());
        looks(&watch, &sender)();
        let leaves = move || {
            kernel.drain(&mut Seen::default(), false);
            kernel.own.say_goodbye(life(1));
        };
        let look = looks(&watch, &sender);
        let tells = move || {
            if look() == [Dead(life(1))] {
                assert_eq!(sender.stats().received, 2);
            }
        };
        both(first, leaves, tells);
    });
}

/// watch: of two CPUs that look at a peer, one tells what is new.
#[test]
fn loom_native_two_cpus_tell_once() {
    watched();
}
fn watched() {
    check(|first| {
        let (sender, _kernel) = half_read();
        let watch = Arc::new(Watch::new());
        let (mut events, others) = both(first, looks(&watch, &sender), looks(&watch, &sender));
        events.extend(others);
        assert_eq!(events, [Up(life(1))]);
    });
}

/// region-stamped: a region is found whole, or not at all.
#[test]
fn loom_native_a_region_is_found_whole_or_not_at_all() {
    stamped();
}
fn stamped() {
    check(|first| {
        let region = Region::blank();
        let creates = {
            let region = region.clone();
            move || create(&region, range(), geometry()).unwrap()
        };
        let maps = move || match PeerRegion::map(&region, range(), SENDER) {
            Ok(found) => assert_eq!(found.geometry(), geometry()),
            Err(e) => assert!(matches!(e, AddError::Stamp(StampError::NoStamp { found: 0, .. })), "{e:?}"),
        };
        both(first, creates, maps);
    });
}

twins! {
    loom_native_broken_hello: next_life without "lane-hello (release)", 0;
    loom_native_broken_greeting: next_life without "lane-hello (acquire)", 0;
    loom_native_broken_answer: next_life without "lane-answer (release)", 0;
    loom_native_broken_beginning: next_life without "lane-answer (acquire)", 0;
    loom_native_broken_cleaning: cleaned without "lane-clean (release)", 0;
    loom_native_broken_clean_look: cleaned without "lane-clean (acquire)", 0;
    loom_native_broken_preparing: prepared without "lane-prepared (release)", 0;
    loom_native_broken_prepared: prepared without "lane-prepared (acquire)", 0;
    loom_native_broken_positions: prepared without "lane-prepared (acquire)", 1;
    loom_native_broken_loss: lost without "lane-lost (release)", 0;
    loom_native_broken_report: lost without "lane-lost (acquire)", 0;
    loom_native_broken_skip: sent_to_restart without "message-published (acquire)", 1;
    loom_native_broken_begin: up_again without "receiver-life (release)", 0;
    loom_native_broken_pulse: up_again without "receiver-life (acquire)", 0;
    loom_native_broken_goodbye: goodbye without "receiver-life (release)", 1;
    loom_native_broken_watch: watched without "watch (acquire)", 0;
    loom_native_broken_watched: watched without "watch (release)", 0;
    loom_native_broken_stamp: stamped without "region-stamped (release)", 0;
    loom_native_broken_stamp_look: stamped without "region-stamped (acquire)", 0;
}
