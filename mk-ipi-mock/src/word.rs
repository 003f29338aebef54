// SPDX-License-Identifier: MIT OR Apache-2.0
//! A word of shared memory.

use crate::report::Step;
use mk_ipi_core::sync::Word;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The type of a function that is called before an access to a word. Its last argument is the value that the access will store.
/// If it returns false, the access must have no effect.
type Watcher = fn(&MockWord, Step, u64) -> bool;

thread_local! {
    /// The function that is called before each access of this thread. The thread of a CPU sets it. So this module does not depend
    /// on the module `cpu`.
    static WATCHER: Cell<Option<Watcher>> = const { Cell::new(None) };
}

/// Makes this thread call `watcher` before each of its later accesses.
pub(crate) fn watch(watcher: Watcher) {
    WATCHER.set(Some(watcher));
}

/// One word of shared memory. Each access by a CPU of a machine is a step of that machine.
///
/// On a thread that is not a CPU (for example while a test is set up) an access is a plain atomic access.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct MockWord(AtomicU64);

impl MockWord {
    /// Makes a word with this value.
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Returns the atomic itself. An access to it is not a step of the machine, and is not checked.
    pub(crate) const fn raw(&self) -> &AtomicU64 {
        &self.0
    }

    /// Calls the watcher before an access. Returns false if the access must have no effect.
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
