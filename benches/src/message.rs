// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbered messages, and who checks that they come whole, once and in order.

use std::array;
use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

use clap::ValueEnum;
use mk_ipi_core::sync::{AtomicU64, Ordering};
use serde::Serialize;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A message of `WORDS` times 8 bytes: its number, and further numbers made of that and their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(transparent)]
pub struct Payload<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Payload<WORDS> {
    /// Message number `n`.
    #[inline(always)]
    pub fn numbered(n: u64) -> Self {
        Self(array::from_fn(|place| word(n, place)))
    }

    /// Reads every byte: whether this is message number `n`, whole.
    #[inline(always)]
    fn is_numbered(&self, n: u64) -> bool {
        // Without an early end: all words are read, in good messages and bad.
        self.0.iter().enumerate().fold(0, |differs, (place, found)| differs | (found ^ word(n, place))) == 0
    }

    /// Reads the first word alone.
    #[inline(always)]
    fn starts_as(&self, n: u64) -> bool {
        self.0.first().is_none_or(|found| *found == word(n, 0))
    }
}

const fn word(n: u64, place: usize) -> u64 {
    n.wrapping_add((place as u64) << 48)
}

/// How much of a message its handler reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Handler {
    /// Its number.
    Light,
    /// Every word.
    Heavy,
}

/// Where a receiver puts what arrives: it wants the messages 0, 1, 2 and so on, each whole and once.
#[derive(Debug)]
#[repr(align(128))]
pub struct Sink {
    /// How many came. Atomic because a handler has no more than a shared reference; written by one thread.
    count: AtomicU64,
    /// How many of them were not what they had to be.
    bad: AtomicU64,
    handler: Handler,
}

impl Sink {
    /// One for each end of a link.
    pub fn pair(handler: Handler) -> [Arc<Self>; 2] {
        [(); 2].map(|()| Arc::new(Self { count: AtomicU64::new(0), bad: AtomicU64::new(0), handler }))
    }

    /// Takes the next message.
    #[inline(always)]
    pub fn take<const WORDS: usize>(&self, payload: &Payload<WORDS>) {
        let n = self.came();
        self.count.store(n.wrapping_add(1), Ordering::Relaxed);
        let good = match self.handler {
            // In memory, whole: that one word is read must not make the rest of a copy go away.
            Handler::Light => black_box(payload).starts_as(n),
            Handler::Heavy => payload.is_numbered(n),
        };
        if !good {
            self.reject();
        }
    }

    /// How many came so far.
    #[inline(always)]
    pub fn came(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts a message that is not even of the right size, or is not the one that had to come.
    #[cold]
    pub fn reject(&self) {
        self.bad.store(self.bad.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Whether all that was sent came, and nothing else.
    pub fn check(&self, sent: u64) -> Result<(), Broken> {
        let (came, bad) = (self.came(), self.bad.load(Ordering::Relaxed));
        if came == sent && bad == 0 {
            Ok(())
        } else {
            Err(Broken::Delivery { sent, came, bad })
        }
    }
}

/// Why a measurement is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Not every message came, or not once, or not in order, or not whole.
    Delivery {
        /// Messages sent.
        sent: u64,
        /// Messages that came.
        came: u64,
        /// Those of them that were not what had to come.
        bad: u64,
    },
    /// One side waited for the other without end.
    Stalled,
    /// The operating system did not let the thread run on this CPU alone.
    NotPinned(usize),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivery { sent, came, bad } => {
                write!(f, "{sent} messages sent, {came} came, {bad} of them wrong")
            }
            Self::Stalled => write!(f, "stalled: a side waited for the other without end"),
            Self::NotPinned(cpu) => write!(f, "cannot pin a thread to CPU {cpu}"),
        }
    }
}

impl std::error::Error for Broken {}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(handler: Handler, numbers: impl IntoIterator<Item = u64>) -> Result<(), Broken> {
        let [sink, _] = Sink::pair(handler);
        numbers.into_iter().for_each(|n| sink.take(&Payload::<6>::numbered(n)));
        sink.check(4)
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_noticed() {
        for handler in [Handler::Light, Handler::Heavy] {
            assert_eq!(taken(handler, [0, 1, 2, 3]), Ok(()));
            for bad in [&[0, 1, 2][..], &[0, 1, 3], &[0, 1, 1, 2], &[0, 1, 2, 3, 3], &[0, 2, 1, 3], &[]] {
                assert!(taken(handler, bad.iter().copied()).is_err(), "{bad:?}");
            }
        }
    }

    #[test]
    fn every_bit_counts() {
        let whole = Payload::<32>::numbered(7);
        assert!(whole.is_numbered(7) && !whole.is_numbered(8));
        for bit in 0..256 * 8 {
            let mut torn = whole;
            torn.0[bit / 64] ^= 1 << (bit % 64);
            assert!(!torn.is_numbered(7), "bit {bit}");
        }
    }

    #[test]
    fn a_mix_of_two_messages_is_noticed() {
        let [sink, _] = Sink::pair(Handler::Heavy);
        let mut torn = Payload::<6>::numbered(0);
        torn.0[5] = Payload::<6>::numbered(1).0[5];
        sink.take(&torn);
        assert_eq!(sink.check(1), Err(Broken::Delivery { sent: 1, came: 1, bad: 1 }));
    }

    #[test]
    fn an_empty_message_counts() {
        let [sink, _] = Sink::pair(Handler::Heavy);
        sink.take(&Payload::<0>::numbered(0));
        assert_eq!(sink.check(1), Ok(()));
        assert!(sink.check(2).is_err());
    }
}
