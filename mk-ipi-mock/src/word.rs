// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared memory, one word at a time.

use crate::report::Step;
use mk_ipi_core::sync::Word;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// A function to call before an access to a word. The last argument is the value that the access will store. It returns false
/// if the access must have no effect.
type Watcher = fn(&MockWord, Step, u64) -> bool;

thread_local! {
    /// The function that watches the accesses of this thread. A CPU sets it. This is all that this module knows of CPUs.
    static WATCHER: Cell<Option<Watcher>> = const { Cell::new(None) };
}

/// From now on, `watcher` is called before each access of this thread.
pub(crate) fn watch(watcher: Watcher) {
    WATCHER.set(Some(watcher));
}

/// One word of shared memory. Each access by a CPU of a machine is a step of that machine.
///
/// On a thread that is no CPU (in the set-up of a test) it is a plain atomic.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct MockWord(AtomicU64);

impl MockWord {
    /// A word that holds `value`.
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// The atomic itself. An access to it is no step and is not checked.
    pub(crate) const fn raw(&self) -> &AtomicU64 {
        &self.0
    }

    /// Does the step before an access. Returns false if the access must have no effect.
    fn access(&self, what: Step, value: u64) -> bool {
        WATCHER.get().is_none_or(|watcher| watcher(self, what, value))
    }
}

impl Word for MockWord {
    fn load(&self, order: Ordering) -> u64 {
        self.access(Step::Load, 0);
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        if self.access(Step::Store, value) {
            self.0.store(value, order);
        }
    }

    fn compare_exchange(&self, current: u64, new: u64, order: Ordering) -> Result<u64, u64> {
        if self.access(Step::CompareExchange, new) {
            self.0.compare_exchange(current, new, order, Ordering::Relaxed)
        } else {
            Err(self.0.load(Ordering::Relaxed))
        }
    }
}
