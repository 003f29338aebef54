// SPDX-License-Identifier: MIT OR Apache-2.0
//! Restarts of the receiver: what happens to messages, and what the sender learns of them (SPEC N-11).

use super::*;
use crate::platform::PeerEvent::{Began, Dead, Discarded, InDoubt, Up};

/// A sender, and a receiver that died in its first life. It had handled message 1, and was handling message 2. Message 3 is
/// unread. Each message has two lines.
fn half_read() -> (Tx, Rx) {
    let controls = [
        control::CREDIT,
        control::HANDED,
        control::DOUBTS,
        control::doubt(0),
        control::DISCARD_FROM,
        control::DISCARD_TO,
        control::RECEIVED,
        control::ANSWER,
        control::BASE,
    ];
    let words = [receiver::LIFE, receiver::ARMED, header_word(header::HELLO)];
    let tags = [tag(2), tag(4), tag(6), tag(8)];
    let (sender, kernel) =
        Region::new(&[&controls.map(control_word), &words[..], &tags[..]].concat()).linked();
    send(&sender, 1, TWO_LINES).unwrap();
    kernel.run(&mut Seen::default());
    assert_eq!([2, 3].map(|n| post(&sender, n, TWO_LINES)), [Ok(4), Ok(6)]);
    kernel.region.store(control_word(control::HANDED), 4);
    (sender, kernel)
}

/// A function for [`both`]: begins the next life of the receiver.
fn restarts(kernel: &Rx, discard: bool) -> impl FnOnce() -> Rx {
    let region = kernel.region.clone();
    move || region.receiver(2, discard)
}

/// A function for [`both`]: the sender checks the receiver. Returns the events that this reports.
fn looks(watch: &Arc<Watch>, sender: &Tx) -> impl FnOnce() -> Vec<PeerEvent> {
    let (watch, sender) = (watch.clone(), sender.clone());
    move || {
        let events = RefCell::new(Vec::new());
        watch.look(&sender, 0, 1, |event| events.borrow_mut().push(event));
        events.into_inner()
    }
}

/// The sender checks the receiver during its restart, and again after it. Returns the events of both checks.
fn seen_of_restart(discard: bool) -> impl Fn(First) -> Vec<PeerEvent> + Copy {
    move |first| {
        let (sender, kernel) = half_read();
        let watch = Arc::new(Watch::new(&sender));
        assert_eq!(looks(&watch, &sender)(), [Up(life(1))]);
        let (mut events, _kernel) = both(first, looks(&watch, &sender), restarts(&kernel, discard));
        events.extend(looks(&watch, &sender)());
        events
    }
}

/// Puts doubts before the other events, because the order of the reports does not matter.
fn sorted(mut events: Vec<PeerEvent>) -> Vec<PeerEvent> {
    events.sort_by_key(|event| !matches!(event, InDoubt { .. }));
    events
}

/// lane-doubt: the sender learns once which message is in doubt, and this before it learns that the receiver is up again.
#[test]
fn loom_native_a_doubt_is_told_once() {
    doubt();
}
fn doubt() {
    let seen = seen_of_restart(false);
    check(move |first| assert_eq!(seen(first), [InDoubt { number: 4 }, Up(life(2))]));
}

/// lane-discarded: the sender also learns once which messages were discarded.
#[test]
fn loom_native_what_is_discarded_is_told_once() {
    discarded();
}
fn discarded() {
    let seen = seen_of_restart(true);
    check(move |first| {
        let mut events = seen(first);
        assert_eq!(events.pop(), Some(Up(life(2))));
        assert_eq!(sorted(events), [InDoubt { number: 4 }, Discarded { after: 4, to: 6 }]);
    });
}

/// A message that is sent while the receiver restarts is received by the next life, after the unread ones.
#[test]
fn loom_native_a_restart_keeps_what_is_unread() {
    check(|first| {
        let (sender, kernel) = half_read();
        let (_, kernel) = both(first, move || post(&sender, 4, TWO_LINES).unwrap(), restarts(&kernel, false));
        let mut seen = Seen::default();
        kernel.run(&mut seen);
        let all = [Step::Event(Began(life(1))), Step::Message(3), Step::Message(4)];
        assert_eq!(seen.steps, all);
    });
}

/// message-published, lane-discarded: if the next life discards unread messages, a message that is sent during the restart is
/// received or discarded. If it is discarded, the sender learns it.
#[test]
fn loom_native_a_restart_discards_a_message_or_receives_it() {
    sent_to_restart();
}
fn sent_to_restart() {
    check(|first| {
        let (sender, kernel) = half_read();
        let watch = Arc::new(Watch::new(&sender));
        let posts = {
            let sender = sender.clone();
            move || post(&sender, 4, TWO_LINES).unwrap()
        };
        let look = looks(&watch, &sender);
        let left = move || both(first, posts, look);
        let ((number, mut events), kernel) = both(first, left, restarts(&kernel, true));
        events.extend(looks(&watch, &sender)());
        let mut seen = Seen::default();
        kernel.run(&mut seen);
        let to = if seen.messages() == [4] { 6 } else { number };
        events.retain(|event| !matches!(event, Up(_)));
        assert_eq!(sorted(events), [InDoubt { number: 4 }, Discarded { after: 4, to }]);
        assert_eq!(seen.messages().len() as u64, (number - to) / 2);
    });
}

/// Both ends begin a life at the same time. The receiver takes the unread message of the former life, then the message of the new
/// life, and no others.
#[test]
fn loom_native_both_ends_begin_a_life() {
    check(|first| {
        let (former, kernel) = half_read();
        let region = former.region.clone();
        let (sender, kernel) = both(first, move || region.sender(2), restarts(&kernel, false));
        let mut seen = Seen::default();
        let opening = [(); 3].map(|()| {
            kernel.run(&mut seen);
            sender.open()
        });
        assert_eq!(opening, [Opening::HelloSent, Opening::Open, Opening::Open]);
        assert!(send(&sender, 9, SHORT).unwrap());
        kernel.run(&mut seen);
        let [one, two] = [1, 2].map(|n| Step::Event(Began(life(n))));
        assert_eq!(seen.steps, [one, Step::Message(3), two, Step::Message(9)]);
    });
}

/// receiver-life: a sender that finds that its receiver's life is over also sees which messages the receiver has handled.
#[test]
fn loom_native_a_goodbye_tells_what_was_received() {
    goodbye();
}
fn goodbye() {
    check(|first| {
        let (sender, kernel) = half_read();
        let watch = Arc::new(Watch::new(&sender));
        looks(&watch, &sender)();
        let leaves = move || {
            kernel.drain(&mut Seen::default());
            kernel.own.say_goodbye(life(1));
        };
        let look = looks(&watch, &sender);
        let tells = move || {
            if look() == [Dead(life(1))] {
                assert_eq!((sender.stats().received, sender.handled()), (3, Some(6)));
            }
        };
        both(first, leaves, tells);
    });
}

/// watch: if two CPUs of the sender check the receiver at the same time, only one of them reports a change.
#[test]
fn loom_native_two_cpus_tell_once() {
    watched();
}
fn watched() {
    check(|first| {
        let (sender, _kernel) = half_read();
        let watch = Arc::new(Watch::new(&sender));
        let (mut events, others) = both(first, looks(&watch, &sender), looks(&watch, &sender));
        events.extend(others);
        assert_eq!(events, [Up(life(1))]);
    });
}

twins! {
    loom_native_broken_doubt: doubt without "lane-doubt (release)", 0;
    loom_native_broken_doubt_look: doubt without "lane-doubt (acquire)", 0;
    loom_native_broken_discard: discarded without "lane-discarded (release)", 0;
    loom_native_broken_discard_look: discarded without "lane-discarded (acquire)", 0;
    loom_native_broken_skip: sent_to_restart without "message-published (acquire)", 2;
    loom_native_broken_birth: doubt without "receiver-life (release)", 0;
    loom_native_broken_pulse: doubt without "receiver-life (acquire)", 0;
    loom_native_broken_goodbye: goodbye without "receiver-life (release)", 1;
    loom_native_broken_watched: watched without "watch (release)", 0;
}
