// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models of the memory ordering of a slot. Loom runs all interleavings (CONTRIBUTING.md says how to run them).
use super::*;
use crate::sync::AtomicU64;
use loom::sync::Arc;
use loom::thread;
use mk_ipi_abi::{Incarnation, InstanceId};

type Words = Arc<[AtomicU64; SLOT_WORDS]>;

fn words() -> Words {
    Arc::new(core::array::from_fn(|_| AtomicU64::new(0)))
}

fn claim(id: u8) -> Claim {
    Claim { instance: InstanceId::new(id), incarnation: Incarnation::FIRST }
}

/// Calls `how` with message `n`. Its sender, type, length and payload are made from `n`, so that a receiver detects a mixture of
/// two messages.
fn send<R>(n: u8, how: impl FnOnce(&Outgoing<'_>) -> R) -> R {
    how(&Outgoing::new(PhysCpuId(n.into()), MessageType(n.into()), &[n; 8][..n.into()]).unwrap())
}

fn assert_whole(m: &Stored) {
    let n = m.message().payload()[0];
    assert_eq!((m.sender_cpu, m.msg_type), (PhysCpuId(n.into()), MessageType(n.into())));
    assert_eq!(m.message().payload(), &[n; 8][..n.into()]);
}

/// slot-published, slot-emptied: two senders, one receiver. Each message is received once, and no message has parts of another.
#[test]
fn loom_exclusive_slot() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(2));
    model.check(|| {
        let words = words();
        let senders: [_; 2] = core::array::from_fn(|i| {
            let (words, n) = (words.clone(), i as u8 + 1);
            thread::spawn(move || match Slot(&words).claim(claim(n)) {
                Ok(claimed) => {
                    send(n, |m| claimed.publish(m)).unwrap();
                    1
                }
                Err(_) => 0,
            })
        });
        let mut copy = Stored::EMPTY;
        let mut taken = 0;
        let mut take = || {
            if Slot(&words).take(SlotPolicy::Exclusive, &mut copy).is_ok() {
                assert_whole(&copy);
                taken += 1;
            }
        };
        take();
        let sent: usize = senders.map(|s| s.join().unwrap()).iter().sum();
        take();
        assert_eq!(taken, sent);
    });
}

/// slot-published, slot-overwrite: a message is overwritten by one of another size. The receiver never takes parts of both. If
/// both had the same type, sender and size, the receiver could take parts of both without detecting it (SPEC H-1).
#[test]
fn loom_overwritten_slot() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(2));
    model.check(|| {
        let words = words();
        let sender = {
            let words = words.clone();
            thread::spawn(move || {
                for n in 1..=2 {
                    send(n, |m| Slot(&words).overwrite(m));
                }
            })
        };
        let mut copy = Stored::EMPTY;
        if Slot(&words).take(SlotPolicy::Overwrite, &mut copy).is_ok() {
            assert_whole(&copy);
        }
        sender.join().unwrap();
        Slot(&words).take(SlotPolicy::Overwrite, &mut copy).unwrap();
        assert_eq!(copy.message().payload(), [2, 2], "the last message stays in the slot");
    });
}

/// slot-emptied: the host clears a dead sender's claim while another sender wants the slot.
#[test]
fn loom_clear_claim() {
    loom::model(|| {
        let words = words();
        Slot(&words).claim(claim(1)).map(drop).unwrap();
        let host = {
            let words = words.clone();
            thread::spawn(move || assert!(Slot(&words).clear_claim(claim(1))))
        };
        let early = Slot(&words).claim(claim(2)).map(drop).is_ok();
        host.join().unwrap();
        assert!(
            early != Slot(&words).claim(claim(2)).map(drop).is_ok(),
            "the slot is claimed once, before or after it was cleared"
        );
    });
}

/// slot-published, slot-emptied: the host clears a claim whose owner still runs. Either the host clears the claim or the
/// owner publishes its message. A message that was published stays.
#[test]
fn loom_a_claim_is_cleared_or_published() {
    loom::model(|| {
        let words = words();
        let claimed = Slot(&words).claim(claim(1)).unwrap();
        let host = {
            let words = words.clone();
            thread::spawn(move || Slot(&words).clear_claim(claim(1)))
        };
        let published = send(1, |m| claimed.publish(m)).is_ok();
        assert!(published != host.join().unwrap());
        let mut copy = Stored::EMPTY;
        assert_eq!(Slot(&words).take(SlotPolicy::Exclusive, &mut copy).is_ok(), published);
    });
}
