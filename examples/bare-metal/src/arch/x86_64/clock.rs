// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time, from the time stamp counter.

use core::arch::x86_64::{_mm_lfence, _rdtsc};

/// An upper bound of the counter's cycles in a second.
pub const SECOND: u64 = 4_000_000_000;

/// The counter's value. All instructions before the call are completed before the counter is read.
pub fn now() -> u64 {
    // SAFETY: every x86-64 CPU has both instructions, and neither touches memory.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}
