// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults that a test can order.

use mk_ipi_abi::{PhysCpuId, PhysRange};

/// At which occasions a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At the n-th occasion, counted from 1. The occasions are the machine's steps, or the doorbells that the fault covers.
    Nth(u64),
    /// At each occasion with probability 1 / n. The seed decides.
    OneIn(u32),
}

/// What happens to a doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoorbellFault {
    /// It never arrives; the sender sees success.
    Lost,
    /// It arrives this many steps later, or when nothing else is left to run.
    Late(u64),
    /// It arrives again once its handler has returned.
    Doubled,
}

/// A fault that a test orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A doorbell is lost, late or doubled.
    Doorbell {
        /// Only from this CPU.
        from: Option<PhysCpuId>,
        /// Only to this CPU.
        to: Option<PhysCpuId>,
        /// Which of these doorbells.
        when: When,
        /// What happens to it.
        what: DoorbellFault,
    },
    /// A word of memory changes, as if a hostile CPU had written it.
    Scribble {
        /// At which steps of the machine it happens.
        when: When,
        /// The seed chooses a word from this range.
        range: PhysRange,
        /// The value that is written. With `None` the seed chooses it.
        value: Option<u64>,
    },
    /// A kernel stops for good at its n-th access of this incarnation, counted from 1: that access and all
    /// later ones have no effect. A `ring` is an access too. (In [`Mode::Free`](crate::Mode::Free) its other
    /// CPUs can finish the access that they have begun.)
    Stop {
        /// Which kernel.
        kernel: usize,
        /// Which access.
        access: u64,
    },
    /// As `Stop`, but counts only what others can see: stores, exchanges and rings.
    StopAtStore {
        /// Which kernel.
        kernel: usize,
        /// Which store.
        store: u64,
    },
}

/// An ordered fault, and how many occasions it has had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActiveFault {
    pub fault: Fault,
    pub seen: u64,
}

impl When {
    /// True if the fault happens at the `nth` occasion.
    pub(crate) fn hits(self, nth: u64, rng: &mut fastrand::Rng) -> bool {
        match self {
            Self::Nth(n) => n == nth,
            Self::OneIn(n) => rng.u32(0..n.max(1)) == 0,
        }
    }
}
