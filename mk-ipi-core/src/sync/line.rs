// SPDX-License-Identifier: MIT OR Apache-2.0
//! An interrupt line for models. The `ring` and handler of a backend run on it, and the model checks that no message is missed.

#![cfg(loom)]

use super::{AtomicBool, AtomicU64, Ordering};
use loom::thread;
use std::sync::Arc;

/// Number of messages. The second one can come while the handler looks for the first.
const MESSAGES: usize = 2;
/// How often the target checks for the interrupt while the other CPU still sends.
const TAKEN: usize = 2;

/// One interrupt of one CPU, and words that another CPU writes before it rings.
///
/// An interrupt is either pending or not: two rings before it is taken cause one interrupt. Both operations on it are relaxed. So
/// only the barriers of the backend order them with accesses to the words. In a model a barrier is a fence. `dsb ishst` and
/// `fence w, o` order earlier stores before the ring, so they are a release fence. `dsb sy` and `fence o, rw` order later loads
/// after the acknowledgement of the interrupt, so they are an acquire fence.
#[derive(Debug)]
pub struct Line {
    pending: AtomicBool,
    words: [AtomicU64; MESSAGES],
}

impl Line {
    fn new() -> Self {
        Self { pending: AtomicBool::new(false), words: [0; MESSAGES].map(AtomicU64::new) }
    }

    /// Makes the interrupt pending.
    pub fn raise(&self) {
        self.pending.swap(true, Ordering::Relaxed);
    }

    /// Makes the interrupt not pending. True if it was pending.
    pub fn take(&self) -> bool {
        self.pending.swap(false, Ordering::Relaxed)
    }

    fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed)
    }
}

/// One CPU stores messages and calls `ring` for each. The target calls `handle` while the interrupt is pending; `handle` calls
/// its second argument to look for messages. Panics if a message is missed in any interleaving.
pub fn nothing_is_missed(ring: fn(&Line), handle: fn(&Line, &mut dyn FnMut())) {
    loom::model(move || {
        let line = Arc::new(Line::new());
        let sender = {
            let line = line.clone();
            thread::spawn(move || {
                for word in &line.words {
                    word.store(1, Ordering::Relaxed);
                    ring(&line);
                }
            })
        };
        let mut seen = 0;
        let mut look = || seen = line.words.iter().filter(|word| word.load(Ordering::Relaxed) != 0).count();
        for _ in 0..TAKEN {
            if line.is_pending() {
                handle(&line, &mut look);
            }
        }
        sender.join().unwrap();
        // A pending interrupt is taken sooner or later.
        while line.is_pending() {
            handle(&line, &mut look);
        }
        assert_eq!(seen, MESSAGES, "a message was missed");
    });
}
