// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interrupt request register of a CPU: its pending interrupts.

use mk_ipi_abi::Vector;
use std::sync::atomic::{AtomicU64, Ordering};

/// The interrupt request register: one bit per vector (Intel SDM vol. 3A, 10.8.4).
#[derive(Debug, Default)]
pub(crate) struct Irr([AtomicU64; 4]);

impl Irr {
    /// Makes `vector` pending. Returns true if it was pending already.
    ///
    /// SYNC POINT: doorbell. With the release here and the acquire in `take`, the handler sees the sender's stores (SPEC O-1).
    pub fn set(&self, vector: Vector) -> bool {
        let bit = 1 << (vector.get() % 64);
        self.0[usize::from(vector.get() / 64)].fetch_or(bit, Ordering::AcqRel) & bit != 0
    }

    /// Returns the highest pending vector, which is then not pending any more. Only the CPU that owns this register calls it.
    ///
    /// SYNC POINT: doorbell.
    pub fn take(&self) -> Option<Vector> {
        (0u8..4).rev().find_map(|i| {
            let word = &self.0[usize::from(i)];
            let top = word.load(Ordering::Relaxed).checked_ilog2()?;
            word.fetch_and(!(1 << top), Ordering::AcqRel);
            let vector = i * 64 + u8::try_from(top).ok()?;
            Vector::new(vector)
        })
    }

    /// Returns true if any vector is pending.
    pub fn any(&self) -> bool {
        self.0.iter().any(|word| word.load(Ordering::Acquire) != 0)
    }

    /// Clears all pending vectors, as a reset does.
    pub fn clear(&self) {
        self.0.iter().for_each(|word| word.store(0, Ordering::Release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_vector_counts_once_and_the_highest_goes_first() {
        let irr = Irr::default();
        let v = |n| Vector::new(n).unwrap();
        assert!(!irr.any() && irr.take().is_none());
        assert!(!irr.set(v(0x20)) && !irr.set(v(0xea)) && irr.set(v(0xea)) && !irr.set(v(0xfe)));
        assert_eq!(
            [irr.take(), irr.take(), irr.take(), irr.take()],
            [Some(v(0xfe)), Some(v(0xea)), Some(v(0x20)), None]
        );
        irr.set(v(0x7f));
        irr.clear();
        assert!(!irr.any());
    }
}
