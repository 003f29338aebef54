// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a Linux that another kernel started. It ends because its host asks it to stop (SPEC N-15), or for another
//! reason (spawned.c).

use crate::{ffi, role};
use mk_ipi_core::sync::{AtomicBool, Ordering};

/// True after the host has asked this kernel to stop.
static IS_TOLD: AtomicBool = AtomicBool::new(false);
/// True after the shutdown was begun.
static IS_BEGUN: AtomicBool = AtomicBool::new(false);
/// True after this kernel has ended, by a shutdown or by a panic. Then its doorbell handler, its deferred work and its tick
/// do nothing.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Called when the host asks this kernel to stop. Can be called in interrupt context, and more than once.
pub fn on_stop() {
    if role::is_joined() && !IS_TOLD.swap(true, Ordering::Relaxed) {
        // SAFETY: `start_work` has initialised the work item.
        unsafe { ffi::mk_ipi_glue_queue_host_request() };
    }
}

/// Begins the shutdown, if the host has asked for it. Runs in process context.
pub fn run() {
    if IS_TOLD.load(Ordering::Relaxed) && !IS_BEGUN.swap(true, Ordering::Relaxed) {
        kernel::prelude::pr_info!("the host tells this kernel to stop\n");
        // SAFETY: process context.
        unsafe { ffi::mk_ipi_glue_power_off() };
    }
}

/// Returns whether this kernel has ended.
pub fn is_over() -> bool {
    IS_OVER.load(Ordering::Relaxed)
}

/// Called when this kernel ends. Can be called in any context. Messages that arrive after this call stay unread, and the next
/// life receives them.
#[no_mangle]
pub extern "C" fn mk_ipi_rs_over() {
    IS_OVER.store(true, Ordering::Relaxed);
}
