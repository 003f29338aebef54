// SPDX-License-Identifier: MIT OR Apache-2.0
#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "own memory and small numbers"
)]

use super::*;
use crate::message::Message;
use crate::platform::{Access, MapError, Mapping, PeerEvent, PhysMemory};
use crate::sync::{AtomicU64, Ordering, Word};
use core::cell::Cell;
use core::ptr::NonNull;
use mk_ipi_abi::native::{cell, header, Geometry};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange};
use std::vec::Vec;

std::thread_local! {
    static CLOCK: Cell<u64> = const { Cell::new(1) };
}

/// A word that counts its loads, and knows when it was last stored to.
#[derive(Debug)]
struct Watched {
    value: AtomicU64,
    loads: AtomicU64,
    stored: AtomicU64,
}

impl Watched {
    fn new() -> Self {
        let [value, loads, stored] = [0; 3].map(AtomicU64::new);
        Self { value, loads, stored }
    }

    fn note_store(&self) {
        self.stored.store(CLOCK.replace(CLOCK.get() + 1), Ordering::Relaxed);
    }
}

impl Word for Watched {
    fn load(&self, order: Ordering) -> u64 {
        self.loads.fetch_add(1, Ordering::Relaxed);
        self.value.load(order)
    }
    fn store(&self, value: u64, order: Ordering) {
        self.note_store();
        self.value.store(value, order);
    }
    fn compare_exchange(&self, current: u64, new: u64, order: Ordering) -> Result<u64, u64> {
        self.note_store();
        self.value.compare_exchange(current, new, order)
    }
    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.note_store();
        self.value.swap(value, order)
    }
    fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        self.note_store();
        self.value.fetch_or(bits, order)
    }
}

/// A region of one lane, in memory of its own.
struct Arena(Vec<Watched>);

const GEOMETRY: Geometry = Geometry::new(1, 4).unwrap();
const RANGE: PhysRange = PhysRange::new(PhysAddr(4096), GEOMETRY.total_size()).unwrap();
/// The one instance, which sends to itself.
const ME: InstanceId = InstanceId::new(0);

// SAFETY: a mapping is a part of the vector, which neither moves nor ends while an `Arena` is borrowed.
unsafe impl PhysMemory for Arena {
    type Word = Watched;
    fn map(&self, range: PhysRange, _: Access) -> Result<Mapping<Watched>, MapError> {
        let first = (range.start().0 - RANGE.start().0) as usize / 8;
        let words = &self.0[first..][..range.len() as usize / 8];
        // SAFETY: as above.
        Ok(unsafe { Mapping::new(NonNull::from(words)) })
    }
    unsafe fn unmap(&self, _: Mapping<Watched>) {}
    fn peer_may_share(&self, _: PhysRange) -> bool {
        false
    }
}

impl Arena {
    fn new() -> Self {
        let arena = Self((0..RANGE.len() / 8).map(|_| Watched::new()).collect());
        create(&arena, RANGE, GEOMETRY).unwrap();
        arena
    }

    /// The words of the lane's cell at `position`.
    fn cell(&self, position: u64) -> &[Watched] {
        let lane = GEOMETRY.lane_at(0).unwrap() as usize / 8;
        &self.0[lane + header::WORDS + GEOMETRY.index(position) * cell::WORDS..][..cell::WORDS]
    }

    fn link(&self) -> (Sender<Watched>, OwnRegion<Watched>, Receiver) {
        let (own, receiver) = (OwnRegion::map(self, RANGE).unwrap(), Receiver::new());
        receiver.begin(&own, Incarnation::FIRST);
        (Sender::begin(PeerRegion::map(self, RANGE, ME).unwrap(), Incarnation::FIRST), own, receiver)
    }
}

/// Keeps what is delivered.
#[derive(Default)]
struct Inbox(Vec<(MessageType, Vec<u8>)>);

impl Events for Inbox {
    type Peer = ();
    fn peer(&self, _: InstanceId) -> Option<()> {
        Some(())
    }
    fn version(&self) -> u32 {
        1
    }
    fn cpu((): &(), index: u16) -> Option<PhysCpuId> {
        (index == 0).then_some(PhysCpuId(9))
    }
    fn deliver(&mut self, message: &Message) {
        self.0.push((message.msg_type(), message.payload().to_vec()));
    }
    fn ring(&self, _: InstanceId) {}
    fn event(&mut self, _: InstanceId, _: PeerEvent) {}
}

#[test]
fn every_word_of_a_message_is_read_once() {
    for len in [0, 1, 8, 48, 49, 56, 255, 256] {
        let arena = Arena::new();
        let (sender, own, receiver) = arena.link();
        sender.send(MessageType(3), 0, &[5; 256][..len]).unwrap();
        let mut inbox = Inbox::default();
        let mut hold = receiver.hold().unwrap();
        arena.0.iter().for_each(|word| word.loads.store(0, Ordering::Relaxed));
        assert!(!hold.drain(&own, &mut inbox, 8, true));
        assert_eq!(inbox.0, [(MessageType(3), std::vec![5; len])]);
        let loads: Vec<_> = arena.cell(0).iter().map(|word| word.loads.load(Ordering::Relaxed)).collect();
        let read = 2 + len.div_ceil(8);
        assert!(loads[..read].iter().all(|&n| n == 1), "{len}: {loads:?}");
        assert!(loads[read..].iter().all(|&n| n == 0), "what is behind the payload is not read: {loads:?}");
    }
}

#[test]
fn the_lap_is_stored_last_and_far_lines_first() {
    let arena = Arena::new();
    let (sender, ..) = arena.link();
    sender.send(MessageType(3), 0, &[5; 256]).unwrap();
    let stored: Vec<_> = arena.cell(0).iter().map(|word| word.stored.load(Ordering::Relaxed)).collect();
    let (near, far) = stored[2..34].split_at(cell::NEAR_WORDS);
    assert!(far.iter().max() < near.iter().min(), "the line that is polled comes last: {stored:?}");
    assert!(stored[1..34].iter().all(|&at| at < stored[0]), "and its lap behind all: {stored:?}");
    assert!(
        stored[34..].iter().all(|&at| at == 0 || at < stored[1]),
        "no word behind the payload: {stored:?}"
    );
}

#[test]
fn after_each_drain_a_whole_lane_fits_again() {
    let arena = Arena::new();
    let (sender, own, receiver) = arena.link();
    let mut inbox = Inbox::default();
    for round in 0..3 {
        let sent = [1, 2, 3, 4, 5].map(|n| sender.send(MessageType(n), 0, &[round]).map(drop));
        assert_eq!(sent, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Unsent::Full)], "round {round}");
        while receiver.hold().unwrap().drain(&own, &mut inbox, 8, true) {}
        assert_eq!(inbox.0.len(), 4 * (usize::from(round) + 1));
    }
}
