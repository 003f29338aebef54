// SPDX-License-Identifier: MIT OR Apache-2.0
//! One lane: messages whole and in order, cells used again only when read, several CPUs at once (SPEC N-8).

use super::*;

/// Sends `messages`; which of them were sent. The others found the lane full.
fn sends(sender: &Tx, messages: impl IntoIterator<Item = u8> + 'static) -> impl FnOnce() -> Vec<u8> {
    let sender = sender.clone();
    move || {
        let is_sent = |n: &u8| match send(&sender, *n) {
            Ok(_) => true,
            Err(e) => {
                assert_eq!(e, Unsent::Full);
                false
            }
        };
        messages.into_iter().filter(is_sent).collect()
    }
}

/// message-published, lane-credit: three messages through two cells.
#[test]
fn loom_native_cells_are_used_again_when_they_were_read() {
    three_through_two();
}
fn three_through_two() {
    check(|first| {
        let (sender, kernel) = linked(&[]);
        let (sent, mut seen) = both(first, sends(&sender, 1..=3), drains(&kernel, 2));
        kernel.run(&mut seen);
        assert_eq!(seen.messages(), sent);
    });
}

/// message-published: what was posted, too.
#[test]
fn loom_native_a_posted_message_is_whole() {
    posted();
}
fn posted() {
    check(|first| {
        let (sender, kernel) = linked(&[]);
        sender.flush();
        let (_, mut seen) = both(first, move || post(&sender, 1), drains(&kernel, 1));
        kernel.run(&mut seen);
        assert_eq!(seen.messages(), [1]);
    });
}

/// credit-cached: a CPU uses the credit that another one has seen.
#[test]
fn loom_native_two_cpus_share_the_credit() {
    two_cpus();
}
fn two_cpus() {
    check(|first| {
        let (sender, kernel) = linked(&[]);
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

/// A send that is interrupted by another, at any access: both arrive, and are seen or rung for.
#[test]
fn loom_native_a_send_interrupts_a_send() {
    for at in 0..7 {
        check(move |first| {
            let (sender, kernel) = linked(&[]);
            let sends = move || {
                let nested = Arc::new(RefCell::new(None));
                interrupt_at(at, {
                    let (sender, nested) = (sender.clone(), nested.clone());
                    move || *nested.borrow_mut() = Some(send(&sender, 2).unwrap())
                });
                let outer = send(&sender, 1).unwrap();
                TRAP.set(None);
                (outer, nested.take())
            };
            let ((outer, inner), mut seen) = both(first, sends, runs(&kernel));
            if outer || inner == Some(true) {
                kernel.interrupt(&mut seen);
            }
            assert_eq!(seen.messages(), [1, 2][..1 + usize::from(inner.is_some())]);
            assert!(inner.is_some() || at >= 5, "a send has five accesses or more");
        });
    }
}

twins! {
    loom_native_broken_publish: three_through_two without "message-published (release)", 0;
    loom_native_broken_post: posted without "message-published (release)", 1;
    loom_native_broken_look: three_through_two without "message-published (acquire)", 0;
    loom_native_broken_credit: three_through_two without "lane-credit (release)", 0;
    loom_native_broken_refresh: three_through_two without "lane-credit (acquire)", 0;
    loom_native_broken_share: two_cpus without "credit-cached (release)", 0;
    loom_native_broken_shared: two_cpus without "credit-cached (acquire)", 0;
}
