// SPDX-License-Identifier: MIT OR Apache-2.0
//! Litmus tests of five patterns. All ordering here is based on these patterns and on the doorbell
//! (docs/book/src/memory-ordering.md). The tests run the real code on real threads.
//!
//! On the CPUs of the build machine each test runs many rounds. Under Miri a load can return an old value that the memory model of the
//! language allows. There a test runs one round, whose schedule is chosen by a seed; `cargo xtask litmus` runs it with many seeds. Miri
//! does not delay a load past a later store, so the credit test cannot fail under Miri. The loom models find that mistake in another way:
//! loom reports a payload that is read and written at the same time.
#![expect(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "the tests index only their own memory, and their numbers are small"
)]

use crate::directory::{Directory, DirectoryWriter, InstanceRecord};
use crate::message::Message;
use crate::native::{create, Events, Opening, OwnRegion, PeerRegion, Receiver, Sender, Unsent};
use crate::platform::{Access, MapError, Mapping, Peer, PeerEvent, PhysMemory};
use crate::sync::{AtomicU64, Ordering};
use core::ptr::NonNull;
use mk_ipi_abi::directory::{EntryError, EntryFlags, Layout, State};
use mk_ipi_abi::native::Geometry;
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange, Vector};
use std::thread;
use std::vec::Vec;

/// How often a test runs its two threads. The credit test runs a tenth of it, because it sends more messages.
const ROUNDS: usize = if cfg!(miri) { 1 } else { 2000 };
/// A wait for the other thread fails after this many iterations.
const PATIENCE: usize = if cfg!(miri) { 200 } else { 100_000_000 };

/// One lane with the fewest possible lines.
const GEOMETRY: Geometry = Geometry::new(1, 8, 256).unwrap();
const SENDER: InstanceId = InstanceId::new(0);
const START: PhysAddr = PhysAddr(4096);
/// Length in bytes of a message that needs one line.
const SHORT: usize = 8;
/// The same for two lines.
const TWO_LINES: usize = 56;
/// The same for three lines.
const THREE_LINES: usize = 112;

/// The memory of a region.
struct Memory(Vec<AtomicU64>);

// SAFETY: a mapping points into the buffer of the vector. The vector never grows, so the buffer does not move. It is freed with the
// `Memory`, which each test drops after all of its mappings.
unsafe impl PhysMemory for Memory {
    type Word = AtomicU64;
    fn map(&self, range: PhysRange, _: Access) -> Result<Mapping<AtomicU64>, MapError> {
        let first = (range.start().0 - START.0) as usize / 8;
        let words = &self.0[first..][..range.len() as usize / 8];
        // SAFETY: as above.
        Ok(unsafe { Mapping::new(NonNull::from(words)) })
    }
    unsafe fn unmap(&self, _: Mapping<AtomicU64>) {}
    fn peer_may_share(&self, _: PhysRange) -> bool {
        false
    }
}

fn range() -> PhysRange {
    PhysRange::new(START, GEOMETRY.total_size()).unwrap()
}

impl Memory {
    fn new() -> Self {
        let memory = Self((0..GEOMETRY.total_size() / 8).map(|_| AtomicU64::new(0)).collect());
        create(&memory, range(), GEOMETRY).unwrap();
        memory
    }

    fn sender(&self, life: u32) -> Sender<AtomicU64> {
        Sender::begin(PeerRegion::map(self, range(), SENDER).unwrap(), Incarnation::new(life).unwrap())
    }

    /// A sender in its first life, and an armed receiver that has answered its hello.
    fn linked(&self) -> (Sender<AtomicU64>, Kernel) {
        let sender = self.sender(1);
        let kernel = Kernel { own: OwnRegion::map(self, range()).unwrap(), receiver: Receiver::new() };
        kernel.receiver.begin(&kernel.own, Incarnation::FIRST, false, 0);
        kernel.look(&mut Inbox::default(), true);
        (sender, kernel)
    }
}

struct Kernel {
    own: OwnRegion<AtomicU64>,
    receiver: Receiver<8>,
}

impl Kernel {
    /// Drains until nothing is left. If `arm` is true, it then sets ARMED, so that senders ring.
    fn look(&self, inbox: &mut Inbox, arm: bool) {
        while self.receiver.hold().unwrap().drain(&self.own, inbox, 16, arm) {}
    }

    /// Polls until at least this many messages have come. Checks that these are the messages 1 to `messages` in this order.
    fn hears(&self, messages: u8) {
        let mut inbox = Inbox::default();
        wait(|| {
            self.look(&mut inbox, false);
            inbox.0.len() >= messages.into()
        });
        assert_eq!(inbox.0, Vec::from_iter(1..=messages));
    }
}

/// The numbers of the messages that have come.
#[derive(Default)]
struct Inbox(Vec<u8>);

impl Events for Inbox {
    fn version(&self) -> u32 {
        1
    }
    fn knows(&self, id: InstanceId) -> bool {
        id == SENDER
    }
    fn deliver(&mut self, message: &Message<'_>) {
        // Each byte of a message is the number of the message. So a word that still has an old value is noticed.
        let n = message.payload()[0];
        assert_ne!(n, 0, "an old word");
        assert_eq!((message.msg_type(), message.sender_cpu()), (MessageType(n.into()), PhysCpuId(n.into())));
        assert!(message.payload().iter().all(|byte| *byte == n), "an old word: {message:?}");
        self.0.push(n);
    }
    fn ring(&self, _: InstanceId) {}
    fn event(&mut self, _: Peer, event: PeerEvent) {
        assert!(!matches!(event, PeerEvent::Quarantined(_)), "{event:?}");
    }
}

/// Sends message `n` with `len` bytes.
fn send(sender: &Sender<AtomicU64>, n: u8, len: usize) -> Result<u64, Unsent> {
    let swap =
        |word: &AtomicU64, current, new| word.compare_exchange(current, new, Ordering::Relaxed).is_ok();
    sender.send(MessageType(n.into()), n.into(), &[n; 256][..len], swap)
}

/// Waits until `is_so` returns true. Lets the other thread run before each check.
fn wait(mut is_so: impl FnMut() -> bool) {
    let came = (0..PATIENCE).any(|_| {
        thread::yield_now();
        is_so()
    });
    assert!(came, "the expected event did not come within {PATIENCE} checks");
}

/// Runs `a` and `b` on two threads.
fn both<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
    thread::scope(|scope| {
        let (a, b) = (scope.spawn(a), scope.spawn(b));
        (a.join().unwrap(), b.join().unwrap())
    })
}

/// Sends the messages 1, 2, ... of these lengths, each as soon as there is space.
fn sends(sender: &Sender<AtomicU64>, lens: impl IntoIterator<Item = usize>) {
    for (n, len) in (1..).zip(lens) {
        wait(|| match send(sender, n, len) {
            Ok(_) => true,
            Err(e) => {
                assert_eq!(e, Unsent::Full);
                false
            }
        });
    }
}

/// Publish and consume: a receiver that sees the tag of a message sees the message.
#[test]
fn what_is_published_is_seen_whole() {
    for _ in 0..ROUNDS {
        let memory = Memory::new();
        let (sender, kernel) = memory.linked();
        both(|| sends(&sender, [TWO_LINES, SHORT]), || kernel.hears(2));
    }
}

/// Credit: a line is used again only when its message was read.
#[test]
fn what_is_not_read_yet_is_not_overwritten() {
    const MESSAGES: u8 = if cfg!(miri) { 6 } else { 60 };
    for _ in 0..ROUNDS / 10 + 1 {
        let memory = Memory::new();
        let (sender, kernel) = memory.linked();
        let lens = [THREE_LINES; MESSAGES as usize];
        both(|| sends(&sender, lens), || kernel.hears(MESSAGES));
    }
}

/// Arm and look again: the receiver sets ARMED, and looks once more before it may sleep. Either this look finds the message, or the sender
/// finds ARMED set and rings.
#[test]
fn what_is_sent_is_seen_or_rung_for() {
    for _ in 0..ROUNDS {
        let memory = Memory::new();
        let (sender, kernel) = memory.linked();
        kernel.own.disarm();
        let sends = || {
            send(&sender, 1, SHORT).unwrap();
            sender.flush()
        };
        let looks = || {
            let mut inbox = Inbox::default();
            kernel.look(&mut inbox, true);
            inbox
        };
        let (rung, mut inbox) = both(sends, looks);
        if rung {
            kernel.look(&mut inbox, true);
        }
        assert_eq!(inbox.0, [1], "the receiver did not see the message, and the sender did not ring");
    }
}

/// Hello and answer: a new life of the sender sends nothing until the receiver has answered. Then it begins at the position that the
/// receiver stored in BASE before the answer.
#[test]
fn a_new_life_sends_where_it_was_answered() {
    for _ in 0..ROUNDS {
        let memory = Memory::new();
        let (former, kernel) = memory.linked();
        send(&former, 1, TWO_LINES).unwrap();
        let sends = || {
            let sender = memory.sender(2);
            wait(|| sender.open() == Opening::Open);
            send(&sender, 2, TWO_LINES).unwrap();
        };
        both(sends, || kernel.hears(2));
    }
}

const ME: InstanceId = InstanceId::new(0);

/// An entry whose incarnation, region and doorbell CPU are made from `n`. So the parts of two entries can be told apart.
fn record(n: u32) -> InstanceRecord {
    InstanceRecord {
        instance: ME,
        incarnation: Incarnation::new(n).unwrap(),
        state: State::Dead,
        layout: Layout::RfcV2,
        flags: EntryFlags::EXCLUSIVE,
        region: PhysRange::new(PhysAddr(u64::from(n) << 12), 272 * u64::from(n)),
        doorbell_cpu: PhysCpuId(n.into()),
        vector: Vector::RFC_V2,
        nr_cpus: 1,
    }
}

/// The directory's sequence: all parts of an entry that is read come from one write. After a reader has read generation *g*, it reads no
/// entry that is older than the write that made generation *g*.
#[test]
fn an_entry_is_read_whole() {
    for _ in 0..ROUNDS {
        // A header, and an entry with one CPU.
        let words: Vec<_> = (0..17).map(|_| AtomicU64::new(0)).collect();
        let mut writer = DirectoryWriter::create(&words, 1, 1).unwrap();
        let mut write = |n: u32| writer.write(&record(n), &[PhysCpuId(n.into())]).unwrap();
        write(1);
        let reads = || {
            let directory = Directory::open(&words).unwrap();
            let generation = directory.generation();
            let (mut cpus, mut read) = ([PhysCpuId(0)], Err(EntryError::Changing));
            wait(|| {
                read = directory.read(ME, &mut cpus);
                read != Err(EntryError::Changing)
            });
            let (found, n) = (read.unwrap(), read.unwrap().incarnation.get());
            assert_eq!(
                (found, cpus),
                (record(n), [found.doorbell_cpu]),
                "the entry mixes parts of two writes"
            );
            assert!(n >= generation, "generation {generation}: {found:?}");
        };
        both(|| [2, 3].map(&mut write), reads);
    }
}
