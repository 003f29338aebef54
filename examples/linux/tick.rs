// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tick. It shows that this kernel lives, and checks which peers live and what became of the messages to them. It
//! follows the directory where another kernel writes it. It makes the deferred work find messages whose doorbell was
//! lost.

use crate::platform::{Linux, ENDPOINT};
use crate::{ffi, joined, net, services, stop};
use core::ffi::c_void;
use mk_ipi_core::platform::LocalInterrupts;

/// Milliseconds from one look at the peers to the next.
const TICK_MS: u32 = 50;
/// A peer whose heartbeat stands still for this time, in nanoseconds, is suspect.
const PATIENCE_NS: u64 = 2_000_000_000;

/// The tick, in process context, on the doorbell's CPU.
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

/// Queues one tick.
pub fn start() {
    // SAFETY: `start_work` has made it.
    unsafe { ffi::mk_ipi_glue_queue_tick(TICK_MS) };
}
