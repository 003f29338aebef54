// SPDX-License-Identifier: MIT OR Apache-2.0
//! The orderings of the native link, every interleaving that loom finds (CONTRIBUTING.md says how to run them).
//!
//! The real ends run on loom's words. Each model has its twins: the same model without one SYNC POINT, which must fail.

use super::*;
use crate::message::Message;
use crate::platform::{Access, MapError, Mapping, PeerEvent, PhysMemory};
use crate::sync::weak::{points, without};
use crate::sync::{AtomicU64, Ordering, UnsafeCell, Word};
use core::cell::RefCell;
use core::ops::Deref;
use core::ptr::NonNull;
use loom::thread::{self, ThreadId};
use mk_ipi_abi::native::{cell, control, header, receiver, Features, Geometry, Stamp, STAMP_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange};
use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;
use zerocopy::transmute;

mod doorbell;
mod lanes;
mod lives;

const SOURCES: [(&str, &str); 6] = [
    ("native/send.rs", include_str!("../send.rs")),
    ("native/receive.rs", include_str!("../receive.rs")),
    ("native/life.rs", include_str!("../life.rs")),
    ("native/lane.rs", include_str!("../lane.rs")),
    ("native/region.rs", include_str!("../region.rs")),
    ("src/peers.rs", include_str!("../../peers.rs")),
];

/// Declares the twins of models: name, model, and the point without which it fails, by its comment and, as there are several
/// of that name in `SOURCES`, which.
macro_rules! twins {
    ($($name:ident: $model:ident without $point:literal, $nth:literal;)*) => {
        pub(super) const TWINS: &[(&str, usize)] = &[$(($point, $nth)),*];
        $(
            #[test]
            #[should_panic]
            fn $name() {
                without(&SOURCES, $point, $nth, $model);
            }
        )*
    };
}
use twins;

/// A point that a comment names has a model that fails without it.
#[test]
fn loom_native_every_sync_point_has_a_twin() {
    let twins = [lanes::TWINS, doorbell::TWINS, lives::TWINS].concat();
    let all: Vec<_> = SOURCES.iter().flat_map(|(_, text)| points(text)).map(|(_, name)| name).collect();
    for (i, name) in all.iter().enumerate() {
        let nth = all.iter().take(i).filter(|before| *before == name).count();
        assert!(twins.contains(&(name, nth)), "{name}, {nth}");
    }
}

/// One lane of two cells. Seven more that nobody uses, so that the receiver's sweep is elsewhere for a while.
const LANES: u32 = 8;
const LANE: u32 = 7;
const CELLS: u64 = 2;
const SENDER: InstanceId = InstanceId::new(7);
const PAGES_AT: u64 = 1 << 20;

fn geometry() -> Geometry {
    Geometry::new(LANES, CELLS as u32).unwrap()
}

/// A word of a region.
#[derive(Debug)]
enum Shared {
    /// Nobody stores it, or stores anything but what stands there already.
    Fixed(u64),
    /// Of no interest to the model: it stays 0.
    Ignored,
    /// For all to load and store.
    Live(AtomicU64),
    /// As that, and several threads store it. Each store is a swap: of plain ones loom forgets the order, and a load may go back
    /// to what its own thread has overwritten (tokio-rs/loom issues 282 and 389), which no memory does.
    Raced(AtomicU64),
    /// Never loaded and stored at the same time: loom finds whoever does that.
    Owned(UnsafeCell<u64>),
}

// SAFETY: loom checks every access to the cell.
unsafe impl Sync for Shared {}

impl Word for Shared {
    fn load(&self, order: Ordering) -> u64 {
        trap();
        match self {
            Self::Fixed(value) => *value,
            Self::Ignored => 0,
            Self::Live(word) | Self::Raced(word) => word.load(order),
            // SAFETY: loom checks that nobody stores meanwhile.
            Self::Owned(word) => word.with(|word| unsafe { *word }),
        }
    }
    fn store(&self, value: u64, order: Ordering) {
        trap();
        match self {
            Self::Fixed(fixed) => assert_eq!(*fixed, value),
            Self::Ignored => {}
            Self::Live(word) => word.store(value, order),
            Self::Raced(word) => _ = word.swap(value, order),
            // SAFETY: loom checks that nobody else has it.
            Self::Owned(word) => word.with_mut(|word| unsafe { *word = value }),
        }
    }
    fn compare_exchange(&self, current: u64, new: u64, order: Ordering) -> Result<u64, u64> {
        match self {
            Self::Live(word) => word.compare_exchange(current, new, order),
            other => panic!("{other:?}"),
        }
    }
    fn swap(&self, value: u64, order: Ordering) -> u64 {
        match self {
            Self::Live(word) => word.swap(value, order),
            other => panic!("{other:?}"),
        }
    }
    fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        trap();
        match self {
            Self::Live(word) => word.fetch_or(bits, order),
            other => panic!("{other:?}"),
        }
    }
}

/// Who is to be interrupted, after how many more accesses to the region, and by what.
type Interrupt = (ThreadId, usize, Box<dyn FnOnce()>);
std::thread_local! {
    static TRAP: RefCell<Option<Interrupt>> = const { RefCell::new(None) };
}

/// Interrupts this thread at its access number `at`, from 0, to the region.
fn interrupt_at(at: usize, handler: impl FnOnce() + 'static) {
    TRAP.set(Some((thread::current().id(), at, Box::new(handler))));
}

fn trap() {
    let due = TRAP.with_borrow_mut(|trap| {
        let (_, left, _) = trap.as_mut().filter(|(thread, ..)| *thread == thread::current().id())?;
        if *left == 0 {
            return trap.take();
        }
        *left -= 1;
        None
    });
    if let Some((_, _, handler)) = due {
        handler();
    }
}

/// The memory of a region.
#[derive(Clone)]
struct Region(Arc<[Shared]>);

fn range() -> PhysRange {
    PhysRange::new(PhysAddr(PAGES_AT), geometry().total_size()).unwrap()
}

fn control_word(word: usize) -> usize {
    receiver::CONTROL + LANE as usize * receiver::CONTROL_WORDS + word
}

fn lane_word(word: usize) -> usize {
    geometry().lane_at(LANE).unwrap() as usize / 8 + word
}

impl Region {
    /// Memory that is still to become a region. The model uses the stamp's first words.
    fn blank() -> Self {
        let mut words: Vec<_> =
            (0..=receiver::INCARNATION).map(|_| Shared::Live(AtomicU64::new(0))).collect();
        words.resize_with(geometry().total_size() as usize / 8, || Shared::Ignored);
        Self(words.into())
    }

    /// A new region, of which the model uses what every model does and `more`.
    fn new(more: &[usize]) -> Self {
        let stamp: [u64; STAMP_WORDS] = transmute!(Stamp::new(geometry(), Features::SPACE));
        let mut words: Vec<_> = stamp.into_iter().map(Shared::Fixed).collect();
        words.resize_with(geometry().total_size() as usize / 8, || Shared::Ignored);
        let hint = geometry().hint_at() as usize / 8;
        let live = [control::CREDIT, control::ANSWER, control::BASE, control::BREACH].map(control_word);
        let header = [header::HELLO, header::CLEAN].map(lane_word);
        let mut live: Vec<_> = [receiver::ARMED, hint].into_iter().chain(live).chain(header).collect();
        live.extend(more);
        for at in (0..CELLS as usize).map(|i| lane_word(header::WORDS + i * cell::WORDS)) {
            live.push(at + cell::HEAD);
            for word in [cell::ABOUT, cell::PAYLOAD] {
                words[at + word] = Shared::Owned(UnsafeCell::new(0));
            }
        }
        for at in live {
            let stands = if let Shared::Fixed(value) = &words[at] { *value } else { 0 };
            words[at] = Shared::Live(AtomicU64::new(stands));
        }
        // The swap takes nothing from the model: a full fence follows each of these stores.
        words[lane_word(header::WANT)] = Shared::Raced(AtomicU64::new(0));
        Self(words.into())
    }

    /// Its sender, at the start of that life.
    fn sender(&self, incarnation: u32) -> Tx {
        let region = PeerRegion::map(self, range(), SENDER).unwrap();
        let end = Sender::begin(region, Incarnation::new(incarnation).unwrap());
        Arc::new(On { end, region: self.clone() })
    }

    /// Its receiver, whose own life has not begun.
    fn receiver(&self) -> Rx {
        let end = Kernel { own: OwnRegion::map(self, range()).unwrap(), receiver: Receiver::new() };
        Arc::new(On { end, region: self.clone() })
    }
}

// SAFETY: whoever maps the words keeps them (`On`).
unsafe impl PhysMemory for Region {
    type Word = Shared;
    fn map(&self, range: PhysRange, _: Access) -> Result<Mapping<Shared>, MapError> {
        let from = (range.start().0 - PAGES_AT) as usize / 8;
        let words = &self.0[from..from + range.len() as usize / 8];
        // SAFETY: as above.
        Ok(unsafe { Mapping::new(NonNull::from(words)) })
    }
    unsafe fn unmap(&self, _: Mapping<Shared>) {}
    fn peer_may_share(&self, _: PhysRange) -> bool {
        true
    }
}

/// What has mapped a region, which lives as long.
struct On<T> {
    end: T,
    region: Region,
}

impl<T> Deref for On<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.end
    }
}

type Tx = Arc<On<Sender<Shared>>>;
type Rx = Arc<On<Kernel>>;

/// A receiver with its own region.
struct Kernel {
    own: OwnRegion<Shared>,
    receiver: Receiver,
}

/// What a run of the receiver found.
#[derive(Default)]
struct Seen {
    steps: Vec<Step>,
    /// What happens when the sender is rung.
    on_ring: Option<Box<dyn Fn()>>,
    /// How often the sender was to be rung.
    rings: RefCell<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Message(u8),
    Event(PeerEvent),
}

impl Seen {
    fn messages(&self) -> Vec<u8> {
        let message = |step: &Step| if let Step::Message(n) = step { Some(*n) } else { None };
        self.steps.iter().filter_map(message).collect()
    }
}

impl Events for Seen {
    type Peer = ();
    fn peer(&self, id: InstanceId) -> Option<()> {
        (id == SENDER).then_some(())
    }
    fn version(&self) -> u32 {
        1
    }
    fn cpu((): &(), index: u16) -> Option<PhysCpuId> {
        Some(PhysCpuId(index.into()))
    }
    /// Its parts agree, or it is torn.
    fn deliver(&mut self, message: &Message) {
        let n = message.payload()[0];
        assert_eq!((message.sender_cpu, message.msg_type), (PhysCpuId(n.into()), MessageType(n.into())));
        assert_eq!(message.payload(), [n; 8]);
        self.steps.push(Step::Message(n));
    }
    fn ring(&self, _: InstanceId) {
        *self.rings.borrow_mut() += 1;
        if let Some(handler) = &self.on_ring {
            handler();
        }
    }
    fn event(&mut self, _: InstanceId, event: PeerEvent) {
        self.steps.push(Step::Event(event));
    }
}

impl Kernel {
    /// One drain; whether there is more, and if it has the drain of another to make up for.
    fn drain(&self, seen: &mut Seen, arm: bool) -> bool {
        let Some(mut hold) = self.receiver.hold() else { return false };
        let more = hold.drain(&self.own, seen, 16, arm);
        hold.release() || more
    }

    /// As the deferred work: drains until nothing is left, and is armed then.
    fn run(&self, seen: &mut Seen) {
        while self.drain(seen, true) {}
    }

    /// A doorbell rang.
    fn interrupt(&self, seen: &mut Seen) {
        self.own.disarm();
        self.receiver.wake();
        self.run(seen);
    }
}

/// Drains that often, without arming.
fn drains(kernel: &Rx, times: usize) -> impl FnOnce() -> Seen {
    let kernel = kernel.clone();
    move || {
        let mut seen = Seen::default();
        for _ in 0..times {
            let _ = kernel.drain(&mut seen, false);
        }
        seen
    }
}

/// The deferred work.
fn runs(kernel: &Rx) -> impl FnOnce() -> Seen {
    let kernel = kernel.clone();
    move || {
        let mut seen = Seen::default();
        kernel.run(&mut seen);
        seen
    }
}

/// A sender in its first life and the receiver that knows it and is armed.
fn linked(more: &[usize]) -> (Tx, Rx) {
    let region = Region::new(more);
    let (sender, kernel) = (region.sender(1), region.receiver());
    assert!(!sender.flush(), "nobody is armed");
    kernel.run(&mut Seen::default());
    (sender, kernel)
}

/// Message `n`, with `n` in all its parts.
fn send(sender: &Sender<Shared>, n: u8) -> Result<bool, Unsent> {
    sender.send(MessageType(n.into()), n.into(), &[n; 8])
}

fn post(sender: &Sender<Shared>, n: u8) {
    sender.post(MessageType(n.into()), n.into(), &[n; 8]).unwrap();
}

/// Who of [`both`] runs first.
#[derive(Clone, Copy)]
enum First {
    Left,
    Right,
}

/// Checks `model` with either side first: loom remembers only the last access to an atomic, and what a thread loaded itself
/// may hide from it that another one's earlier load races with its store.
fn check(model: impl Fn(First) + Copy + Sync + Send + 'static) {
    for first in [First::Left, First::Right] {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(2));
        builder.check(move || model(first));
    }
}

/// Runs both at once.
fn both<A: 'static, B: 'static>(
    first: First,
    left: impl FnOnce() -> A + 'static,
    right: impl FnOnce() -> B + 'static,
) -> (A, B) {
    match first {
        First::Left => {
            let right = thread::spawn(right);
            (left(), right.join().unwrap())
        }
        First::Right => {
            let left = thread::spawn(left);
            let right = right();
            (left.join().unwrap(), right)
        }
    }
}
