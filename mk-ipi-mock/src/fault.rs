// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults that a test can inject.

use mk_ipi_abi::{PhysCpuId, PhysRange};

/// When a fault happens. A doorbell fault counts the doorbells that match its `from` and `to`. A scribble counts the steps of the
/// machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At the n-th such doorbell or step, counted from 1. For doorbells the count begins when the fault is injected.
    Nth(u64),
    /// At each such doorbell or step with probability 1 / n. The seed decides.
    OneIn(u32),
}

/// What happens to a doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorbellFault {
    /// The doorbell never arrives, but `ring` returns success.
    Lost,
    /// The doorbell arrives this many steps later. If all CPUs sleep before that step, the machine moves its time forward to that
    /// step.
    Late(u64),
    /// The doorbell arrives, and arrives a second time when its handler has returned.
    Doubled,
}

/// A fault that a test injects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A doorbell is lost, late or doubled.
    Doorbell {
        /// The fault matches only doorbells that this CPU rings. `None` matches all CPUs.
        from: Option<PhysCpuId>,
        /// The fault matches only doorbells to this CPU. `None` matches all CPUs.
        to: Option<PhysCpuId>,
        /// To which of the matching doorbells the fault happens.
        when: When,
        /// What happens to such a doorbell.
        what: DoorbellFault,
    },
    /// A word of memory is overwritten, as if by a hostile CPU.
    Scribble {
        /// At which steps of the machine this happens.
        when: When,
        /// The seed chooses a word from this range. The range must be in the machine's memory.
        range: PhysRange,
        /// The value that is written. With `None` the seed chooses the value.
        value: Option<u64>,
    },
    /// A kernel stops at its n-th access of this incarnation, counted from 1. That access and all later ones have no
    /// effect, until the kernel is started again. A `ring` is an access too. (In [`Mode::Free`](crate::Mode::Free)
    /// other CPUs of the kernel can finish an access that they have begun.)
    Stop {
        /// The number of the kernel.
        kernel: usize,
        /// The number of the access.
        access: u64,
    },
    /// The same as `Stop`, but only accesses that other kernels can see are counted: stores, compare-and-swaps and
    /// rings.
    StopAtStore {
        /// The number of the kernel.
        kernel: usize,
        /// The number of the store, compare-and-swap or ring.
        store: u64,
    },
}

/// An injected fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActiveFault {
    pub fault: Fault,
    /// The number of matching doorbells so far.
    pub seen: u64,
}

impl When {
    /// Returns true if the fault happens at the `nth` doorbell or step.
    pub(crate) fn hits(self, nth: u64, rng: &mut fastrand::Rng) -> bool {
        match self {
            Self::Nth(n) => n == nth,
            Self::OneIn(n) => rng.u32(0..n.max(1)) == 0,
        }
    }
}
