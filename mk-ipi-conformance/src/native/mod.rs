// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases about the native link, and what they are written with.
//!
//! Where a word lies stands here once more, straight from SPEC.md's numbers (N-1 to N-6).

use crate::env::{Env, Steps, WordOf, TYPE};
use crate::inbox::{digest, payload};
use crate::{check, Failed, Outcome};
use core::cell::{Cell, RefCell};
use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::{PhysAddr, PhysRange};
use mk_ipi_core::platform::{Access, PeerEvent, PhysMemory};
use mk_ipi_core::sync::{Ordering, Word};
use mk_ipi_core::{LinkConfig, SendError};

mod bells;
mod bounds;
mod breaches;
mod life;
mod stamps;
mod traffic;

pub(crate) use {bells::*, bounds::*, breaches::*, life::*, stamps::*, traffic::*};

/// Bytes that each kernel of a machine sets aside for its native region: room for MKIPI003, and for 17 lanes.
pub const NATIVE_LEN: u64 = 66 * 4096;

/// Cells of a lane in the suite's regions: also the budget of its endpoint.
pub(crate) const CELLS: u64 = 8;

/// Words of a page.
const PAGE: usize = 512;

/// "MKIPINAT", as a little-endian word.
const MAGIC: u64 = 0x5441_4e49_5049_4b4d;

/// Words of the control line.
mod control {
    pub(super) const CREDIT: usize = 0;
    pub(super) const ANSWER: usize = 1;
    pub(super) const BASE: usize = 2;
    pub(super) const LOST_FROM: usize = 3;
    pub(super) const LOST_TO: usize = 4;
    pub(super) const BREACH: usize = 5;
    pub(super) const RECEIVED: usize = 6;
    pub(super) const RESETS: usize = 7;
    pub(super) const BAD: usize = 8;
    pub(super) const LAST_BREACH: usize = 9;
}

/// Words of the lane header.
mod header {
    pub(super) const HELLO: usize = 0;
    pub(super) const STOP: usize = 1;
    pub(super) const CLEAN: usize = 4;
    pub(super) const SENT: usize = 16;
    pub(super) const FULL: usize = 17;
    pub(super) const RUNG: usize = 18;
}

/// The word of ARMED in a region, and that of BELL.
const ARMED: usize = 16;
const BELL: usize = 17;

/// The word of a hello.
const fn hello(incarnation: u64, session: u64, first: bool) -> u64 {
    incarnation | session << 32 | (first as u64) << 48 | 1 << 49
}

/// What the cases about the native link are written with.
pub(crate) trait Native: Env {
    /// A lane for each kernel.
    fn geometry(&self) -> Result<Geometry, Failed> {
        Geometry::new(self.kernels() as u32, CELLS as u32).ok_or(Failed("a few lanes of eight cells"))
    }

    /// Where the hints begin, in words.
    fn hints(&self) -> usize {
        (256 + 128 * self.kernels()).next_multiple_of(4096) / 8
    }

    /// A word of the control line of `lane`.
    fn control(&self, lane: usize, word: usize) -> usize {
        32 + 16 * lane + word
    }

    /// A word of the header of `lane`.
    fn header(&self, lane: usize, word: usize) -> usize {
        self.hints() + PAGE + lane * lane_words() + word
    }

    /// A word of the cell of `position` in `lane`.
    fn cell(&self, lane: usize, position: u64, word: usize) -> usize {
        self.header(lane, 32) + (position % CELLS) as usize * 40 + word
    }

    /// Calls `f` with a page of the region of `kernel`, mapped for that long, as its owner or anybody hostile can.
    fn with_page<R>(
        &'static self,
        kernel: usize,
        page: usize,
        f: impl FnOnce(&[WordOf<Self>]) -> R,
    ) -> Result<R, Failed> {
        let platform = self.endpoint().platform();
        let start = self.native_region_of(kernel).start().0 + page as u64 * 4096;
        let range = PhysRange::new(PhysAddr(start), 4096).ok_or(Failed("a page"))?;
        let mapping = platform.map(range, Access::ReadWrite);
        let mapping = mapping.map_err(|_| Failed("a native region can be mapped"))?;
        let result = f(mapping.words());
        // SAFETY: it came from this platform's `map`, and `f`'s borrow is over.
        unsafe { platform.unmap(mapping) };
        Ok(result)
    }

    fn peek(&'static self, kernel: usize, word: usize) -> Result<u64, Failed> {
        self.with_page(kernel, word / PAGE, |words| words[word % PAGE].load(Ordering::SeqCst))
    }

    fn poke(&'static self, kernel: usize, word: usize, value: u64) -> Outcome {
        self.with_page(kernel, word / PAGE, |words| words[word % PAGE].store(value, Ordering::SeqCst))
    }

    /// A digest of the cells of our lane in the region of `kernel`.
    fn cells(&'static self, kernel: usize) -> Result<u64, Failed> {
        let first = self.cell(self.me(), 0, 0);
        (first..first + 40 * CELLS as usize)
            .try_fold(0, |sum: u64, word| Ok(sum.rotate_left(7) ^ self.peek(kernel, word)?))
    }

    /// Writes the words of a stamp in our own region, the magic last.
    fn stamp(&'static self, lanes: u64, cells: u64, total: u64) -> Outcome {
        for (word, value) in [(1, 1 | lanes << 32), (2, total), (3, cells), (4, 3), (0, MAGIC)] {
            self.poke(self.me(), word, value)?;
        }
        Ok(())
    }

    /// Nobody is attached, and each kernel's region is empty and stamped.
    fn lay_out(&'static self) -> Outcome {
        self.step()?;
        (0..self.kernels()).try_for_each(|kernel| self.detach(kernel))?;
        self.step()?;
        let words = self.header(self.kernels(), 0);
        for page in 0..words / PAGE {
            self.with_page(self.me(), page, |w| w.iter().for_each(|w| w.store(0, Ordering::Relaxed)))?;
        }
        self.stamp(self.kernels() as u64, CELLS, words as u64 * 8)?;
        self.peer_events(&mut |_, _| ());
        self.step()
    }

    fn attach_native(&'static self, kernel: usize) -> Outcome {
        self.attach(kernel, LinkConfig::Native(Some(self.geometry()?)), self.native_region_of(kernel))
    }

    /// Ends our life in the lane to `kernel`, and begins another.
    fn attach_again(&'static self, kernel: usize) -> Outcome {
        self.detach(kernel)?;
        self.attach_native(kernel)
    }

    /// All are attached to empty regions, and every hello is answered.
    fn go_native(&'static self) -> Outcome {
        self.lay_out()?;
        (0..self.kernels()).try_for_each(|kernel| self.attach_native(kernel))?;
        let answered = |lane| self.peek(self.me(), self.control(lane, control::ANSWER)) != Ok(0);
        check!(self.until(|| (0..self.kernels()).all(answered)), "every first hello is answered");
        self.step()
    }

    /// Runs `f` everywhere, at `kernel` with interrupts off: it takes what comes when `f` says so.
    fn with_deaf<R>(&'static self, kernel: usize, f: impl FnOnce() -> R) -> R {
        if self.me() == kernel {
            self.undisturbed(f)
        } else {
            f()
        }
    }

    /// Runs `f` at `kernel`, while the others wait.
    fn at(&'static self, kernel: usize, f: impl FnOnce() -> Outcome) -> Outcome {
        if self.me() == kernel {
            f()?;
        }
        self.step()
    }

    /// Runs `f` at all kernels but `kernel`, which waits.
    fn not_at(&'static self, kernel: usize, f: impl FnOnce() -> Outcome) -> Outcome {
        if self.me() != kernel {
            f()?;
        }
        self.step()
    }

    /// Our message number `n` to anybody.
    fn seed(&self, n: u64) -> u64 {
        ((self.me() as u64) << 32) | n
    }

    /// Sends message number `n`, at most once.
    fn try_number(&'static self, to: usize, n: u64) -> Result<(), SendError> {
        self.try_send(to, self.seed(n), len_of(n))
    }

    /// Sends message number `n`, when there is space and our life is acknowledged.
    fn send_number(&'static self, to: usize, n: u64) -> Outcome {
        let last = Cell::new(Ok(()));
        let over = || {
            last.set(self.try_number(to, n));
            !matches!(last.get(), Err(SendError::Full | SendError::Unanswered))
        };
        check!(self.until(over), "a lane has space again, and a life is acknowledged");
        check!(last.get().is_ok(), "a message can be sent");
        Ok(())
    }

    /// Messages from `kernel` since `before`, each whole and next in number from `first` on: how many.
    fn in_order(&'static self, before: u64, kernel: usize, first: u64) -> Result<u64, Failed> {
        let (cpu, _) = self.doorbell_of(kernel)?;
        let mut next = first;
        for n in before..self.inbox().count() {
            let got = self.inbox().get(n).ok_or(Failed("each message is remembered"))?;
            if got.from != Some(Self::id(kernel)) {
                continue;
            }
            let seed = ((kernel as u64) << 32) | next;
            check!(got.first == seed && got.sender == cpu, "each sender's messages in order, with its CPU");
            let len = len_of(next);
            let same = digest(&payload(seed, len)[..len]);
            check!(got.len == len && got.msg_type == TYPE && got.digest == same, "each message whole");
            next += 1;
        }
        Ok(next - first)
    }

    /// Waits until exactly `each` messages of every kernel but us have come since `before`.
    fn expect_from_others(&'static self, before: u64, first: u64, each: u64) -> Outcome {
        let total = each * (self.kernels() as u64 - 1);
        check!(self.until(|| self.inbox().count() >= before + total), "every message arrives");
        self.linger();
        check!(self.inbox().count() == before + total, "none twice");
        for kernel in (0..self.kernels()).filter(|kernel| *kernel != self.me()) {
            check!(self.in_order(before, kernel, first)? == each, "as many as were sent");
        }
        Ok(())
    }

    /// Runs the deferred work by hand until nothing is left.
    fn drain_by_hand(&'static self) -> Outcome {
        let over = (0..1000).any(|_| !self.endpoint().run_deferred().more);
        check!(over, "a drain comes to its end");
        Ok(())
    }

    fn told(&'static self) -> Told<Self> {
        self.peer_events(&mut |_, _| ());
        Told { env: self, events: RefCell::new([None; 64]) }
    }
}

impl<E: Env> Native for E {}

const fn lane_words() -> usize {
    (256 + 320 * CELLS as usize).next_multiple_of(4096) / 8
}

/// Bytes of message number `n`: 8 to 256.
const fn len_of(n: u64) -> usize {
    8 + (n as usize * 31) % 249
}

/// What the observer was told since this was made.
pub(crate) struct Told<E: 'static> {
    env: &'static E,
    events: RefCell<[Option<(usize, PeerEvent)>; 64]>,
}

impl<E: Env> Told<E> {
    /// How often `wanted` holds of an event about `peer`.
    fn count(&self, peer: usize, wanted: impl Fn(PeerEvent) -> bool) -> usize {
        let list = &mut *self.events.borrow_mut();
        self.env.peer_events(&mut |id, event| {
            if let Some(place) = list.iter_mut().find(|place| place.is_none()) {
                *place = Some((id.index(), event));
            }
        });
        list.iter().flatten().filter(|(from, event)| *from == peer && wanted(*event)).count()
    }

    /// Whether exactly this was told, once.
    fn once(&self, peer: usize, event: PeerEvent) -> bool {
        self.count(peer, |e| e == event) == 1
    }
}
