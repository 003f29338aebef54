// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shared memory, one word at a time.

use crate::cpu;
use crate::report::What;
use mk_ipi_core::sync::Word;
use std::sync::atomic::{AtomicU64, Ordering};

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
}

impl Word for MockWord {
    fn load(&self, order: Ordering) -> u64 {
        cpu::access(self, What::Load);
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        if cpu::access(self, What::Store) {
            self.0.store(value, order);
        }
    }

    fn compare_exchange(&self, current: u64, new: u64, order: Ordering) -> Result<u64, u64> {
        if cpu::access(self, What::CompareExchange) {
            self.0.compare_exchange(current, new, order, Ordering::Relaxed)
        } else {
            Err(self.0.load(Ordering::Relaxed))
        }
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        if cpu::access(self, What::CompareExchange) {
            self.0.swap(value, order)
        } else {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        if cpu::access(self, What::CompareExchange) {
            self.0.fetch_or(bits, order)
        } else {
            self.0.load(Ordering::Relaxed)
        }
    }
}
