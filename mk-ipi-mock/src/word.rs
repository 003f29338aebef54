// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared memory, one word at a time.

use crate::report::Step;
use mk_ipi_core::sync::Word;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// What to do before an access to a word, and what is to be stored there; false if the access must have no effect.
type Watcher = fn(&MockWord, Step, u64) -> bool;

thread_local! {
    /// Who watches the accesses of this thread: the CPU that it is. The word knows no more of CPUs than that.
    static WATCHER: Cell<Option<Watcher>> = const { Cell::new(None) };
}

/// Has `watcher` asked before each access by this thread, from now on.
pub(crate) fn watch(watcher: Watcher) {
    WATCHER.set(Some(watcher));
}

/// One word of shared memory. Each access by a CPU of a machine is a step of that machine.
///
/// Outside a CPU (in a test's set-up) it is a plain atomic.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct MockWord(AtomicU64);

impl MockWord {
    /// A word that holds `value`.
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// The bare atomic: no step, no check.
    pub(crate) const fn raw(&self) -> &AtomicU64 {
        &self.0
    }

    /// The step before an access; false if the access must have no effect.
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
