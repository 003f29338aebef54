// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel writes down outside its image: where its streams are. A kernel that was killed goes on from there
//! in its next life, so that nothing it sent or was sent is forgotten. No part of the protocol.

use crate::arch::at;
use crate::layout::{self, JOURNAL_LEN, MAX_KERNELS};
use crate::options::MAX_KILLS;
use crate::own;
use crate::receive::Receiver;
use mk_ipi_core::sync::{AtomicU64, Ordering};

/// One kernel's journal. It alone writes it; the others may look.
#[repr(C)]
pub struct Journal {
    /// Its streams to the others.
    pub sent: [SentTo; MAX_KERNELS],
    /// What came from the others.
    pub receiver: Receiver,
}

const _: () = assert!(size_of::<Journal>() as u64 <= JOURNAL_LEN);

/// A kernel's stream to one other, across all its lives.
#[repr(C, align(64))]
pub struct SentTo {
    /// Behind the number of the last message whose sending began.
    begun: AtomicU64,
    /// Behind the number of the last message whose sending ended.
    ended: AtomicU64,
    /// As `ended`, and the receiver has been told.
    flushed: AtomicU64,
    /// Messages in doubt, how many and which: a life of ours ended while it sent them, or one of the receiver while it handled
    /// them.
    in_doubt: (AtomicU64, [AtomicU64; MAX_KILLS]),
}

/// The journal of kernel `k`.
pub fn of(k: usize) -> &'static Journal {
    // SAFETY: RAM by the memory map, mapped, aligned, used for nothing else; every bit pattern is a `Journal`.
    unsafe { &*(at(layout::journal(k)) as *const Journal) }
}

/// This kernel's own.
pub fn own() -> &'static Journal {
    of(usize::from(own::kernel()))
}

/// Empties the journal of kernel `k`, which does not run yet.
pub fn clear(k: usize) {
    let words = at(layout::journal(k)) as *mut u64;
    for word in 0..size_of::<Journal>() / 8 {
        // SAFETY: RAM by the memory map, and its kernel does not run.
        unsafe { words.add(word).write_volatile(0) };
    }
}

impl Journal {
    /// Goes on where a former life, if there was one, was stopped.
    pub fn recover(&self) {
        for stream in &self.sent {
            stream.recover();
        }
        self.receiver.recover();
    }
}

impl SentTo {
    /// Messages so far, and the number of the next one.
    pub fn messages(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Sends the next message by `send`, which says whether it did.
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

    /// Leaves a number out.
    pub fn skip(&self) {
        self.next(|| true);
    }

    /// The receiver has been told of all so far.
    pub fn flushed(&self) {
        self.flushed.store(self.messages(), Ordering::Release);
    }

    /// Messages that the receiver has been told of.
    pub fn told(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    /// Message `number` may have come or not.
    pub fn doubt(&self, number: u64) {
        let (count, numbers) = &self.in_doubt;
        let at = count.load(Ordering::Relaxed);
        let Some(place) = numbers.get(at as usize) else { fatal!("more deaths than there can be") };
        place.store(number, Ordering::SeqCst);
        count.store(at + 1, Ordering::SeqCst);
    }

    /// The messages in doubt.
    pub fn in_doubt(&self) -> impl Iterator<Item = u64> + '_ {
        let (count, numbers) = &self.in_doubt;
        numbers.iter().take(count.load(Ordering::Relaxed) as usize).map(|n| n.load(Ordering::Relaxed))
    }

    fn recover(&self) {
        let begun = self.begun.load(Ordering::Relaxed);
        if begun != self.messages() {
            // Its number is not used again: had it been published, the message would come twice.
            if self.in_doubt().last() != Some(begun - 1) {
                self.doubt(begun - 1);
            }
            self.ended.store(begun, Ordering::SeqCst);
        }
    }
}
