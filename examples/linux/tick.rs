// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tick, which runs every 50 ms. It writes this kernel's heartbeat. It checks the heartbeats of the peers, and which
//! of the messages to them were handled. It schedules the deferred work, which finds messages whose doorbell was lost. If
//! another kernel is the host, the tick also reads the directory for changes.

use crate::platform::{Linux, ENDPOINT};
use crate::{ffi, joined, net, services, stop};
use core::ffi::c_void;
use mk_ipi_core::platform::LocalInterrupts;

/// Milliseconds from the end of one tick to the start of the next.
const TICK_MS: u32 = 50;
/// A peer whose heartbeat does not change for this time, in nanoseconds, is suspect.
const PATIENCE_NS: u64 = 2_000_000_000;

/// Runs one tick, and queues the next one. Runs in process context, on the CPU that receives the doorbell.
#[no_mangle]
extern "C" fn mk_ipi_rs_tick(_: *mut c_void) {
    if stop::is_over() {
        return;
    }
    // SAFETY: Linux keeps time while the module runs.
    let now = unsafe { ffi::ktime_get() };
    let interrupts = Linux.disable();
    ENDPOINT.tick(now.unsigned_abs(), PATIENCE_NS);
    Linux.restore(interrupts);
    joined::follow();
    services::run();
    net::tick();
    start();
}

/// Queues the next tick.
pub fn start() {
    // SAFETY: `start_work` has initialised the work item.
    unsafe { ffi::mk_ipi_glue_queue_tick(TICK_MS) };
}
