// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counters of messages, doorbells, interrupts and refused sends (SPEC H-15).

use crate::sync::{array_of, const_unless_loom, AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$meta:meta])* $name:ident => $variant:ident,)*) => {
        /// The counters.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Count { $($variant),* }

        /// A snapshot of an endpoint's counters, summed over the CPUs of its kernel. Each counter begins at 0 and wraps at 2^64.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats { $($(#[$meta])* pub $name: u64),* }

        const COUNTS: usize = [$(Count::$variant),*].len();

        impl Stats {
            pub(crate) fn add(&mut self, counters: &Counters) {
                $(self.$name = self.$name.wrapping_add(counters.get(Count::$variant));)*
            }
        }
    };
}

counters! {
    /// Messages that were stored. On RFC v2 those whose doorbell did not ring are not counted.
    sent => Sent,
    /// Sends refused because the exclusive slot was occupied.
    busy => Busy,
    /// Sends refused for any other reason; nothing was stored.
    refused => Refused,
    /// Sends refused because the lane was full.
    full => Full,
    /// Doorbells on the native link that this kernel rang, or tried to ring.
    rung => Rung,
    /// Messages written but not published, because the host had cleared their claim.
    claim_lost => ClaimLost,
    /// Messages stored whose doorbell did not ring.
    not_rung => NotRung,
    /// Calls of `on_interrupt`.
    interrupts => Interrupts,
    /// On RFC v2, messages copied out of a slot into the queue. On the native link, messages read from a lane.
    received => Received,
    /// Messages given to at least one handler.
    handled => Handled,
    /// Messages for whose type no handler was registered.
    unhandled => Unhandled,
    /// Interrupts or polls that found an empty slot.
    empty => Empty,
    /// Interrupts or polls that found a slot claimed and not yet published.
    claimed => Claimed,
    /// Interrupts or polls that found a slot with a `data_size` that is neither a length nor a claim.
    bad_size => BadSize,
    /// Messages overwritten while they were read.
    overwritten => Overwritten,
    /// Messages that were overwritten while they waited in their slot for room in the queue (overwrite policy only).
    dropped => Dropped,
    /// Messages that were left in their slot because the queue was full or in use.
    left => Left,
    /// Interrupts that came while this kernel had no region of its own.
    no_region => NoRegion,
    /// Interrupts or polls on a CPU for which the region has no slot.
    beyond_region => BeyondRegion,
    /// Interrupts or polls that came while their CPU was copying a message into the queue. The deferred work looks into the slot
    /// again.
    nested => Nested,
    /// Lanes put into quarantine.
    quarantined => Quarantined,
    /// Interrupts on a CPU whose index is not below `CPUS`. They read nothing.
    beyond_cpus => BeyondCpus,
}

/// One CPU's counters.
#[derive(Debug)]
pub(crate) struct Counters([AtomicU64; COUNTS]);

impl Counters {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self(array_of![AtomicU64::new(0); COUNTS])
        }
    }

    #[inline]
    pub(crate) fn count(&self, what: Count) {
        self.add(what, 1);
    }

    pub(crate) fn add(&self, what: Count, n: u64) {
        if let Some(counter) = self.0.get(what as usize) {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Adds `n` without an atomic read-modify-write. Only for a counter that nothing else changes at the same time.
    #[inline]
    pub(crate) fn add_alone(&self, what: Count, n: u64) {
        if let Some(counter) = self.0.get(what as usize) {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self, what: Count) -> u64 {
        self.0.get(what as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }
}
