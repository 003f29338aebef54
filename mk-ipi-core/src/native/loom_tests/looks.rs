// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several CPUs of the receiver: deferred work, drains and pollers run at the same time (SPEC N-10, N-13).

use super::*;

/// A sender and a receiver. Several threads can store `ARMED`.
fn shared() -> (Tx, Rx) {
    let region = Region::new(&[tag(0), tag(1), tag(2)]);
    region.with([receiver::ARMED], || Shared::Raced(AtomicU64::new(0))).linked()
}

/// receiver-held, receiver-again: a CPU tries to drain while another CPU holds the receiver. That other CPU drains once more.
#[test]
fn loom_native_a_refused_drain_is_made_up_for() {
    refused();
}
fn refused() {
    check(|first| {
        let (sender, kernel) = shared();
        assert!(send(&sender, 1, SHORT).unwrap());
        kernel.own.disarm();
        // No doorbell is rung for message 2: this CPU drains itself after it has posted.
        let posts = sees(&kernel, move |kernel, seen| {
            post(&sender, 2, SHORT).unwrap();
            kernel.drain(seen);
        });
        let (mut seen, others) = both(first, drains(&kernel, 1), posts);
        seen.steps.extend(others.steps);
        let mut messages = seen.messages();
        messages.sort_unstable();
        assert_eq!(messages, [1, 2]);
    });
}

/// armed, receiver-again: one CPU gets a doorbell interrupt while another one drains or polls. After both, and after their
/// deferred work, all messages were received, and the receiver is armed.
#[test]
fn loom_native_nobody_is_left_disarmed() {
    let others: [fn(&Kernel, &mut Seen); 4] = [
        Kernel::run,
        Kernel::drain,
        |kernel, seen| kernel.poll(seen, 1),
        |kernel, seen| kernel.poll(seen, 2),
    ];
    others.into_iter().for_each(interrupted);
}
fn interrupted(other: fn(&Kernel, &mut Seen)) {
    check(move |first| {
        let (sender, kernel) = shared();
        assert!(send(&sender, 1, SHORT).unwrap());
        let interrupt = {
            let sender = sender.clone();
            sees(&kernel, move |kernel, seen| {
                kernel.interrupt(seen);
                if send(&sender, 2, SHORT).unwrap() {
                    kernel.interrupt(seen);
                }
            })
        };
        let (mut seen, others) = both(first, interrupt, sees(&kernel, other));
        seen.steps.extend(others.steps);
        let mut messages = seen.messages();
        messages.sort_unstable();
        assert_eq!(messages, [1, 2]);
        assert!(send(&sender, 3, SHORT).unwrap());
    });
}

twins! {
    loom_native_broken_hold: refused without "receiver-held (acquire)", 0;
    loom_native_broken_release: refused without "receiver-held (release)", 0;
    loom_native_broken_refusal: refused without "receiver-again (release)", 0;
}
