// SPDX-License-Identifier: MIT OR Apache-2.0
//! One lane: messages are received complete and in order, lines are used again only after they were read, and several CPUs can
//! send at the same time (SPEC N-8).

use super::*;

/// A function for [`both`]: tries to send `messages`, each of which takes half of the lane. Returns those that were sent. The
/// others found the lane full.
fn sends(sender: &Tx, messages: impl IntoIterator<Item = u8> + 'static) -> impl FnOnce() -> Vec<u8> {
    let sender = sender.clone();
    move || {
        let is_sent = |n: &u8| match send(&sender, *n, HALF) {
            Ok(_) => true,
            Err(e) => {
                assert_eq!(e, Unsent::Full);
                false
            }
        };
        messages.into_iter().filter(is_sent).collect()
    }
}

/// A sender and a receiver for messages that take half of the lane each. The third message uses the lines of the first one again.
fn halves() -> (Tx, Rx) {
    Region::new(&[receiver::ARMED, control_word(control::CREDIT), tag(0), tag(4)]).linked()
}

/// message-published: a receiver that finds a message reads all of its words as they were sent.
#[test]
fn loom_native_a_message_is_seen_whole() {
    sent();
    polled();
    whole(|sender| _ = post(sender, 1, TWO_LINES).unwrap(), Kernel::drain);
}
fn sent() {
    whole(|sender| _ = send(sender, 1, TWO_LINES).unwrap(), Kernel::drain);
}
fn polled() {
    whole(|sender| _ = send(sender, 1, SHORT).unwrap(), |kernel, seen| kernel.poll(seen, 2));
}
fn whole(sends: fn(&Sender<Shared>), receives: fn(&Kernel, &mut Seen)) {
    check(move |first| {
        let (sender, kernel) = Region::new(&[receiver::ARMED, tag(0)]).linked();
        let ((), mut seen) = both(first, move || sends(&sender), sees(&kernel, receives));
        kernel.run(&mut seen);
        assert_eq!(seen.messages(), [1]);
    });
}

/// message-published, lane-credit: three messages are sent in a lane with space for two. Lines are used again after they were
/// read.
#[test]
fn loom_native_lines_are_used_again_when_they_were_read() {
    three_through_two();
}
fn three_through_two() {
    check(|first| {
        let (sender, kernel) = halves();
        let (sent, mut seen) = both(first, sends(&sender, 1..=3), drains(&kernel, 2));
        kernel.run(&mut seen);
        assert_eq!(seen.messages(), sent);
    });
}

/// credit-cached: a CPU of the sender uses the credit that another CPU has loaded.
#[test]
fn loom_native_two_cpus_share_the_credit() {
    two_cpus();
}
fn two_cpus() {
    check(|first| {
        let (sender, kernel) = halves();
        let mut sent = sends(&sender, 1..=2)();
        let cpus = [3, 4].map(|n| sends(&sender, [n]));
        let receives = drains(&kernel, 1);
        let (new, mut seen) = both(
            first,
            move || {
                let [one, other] = cpus;
                both(first, one, other)
            },
            receives,
        );
        kernel.run(&mut seen);
        sent.extend(new.0);
        sent.extend(new.1);
        let mut messages = seen.messages();
        assert!(messages.starts_with(&[1, 2]));
        messages.sort_unstable();
        assert_eq!(messages, sent);
    });
}

/// Two CPUs post two messages each, with one compare-and-swap per CPU. All messages are received, those of each CPU one after the
/// other.
#[test]
fn loom_native_two_cpus_post_many() {
    check(|first| {
        let (sender, kernel) = Region::new(&[receiver::ARMED, tag(0), tag(1), tag(2), tag(3)]).linked();
        let posts = |n: u8| {
            let sender = sender.clone();
            move || {
                let payload: &[u8] = &[n; SHORT];
                let posted = sender.post(MessageType(n.into()), n.into(), &[payload; 2], swap);
                assert!(posted == Ok((2, 2)) || posted == Ok((2, 4)), "{posted:?}");
            }
        };
        both(first, posts(1), posts(2));
        let mut seen = Seen::default();
        kernel.run(&mut seen);
        assert!([[1, 1, 2, 2], [2, 2, 1, 1]].contains(&seen.messages()[..].try_into().unwrap()));
    });
}

/// An interrupt or an NMI comes in the middle of a send, and its handler sends too. Tried at each point of the outer send. The
/// receiver gets both messages: it sees them, or is rung.
#[test]
fn loom_native_a_send_interrupts_a_send() {
    for at in 0..8 {
        check(move |first| {
            let (sender, kernel) = Region::new(&[receiver::ARMED, tag(0), tag(1), tag(2)]).linked();
            let sends = move || {
                let nested = Arc::new(RefCell::new(None));
                interrupt_at(at, {
                    let (sender, nested) = (sender.clone(), nested.clone());
                    move || *nested.borrow_mut() = Some(send(&sender, 2, SHORT).unwrap())
                });
                let outer = send(&sender, 1, SHORT).unwrap();
                TRAP.set(None);
                (outer, nested.take())
            };
            let ((outer, inner), mut seen) = both(first, sends, runs(&kernel));
            if outer || inner == Some(true) {
                kernel.interrupt(&mut seen);
            }
            // If the interrupt comes before the outer send has taken its lines, the outer try to take lines fails, and the inner
            // message is the first in the lane.
            let all: &[u8] = match (at, inner) {
                (0 | 1, Some(_)) => &[2, 1],
                (_, Some(_)) => &[1, 2],
                (_, None) => &[1],
            };
            assert_eq!(seen.messages(), all);
            assert!(inner.is_some() || at >= 6, "a send has at least six points where an interrupt can come");
        });
    }
}

twins! {
    loom_native_broken_publish: sent without "message-published (release)", 0;
    loom_native_broken_look: sent without "message-published (acquire)", 0;
    loom_native_broken_poll: polled without "message-published (acquire)", 1;
    loom_native_broken_credit: three_through_two without "lane-credit (release)", 0;
    loom_native_broken_refresh: three_through_two without "lane-credit (acquire)", 0;
    loom_native_broken_share: two_cpus without "credit-cached (release)", 0;
    loom_native_broken_shared: two_cpus without "credit-cached (acquire)", 0;
}
