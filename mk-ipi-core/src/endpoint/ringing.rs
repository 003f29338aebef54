// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUs that are about to ring. A CPU that follows the directory waits until none rings by a former entry (SPEC N-17).

use crate::sync::{const_unless_loom, fence, AtomicU32, Ordering};

/// How often a waiter checks a CPU that is about to ring, before it gives up.
const TRIES: usize = if cfg!(loom) { 1 } else { 4_096 };

/// How many doorbells a CPU is about to ring: one, and one more for each NMI in between.
#[derive(Debug)]
pub(super) struct Ringing(AtomicU32);

impl Ringing {
    const_unless_loom! {
        pub(super) fn new() -> Self {
            Self(AtomicU32::new(0))
        }
    }

    /// Calls `ring`, which chooses where to ring, and rings. Interrupts are off.
    pub(super) fn during<R>(&self, ring: impl FnOnce() -> R) -> R {
        self.0.fetch_add(1, Ordering::Relaxed);
        // SYNC POINT: ringing (fence). Either we ring by the new entry, or the CPU that follows sees that we are ringing.
        fence(Ordering::SeqCst);
        let rung = ring();
        // SYNC POINT: rung (release)
        self.0.fetch_sub(1, Ordering::Release);
        rung
    }

    /// To be called after [`before_settled`]. Waits, for a bounded time, until CPUs that were about to ring have rung. True if they have.
    pub(super) fn has_settled(&self, relax: impl Fn()) -> bool {
        for _ in 0..TRIES {
            // SYNC POINT: rung (acquire)
            if self.0.load(Ordering::Acquire) == 0 {
                return true;
            }
            relax();
        }
        false
    }
}

/// Ensures that a CPU that begins to ring from now on reads what we have read, or newer.
pub(super) fn before_settled() {
    // SYNC POINT: ringing (fence)
    fence(Ordering::SeqCst);
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::AtomicU64;
    use loom::sync::Arc;
    use loom::thread;

    /// ringing, rung: when whoever follows the directory says so, nobody rings where it said before, then or later.
    #[test]
    fn loom_nobody_rings_by_what_the_directory_said_before() {
        loom::model(|| {
            const OLD: u64 = 1;
            const NEW: u64 = 2;
            let shared = Arc::new((Ringing::new(), AtomicU64::new(OLD), AtomicU64::new(0)));
            let sender = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (ringing, listed, given) = &*shared;
                    ringing.during(|| {
                        let cpu = listed.load(Ordering::Relaxed);
                        let given = given.load(Ordering::Relaxed);
                        assert!(cpu == NEW || given == 0, "the CPU is another kernel's, and rung");
                    });
                })
            };
            let (ringing, listed, given) = &*shared;
            listed.store(NEW, Ordering::Relaxed);
            before_settled();
            if ringing.has_settled(|| ()) {
                given.store(1, Ordering::Relaxed);
            }
            sender.join().unwrap();
        });
    }
}
