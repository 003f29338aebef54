// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for space in a lane (SPEC N-10).

use super::send::{Sender, UNANSWERED};
use crate::sync::{Ordering, Word};
use mk_ipi_abi::native::{control, header, lines_of, Breach};

impl<W: Word> Sender<W> {
    /// Asks to be rung when there is space for a message of `len` bytes. True if there is; if not, the receiver is to be rung for
    /// that if [`flush`](Self::flush) says so. `wait`, called before it is asked for, has whoever is rung look.
    pub(crate) fn want_space(&self, len: usize, wait: impl FnOnce()) -> bool {
        if self.has_space(len) {
            return true;
        }
        // SYNC POINT: waiting (acquire). Who finds that nobody waits has whoever is rung look no more, and we see that.
        self.waiting.fetch_max((len as u64).wrapping_add(1), Ordering::Acquire);
        wait();
        self.ask_for_space(len)
    }

    fn ask_for_space(&self, len: usize) -> bool {
        let Some(want) = self.missing(len) else { return true };
        if want < UNANSWERED {
            // Another CPU may have asked for more: whoever waits for less is told with it.
            self.region.raise(header::WANT, want);
        }
        // What was given meanwhile may not be seen yet. `flush` follows, whose fence is for this too.
        self.has_space(len)
    }

    /// Whether who waits is to be told that there is space; if not, it is asked for again, since others may have taken what was
    /// asked for.
    pub(crate) fn has_space_for_waiter(&self) -> bool {
        let waiting = usize::try_from(self.waiting.load(Ordering::Relaxed)).unwrap_or(0);
        waiting != 0 && self.ask_for_space(waiting.wrapping_sub(1)) && self.end_waiting()
    }

    /// What the receiver was asked for last.
    pub(crate) fn asked_for(&self) -> u64 {
        self.region.own(header::WANT)
    }

    /// Whether somebody waits. Who begins to do so behind this sees what was done before it.
    pub(crate) fn is_waited_for(&self) -> bool {
        // SYNC POINT: waiting (release)
        self.waiting.fetch_max(0, Ordering::Release) != 0
    }

    /// Nobody waits any more.
    pub(crate) fn end_waiting(&self) -> bool {
        self.waiting.swap(0, Ordering::Relaxed) != 0
    }

    /// Whether a send of `len` bytes would find space now, or that it waits in vain.
    pub(crate) fn has_space(&self, len: usize) -> bool {
        self.missing(len).is_none()
    }

    /// How far the receiver has to handle until there is space for `len` bytes: farther than it had when this looked, or nobody
    /// would be told; [`UNANSWERED`] until this life is answered. `None` if there is space, or if it is waited for in vain.
    fn missing(&self, len: usize) -> Option<u64> {
        let credit = self.region.control(control::CREDIT);
        // Loaded behind the credit: whatever was read was taken before.
        let tail = self.tail.load(Ordering::Relaxed);
        if tail >= UNANSWERED {
            return Some(UNANSWERED);
        }
        let end = tail.wrapping_add(lines_of(len));
        let is_full = end.wrapping_sub(credit) > self.region.lines();
        (is_full && credit <= tail && self.is_in_force()).then(|| end.wrapping_sub(self.region.lines()))
    }

    /// Whether a message of `len` bytes ever fits.
    pub(crate) const fn fits(&self, len: usize) -> bool {
        len <= self.region.geometry().max_len() as usize
    }

    /// Why the receiver takes nothing from us any more, if that is so.
    pub(crate) fn breach(&self) -> Option<Breach> {
        let breach = Breach::from_word(self.region.control(control::BREACH));
        breach.filter(|_| self.tail.load(Ordering::Relaxed) < UNANSWERED)
    }
}
