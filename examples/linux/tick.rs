// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tick: shows that we live, looks who else does and what became of our messages, follows the directory where another kernel writes it,
//! and has the deferred work find what a lost doorbell left.

use crate::platform::{Linux, ENDPOINT};
use crate::{ffi, joined, net, services, stop};
use core::ffi::c_void;
use mk_ipi_core::platform::LocalInterrupts;

/// Milliseconds from one look at the peers to the next.
const TICK_MS: u32 = 50;
/// A peer whose heartbeat stands still for so many nanoseconds is suspect.
const PATIENCE_NS: u64 = 2_000_000_000;

/// Process context, on the doorbell's CPU.
#[no_mangle]
extern "C" fn mk_ipi_rs_tick(_: *mut c_void) {
    if stop::is_over() {
        return;
    }
    // SAFETY: the clock runs.
    let now = unsafe { ffi::ktime_get() };
    let interrupts = Linux.disable();
    ENDPOINT.tick(now.unsigned_abs(), PATIENCE_NS);
    Linux.restore(interrupts);
    joined::follow();
    services::run();
    net::tick();
    start();
}

/// Has the tick come, this once.
pub fn start() {
    // SAFETY: `start_work` has made it.
    unsafe { ffi::mk_ipi_glue_queue_tick(TICK_MS) };
}
