// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time, in units of the architecture's clock (arch/*/clock). Round trips and time limits are in these units. `SECOND` is
//! at least the number of units in a second, so a time limit can be longer than it says, but not shorter.

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

/// Detects that a number has not changed for a given time.
pub struct Watchdog {
    patience: u64,
    seen: u64,
    since: u64,
}

impl Watchdog {
    /// A watchdog whose time limit is at least `seconds`.
    pub fn new(seconds: u64) -> Self {
        Self { patience: seconds * SECOND, seen: 0, since: now() }
    }

    /// Returns whether `progress` has had the same value in all calls during the time limit.
    pub fn stalled(&mut self, progress: u64) -> bool {
        let now = now();
        if progress != self.seen {
            (self.seen, self.since) = (progress, now);
        }
        now.wrapping_sub(self.since) > self.patience
    }
}
