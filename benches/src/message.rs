// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbered messages, and the check that each is received once, in order and unchanged.

use std::array;
use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

use clap::ValueEnum;
use mk_ipi_core::sync::{AtomicU64, Ordering};
use serde::Serialize;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A message of `WORDS` times 8 bytes. Each word is computed from the number of the message and the index of the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(transparent)]
pub struct Payload<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Payload<WORDS> {
    /// Message number `n`.
    #[inline(always)]
    pub fn numbered(n: u64) -> Self {
        Self(array::from_fn(|place| word(n, place)))
    }

    /// Reads every byte. Returns whether this is message number `n`, unchanged.
    #[inline(always)]
    fn is_numbered(&self, n: u64) -> bool {
        // All words are read, also after a word that differs, so that the time does not depend on the content.
        self.0.iter().enumerate().fold(0, |differs, (place, found)| differs | (found ^ word(n, place))) == 0
    }

    /// Reads only the first word. Returns whether it is the first word of message number `n`.
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
    /// The handler reads only the first word.
    Light,
    /// The handler reads every word.
    Heavy,
}

/// Checks the messages that one end has received. They must be the messages 0, 1, 2 and so on, each once and unchanged.
#[derive(Debug)]
#[repr(align(128))]
pub struct Sink {
    /// How many messages were received. It is atomic because a handler has only a shared reference. One thread writes it.
    count: AtomicU64,
    /// How many of them were wrong.
    bad: AtomicU64,
    handler: Handler,
}

impl Sink {
    /// A sink for each end of a link.
    pub fn pair(handler: Handler) -> [Arc<Self>; 2] {
        [(); 2].map(|()| Arc::new(Self { count: AtomicU64::new(0), bad: AtomicU64::new(0), handler }))
    }

    /// Counts and checks the next message.
    #[inline(always)]
    pub fn take<const WORDS: usize>(&self, payload: &Payload<WORDS>) {
        let n = self.came();
        self.count.store(n.wrapping_add(1), Ordering::Relaxed);
        let good = match self.handler {
            // `black_box` keeps the whole message in memory: the compiler must not leave out the copy of the words that are not
            // read.
            Handler::Light => black_box(payload).starts_as(n),
            Handler::Heavy => payload.is_numbered(n),
        };
        if !good {
            self.reject();
        }
    }

    /// How many messages were received so far.
    #[inline(always)]
    pub fn came(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts a wrong message: it has the wrong size, or is not the expected message.
    #[cold]
    pub fn reject(&self) {
        self.bad.store(self.bad.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Checks that all `sent` messages were received, and nothing else.
    pub fn check(&self, sent: u64) -> Result<(), Broken> {
        let (came, bad) = (self.came(), self.bad.load(Ordering::Relaxed));
        if came == sent && bad == 0 {
            Ok(())
        } else {
            Err(Broken::Delivery { sent, came, bad })
        }
    }
}

/// Why a measurement is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A message was lost, received twice, received out of order, or changed.
    Delivery {
        /// How many messages were sent.
        sent: u64,
        /// How many messages were received.
        came: u64,
        /// How many of these were wrong.
        bad: u64,
    },
    /// One side waited too long for the other.
    Stalled,
    /// The operating system did not allow that a thread is pinned to this CPU.
    NotPinned(usize),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivery { sent, came, bad } => {
                write!(f, "{sent} messages were sent and {came} received, {bad} of these wrong")
            }
            Self::Stalled => write!(f, "one side waited too long for the other"),
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
