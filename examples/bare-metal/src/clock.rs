// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time. Round trips are measured in cycles of the architecture's counter, and waits are bounded by it. `SECOND` is at
//! least the number of cycles in a second: so a bound derived from it lasts at least as long as it says.

pub use crate::arch::clock::{now, SECOND};

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Microseconds(pub u32);

/// Spins for at least `micros` microseconds.
pub fn delay_us(micros: u64) {
    let start = now();
    while now().wrapping_sub(start) < micros * (SECOND / 1_000_000) {
        core::hint::spin_loop();
    }
}

/// Detects that something has not moved for too long.
pub struct Watchdog {
    patience: u64,
    seen: u64,
    since: u64,
}

impl Watchdog {
    /// A watchdog that reports after at least `seconds` without progress.
    pub fn new(seconds: u64) -> Self {
        Self { patience: seconds * SECOND, seen: 0, since: now() }
    }

    /// Returns whether `progress`, a number that changes as things move, has been the same for too long.
    pub fn stalled(&mut self, progress: u64) -> bool {
        let now = now();
        if progress != self.seen {
            (self.seen, self.since) = (progress, now);
        }
        now.wrapping_sub(self.since) > self.patience
    }
}
