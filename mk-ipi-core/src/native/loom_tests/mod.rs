// SPDX-License-Identifier: MIT OR Apache-2.0
//! The orderings of the native link, every interleaving that loom finds (CONTRIBUTING.md says how to run them).
//!
//! The real ends run on loom's words. Each model has its twins: the same model without one SYNC POINT, which must fail.

use super::*;
use crate::message::Message;
use crate::platform::{Access, MapError, Mapping, Peer, PeerEvent, PhysMemory};
use crate::sync::weak::{points, without};
use crate::sync::{AtomicU64, Ordering, UnsafeCell, Word};
use core::cell::RefCell;
use core::ops::Deref;
use core::ptr::NonNull;
use loom::thread::{self, ThreadId};
use mk_ipi_abi::native::{
    control, header, receiver, Geometry, Stamp, FIRST_LINE_BYTES, FURTHER_LINE_BYTES, STAMP_WORDS,
};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange};
use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;
use zerocopy::transmute;

mod attached;
mod doorbell;
mod lanes;
mod lives;
mod looks;
mod restarts;

const SOURCES: [(&str, &str); 11] = [
    ("native/send.rs", include_str!("../send.rs")),
    ("native/begin.rs", include_str!("../begin.rs")),
    ("native/space.rs", include_str!("../space.rs")),
    ("native/lane.rs", include_str!("../lane.rs")),
    ("native/state.rs", include_str!("../state.rs")),
    ("native/take.rs", include_str!("../take.rs")),
    ("native/birth.rs", include_str!("../birth.rs")),
    ("native/receive.rs", include_str!("../receive.rs")),
    ("native/own.rs", include_str!("../own.rs")),
    ("native/region.rs", include_str!("../region.rs")),
    ("native/watch.rs", include_str!("../watch.rs")),
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
    let twins = [attached::TWINS, lanes::TWINS, doorbell::TWINS, looks::TWINS, lives::TWINS, restarts::TWINS]
        .concat();
    let all: Vec<_> = SOURCES.iter().flat_map(|(_, text)| points(text)).map(|(_, name)| name).collect();
    for (i, name) in all.iter().enumerate() {
        let nth = all.iter().take(i).filter(|before| *before == name).count();
        assert!(twins.contains(&(name, nth)), "{name}, {nth}");
    }
}

/// One lane of as few lines as there can be.
const LINES: u64 = 8;
const SENDER: InstanceId = InstanceId::new(0);
const PAGES_AT: u64 = 1 << 20;

fn geometry() -> Geometry {
    Geometry::new(1, LINES as u32, 256).unwrap()
}

const fn life(n: u32) -> Incarnation {
    match Incarnation::new(n) {
        Some(life) => life,
        None => panic!(),
    }
}

/// A word of a region.
#[derive(Debug)]
enum Shared {
    /// Nobody stores it, or stores anything but what stands there already.
    Fixed(u64),
    /// Of no interest to the model: it stays 0.
    Ignored,
    /// Of no interest to the model: it stays what it is.
    Said(u64),
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
            Self::Fixed(value) | Self::Said(value) => *value,
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
            Self::Ignored | Self::Said(_) => {}
            Self::Live(word) => word.store(value, order),
            Self::Raced(word) => _ = word.swap(value, order),
            // SAFETY: loom checks that nobody else has it.
            Self::Owned(word) => word.with_mut(|word| unsafe { *word = value }),
        }
    }
    fn compare_exchange(&self, current: u64, new: u64, order: Ordering) -> Result<u64, u64> {
        trap();
        match self {
            Self::Live(word) | Self::Raced(word) => word.compare_exchange(current, new, order),
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

const fn control_word(word: usize) -> usize {
    receiver::CONTROL + word
}

fn header_word(word: usize) -> usize {
    geometry().lane_at(0).unwrap() as usize / 8 + word
}

/// The tag of the line at `position`.
fn tag(position: u64) -> usize {
    header_word(geometry().line_at(position))
}

impl Region {
    /// Memory that is still to become a region. The model uses the stamp's first words.
    fn blank() -> Self {
        let mut words: Vec<_> = (0..4).map(|_| Shared::Live(AtomicU64::new(0))).collect();
        words.resize_with(geometry().total_size() as usize / 8, || Shared::Ignored);
        Self(words.into())
    }

    /// A new region. In the model `live` words change while they are looked at; of all others that it uses loom sees to it that
    /// they do not.
    fn new(live: &[usize]) -> Self {
        let stamp: [u64; STAMP_WORDS] = transmute!(Stamp::new(geometry()));
        let mut words: Vec<_> = stamp.into_iter().map(Shared::Fixed).collect();
        words.resize_with(geometry().total_size() as usize / 8, || Shared::Ignored);
        words[header_word(header::ATTACHED)] = Shared::Said(1);
        let controls = [control::CREDIT, control::ANSWER, control::BASE].map(control_word);
        // Of a line the tag and two more: for what they are, see `is_whole`.
        let lines = (0..LINES).flat_map(|line| (0..3).map(move |word| tag(line) + word));
        for at in
            [receiver::ARMED].into_iter().chain(controls).chain([header_word(header::HELLO)]).chain(lines)
        {
            words[at] = Shared::Owned(UnsafeCell::new(0));
        }
        for &at in live {
            words[at] = Shared::Live(AtomicU64::new(0));
        }
        Self(words.into())
    }

    /// The region, new, with words that are otherwise.
    fn with(mut self, words: impl IntoIterator<Item = usize>, make: fn() -> Shared) -> Self {
        let own = Arc::get_mut(&mut self.0).unwrap();
        words.into_iter().for_each(|at| own[at] = make());
        self
    }

    fn store(&self, at: usize, value: u64) {
        self.0[at].store(value, Ordering::Relaxed);
    }

    /// Its sender, at the start of that life.
    fn sender(&self, incarnation: u32) -> Tx {
        let region = PeerRegion::map(self, range(), SENDER).unwrap();
        Arc::new(On { end: Sender::begin(region, life(incarnation)), region: self.clone() })
    }

    /// Its receiver, at the start of that life.
    fn receiver(&self, incarnation: u32, discard: bool) -> Rx {
        let end = Kernel { own: OwnRegion::map(self, range()).unwrap(), receiver: Receiver::new() };
        end.receiver.begin(&end.own, life(incarnation), discard, 0);
        Arc::new(On { end, region: self.clone() })
    }

    /// A sender in its first life and the receiver that knows it and is armed.
    fn linked(&self) -> (Tx, Rx) {
        let (sender, kernel) = (self.sender(1), self.receiver(1, false));
        kernel.run(&mut Seen::default());
        (sender, kernel)
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
    receiver: Receiver<8>,
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
    fn version(&self) -> u32 {
        1
    }
    fn knows(&self, id: InstanceId) -> bool {
        id == SENDER
    }
    fn deliver(&mut self, message: &Message<'_>) {
        let n = message.payload()[0];
        assert_eq!((message.sender_cpu(), message.msg_type()), (PhysCpuId(n.into()), MessageType(n.into())));
        assert!(is_whole(n, message.payload()), "{message:?}");
        self.steps.push(Step::Message(n));
    }
    fn ring(&self, _: InstanceId) {
        *self.rings.borrow_mut() += 1;
        if let Some(handler) = &self.on_ring {
            handler();
        }
    }
    fn event(&mut self, _: Peer, event: PeerEvent) {
        self.steps.push(Step::Event(event));
    }
}

impl Kernel {
    /// A look at the lanes, as `Endpoint::run_lanes`; whether that scheduled the deferred work.
    fn look(&self, seen: &mut Seen, arm: bool) -> bool {
        let Some(mut hold) = self.receiver.hold() else { return false };
        let left = hold.drain(&self.own, seen, 16, arm);
        hold.release() || (left && arm)
    }

    /// The deferred work: runs until nothing is left, and is armed then.
    fn run(&self, seen: &mut Seen) {
        while self.look(seen, true) {}
    }

    /// As `Endpoint::drain`.
    fn drain(&self, seen: &mut Seen) {
        if self.look(seen, false) {
            self.run(seen);
        }
    }

    /// As an `Endpoint::poller`, for so many polls.
    fn poll(&self, seen: &mut Seen, polls: usize) {
        let Some(mut hold) = self.receiver.hold() else { return };
        self.own.disarm();
        for _ in 0..polls {
            if !hold.finds_nothing(&self.own) {
                hold.poll(&self.own, seen);
            }
        }
        drop(hold);
        self.run(seen);
    }

    /// A doorbell rang.
    fn interrupt(&self, seen: &mut Seen) {
        self.own.disarm();
        self.run(seen);
    }
}

/// Does that with a receiver; what it has seen.
fn sees(kernel: &Rx, does: impl FnOnce(&Kernel, &mut Seen) + 'static) -> impl FnOnce() -> Seen {
    let kernel = kernel.clone();
    move || {
        let mut seen = Seen::default();
        does(&kernel, &mut seen);
        seen
    }
}

/// Drains that often, without arming.
fn drains(kernel: &Rx, times: usize) -> impl FnOnce() -> Seen {
    sees(kernel, move |kernel, seen| (0..times).for_each(|_| kernel.drain(seen)))
}

/// The deferred work.
fn runs(kernel: &Rx) -> impl FnOnce() -> Seen {
    sees(kernel, Kernel::run)
}

/// How lines are taken: by an instruction that an interrupt may come before.
fn swap(word: &AtomicU64, current: u64, new: u64) -> bool {
    trap();
    word.compare_exchange(current, new, Ordering::Relaxed).is_ok()
}

/// A message of one line, one of two, and one of half the lane's.
const SHORT: usize = 8;
const TWO_LINES: usize = FIRST_LINE_BYTES + 16;
const HALF: usize = FIRST_LINE_BYTES + 3 * FURTHER_LINE_BYTES;

/// Posts message `n`, with `n` in all its parts.
fn post(sender: &Sender<Shared>, n: u8, len: usize) -> Result<u64, Unsent> {
    sender.post(MessageType(n.into()), n.into(), &[&[n; HALF][..len]], swap).map(|(_, number)| number)
}

/// As `post`; whether to ring.
fn send(sender: &Sender<Shared>, n: u8, len: usize) -> Result<bool, Unsent> {
    sender.send(MessageType(n.into()), n.into(), &[n; HALF][..len], swap)?;
    Ok(sender.flush())
}

/// Whether what the model has kept of a payload is message `n`: one word of the first line, two of each further one.
fn is_whole(n: u8, payload: &[u8]) -> bool {
    let (near, far) = payload.split_at(payload.len().min(FIRST_LINE_BYTES));
    let far = far.chunks(FURTHER_LINE_BYTES).flat_map(|line| line.get(..16).unwrap_or(line));
    near.iter().take(8).chain(far).all(|&byte| byte == n)
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
