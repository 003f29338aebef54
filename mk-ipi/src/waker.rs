// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cell that keeps one task's waker. Nobody ever waits for it: who finds it in use leaves a note there, or looks again.
//!
//! Tasks put a waker in; any CPU wakes it, also from the deferred work that interrupts a task in the middle of that. So a lock would
//! not do, not even with interrupts off on one CPU while another one spins. One word decides who may touch the waker:
//!
//! | state | who may touch the waker |
//! | --- | --- |
//! | `IDLE` | nobody yet |
//! | `REGISTERING` | the task that put this here |
//! | `WAKING` | the waker that put this here |
//! | both | the task that put `REGISTERING`; it does what the waker came for |
//!
//! Wakers are cloned, called and dropped only when the cell is idle again: they are code of others.

use core::task::Waker;
use mk_ipi_core::sync::{AtomicU64, Ordering, UnsafeCell};

const IDLE: u64 = 0;
const REGISTERING: u64 = 1;
const WAKING: u64 = 2;

/// See the module. Not for NMI context: wakers are not.
#[derive(Debug)]
pub(crate) struct WakerCell {
    state: AtomicU64,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: a `Waker` is Send and Sync, and `state` lets one context at a time touch it (the table above).
unsafe impl Sync for WakerCell {}
// SAFETY: as above; the cell owns the waker.
unsafe impl Send for WakerCell {}

impl WakerCell {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self { state: AtomicU64::new(IDLE), waker: UnsafeCell::new(None) }
        }
    }

    /// Has `waker` woken by the next [`wake`](Self::wake), in place of the one that was here. If somebody wakes at this very moment, `waker` is
    /// woken at once instead.
    ///
    /// Look at what you wait for behind this and a fence: [`wake`](Self::wake) says why.
    pub(crate) fn register(&self, waker: &Waker) {
        let new = waker.clone();
        // SYNC POINT: waker-cell (acquire)
        if self.state.compare_exchange(IDLE, REGISTERING, Ordering::Acquire).is_err() {
            return waker.wake_by_ref();
        }
        // SAFETY: the state went from IDLE to REGISTERING by our hand, so the waker is ours alone (the table above), and whoever had it
        // before us is through (waker-cell).
        let old = self.waker.with_mut(|kept| unsafe { (*kept).replace(new) });
        // SYNC POINT: waker-cell (release)
        if self.state.compare_exchange(REGISTERING, IDLE, Ordering::Release).is_err() {
            // Somebody came to wake meanwhile, and left it to us.
            // SAFETY: the state is still REGISTERING, by our hand.
            let kept = self.waker.with_mut(|kept| unsafe { (*kept).take() });
            // SYNC POINT: waker-cell (acquire, release)
            self.state.swap(IDLE, Ordering::AcqRel);
            if let Some(kept) = kept {
                kept.wake();
            }
        }
        drop(old);
    }

    /// Wakes whoever is registered, once.
    ///
    /// Between what is waited for and this there is a fence, and another one between [`register`](Self::register) and the look of who waits:
    /// either that look finds it, or this finds the waker (SYNC POINT: waker-registered).
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.take() {
            waker.wake();
        }
    }

    /// Takes the waker out, if there is one and nobody else is at it. If a task is just registering one, that is woken by it.
    pub(crate) fn take(&self) -> Option<Waker> {
        // SYNC POINT: waker-cell (acquire, release)
        if self.state.fetch_or(WAKING, Ordering::AcqRel) != IDLE {
            return None;
        }
        // SAFETY: the state went from IDLE to WAKING by our hand: as in `register`.
        let waker = self.waker.with_mut(|kept| unsafe { (*kept).take() });
        // SYNC POINT: waker-cell (release)
        self.state.fetch_and(!WAKING, Ordering::Release);
        waker
    }
}

#[cfg(test)]
pub(crate) mod test_waker {
    use std::sync::Arc;
    use std::task::{Wake, Waker};

    /// A waker that counts. Not one of loom's atomics: it is what is counted by, not what is tried.
    #[derive(Default)]
    pub(crate) struct Count(std::sync::Mutex<u32>);

    impl Count {
        pub(crate) fn waker() -> (Arc<Self>, Waker) {
            let count = Arc::new(Self::default());
            (count.clone(), count.into())
        }
        pub(crate) fn get(&self) -> u32 {
            *self.0.lock().unwrap()
        }
    }

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() += 1;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::test_waker::Count;
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_waker_is_woken_once_and_only_if_it_is_there() {
        let cell = WakerCell::new();
        cell.wake();
        let (count, waker) = Count::waker();
        cell.register(&waker);
        assert_eq!(count.get(), 0);
        cell.wake();
        cell.wake();
        assert_eq!(count.get(), 1);
    }

    #[test]
    fn the_last_waker_counts_and_the_former_is_dropped() {
        let cell = WakerCell::new();
        let ((first, waker), (second, other)) = (Count::waker(), Count::waker());
        cell.register(&waker);
        cell.register(&other);
        drop(waker);
        assert_eq!(Arc::strong_count(&first), 1, "the cell keeps nothing of it");
        cell.wake();
        assert_eq!((first.get(), second.get()), (0, 1));
        cell.register(&other);
        drop(cell.take());
        cell.wake();
        assert_eq!(second.get(), 1, "what was taken out is not woken");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::test_waker::Count;
    use super::*;
    use loom::sync::Arc;
    use loom::thread;
    use mk_ipi_core::sync::fence;

    /// waker-registered: who waits finds what it waits for, or is woken.
    #[test]
    fn loom_no_wake_up_is_lost() {
        loom::model(|| {
            let shared = Arc::new((WakerCell::new(), AtomicU64::new(0)));
            let waking = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.1.store(1, Ordering::Relaxed);
                    // SYNC POINT: waker-registered (fence)
                    fence(Ordering::SeqCst);
                    shared.0.wake();
                })
            };
            let (count, waker) = Count::waker();
            shared.0.register(&waker);
            // SYNC POINT: waker-registered (fence)
            fence(Ordering::SeqCst);
            let found = shared.1.load(Ordering::Relaxed) == 1;
            waking.join().unwrap();
            assert!(found || count.get() > 0);
        });
    }

    /// waker-cell: of two that wake and one that registers twice, one at a time touches the waker, and the last registration is woken or is there.
    #[test]
    fn loom_one_at_a_time_touches_the_waker() {
        loom::model(|| {
            let cell = Arc::new(WakerCell::new());
            let wakers = [0, 1].map(|_| {
                let cell = cell.clone();
                thread::spawn(move || cell.wake())
            });
            let ((_, first), (count, second)) = (Count::waker(), Count::waker());
            cell.register(&first);
            cell.register(&second);
            for waking in wakers {
                waking.join().unwrap();
            }
            let before = count.get();
            cell.wake();
            assert_eq!(count.get(), 1, "{before} of it before");
        });
    }
}
