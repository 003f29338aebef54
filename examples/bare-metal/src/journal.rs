// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel writes down outside its image: the state of its streams. A kernel that was killed continues from there
//! in its next life. So no message that it sent or was sent is forgotten. It is not part of the protocol.

use crate::arch::at;
use crate::layout::{self, JOURNAL_LEN, MAX_KERNELS};
use crate::options::MAX_KILLS;
use crate::own;
use crate::receive::Receiver;
use mk_ipi_core::sync::{AtomicU64, Ordering};

/// One kernel's journal. Only that kernel writes it; the others may read it.
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
    /// The number after that of the last message whose sending began.
    begun: AtomicU64,
    /// The number after that of the last message whose sending ended.
    ended: AtomicU64,
    /// The value of `ended` when the receiver was last told.
    flushed: AtomicU64,
    /// The messages in doubt, their count and their numbers: a life of this kernel ended while it sent them, or a life
    /// of the receiver while it handled them.
    in_doubt: (AtomicU64, [AtomicU64; MAX_KILLS]),
}

/// The journal of kernel `k`.
pub fn of(k: usize) -> &'static Journal {
    // SAFETY: RAM by the memory map, mapped, aligned, used for nothing else; every bit pattern is a `Journal`.
    unsafe { &*(at(layout::journal(k)) as *const Journal) }
}

/// This kernel's own journal.
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
    /// Continues from where a former life, if there was one, was stopped.
    pub fn recover(&self) {
        for stream in &self.sent {
            stream.recover();
        }
        self.receiver.recover();
    }
}

impl SentTo {
    /// How many messages there were so far. This is also the number of the next one.
    pub fn messages(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Sends the next message by `send`, which returns whether it did.
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

    /// Skips a number.
    pub fn skip(&self) {
        self.next(|| true);
    }

    /// The receiver has been told of all messages so far.
    pub fn flushed(&self) {
        self.flushed.store(self.messages(), Ordering::Release);
    }

    /// Messages that the receiver has been told of.
    pub fn told(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    /// It is not known whether message `number` came.
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
            // Its number is not used again: if it had been published, the message would come twice.
            if self.in_doubt().last() != Some(begun - 1) {
                self.doubt(begun - 1);
            }
            self.ended.store(begun, Ordering::SeqCst);
        }
    }
}
