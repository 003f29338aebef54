// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a sender waits for space in its lane (SPEC N-8, N-10).

use super::send::{Sender, UNANSWERED};
use crate::sync::{Ordering, Word};
use mk_ipi_abi::native::{control, header, lines_of, Breach};

impl<W: Word> Sender<W> {
    /// Asks the receiver to ring when there is space for a message of `len` bytes. True if the caller need not wait
    /// ([`has_space`](Self::has_space)). If the result is false, the caller must call [`flush`](Self::flush), and ring the
    /// receiver if that returns true. `wait` is called before the request. It must make our doorbell handler check this lane.
    pub(crate) fn want_space(&self, len: usize, wait: impl FnOnce()) -> bool {
        if self.has_space(len) {
            return true;
        }
        // SYNC POINT: waiting (acquire). A CPU that found no waiter before this has stopped the checks of this lane. `wait` sees
        // that, and starts them again.
        self.waiting.fetch_max((len as u64).wrapping_add(1), Ordering::Acquire);
        wait();
        self.ask_for_space(len)
    }

    /// Stores to `WANT` the credit at which there is space for `len` bytes. True if the caller need not wait.
    fn ask_for_space(&self, len: usize) -> bool {
        let Some(want) = self.missing(len) else { return true };
        if want < UNANSWERED {
            // Never lowers `WANT`: another CPU may have asked for more space. Then both learn of the space at the same time.
            self.region.raise(header::WANT, want);
        }
        // This can miss a credit that the receiver stores just now. Then the fence in the caller's `flush` ensures that the
        // receiver sees our `WANT`, and rings.
        self.has_space(len)
    }

    /// Returns whether a sender waits and need not wait any longer; then its wait has ended. If it must wait, asks for the space
    /// again, because other CPUs may have taken the space that the receiver gave.
    pub(crate) fn has_space_for_waiter(&self) -> bool {
        let waiting = usize::try_from(self.waiting.load(Ordering::Relaxed)).unwrap_or(0);
        waiting != 0 && self.ask_for_space(waiting.wrapping_sub(1)) && self.end_waiting()
    }

    /// The value of `WANT`: the credit at which the receiver must ring.
    pub(crate) fn asked_for(&self) -> u64 {
        self.region.own(header::WANT)
    }

    /// Returns whether a sender waits for space. A sender that begins to wait after this call sees all stores before this call.
    pub(crate) fn is_waited_for(&self) -> bool {
        // SYNC POINT: waiting (release)
        self.waiting.fetch_max(0, Ordering::Release) != 0
    }

    /// Ends the wait. True if a sender waited.
    pub(crate) fn end_waiting(&self) -> bool {
        self.waiting.swap(0, Ordering::Relaxed) != 0
    }

    /// Returns whether a sender of `len` bytes need not wait: there is space now, or the lane is in quarantine or
    /// [`Broken`](super::Unsent::Broken), so that no space can come.
    pub(crate) fn has_space(&self, len: usize) -> bool {
        self.missing(len).is_none()
    }

    /// The credit at which there is space for `len` bytes, always above the present credit. [`UNANSWERED`] until this life is
    /// answered. `None` if there is space, or if no space can come.
    fn missing(&self, len: usize) -> Option<u64> {
        let credit = self.region.control(control::CREDIT);
        // Loaded after the credit: all lines below a correct credit were taken before, so the tail is not below it.
        let tail = self.tail.load(Ordering::Relaxed);
        if tail >= UNANSWERED {
            return Some(UNANSWERED);
        }
        let end = tail.wrapping_add(lines_of(len));
        let is_full = end.wrapping_sub(credit) > self.region.lines();
        let can_come = credit <= tail && self.is_in_force() && self.breach().is_none();
        (is_full && can_come).then(|| end.wrapping_sub(self.region.lines()))
    }

    /// Whether the region allows messages of `len` bytes.
    pub(crate) const fn fits(&self, len: usize) -> bool {
        len <= self.region.geometry().max_len() as usize
    }

    /// The breach for which the receiver has put this life into quarantine. `None` if the lane is not in quarantine.
    pub(crate) fn breach(&self) -> Option<Breach> {
        let breach = Breach::from_word(self.region.control(control::BREACH));
        breach.filter(|_| self.tail.load(Ordering::Relaxed) < UNANSWERED)
    }
}
