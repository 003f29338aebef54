// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that the drain is fair: counts the calls that left a kernel's stream waiting, whatever another kernel does.

use crate::journal;
use crate::layout::MAX_KERNELS;
use crate::own;
use crate::platform::BUDGET;
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering};

/// Messages that a lane may have in one turn (SPEC N-13).
const SHARE: usize = 16;

/// One bit for each kernel whose stream is watched.
static WATCHED: AtomicU32 = AtomicU32::new(0);
/// How often the drain was called.
static CALLS: AtomicU64 = AtomicU64::new(0);
/// For each kernel, how many of the last calls in a row left its stream waiting.
static ROWS: [AtomicU64; MAX_KERNELS] = [const { AtomicU64::new(0) }; MAX_KERNELS];
/// The longest such row.
static LONGEST: AtomicU64 = AtomicU64::new(0);

/// Watches the streams of these kernels from now on. With no kernels, it ends the watch.
pub fn watch(kernels: impl Iterator<Item = usize>) {
    WATCHED.store(kernels.fold(0, |bits, k| bits | 1 << k), Ordering::Relaxed);
}

/// The number of calls of the drain, and the longest row of calls that took nothing of what waited from a kernel.
pub fn found() -> (u64, u64) {
    (CALLS.load(Ordering::Relaxed), LONGEST.load(Ordering::Relaxed))
}

/// The longest row that the drain allows: one call has turns for only a part of the lanes.
pub fn allowed(kernels: usize) -> u64 {
    (kernels * SHARE).div_ceil(BUDGET) as u64
}

/// Drains by `drain`, and checks which kernels had no turn.
pub fn watched(drain: impl FnOnce()) {
    let watched = WATCHED.load(Ordering::Relaxed);
    if watched == 0 {
        return drain();
    }
    let (me, own) = (usize::from(own::kernel()), journal::own());
    let mut before = [None; MAX_KERNELS];
    for (k, before) in before.iter_mut().enumerate().filter(|(k, _)| watched & 1 << k != 0) {
        let next = own.receiver.next(k);
        *before = (journal::of(k).sent[me].told() > next).then_some(next);
    }
    drain();
    CALLS.fetch_add(1, Ordering::Relaxed);
    for (k, before) in before.iter().enumerate() {
        let starved = before.is_some_and(|next| own.receiver.next(k) == next);
        let row = if starved { ROWS[k].load(Ordering::Relaxed) + 1 } else { 0 };
        ROWS[k].store(row, Ordering::Relaxed);
        LONGEST.fetch_max(row, Ordering::Relaxed);
    }
}
