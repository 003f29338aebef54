// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts the CPUs that are about to ring. A CPU that follows the directory waits until no CPU rings a doorbell of a former entry
//! (SPEC D-7).

use crate::sync::{const_unless_loom, fence, AtomicU32, Ordering};

/// How often a waiter checks whether a CPU is about to ring, before the waiter gives up.
const TRIES: usize = if cfg!(loom) { 1 } else { 4_096 };

/// How many doorbells a CPU is about to ring: at most one, and one more for each NMI that interrupts the ring.
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
        // SYNC POINT: ringing (fence). Either we read the new entry, or the CPU that follows the directory sees that we are
        // ringing.
        fence(Ordering::SeqCst);
        let rung = ring();
        // SYNC POINT: rung (release)
        self.0.fetch_sub(1, Ordering::Release);
        rung
    }

    /// Waits, for a bounded time, until this CPU has rung the doorbells that it was about to ring. True if it has. Call
    /// [`before_settled`] first.
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

/// Ensures that a CPU that begins to ring later reads directory entries at least as new as those that we have read.
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

    /// ringing, rung: after a CPU has said that it followed the directory, no CPU rings the doorbell CPU of the old entry.
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
                        assert!(
                            cpu == NEW || given == 0,
                            "a CPU was rung that belongs to another kernel now"
                        );
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
