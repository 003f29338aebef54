// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cell that keeps one task's waker. No context ever waits for the cell: one that finds it in use sets a flag, or wakes the
//! task to look again.
//!
//! A task registers its waker. Any CPU can wake it, also deferred work that interrupts the task during the registration. So a
//! lock cannot be used here. One word decides which context may access the waker:
//!
//! | state | which context may access the waker |
//! | --- | --- |
//! | `IDLE` | none yet |
//! | `REGISTERING` | the task that set this flag |
//! | `WAKING` | the context that set this flag, in order to wake |
//! | both | the task that set `REGISTERING`; it also does the waking |
//!
//! A waker is code of the executor. So wakers are cloned, called and dropped only while the cell is not held.

use core::task::Waker;
use mk_ipi_core::sync::{AtomicU64, Ordering, UnsafeCell};

const IDLE: u64 = 0;
const REGISTERING: u64 = 1;
const WAKING: u64 = 2;

/// See the module. It must not be used in NMI context, because wakers must not be called there.
#[derive(Debug)]
pub(crate) struct WakerCell {
    state: AtomicU64,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: a `Waker` is Send and Sync, and `state` lets one context at a time access it (the table above).
unsafe impl Sync for WakerCell {}
// SAFETY: as above; the cell owns the waker.
unsafe impl Send for WakerCell {}

impl WakerCell {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self { state: AtomicU64::new(IDLE), waker: UnsafeCell::new(None) }
        }
    }

    /// Registers `waker` for the next [`wake`](Self::wake), and drops the one that was registered before. If another context
    /// calls `wake` at the same time, `waker` is woken at once instead.
    ///
    /// After this call, execute a fence, and then look again at what you wait for: [`wake`](Self::wake) says why.
    pub(crate) fn register(&self, waker: &Waker) {
        let new = waker.clone();
        // SYNC POINT: waker-cell (acquire)
        if self.state.compare_exchange(IDLE, REGISTERING, Ordering::Acquire).is_err() {
            return waker.wake_by_ref();
        }
        // SAFETY: we changed the state from IDLE to REGISTERING, so only we may access the waker (the table above). The context
        // that had it before us has finished (waker-cell).
        let old = self.waker.with_mut(|kept| unsafe { (*kept).replace(new) });
        // SYNC POINT: waker-cell (release)
        if self.state.compare_exchange(REGISTERING, IDLE, Ordering::Release).is_err() {
            // Another context called `wake` meanwhile, and left the waking to us.
            // SAFETY: REGISTERING, which we set, is still set.
            let kept = self.waker.with_mut(|kept| unsafe { (*kept).take() });
            // SYNC POINT: waker-cell (acquire, release)
            self.state.swap(IDLE, Ordering::AcqRel);
            if let Some(kept) = kept {
                kept.wake();
            }
        }
        drop(old);
    }

    /// Wakes the registered task, once.
    ///
    /// The caller stores what the task waits for, executes a fence, and calls this. The task calls
    /// [`register`](Self::register), executes a fence, and looks. So either the task sees that store, or this call finds the
    /// waker (SYNC POINT: waker-registered).
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.take() {
            waker.wake();
        }
    }

    /// Takes the waker out, if there is one and no other context accesses it. If a task is registering one at this moment, that
    /// task wakes it.
    pub(crate) fn take(&self) -> Option<Waker> {
        // SYNC POINT: waker-cell (acquire, release)
        if self.state.fetch_or(WAKING, Ordering::AcqRel) != IDLE {
            return None;
        }
        // SAFETY: we changed the state from IDLE to WAKING: as in `register`.
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

    /// A waker that counts its calls. The counter is not one of loom's atomics, because the model does not test it.
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

    /// waker-registered: a task that waits finds what it waits for, or is woken.
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

    /// waker-cell: two contexts wake, and one registers twice. One at a time accesses the waker. The last waker was woken, or
    /// is still registered.
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
