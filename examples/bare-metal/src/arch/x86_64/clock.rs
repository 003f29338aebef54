// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time stamp counter.

use core::arch::x86_64::{_mm_lfence, _rdtsc};

/// Cycles in a second, at most.
pub const SECOND: u64 = 4_000_000_000;

/// The counter now, read after all that comes before it in the program.
pub fn now() -> u64 {
    // SAFETY: every x86-64 CPU has both instructions, and neither touches memory.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}
