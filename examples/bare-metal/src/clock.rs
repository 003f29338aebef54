// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time stamp counter: round trips are measured in its cycles, waits are bounded by it.

use core::arch::x86_64::{_mm_lfence, _rdtsc};

/// Cycles in a second, at most: a bound derived from it lasts at least as long as it says.
pub const SECOND: u64 = 4_000_000_000;

/// The counter now, read after all that comes before it in the program.
pub fn now() -> u64 {
    // SAFETY: every x86-64 CPU has both instructions, and neither touches memory.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// Spins for at least `micros` microseconds.
pub fn delay_us(micros: u64) {
    let start = now();
    while now().wrapping_sub(start) < micros * (SECOND / 1_000_000) {
        core::hint::spin_loop();
    }
}

/// Says when something has not moved for too long.
pub struct Watchdog {
    patience: u64,
    seen: u64,
    since: u64,
}

impl Watchdog {
    /// A watchdog that barks after at least `seconds` without progress.
    pub fn new(seconds: u64) -> Self {
        Self { patience: seconds * SECOND, seen: 0, since: now() }
    }

    /// Whether `progress`, a number that changes as things move, has been the same for too long.
    pub fn stalled(&mut self, progress: u64) -> bool {
        let now = now();
        if progress != self.seen {
            (self.seen, self.since) = (progress, now);
        }
        now.wrapping_sub(self.since) > self.patience
    }
}
