// SPDX-License-Identifier: MIT OR Apache-2.0
//! A region in the memory of a test, both ends of its lane, and a kernel that records what the receiver calls.
#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "own memory and small numbers"
)]

use super::*;
use crate::message::Message;
use crate::platform::{Access, MapError, Mapping, Peer, PeerEvent, PhysMemory};
use crate::sync::{AtomicU64, Ordering, Word};
use core::cell::Cell;
use core::ptr::NonNull;
use mk_ipi_abi::native::{lines_of, receiver, Breach, Geometry, MessageInfo, LINE_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange};
use std::vec::Vec;

std::thread_local! {
    /// Counts the stores to all words, from 1.
    static CLOCK: Cell<u64> = const { Cell::new(1) };
}

/// A word that counts its loads and prefetches, and records when it was last stored to.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) value: AtomicU64,
    pub(super) loads: AtomicU64,
    /// How often the word was prefetched for reading, and for writing.
    pub(super) prefetches: [AtomicU64; 2],
    /// The value of [`CLOCK`] at the last store. 0: never stored.
    stored: AtomicU64,
}

impl Watched {
    pub(super) fn new() -> Self {
        Self {
            value: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            prefetches: [AtomicU64::new(0), AtomicU64::new(0)],
            stored: AtomicU64::new(0),
        }
    }

    pub(super) fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }

    pub(super) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
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
    fn will_read(&self) {
        self.prefetches[0].fetch_add(1, Ordering::Relaxed);
    }
    fn will_write(&self) {
        self.prefetches[1].fetch_add(1, Ordering::Relaxed);
    }
}

/// The memory of one region.
pub(super) struct Arena {
    pub(super) words: Vec<Watched>,
    pub(super) geometry: Geometry,
    /// Number of mappings that were made and not undone.
    pub(super) mapped: Cell<usize>,
    /// How many mappings can still be made. The next one is refused with `MapError::NoMemory`.
    pub(super) maps_left: Cell<usize>,
}

pub(super) const START: PhysAddr = PhysAddr(4096);
/// The only instance. It sends to itself.
pub(super) const ME: InstanceId = InstanceId::new(0);
pub(super) const SMALL: Geometry = Geometry::new(1, 8, 256).unwrap();
pub(super) const LARGE: Geometry = Geometry::new(1, 128, 4096).unwrap();
/// The type of the messages.
pub(super) const TYPE: MessageType = MessageType(3);

// SAFETY: a mapping is a part of the vector. No test moves or drops the arena, or changes the length of the vector, while it uses
// a mapping.
unsafe impl PhysMemory for Arena {
    type Word = Watched;
    fn map(&self, range: PhysRange, _: Access) -> Result<Mapping<Watched>, MapError> {
        if !range.start().is_page_aligned() || range.len() % 8 != 0 {
            return Err(MapError::Misaligned);
        }
        let left = self.maps_left.get().checked_sub(1).ok_or(MapError::NoMemory)?;
        self.maps_left.set(left);
        self.mapped.set(self.mapped.get() + 1);
        let first = (range.start().0 - START.0) as usize / 8;
        let words = &self.words[first..][..range.len() as usize / 8];
        // SAFETY: the pointer is that of a slice of the vector, which stays valid as said at the `impl`.
        Ok(unsafe { Mapping::new(NonNull::from(words)) })
    }
    unsafe fn unmap(&self, _: Mapping<Watched>) {
        self.mapped.set(self.mapped.get() - 1);
    }
    fn peer_may_share(&self, _: PhysRange) -> bool {
        false
    }
}

impl Arena {
    pub(super) fn new(geometry: Geometry) -> Self {
        let words = (0..geometry.total_size() / 8).map(|_| Watched::new()).collect();
        let arena = Self { words, geometry, mapped: Cell::new(0), maps_left: Cell::new(usize::MAX) };
        create(&arena, arena.range(), geometry).unwrap();
        arena
    }

    pub(super) fn range(&self) -> PhysRange {
        PhysRange::new(START, self.geometry.total_size()).unwrap()
    }

    /// The words of the line at `position`.
    pub(super) fn line(&self, position: u64) -> &[Watched] {
        let lane = self.geometry.lane_at(0).unwrap() as usize / 8;
        &self.words[lane + self.geometry.line_at(position)..][..LINE_WORDS]
    }

    /// The value of a word of the control line of lane 0. Not counted as a load.
    pub(super) fn control(&self, word: usize) -> u64 {
        self.words[receiver::CONTROL + word].value.load(Ordering::Relaxed)
    }

    /// Stores to a word of the control line of lane 0, as a former life of the receiver could have done.
    pub(super) fn set_control(&self, word: usize, value: u64) {
        self.words[receiver::CONTROL + word].value.store(value, Ordering::Relaxed);
    }

    /// A word at the start of the receiver's pages. Its loads are not counted.
    pub(super) fn receiver(&self, word: usize) -> &AtomicU64 {
        &self.words[word].value
    }

    /// A word of the header of lane 0. Its loads are not counted.
    pub(super) fn header(&self, word: usize) -> &AtomicU64 {
        self.header_of(0, word)
    }

    /// A word of the header of this lane. Its loads are not counted.
    pub(super) fn header_of(&self, lane: u32, word: usize) -> &AtomicU64 {
        &self.words[self.geometry.lane_at(lane).unwrap() as usize / 8 + word].value
    }

    /// Publishes a message of `len` bytes at this position, without the sender. Of its further lines only the tags are stored.
    pub(super) fn plant(&self, position: u64, len: u32) {
        for further in (1..lines_of(len as usize)).map(|n| position + n) {
            self.line(further)[0].store(self.geometry.further_tag(further).to_word(0), Ordering::Relaxed);
        }
        let line = self.line(position);
        line[1].store(MessageInfo { len, cpu: 7 }.to_word(), Ordering::Relaxed);
        line[0].store(self.geometry.first_tag(position).to_word(TYPE.0), Ordering::Relaxed);
    }

    /// Stores the tag of a further line at this position, where a message must begin. This is a breach.
    pub(super) fn spoil(&self, position: u64) {
        self.line(position)[0].store(self.geometry.further_tag(position).to_word(0), Ordering::Relaxed);
    }

    /// Begins a life of the sender, with this incarnation.
    pub(super) fn life(&self, life: u32) -> Sender<Watched> {
        let region = PeerRegion::map(self, self.range(), ME).unwrap();
        Sender::begin(region, Incarnation::new(life).unwrap())
    }

    /// Begins the first life of the receiver, and then of the sender.
    pub(super) fn link(&self) -> Link {
        let own = OwnRegion::map(self, self.range()).unwrap();
        let receiver = Receiver::<8>::new();
        receiver.begin(&own, Incarnation::FIRST, false, 0);
        Link { sender: self.life(1), own, receiver }
    }

    /// How often each line was prefetched for reading, or with `write` for writing.
    pub(super) fn prefetches(&self, write: bool) -> Vec<u64> {
        let count = |at| self.line(at)[0].prefetches[usize::from(write)].swap(0, Ordering::Relaxed);
        (0..self.geometry.lines().into()).map(count).collect()
    }

    /// Sets the counts of loads to 0.
    pub(super) fn forget_loads(&self) {
        self.words.iter().for_each(|word| word.loads.store(0, Ordering::Relaxed));
    }
}

/// Both ends of the lane.
pub(super) struct Link {
    pub(super) sender: Sender<Watched>,
    pub(super) own: OwnRegion<Watched>,
    pub(super) receiver: Receiver<8>,
}

impl Link {
    pub(super) fn send(&self, payload: &[u8]) -> Result<u64, Unsent> {
        self.sender.send(TYPE, 7, payload, swap)
    }

    /// Drains until nothing is left. The receiver is armed after that.
    pub(super) fn run(&self, inbox: &mut Inbox) {
        while self.receiver.hold().unwrap().drain(&self.own, inbox, 16, true) {}
    }

    /// Begins another life of the receiver, with this incarnation.
    pub(super) fn restart(&mut self, life: u32, discard: bool) {
        self.receiver = Receiver::new();
        self.receiver.begin(&self.own, Incarnation::new(life).unwrap(), discard, 0);
    }

    /// Runs both ends until the sender can send.
    pub(super) fn connect(&self, inbox: &mut Inbox) {
        let opens = (0..5).any(|_| {
            self.run(inbox);
            self.sender.open() == Opening::Open
        });
        assert!(opens, "the sender waits for an answer that never comes");
        self.run(inbox);
    }

    /// Drains until nothing is left, and returns the payloads of the messages.
    pub(super) fn received(&self) -> Vec<Vec<u8>> {
        let mut inbox = Inbox::default();
        self.run(&mut inbox);
        inbox.messages.into_iter().map(|(_, payload)| payload).collect()
    }
}

pub(super) fn swap(word: &AtomicU64, current: u64, new: u64) -> bool {
    word.compare_exchange(current, new, Ordering::Relaxed).is_ok()
}

/// Records the messages and events of a receiver, and counts how often the receiver rings.
#[derive(Default)]
pub(super) struct Inbox {
    /// The incarnations of the sender and of the receiver of each message.
    pub(super) lives: Vec<(Option<Incarnation>, Option<Incarnation>)>,
    pub(super) messages: Vec<(MessageType, Vec<u8>)>,
    pub(super) numbers: Vec<u64>,
    pub(super) events: Vec<PeerEvent>,
    pub(super) rings: Cell<usize>,
}

impl Events for Inbox {
    fn version(&self) -> u32 {
        1
    }
    fn knows(&self, id: InstanceId) -> bool {
        id == ME
    }
    fn deliver(&mut self, message: &Message<'_>) {
        assert_eq!((message.sender(), message.sender_cpu()), (Some(ME), PhysCpuId(7)));
        self.messages.push((message.msg_type(), message.payload().to_vec()));
        self.numbers.push(message.number().unwrap());
        self.lives.push((message.sender_incarnation(), message.receiver_incarnation()));
    }
    fn ring(&self, _: InstanceId) {
        self.rings.set(self.rings.get() + 1);
    }
    fn event(&mut self, peer: Peer, event: PeerEvent) {
        assert_eq!(peer.id, ME);
        self.events.push(event);
    }
}

/// `len` bytes. Neighbouring bytes differ.
pub(super) fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// This incarnation.
pub(super) fn life(number: u32) -> Incarnation {
    Incarnation::new(number).unwrap()
}

/// The breaches that were reported.
pub(super) fn quarantines(inbox: &Inbox) -> Vec<Breach> {
    let breach = |event: &PeerEvent| match event {
        PeerEvent::Quarantined(breach) => Some(*breach),
        _ => None,
    };
    inbox.events.iter().filter_map(breach).collect()
}

/// A lane in which `count` messages were sent and delivered.
pub(super) fn used(arena: &Arena, count: u64) -> Link {
    let link = arena.link();
    link.run(&mut Inbox::default());
    for number in 1..=count {
        assert_eq!((link.send(&[]), link.received().len()), (Ok(number), 1));
    }
    link
}
