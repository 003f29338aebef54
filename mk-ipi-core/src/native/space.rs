// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for space in a lane (SPEC N-10).

use super::send::{Sender, UNANSWERED};
use crate::sync::{Ordering, Word};
use mk_ipi_abi::native::{control, header, lines_of, Breach};

impl<W: Word> Sender<W> {
    /// Asks to be rung when there is space for a message of `len` bytes. True if there is space now. If not, ring the receiver if
    /// [`flush`](Self::flush) says so. `wait` is called before the request, and must make our doorbell handler check this lane.
    pub(crate) fn want_space(&self, len: usize, wait: impl FnOnce()) -> bool {
        if self.has_space(len) {
            return true;
        }
        // SYNC POINT: waiting (acquire). A CPU that finds no waiter stops these checks, and we see that.
        self.waiting.fetch_max((len as u64).wrapping_add(1), Ordering::Acquire);
        wait();
        self.ask_for_space(len)
    }

    fn ask_for_space(&self, len: usize) -> bool {
        let Some(want) = self.missing(len) else { return true };
        if want < UNANSWERED {
            // Another CPU may have asked for more space. A waiter for less is then told together with it.
            self.region.raise(header::WANT, want);
        }
        // Space that was given meanwhile may not be visible yet. The fence in the `flush` that follows covers this.
        self.has_space(len)
    }

    /// Whether a waiter must be told that there is space. If there is none, asks for it again, because other CPUs may have taken the
    /// space.
    pub(crate) fn has_space_for_waiter(&self) -> bool {
        let waiting = usize::try_from(self.waiting.load(Ordering::Relaxed)).unwrap_or(0);
        waiting != 0 && self.ask_for_space(waiting.wrapping_sub(1)) && self.end_waiting()
    }

    /// The last request to the receiver.
    pub(crate) fn asked_for(&self) -> u64 {
        self.region.own(header::WANT)
    }

    /// Whether a sender waits. One that begins to wait later sees what was done before this call.
    pub(crate) fn is_waited_for(&self) -> bool {
        // SYNC POINT: waiting (release)
        self.waiting.fetch_max(0, Ordering::Release) != 0
    }

    /// Ends the wait. True if a sender waited.
    pub(crate) fn end_waiting(&self) -> bool {
        self.waiting.swap(0, Ordering::Relaxed) != 0
    }

    /// Whether a send of `len` bytes would find space now, or would wait in vain.
    pub(crate) fn has_space(&self, len: usize) -> bool {
        self.missing(len).is_none()
    }

    /// The credit at which there is space for `len` bytes. It is beyond the present credit; otherwise the receiver would not ring.
    /// [`UNANSWERED`] until this life is answered. `None` if there is space, or if a wait would be in vain.
    fn missing(&self, len: usize) -> Option<u64> {
        let credit = self.region.control(control::CREDIT);
        // Loaded after the credit, so that all credited lines were taken before.
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

    /// The breach for which the receiver refuses this life, if it does.
    pub(crate) fn breach(&self) -> Option<Breach> {
        let breach = Breach::from_word(self.region.control(control::BREACH));
        breach.filter(|_| self.tail.load(Ordering::Relaxed) < UNANSWERED)
    }
}
