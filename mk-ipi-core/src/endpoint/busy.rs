// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sets of instances whose lanes need work later.

use crate::sync::{array_of, const_unless_loom, AtomicU64, Ordering};
use mk_ipi_abi::InstanceId;

/// A set of instances. Any CPU can change it at any time.
#[derive(Debug)]
pub(super) struct Instances([AtomicU64; 4]);

impl Instances {
    const_unless_loom! {
        pub(super) fn new() -> Self {
            Self(array_of![AtomicU64::new(0); 4])
        }
    }

    fn bit(&self, id: InstanceId) -> (&AtomicU64, u64) {
        let [a, b, c, d] = &self.0;
        let word = match id.get() >> 6 {
            0 => a,
            1 => b,
            2 => c,
            _ => d,
        };
        (word, 1 << (id.get() & 63))
    }

    /// Adds an instance. If the instance is in the set already, this only loads a word.
    #[inline]
    pub(super) fn add(&self, id: InstanceId) {
        let (word, bit) = self.bit(id);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Removes an instance. True if it was in the set.
    pub(super) fn remove(&self, id: InstanceId) -> bool {
        let (word, bit) = self.bit(id);
        word.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| word.load(Ordering::Relaxed) == 0)
    }

    /// Calls `f` for each instance in the set.
    pub(super) fn for_each(&self, f: impl Fn(InstanceId)) {
        for (word, first) in self.0.iter().zip([0u8, 64, 128, 192]) {
            let mut bits = word.load(Ordering::Relaxed);
            while bits != 0 {
                #[expect(clippy::cast_possible_truncation, reason = "below 64")]
                f(InstanceId::new(first | bits.trailing_zeros() as u8));
                bits &= bits.wrapping_sub(1);
            }
        }
    }
}

/// The work that lanes need. It is done at the end of each run of deferred work, in each `tick`, and from time to time by a
/// poller.
#[derive(Debug)]
pub(super) struct Busy {
    /// Lanes in which our life waits for an answer.
    pub(super) opening: Instances,
    /// Lanes in which a sender waits for space.
    pub(super) wanting: Instances,
    /// Lanes with messages that were posted and not flushed.
    pub(super) posted: Instances,
    /// Peers with a word that contradicts our copy of the directory.
    pub(super) unexplained: Instances,
}

impl Busy {
    const_unless_loom! {
        pub(super) fn new() -> Self {
            Self {
                opening: Instances::new(),
                wanting: Instances::new(),
                posted: Instances::new(),
                unexplained: Instances::new(),
            }
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        [&self.opening, &self.wanting, &self.posted, &self.unexplained].into_iter().all(Instances::is_empty)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::cell::RefCell;
    use std::vec::Vec;

    #[test]
    fn a_set_has_the_instances_that_were_added() {
        let set = Instances::new();
        let ids = || {
            let ids = RefCell::new(Vec::new());
            set.for_each(|id| ids.borrow_mut().push(id.get()));
            ids.into_inner()
        };
        assert!(set.is_empty() && ids().is_empty());
        let all = [0, 1, 63, 64, 100, 128, 191, 192, 255];
        for (n, id) in all.into_iter().enumerate().rev() {
            set.add(InstanceId::new(id));
            set.add(InstanceId::new(id));
            assert_eq!(ids(), all[n..]);
        }
        for (n, id) in all.into_iter().enumerate() {
            assert!(!set.is_empty());
            assert!(set.remove(InstanceId::new(id)) && !set.remove(InstanceId::new(id)));
            assert_eq!(ids(), all[n + 1..]);
        }
        assert!(set.is_empty());
    }
}
