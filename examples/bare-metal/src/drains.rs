// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that the drain is fair. A call of the drain can take no message of a kernel although messages of this kernel wait. For
//! each kernel this module counts such calls in a row.

use crate::journal;
use crate::layout::MAX_KERNELS;
use crate::own;
use crate::platform::BUDGET;
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering};

/// The number of messages that the drain takes from a lane in one turn (`SHARE` in mk-ipi-core/src/native/receive.rs).
const SHARE: usize = 16;

/// The kernels whose streams are watched: one bit for each.
static WATCHED: AtomicU32 = AtomicU32::new(0);
/// How often the drain was called.
static CALLS: AtomicU64 = AtomicU64::new(0);
/// For each kernel, the number of the last calls in a row that took no message from its stream although messages waited.
static ROWS: [AtomicU64; MAX_KERNELS] = [const { AtomicU64::new(0) }; MAX_KERNELS];
/// The largest number in `ROWS` so far.
static LONGEST: AtomicU64 = AtomicU64::new(0);

/// Watches the streams of these kernels from now on. With no kernels, it ends the watch.
pub fn watch(kernels: impl Iterator<Item = usize>) {
    WATCHED.store(kernels.fold(0, |bits, k| bits | 1 << k), Ordering::Relaxed);
}

/// The number of calls of the drain, and the largest number of calls in a row that took no message from a waiting stream.
pub fn found() -> (u64, u64) {
    (CALLS.load(Ordering::Relaxed), LONGEST.load(Ordering::Relaxed))
}

/// The largest number of such calls in a row that a fair drain can have. One call has a budget of [`BUDGET`] messages, so it
/// can give a turn to only some of the lanes.
pub fn allowed(kernels: usize) -> u64 {
    (kernels * SHARE).div_ceil(BUDGET) as u64
}

/// Calls `drain`, and updates the counter of each kernel in `ROWS`.
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
