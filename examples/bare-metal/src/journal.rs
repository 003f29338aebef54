// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel's journal: the state of its streams, in memory outside of its image. After a kernel was killed, its next life
//! reads the journal and continues the streams. So the demo counts the messages of all lives. The journal is not part of the
//! protocol of mk-ipi.

use crate::arch::at;
use crate::layout::{self, JOURNAL_LEN, MAX_KERNELS};
use crate::options::MAX_KILLS;
use crate::own;
use crate::receive::Receiver;
use mk_ipi_core::sync::{AtomicU64, Ordering};

/// One kernel's journal. Only that kernel writes it; the others may read it.
#[repr(C)]
pub struct Journal {
    /// This kernel's streams to the other kernels.
    pub sent: [SentTo; MAX_KERNELS],
    /// The messages that this kernel received.
    pub receiver: Receiver,
}

const _: () = assert!(size_of::<Journal>() as u64 <= JOURNAL_LEN);

/// A kernel's stream to one other kernel, over all lives of both.
#[repr(C, align(64))]
pub struct SentTo {
    /// One more than the number of the last message whose sending began.
    begun: AtomicU64,
    /// One more than the number of the last message whose sending ended.
    ended: AtomicU64,
    /// The value of `ended` after the last flush, which rings the receiver's doorbell if necessary.
    flushed: AtomicU64,
    /// The count and the numbers of the messages in doubt. A message is in doubt if this kernel died while it sent the
    /// message, or the receiver died while it handled the message.
    in_doubt: (AtomicU64, [AtomicU64; MAX_KILLS]),
}

/// The journal of kernel `k`.
pub fn of(k: usize) -> &'static Journal {
    // SAFETY: the memory map (layout.rs) reserves this RAM for the journal. It is mapped and aligned, and every bit pattern
    // is a valid `Journal`.
    unsafe { &*(at(layout::journal(k)) as *const Journal) }
}

/// This kernel's own journal.
pub fn own() -> &'static Journal {
    of(usize::from(own::kernel()))
}

/// Sets the journal of kernel `k` to zeros. That kernel does not run yet.
pub fn clear(k: usize) {
    let words = at(layout::journal(k)) as *mut u64;
    for word in 0..size_of::<Journal>() / 8 {
        // SAFETY: the memory map (layout.rs) reserves this RAM for the journal, and its kernel does not run.
        unsafe { words.add(word).write_volatile(0) };
    }
}

impl Journal {
    /// Repairs what a former life, if there was one, left unfinished when it was killed.
    pub fn recover(&self) {
        for stream in &self.sent {
            stream.recover();
        }
        self.receiver.recover();
    }
}

impl SentTo {
    /// The number of messages sent so far. It is also the number of the next message.
    pub fn messages(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Calls `send` for the next message, and records the result. `send` returns whether the message was sent. This function
    /// returns the same value.
    pub fn next(&self, send: impl FnOnce() -> bool) -> bool {
        let number = self.messages();
        self.begun.store(number + 1, Ordering::SeqCst);
        let sent = send();
        if sent {
            self.ended.store(number + 1, Ordering::SeqCst);
        } else {
            self.begun.store(number, Ordering::SeqCst);
        }
        sent
    }

    /// Counts a message as sent without sending it. Its number is then missing at the receiver.
    pub fn skip(&self) {
        self.next(|| true);
    }

    /// Records that all messages so far are flushed.
    pub fn flushed(&self) {
        self.flushed.store(self.messages(), Ordering::Release);
    }

    /// The number of messages that are flushed.
    pub fn told(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    /// Records that message `number` is in doubt.
    pub fn doubt(&self, number: u64) {
        let (count, numbers) = &self.in_doubt;
        let at = count.load(Ordering::Relaxed);
        let Some(place) = numbers.get(at as usize) else {
            fatal!("more than {MAX_KILLS} messages to one kernel are in doubt")
        };
        place.store(number, Ordering::SeqCst);
        count.store(at + 1, Ordering::SeqCst);
    }

    /// The numbers of the messages in doubt.
    pub fn in_doubt(&self) -> impl Iterator<Item = u64> + '_ {
        let (count, numbers) = &self.in_doubt;
        numbers.iter().take(count.load(Ordering::Relaxed) as usize).map(|n| n.load(Ordering::Relaxed))
    }

    fn recover(&self) {
        let begun = self.begun.load(Ordering::Relaxed);
        if begun != self.messages() {
            // The former life died while it sent this message. The number is not used again. The message may have been published,
            // and then the receiver would get the number twice.
            if self.in_doubt().last() != Some(begun - 1) {
                self.doubt(begun - 1);
            }
            self.ended.store(begun, Ordering::SeqCst);
        }
    }
}
