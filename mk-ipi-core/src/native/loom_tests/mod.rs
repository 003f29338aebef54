// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loom models of the native link: they check its memory ordering in every interleaving that loom finds (CONTRIBUTING.md says how
//! to run them).
//!
//! The models run the real code of both ends on loom's atomics. For each SYNC POINT there is a *twin*: a test that runs a model
//! without this ordering. The model must fail then.

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

/// The source files whose SYNC POINTs have twins here.
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

/// Declares twins: the name of the test, the model, and the SYNC POINT that is taken out, by name, kind and number. The number
/// counts the points with that name and kind in `SOURCES`, from 0.
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

/// For each SYNC POINT in the sources there is a twin.
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

/// The lines of the only lane: the smallest number that is allowed.
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
    /// Keeps its value. A store of another value is an error.
    Fixed(u64),
    /// The model does not use it. Loads give 0, and stores have no effect.
    Ignored,
    /// The model does not use it. Loads give this value, and stores have no effect.
    Said(u64),
    /// All threads may load it, and one thread at a time may store it.
    Live(AtomicU64),
    /// As `Live`, but several threads can store it at the same time. Each store is a swap, because loom does not keep plain
    /// stores of several threads in order: a load could give a value that its own thread has overwritten (tokio-rs/loom issues
    /// 282 and 389). No real memory does that.
    Raced(AtomicU64),
    /// No thread may store it while another one accesses it. Loom fails the model if a thread does.
    Owned(UnsafeCell<u64>),
}

// SAFETY: loom checks each access to the cell, and fails the model at a data race.
unsafe impl Sync for Shared {}

impl Word for Shared {
    fn load(&self, order: Ordering) -> u64 {
        trap();
        match self {
            Self::Fixed(value) | Self::Said(value) => *value,
            Self::Ignored => 0,
            Self::Live(word) | Self::Raced(word) => word.load(order),
            // SAFETY: loom checks that no thread stores at the same time.
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
            // SAFETY: loom checks that no other thread accesses the cell at the same time.
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

/// The thread that must be interrupted, the number of accesses to the region before that, and the function that interrupts it.
type Interrupt = (ThreadId, usize, Box<dyn FnOnce()>);
std::thread_local! {
    /// Loom runs the threads of a model on the thread that runs the test. So there is one for all threads of the model.
    static TRAP: RefCell<Option<Interrupt>> = const { RefCell::new(None) };
}

/// Calls `handler` on this thread before its access number `at` to the region. The first access has number 0.
fn interrupt_at(at: usize, handler: impl FnOnce() + 'static) {
    TRAP.set(Some((thread::current().id(), at, Box::new(handler))));
}

/// Called before each access to the region, and before each try to take lines: calls the handler if it is due.
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

/// The index of the tag of the line at `position`.
fn tag(position: u64) -> usize {
    header_word(geometry().line_at(position))
}

impl Region {
    /// Memory in which a model will create a region. The model uses only the first words of the stamp.
    fn blank() -> Self {
        let mut words: Vec<_> = (0..4).map(|_| Shared::Live(AtomicU64::new(0))).collect();
        words.resize_with(geometry().total_size() as usize / 8, || Shared::Ignored);
        Self(words.into())
    }

    /// A new region. The words with indexes in `live` are `Live`: they can change while another thread loads them. The other
    /// words that models use are `Owned`, so that loom fails the model if they do.
    fn new(live: &[usize]) -> Self {
        let stamp: [u64; STAMP_WORDS] = transmute!(Stamp::new(geometry()));
        let mut words: Vec<_> = stamp.into_iter().map(Shared::Fixed).collect();
        words.resize_with(geometry().total_size() as usize / 8, || Shared::Ignored);
        words[header_word(header::ATTACHED)] = Shared::Said(1);
        let controls = [control::CREDIT, control::ANSWER, control::BASE].map(control_word);
        // The tag and the next two words of each line. `is_whole` checks the payload bytes in these.
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

    /// Replaces the words with these indexes by what `make` returns. Only before the region is shared.
    fn with(mut self, words: impl IntoIterator<Item = usize>, make: fn() -> Shared) -> Self {
        let own = Arc::get_mut(&mut self.0).unwrap();
        words.into_iter().for_each(|at| own[at] = make());
        self
    }

    /// Stores to the word with this index.
    fn store(&self, at: usize, value: u64) {
        self.0[at].store(value, Ordering::Relaxed);
    }

    /// Begins a life of the sender, with this incarnation.
    fn sender(&self, incarnation: u32) -> Tx {
        let region = PeerRegion::map(self, range(), SENDER).unwrap();
        Arc::new(On { end: Sender::begin(region, life(incarnation)), region: self.clone() })
    }

    /// Begins a life of the receiver, with this incarnation.
    fn receiver(&self, incarnation: u32, discard: bool) -> Rx {
        let end = Kernel { own: OwnRegion::map(self, range()).unwrap(), receiver: Receiver::new() };
        end.receiver.begin(&end.own, life(incarnation), discard, 0);
        Arc::new(On { end, region: self.clone() })
    }

    /// A sender and a receiver in their first lives. The receiver has answered the sender's hello, and is armed.
    fn linked(&self) -> (Tx, Rx) {
        let (sender, kernel) = (self.sender(1), self.receiver(1, false));
        kernel.run(&mut Seen::default());
        (sender, kernel)
    }
}

// SAFETY: an end that has mapped the words is kept together with a reference to them (`On`, or a clone of the region in the
// test).
unsafe impl PhysMemory for Region {
    type Word = Shared;
    fn map(&self, range: PhysRange, _: Access) -> Result<Mapping<Shared>, MapError> {
        let from = (range.start().0 - PAGES_AT) as usize / 8;
        let words = &self.0[from..from + range.len() as usize / 8];
        // SAFETY: the pointer is that of a slice of the words, which stay valid as said at the `impl`.
        Ok(unsafe { Mapping::new(NonNull::from(words)) })
    }
    unsafe fn unmap(&self, _: Mapping<Shared>) {}
    fn peer_may_share(&self, _: PhysRange) -> bool {
        true
    }
}

/// An end that has mapped a region, and a reference that keeps the region alive.
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

/// A receiver and the mapping of its own region.
struct Kernel {
    own: OwnRegion<Shared>,
    receiver: Receiver<8>,
}

/// What one thread of the receiver saw.
#[derive(Default)]
struct Seen {
    /// Messages and events, in order.
    steps: Vec<Step>,
    /// Called when the receiver rings the sender.
    on_ring: Option<Box<dyn Fn()>>,
    /// How often the receiver rang the sender.
    rings: RefCell<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The message with this content ([`post`]).
    Message(u8),
    Event(PeerEvent),
}

impl Seen {
    /// The messages among the steps.
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
    /// One drain, as in `Endpoint::run_lanes`. Returns whether the deferred work must run after it.
    fn look(&self, seen: &mut Seen, arm: bool) -> bool {
        let Some(mut hold) = self.receiver.hold() else { return false };
        let left = hold.drain(&self.own, seen, 16, arm);
        hold.release() || (left && arm)
    }

    /// The deferred work: drains until nothing is left. The receiver is armed after that.
    fn run(&self, seen: &mut Seen) {
        while self.look(seen, true) {}
    }

    /// As `Endpoint::drain`.
    fn drain(&self, seen: &mut Seen) {
        if self.look(seen, false) {
            self.run(seen);
        }
    }

    /// As an `Endpoint::poller` that polls `polls` times and ends.
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

    /// The interrupt of a doorbell, and the deferred work after it.
    fn interrupt(&self, seen: &mut Seen) {
        self.own.disarm();
        self.run(seen);
    }
}

/// A function for [`both`]: calls `does` with the receiver, and returns what it has seen.
fn sees(kernel: &Rx, does: impl FnOnce(&Kernel, &mut Seen) + 'static) -> impl FnOnce() -> Seen {
    let kernel = kernel.clone();
    move || {
        let mut seen = Seen::default();
        does(&kernel, &mut seen);
        seen
    }
}

/// A function for [`both`]: drains `times` times, without arming, unless another CPU tried to drain meanwhile.
fn drains(kernel: &Rx, times: usize) -> impl FnOnce() -> Seen {
    sees(kernel, move |kernel, seen| (0..times).for_each(|_| kernel.drain(seen)))
}

/// A function for [`both`]: runs the deferred work of the receiver.
fn runs(kernel: &Rx) -> impl FnOnce() -> Seen {
    sees(kernel, Kernel::run)
}

/// The compare-and-swap that takes lines. An interrupt can come before it.
fn swap(word: &AtomicU64, current: u64, new: u64) -> bool {
    trap();
    word.compare_exchange(current, new, Ordering::Relaxed).is_ok()
}

/// Length in bytes of a message of one line.
const SHORT: usize = 8;
/// Length in bytes of a message of two lines.
const TWO_LINES: usize = FIRST_LINE_BYTES + 16;
/// Length in bytes of a message that takes half of the lines of the lane.
const HALF: usize = FIRST_LINE_BYTES + 3 * FURTHER_LINE_BYTES;

/// Posts message `n`: its type, its CPU and all bytes of its payload are `n`. Returns its number.
fn post(sender: &Sender<Shared>, n: u8, len: usize) -> Result<u64, Unsent> {
    sender.post(MessageType(n.into()), n.into(), &[&[n; HALF][..len]], swap).map(|(_, number)| number)
}

/// As `post`, but sends. Returns whether the receiver must be rung.
fn send(sender: &Sender<Shared>, n: u8, len: usize) -> Result<bool, Unsent> {
    sender.send(MessageType(n.into()), n.into(), &[n; HALF][..len], swap)?;
    Ok(sender.flush())
}

/// Returns whether a payload is that of message `n`. Checks only the bytes in words that the model keeps: one word of the first
/// line, two words of each further line.
fn is_whole(n: u8, payload: &[u8]) -> bool {
    let (near, far) = payload.split_at(payload.len().min(FIRST_LINE_BYTES));
    let far = far.chunks(FURTHER_LINE_BYTES).flat_map(|line| line.get(..16).unwrap_or(line));
    near.iter().take(8).chain(far).all(|&byte| byte == n)
}

/// Which function of [`both`] runs on the calling thread.
#[derive(Clone, Copy)]
enum First {
    Left,
    Right,
}

/// Checks `model` in both orders of starting the threads of [`both`]. One order is not enough: loom remembers only the last
/// access to an atomic. A thread's own load can hide from loom that its store races with an earlier load of another thread.
fn check(model: impl Fn(First) + Copy + Sync + Send + 'static) {
    for first in [First::Left, First::Right] {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(2));
        builder.check(move || model(first));
    }
}

/// Runs two functions at the same time, one of them on a new thread. Returns both results.
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
