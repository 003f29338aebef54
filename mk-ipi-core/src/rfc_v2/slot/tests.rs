// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::sync::AtomicU64;
use mk_ipi_abi::rfc_v2::MkIpiData;
use mk_ipi_abi::{Incarnation, InstanceId};
use std::vec::Vec;
use zerocopy::IntoBytes;

const ME: Claim = Claim { instance: InstanceId::new(1), incarnation: Incarnation::FIRST };
const OTHER: Claim = Claim { instance: InstanceId::new(2), incarnation: Incarnation::FIRST };

fn region(slots: usize) -> Vec<AtomicU64> {
    (0..slots * SLOT_WORDS).map(|_| AtomicU64::new(0)).collect()
}

fn bytes(region: &[AtomicU64]) -> Vec<u8> {
    region.iter().flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes()).collect()
}

fn outgoing(payload: &[u8]) -> Outgoing<'_> {
    Outgoing::new(PhysCpuId(3), MessageType(0x8000_0001), payload).unwrap()
}

fn slot(region: &[AtomicU64]) -> Slot<'_, AtomicU64> {
    Slot::of_cpu(region, PhysCpuId(0)).unwrap()
}

#[test]
fn every_size_has_the_bytes_of_the_struct() {
    let payload: Vec<u8> = (1..=255).chain([7]).collect();
    for len in 1..=256 {
        let mut expected =
            MkIpiData { sender_cpu: 3, msg_type: 0x8000_0001, data_size: len as u64, ..MkIpiData::EMPTY };
        expected.buffer[..len].copy_from_slice(&payload[..len]);
        let message = outgoing(&payload[..len]);
        let (over, exclusive) = (region(1), region(1));
        over.iter().for_each(|w| w.store(u64::MAX, Ordering::Relaxed));
        slot(&over).overwrite(&message);
        slot(&exclusive).claim(ME).unwrap().publish(&message).unwrap();
        for r in [over, exclusive] {
            assert_eq!(bytes(&r), expected.as_bytes(), "{len} bytes, and zeros after them");
            let mut copy = Stored::EMPTY;
            slot(&r).take(SlotPolicy::Overwrite, &mut copy).unwrap();
            assert_eq!(copy.message().payload(), &payload[..len]);
            assert_eq!((copy.sender_cpu, copy.msg_type), (PhysCpuId(3), MessageType(0x8000_0001)));
        }
    }
}

#[test]
fn what_a_slot_cannot_carry_is_refused() {
    let new = |cpu, payload| Outgoing::new(PhysCpuId(cpu), MessageType(0), payload).map(|_| ());
    assert_eq!(new(0, &[]), Err(Unsendable::Empty));
    assert_eq!(new(0, &[0; 257]), Err(Unsendable::TooLong));
    assert_eq!(new(1 << 31, &[0]), Err(Unsendable::SenderBeyondField));
    assert_eq!(new(u64::MAX, &[0]), Err(Unsendable::SenderBeyondField));
    assert_eq!(new(i32::MAX as u64, &[0; 256]), Ok(()));
}

#[test]
fn no_slot_beyond_the_region() {
    let r = region(2);
    assert!(Slot::of_cpu(&r, PhysCpuId(1)).is_some());
    for cpu in [2, 256, 300, 1 << 32, u64::from(u32::MAX), u64::MAX / 34, u64::MAX] {
        assert!(Slot::of_cpu(&r, PhysCpuId(cpu)).is_none(), "{cpu}");
    }
    assert!(Slot::of_cpu(&r[..67], PhysCpuId(1)).is_none(), "an incomplete slot at the end is not used");
    assert_eq!(Slot::all(&r).count(), 2);
}

#[test]
fn overwrite_leaves_the_slot_to_its_senders() {
    let r = region(1);
    slot(&r).overwrite(&outgoing(&[1]));
    let before = bytes(&r);
    let mut copy = Stored::EMPTY;
    for _ in 0..2 {
        slot(&r).take(SlotPolicy::Overwrite, &mut copy).unwrap();
        assert_eq!(
            copy.message().payload(),
            [1],
            "the slot is not emptied, so a spurious interrupt finds the message again (SPEC H-16)"
        );
    }
    assert_eq!(bytes(&r), before);
    slot(&r).overwrite(&outgoing(&[2, 2]));
    slot(&r).take(SlotPolicy::Overwrite, &mut copy).unwrap();
    assert_eq!(copy.message().payload(), [2, 2]);
}

#[test]
fn an_exclusive_slot_has_one_owner_at_a_time() {
    let r = region(1);
    let s = slot(&r);
    let claimed = s.claim(ME).unwrap();
    assert_eq!(s.claim(OTHER).unwrap_err(), ME.to_data_size());
    let mut copy = Stored::EMPTY;
    let busy = s.take(SlotPolicy::Exclusive, &mut copy);
    assert_eq!(busy, Err(NotTaken::Nothing(NoMessage::Claimed(ME))), "a claim is not a message");
    claimed.publish(&outgoing(&[9; 256])).unwrap();
    assert_eq!(s.claim(OTHER).unwrap_err(), 256, "a slot with an unread message cannot be claimed");
    s.take(SlotPolicy::Exclusive, &mut copy).unwrap();
    assert_eq!(copy.message().payload(), [9; 256]);
    assert_eq!(s.take(SlotPolicy::Exclusive, &mut copy), Err(NotTaken::Nothing(NoMessage::Empty)));
    assert!(s.claim(OTHER).is_ok());
}

#[test]
fn the_host_clears_the_claim_of_a_dead_sender_only() {
    let r = region(1);
    let s = slot(&r);
    let claimed = s.claim(ME).unwrap();
    let next_life = Claim { incarnation: ME.incarnation.next(), ..ME };
    assert!(!s.clear_claim(OTHER) && !s.clear_claim(next_life));
    assert!(s.clear_claim(ME) && !s.clear_claim(ME));
    let theirs = s.claim(OTHER).unwrap();
    assert_eq!(
        claimed.publish(&outgoing(&[1])),
        Err(OTHER.to_data_size()),
        "a cleared claim publishes nothing"
    );
    theirs.publish(&outgoing(&[2])).unwrap();
    let mut copy = Stored::EMPTY;
    s.take(SlotPolicy::Exclusive, &mut copy).unwrap();
    assert_eq!(copy.message().payload(), [2]);
}

#[test]
fn a_scribbled_size_is_no_message_and_does_not_stay() {
    for size in [257, 1 << 63, u64::MAX] {
        let r = region(1);
        r[1].store(size, Ordering::Relaxed);
        let mut copy = Stored::EMPTY;
        let bad = Err(NotTaken::Nothing(NoMessage::BadSize(size)));
        assert_eq!(slot(&r).take(SlotPolicy::Overwrite, &mut copy), bad);
        assert_eq!(r[1].load(Ordering::Relaxed), size, "a slot that C senders use is never written");
        assert_eq!(slot(&r).take(SlotPolicy::Exclusive, &mut copy), bad);
        assert!(slot(&r).claim(ME).is_ok(), "an exclusive slot is usable again");
    }
}

/// A word that counts its loads.
struct Counted(AtomicU64, AtomicU64);

impl Word for Counted {
    fn load(&self, order: Ordering) -> u64 {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.load(order)
    }
    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }
    fn compare_exchange(&self, current: u64, new: u64, order: Ordering) -> Result<u64, u64> {
        self.0.compare_exchange(current, new, order)
    }
}

#[test]
fn every_word_of_a_message_is_read_once() {
    for (policy, again) in [(SlotPolicy::Exclusive, 1), (SlotPolicy::Overwrite, 2)] {
        for len in [1, 8, 9, 256] {
            let words: [_; SLOT_WORDS] =
                core::array::from_fn(|_| Counted(AtomicU64::new(0), AtomicU64::new(0)));
            let slot = Slot(&words);
            slot.overwrite(&outgoing(&[5; 256][..len]));
            let mut copy = Stored::EMPTY;
            slot.take(policy, &mut copy).unwrap();
            assert_eq!(copy.message().payload(), &[5; 256][..len]);
            let loads: Vec<_> = words.iter().map(|w| w.1.load(Ordering::Relaxed)).collect();
            assert_eq!(
                loads[..2],
                [again; 2],
                "header and size are read once, and in an overwrite slot once more, to detect a change"
            );
            let payload = len.div_ceil(8);
            assert!(
                loads[2..2 + payload].iter().all(|&n| n == 1) && loads[2 + payload..].iter().all(|&n| n == 0)
            );
        }
    }
}
