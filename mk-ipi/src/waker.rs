// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cell that keeps the waker of one task.
//!
//! A task registers its waker. Any CPU can wake the task. Deferred work on the same CPU can do so too, and it can interrupt the
//! task during the registration. If it waited for a lock of the task, it would wait for ever. So the cell has no lock, and no
//! context waits. If `wake` finds the cell in use, it sets a flag. If `register` finds the cell in use, it wakes its task at
//! once, and the task tries again. One word decides which context may access the waker:
//!
//! | state | context that may access the waker |
//! | --- | --- |
//! | `IDLE` | none; a context must set a flag first |
//! | `REGISTERING` | the task that set this flag |
//! | `WAKING` | the context that set this flag to wake the task |
//! | both | the task that set `REGISTERING`; this task then also calls the waker |
//!
//! The code of a waker belongs to the executor. So this module clones, calls and drops wakers only while it has no flag set.

use core::task::Waker;
use mk_ipi_core::sync::{AtomicU64, Ordering, UnsafeCell};

const IDLE: u64 = 0;
const REGISTERING: u64 = 1;
const WAKING: u64 = 2;

/// The cell that the module documentation describes. Do not use it in NMI context, because wakers must not be called there.
#[derive(Debug)]
pub(crate) struct WakerCell {
    state: AtomicU64,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: a `Waker` is Send and Sync, and `state` allows only one context at a time to access it (the table above).
unsafe impl Sync for WakerCell {}
// SAFETY: a `Waker` is Send, and the cell owns it.
unsafe impl Send for WakerCell {}

impl WakerCell {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self { state: AtomicU64::new(IDLE), waker: UnsafeCell::new(None) }
        }
    }

    /// Registers `waker` for the next [`wake`](Self::wake), and drops the waker that was registered before. If another context
    /// calls `wake` at the same time, this call can wake `waker` at once instead.
    ///
    /// After this call, execute a fence, and then check again whether the event has happened: [`wake`](Self::wake) says why.
    pub(crate) fn register(&self, waker: &Waker) {
        let new = waker.clone();
        // SYNC POINT: waker-cell (acquire)
        if self.state.compare_exchange(IDLE, REGISTERING, Ordering::Acquire).is_err() {
            return waker.wake_by_ref();
        }
        // SAFETY: we changed the state from IDLE to REGISTERING, so only we may access the waker (the table above). The context
        // that accessed it before us has finished, and we see its stores (waker-cell).
        let old = self.waker.with_mut(|kept| unsafe { (*kept).replace(new) });
        // SYNC POINT: waker-cell (release)
        if self.state.compare_exchange(REGISTERING, IDLE, Ordering::Release).is_err() {
            // Another context called `wake` meanwhile and set WAKING. So we must call the waker.
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

    /// Wakes the registered task. The waker is then removed, so a task must register again before each wait.
    ///
    /// The caller stores the event for which the task waits, executes a fence, and calls this. The task calls
    /// [`register`](Self::register), executes a fence, and checks whether the event has happened. So either the task sees that
    /// store, or this call finds the waker (SYNC POINT: waker-registered).
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.take() {
            waker.wake();
        }
    }

    /// Takes the waker out. `None` if there is none, or if another context accesses the cell. If that context is in `register`,
    /// it will call the waker.
    pub(crate) fn take(&self) -> Option<Waker> {
        // SYNC POINT: waker-cell (acquire, release)
        if self.state.fetch_or(WAKING, Ordering::AcqRel) != IDLE {
            return None;
        }
        // SAFETY: we changed the state from IDLE to WAKING, so only we may access the waker, as in `register`.
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

    /// The number of calls of a waker. The counter is not one of loom's atomics, because the model does not test the counter.
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
        assert_eq!(Arc::strong_count(&first), 1, "the cell has dropped the first waker");
        cell.wake();
        assert_eq!((first.get(), second.get()), (0, 1));
        cell.register(&other);
        drop(cell.take());
        cell.wake();
        assert_eq!(second.get(), 1, "`wake` does not call a waker that was taken out");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::test_waker::Count;
    use super::*;
    use loom::sync::Arc;
    use loom::thread;
    use mk_ipi_core::sync::fence;

    /// SYNC POINT waker-registered: a task that waits sees the event, or is woken.
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

    /// SYNC POINT waker-cell: two contexts call `wake`, and one context registers twice. Only one context at a time accesses the
    /// waker. At the end the second waker was called, or is still registered.
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
            assert_eq!(count.get(), 1, "calls of the second waker; before the last `wake`: {before}");
        });
    }
}
