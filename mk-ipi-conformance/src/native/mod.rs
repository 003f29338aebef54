// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about the native link, and their helper functions.
//!
//! This module defines the offsets of all words again, from the numbers in SPEC.md (N-1 to N-6). So the suite does not depend on
//! the offsets in the code that it tests.

use crate::env::{Env, Steps, WordOf, TYPE};
use crate::inbox::{digest, payload};
use crate::{check, Failed, Outcome};
use core::cell::{Cell, RefCell};
use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::{Incarnation, PhysAddr, PhysRange};
use mk_ipi_core::platform::{Access, Peer, PeerEvent, PhysMemory};
use mk_ipi_core::sync::{Ordering, Word};
use mk_ipi_core::{LinkConfig, SendError};

mod bells;
mod bounds;
mod breaches;
mod lines;
mod lives;
mod poller;
mod restarts;
mod space;
mod stamps;
mod traffic;
mod watch;

pub(crate) use {
    bells::*, bounds::*, breaches::*, lines::*, lives::*, poller::*, restarts::*, space::*, stamps::*,
    traffic::*, watch::*,
};

/// The length in bytes of the memory that each kernel sets aside for its native region. It is enough for an MKIPI003 region, and
/// for the regions of the cases with up to 17 lanes.
pub const NATIVE_LEN: u64 = 66 * 4096;

/// The number of lines of a lane in the regions of most cases. Such a lane holds 8 messages of up to 48 bytes. One run of the
/// endpoint's deferred work also handles at most 8 messages.
pub(crate) const LINES: u64 = 8;

/// The number of 64-bit words in a page.
const PAGE: usize = 512;

/// The stamp's magic: the bytes "MKIPINAT" as a little-endian word.
const MAGIC: u64 = 0x5441_4e49_5049_4b4d;

/// Indices of the words in a control line.
mod control {
    pub(super) const CREDIT: usize = 0;
    pub(super) const ANSWER: usize = 1;
    pub(super) const BASE: usize = 2;
    pub(super) const HANDED: usize = 3;
    pub(super) const BREACH: usize = 4;
    pub(super) const DOUBTS: usize = 5;
    pub(super) const DOUBT: usize = 6;
    pub(super) const DISCARD_FROM: usize = 10;
    pub(super) const DISCARD_TO: usize = 11;
    pub(super) const RECEIVED: usize = 12;
    pub(super) const RESETS: usize = 13;
    pub(super) const BAD: usize = 14;
    pub(super) const LAST_BREACH: usize = 15;
}

/// Indices of the words in a lane's header.
mod header {
    pub(super) const HELLO: usize = 0;
    pub(super) const STOP: usize = 1;
    pub(super) const WANT: usize = 2;
    pub(super) const FULL: usize = 16;
    pub(super) const RUNG: usize = 17;
}

/// The index of the word LIFE in a region.
const LIFE: usize = 9;
/// The index of the word ARMED in a region.
const ARMED: usize = 16;
/// The index of the word BELL in a region.
const BELL: usize = 17;

/// The number of phase First in a HELLO or ANSWER word.
const FIRST: u64 = 1;
/// The number of phase Begin.
const BEGIN: u64 = 2;
/// The number of phase Clean.
const CLEAN: u64 = 3;

/// Returns a HELLO or ANSWER word.
const fn hello(incarnation: u64, session: u64, phase: u64) -> u64 {
    incarnation | session << 32 | phase << 48 | 1 << 50
}

/// Returns the tag of a message's first line in lap `lap`. Laps count from 0. The tag of a further line also has [`FURTHER`] set.
const fn tag(lap: u64) -> u64 {
    lap | 1 << 30
}

/// The bit that is set in the tag of a further line, and clear in the tag of a first line.
const FURTHER: u64 = 1 << 31;

/// Returns the number of lines that a message of `len` bytes takes.
const fn lines_of(len: usize) -> u64 {
    if len <= 48 {
        1
    } else {
        1 + (len - 48).div_ceil(56) as u64
    }
}

/// The shape of a region's lanes.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// The number of lines of each lane.
    lines: u64,
    /// The largest number of payload bytes in a message.
    max_len: usize,
}

/// The shape that most cases use.
const SMALL: Shape = Shape { lines: LINES, max_len: 256 };
/// A shape with the longest messages that the protocol allows.
const LARGE: Shape = Shape { lines: 128, max_len: 4096 };

impl Shape {
    fn geometry(self, lanes: usize) -> Result<Geometry, Failed> {
        Geometry::new(lanes as u32, self.lines as u32, self.max_len as u32)
            .ok_or(Failed("a geometry of a few lanes is valid"))
    }

    /// Returns the index of the word at which lane number `lane` begins in a region of `lanes` lanes.
    const fn lane(self, lanes: usize, lane: usize) -> usize {
        let receiver = (256 + 128 * lanes).next_multiple_of(4096);
        let one = (256 + 64 * self.lines as usize).next_multiple_of(4096);
        (receiver + lane * one) / 8
    }
}

/// Helper functions of the cases about the native link.
pub(crate) trait Native: Env {
    /// Returns the geometry of a region with the shape [`SMALL`] and one lane for each kernel.
    fn geometry(&self) -> Result<Geometry, Failed> {
        SMALL.geometry(self.kernels())
    }

    /// The index of a word in the control line of `lane`.
    fn control(&self, lane: usize, word: usize) -> usize {
        32 + 16 * lane + word
    }

    /// The index of a word in the header of `lane`.
    fn header(&self, lane: usize, word: usize) -> usize {
        SMALL.lane(self.kernels(), lane) + word
    }

    /// The index of a word in the line at `position` in `lane`.
    fn line(&self, lane: usize, position: u64, word: usize) -> usize {
        self.header(lane, 32) + (position % LINES) as usize * 8 + word
    }

    /// Maps a page of the region of `kernel` for reading and writing, calls `f` with its words, and unmaps it. The cases write to
    /// pages of other kernels too, as a hostile kernel can.
    fn with_page<R>(
        &'static self,
        kernel: usize,
        page: usize,
        f: impl FnOnce(&[WordOf<Self>]) -> R,
    ) -> Result<R, Failed> {
        let platform = self.endpoint().platform();
        let start = self.native_region_of(kernel).start().0 + page as u64 * 4096;
        let range = PhysRange::new(PhysAddr(start), 4096).ok_or(Failed("a page is a valid range"))?;
        let mapping = platform.map(range, Access::ReadWrite);
        let mapping = mapping.map_err(|_| Failed("a native region can be mapped"))?;
        let result = f(mapping.words());
        // SAFETY: the mapping came from this platform's `map`, and `f`'s borrow of it is over.
        unsafe { platform.unmap(mapping) };
        Ok(result)
    }

    /// Loads the word with index `word` in the region of `kernel`.
    fn peek(&'static self, kernel: usize, word: usize) -> Result<u64, Failed> {
        self.with_page(kernel, word / PAGE, |words| words[word % PAGE].load(Ordering::SeqCst))
    }

    /// Stores to the word with index `word` in the region of `kernel`.
    fn poke(&'static self, kernel: usize, word: usize, value: u64) -> Outcome {
        self.with_page(kernel, word / PAGE, |words| words[word % PAGE].store(value, Ordering::SeqCst))
    }

    /// Loads HELLO in our lane to `kernel`.
    fn hello_of(&'static self, kernel: usize) -> Result<u64, Failed> {
        self.peek(kernel, self.header(self.me(), header::HELLO))
    }

    /// Loads these words of the control line of `lane` in the region of `kernel`.
    fn controls<const N: usize>(
        &'static self,
        kernel: usize,
        lane: usize,
        words: [usize; N],
    ) -> Result<[u64; N], Failed> {
        let mut found = [0; N];
        for (found, word) in found.iter_mut().zip(words) {
            *found = self.peek(kernel, self.control(lane, word))?;
        }
        Ok(found)
    }

    /// Returns a digest of all words in the lines of our lane in the region of `kernel`.
    fn lines(&'static self, kernel: usize) -> Result<u64, Failed> {
        let first = self.line(self.me(), 0, 0);
        (first..first + 8 * LINES as usize)
            .try_fold(0, |sum: u64, word| Ok(sum.rotate_left(7) ^ self.peek(kernel, word)?))
    }

    /// Checks that no line of our lane to `kernel` has a tag.
    fn check_clean(&'static self, kernel: usize) -> Outcome {
        (0..LINES).try_for_each(|line| {
            check!(self.peek(kernel, self.line(self.me(), line, 0))? == 0, "word 0 of every line is 0");
            Ok(())
        })
    }

    /// Writes a stamp with these numbers to our own region, the magic last.
    fn stamp(&'static self, lanes: u64, lines: u64, max_len: u64, total: u64) -> Outcome {
        let words = [(1, 2 | lanes << 32), (2, total), (3, lines | max_len << 32), (4, 0), (0, MAGIC)];
        words.into_iter().try_for_each(|(word, value)| self.poke(self.me(), word, value))
    }

    /// Detaches all kernels. Then each kernel fills its region with zeros and writes its stamp, with the shape [`SMALL`].
    fn lay_out(&'static self) -> Outcome {
        self.lay_out_as(SMALL)
    }

    /// Does the same as `lay_out`, with regions of this shape.
    fn lay_out_as(&'static self, shape: Shape) -> Outcome {
        self.step()?;
        (0..self.kernels()).try_for_each(|kernel| self.detach(kernel))?;
        self.step()?;
        let words = shape.lane(self.kernels(), self.kernels());
        for page in 0..words / PAGE {
            self.with_page(self.me(), page, |w| w.iter().for_each(|w| w.store(0, Ordering::Relaxed)))?;
        }
        self.stamp(self.kernels() as u64, shape.lines, shape.max_len as u64, words as u64 * 8)?;
        self.peer_events(&mut |_, _| ());
        self.step()
    }

    fn attach_native(&'static self, kernel: usize) -> Outcome {
        self.attach_as(SMALL, kernel)
    }

    fn attach_as(&'static self, shape: Shape, kernel: usize) -> Outcome {
        let geometry = shape.geometry(self.kernels())?;
        self.attach(kernel, LinkConfig::Native(Some(geometry)), self.native_region_of(kernel))
    }

    /// Detaches `kernel` and attaches it again. This begins our next life in the lane to it.
    fn attach_again(&'static self, kernel: usize) -> Outcome {
        self.detach(kernel)?;
        self.attach_native(kernel)
    }

    /// Attaches all kernels to empty regions, and waits until every HELLO is answered.
    fn go_native(&'static self) -> Outcome {
        self.go_native_as(SMALL)
    }

    fn go_native_as(&'static self, shape: Shape) -> Outcome {
        self.lay_out_as(shape)?;
        (0..self.kernels()).try_for_each(|kernel| self.attach_as(shape, kernel))?;
        let first = hello(1, 1, FIRST);
        let answered = |lane| self.peek(self.me(), self.control(lane, control::ANSWER)) == Ok(first);
        check!(self.until(|| (0..self.kernels()).all(answered)), "every first hello is answered");
        self.step()
    }

    /// The numbers of all kernels, without `kernel`.
    fn but(&self, kernel: usize) -> impl Iterator<Item = usize> {
        (0..self.kernels()).filter(move |other| *other != kernel)
    }

    /// Identifies this kernel's endpoint with the kernel's next incarnation, and returns that incarnation.
    fn next_life(&'static self) -> Result<Incarnation, Failed> {
        let (me, life) = self.endpoint().identity().ok_or(Failed("this kernel's endpoint is identified"))?;
        self.endpoint().identify(me, life.next());
        Ok(life.next())
    }

    /// Runs `f` at all kernels. At `kernel` interrupts are off meanwhile, so it takes messages only where `f` itself calls
    /// `run_deferred`, `drain` or `poll`.
    fn with_deaf<R>(&'static self, kernel: usize, f: impl FnOnce() -> R) -> R {
        if self.me() == kernel {
            self.undisturbed(f)
        } else {
            f()
        }
    }

    /// Runs `f` at `kernel`. All kernels continue after `f` has returned.
    fn at(&'static self, kernel: usize, f: impl FnOnce() -> Outcome) -> Outcome {
        if self.me() == kernel {
            f()?;
        }
        self.step()
    }

    /// Runs `f` at all kernels except `kernel`. All kernels continue after `f` has returned everywhere.
    fn not_at(&'static self, kernel: usize, f: impl FnOnce() -> Outcome) -> Outcome {
        if self.me() != kernel {
            f()?;
        }
        self.step()
    }

    /// Returns the seed of the payload of our message number `n`. It contains our kernel number, so it differs from the seeds of
    /// other kernels.
    fn seed(&self, n: u64) -> u64 {
        ((self.me() as u64) << 32) | n
    }

    /// Tries once to send message number `n`.
    fn try_number(&'static self, to: usize, n: u64) -> Result<u64, SendError> {
        self.try_send(to, self.seed(n), len_of(n))
    }

    /// Does the same as `try_number`, but posts the message instead of sending it.
    fn post_number(&'static self, to: usize, n: u64) -> Result<u64, SendError> {
        let len = len_of(n);
        self.endpoint().post(Self::id(to), TYPE, &payload(self.seed(n), len)[..len])
    }

    /// Sends the messages with these numbers. The lane must have space for all of them.
    fn send_all(&'static self, to: usize, mut numbers: core::ops::Range<u64>) -> Outcome {
        check!(
            numbers.all(|n| self.try_number(to, n).is_ok()),
            "a lane takes as many messages as it has lines for"
        );
        Ok(())
    }

    /// Waits until there is space and our life is answered, and sends message number `n`.
    fn send_number(&'static self, to: usize, n: u64) -> Outcome {
        let last = Cell::new(Ok(0));
        let over = || {
            last.set(self.try_number(to, n));
            !matches!(last.get(), Err(SendError::Full | SendError::Unanswered))
        };
        check!(self.until(over), "a lane has space again, and a life is answered");
        check!(last.get().is_ok(), "a message can be sent");
        Ok(())
    }

    /// Checks the messages that came from `kernel` since the inbox had `before` messages: their numbers count up from `first`,
    /// and each has its own size, type and bytes. Returns how many such messages came.
    fn in_order(&'static self, before: u64, kernel: usize, first: u64) -> Result<u64, Failed> {
        let (cpu, _) = self.doorbell_of(kernel)?;
        let (mut next, mut number) = (first, 0);
        for n in before..self.inbox().count() {
            let got = self.inbox().get(n).ok_or(Failed("each message is in the inbox"))?;
            if got.from != Some(Self::id(kernel)) {
                continue;
            }
            let seed = ((kernel as u64) << 32) | next;
            check!(
                got.first == seed && got.sender == cpu,
                "each sender's messages arrive in order, with its CPU"
            );
            let len = len_of(next);
            let same = digest(&payload(seed, len)[..len]);
            check!(
                got.len == len && got.msg_type == TYPE && got.digest == same,
                "each message arrives with its own size, type and bytes"
            );
            check!(got.number >= number + lines_of(len), "message numbers grow");
            (next, number) = (next + 1, got.number);
        }
        Ok(next - first)
    }

    /// Waits until `each` messages from every other kernel have come since the inbox had `before` messages. Checks them with
    /// `in_order`, and checks that no more messages come.
    fn expect_from_others(&'static self, before: u64, first: u64, each: u64) -> Outcome {
        let total = each * (self.kernels() as u64 - 1);
        check!(self.until(|| self.inbox().count() >= before + total), "every message arrives");
        self.linger();
        check!(self.inbox().count() == before + total, "no message arrives twice");
        self.but(self.me()).try_for_each(|kernel| {
            check!(self.in_order(before, kernel, first)? == each, "as many messages arrive as were sent");
            Ok(())
        })
    }

    /// Calls `run_deferred` until it returns that nothing is left.
    fn drain_by_hand(&'static self) -> Outcome {
        let over = (0..1000).any(|_| !self.endpoint().run_deferred().more);
        check!(over, "the deferred work ends");
        Ok(())
    }

    /// Drops the events about peers that were reported so far, and returns a list of the events that are reported from now on.
    fn peer_reports(&'static self) -> PeerReports<Self> {
        self.peer_events(&mut |_, _| ());
        PeerReports { env: self, events: RefCell::new([None; 64]) }
    }
}

impl<E: Env> Native for E {}

/// The first message number for which [`len_of`] can return more than 48 bytes.
const LONG: u64 = 1 << 20;

/// Returns the number of bytes of message number `n`: 8 to 48 bytes, which take one line. From number [`LONG`] on it is 8 to 256
/// bytes.
const fn len_of(n: u64) -> usize {
    let of = if n < LONG { 41 } else { 249 };
    8 + (n as usize * 31) % of
}

/// The events about peers that the core reported to this kernel's `Observer` since this value was made: the first 64 of them.
pub(crate) struct PeerReports<E: 'static> {
    env: &'static E,
    events: RefCell<[Option<(Peer, PeerEvent)>; 64]>,
}

impl<E: Env> PeerReports<E> {
    /// Returns how many events about `peer` satisfy `wanted`.
    fn count(&self, peer: usize, wanted: impl Fn(PeerEvent) -> bool) -> usize {
        self.about(|id, event| id.id == E::id(peer) && wanted(event))
    }

    /// Returns how many events satisfy `wanted`.
    fn about(&self, wanted: impl Fn(Peer, PeerEvent) -> bool) -> usize {
        let list = &mut *self.events.borrow_mut();
        self.env.peer_events(&mut |peer, event| {
            if let Some(place) = list.iter_mut().find(|place| place.is_none()) {
                *place = Some((peer, event));
            }
        });
        list.iter().flatten().filter(|(peer, event)| wanted(*peer, *event)).count()
    }

    /// Returns true if this event about `peer` was reported exactly once.
    fn once(&self, peer: usize, event: PeerEvent) -> bool {
        self.count(peer, |e| e == event) == 1
    }

    /// Returns true if any message was reported as in doubt or discarded.
    fn anything_became(&self) -> bool {
        self.about(|_, event| matches!(event, PeerEvent::InDoubt { .. } | PeerEvent::Discarded { .. })) != 0
    }
}
