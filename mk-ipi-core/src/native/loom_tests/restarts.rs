// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lives of the receiver: what became of messages, and who is told (SPEC N-11).

use super::*;
use crate::platform::PeerEvent::{Began, Dead, Discarded, InDoubt, Up};

/// A receiver in its first life that has handled message 1 of two lines, and died while it handled message 2; message 3 is unread.
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

/// The next life of a receiver begins.
fn restarts(kernel: &Rx, discard: bool) -> impl FnOnce() -> Rx {
    let region = kernel.region.clone();
    move || region.receiver(2, discard)
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

/// What a sender that knows its receiver sees of a restart of it, then and behind it.
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

/// What was told in any order: a doubt first.
fn sorted(mut events: Vec<PeerEvent>) -> Vec<PeerEvent> {
    events.sort_by_key(|event| !matches!(event, InDoubt { .. }));
    events
}

/// lane-doubt: the sender is told, once, which message is in doubt, before it learns that the receiver is up again.
#[test]
fn loom_native_a_doubt_is_told_once() {
    doubt();
}
fn doubt() {
    let seen = seen_of_restart(false);
    check(move |first| assert_eq!(seen(first), [InDoubt { number: 4 }, Up(life(2))]));
}

/// lane-discarded: and which were discarded unread.
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

/// message-published, lane-discarded: what is sent to a receiver that restarts is received by its next life.
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

/// message-published, lane-discarded: or discarded, if that life wishes to begin with empty lanes, and that is told.
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

/// lane-hello, lane-answer: both ends begin a life at once. What is unread arrives, then the new life's message, and nothing
/// behind it.
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

/// receiver-life: who learns that its receiver is gone knows what it received.
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

/// watch: of two CPUs that look at a peer, one tells what is new.
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
