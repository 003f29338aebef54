// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a Linux that another kernel started: when its host says so (SPEC N-15), and whatever else ends it (spawned.c).

use crate::{ffi, role};
use mk_ipi_core::sync::{AtomicBool, Ordering};

/// The host has told us to stop.
static IS_TOLD: AtomicBool = AtomicBool::new(false);
/// That was begun.
static IS_BEGUN: AtomicBool = AtomicBool::new(false);
/// This kernel has ended, in order or not: it takes no message any more, and sends none.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// In interrupt context, again and again.
pub fn on_stop() {
    if role::is_joined() && !IS_TOLD.swap(true, Ordering::Relaxed) {
        // SAFETY: `start_work` has made it.
        unsafe { ffi::mk_ipi_glue_queue_host_request() };
    }
}

/// Begins to stop, if that is what the host wants: process context.
pub fn run() {
    if IS_TOLD.load(Ordering::Relaxed) && !IS_BEGUN.swap(true, Ordering::Relaxed) {
        kernel::prelude::pr_info!("the host tells this kernel to stop\n");
        // SAFETY: process context.
        unsafe { ffi::mk_ipi_glue_power_off() };
    }
}

/// Whether this kernel has ended.
pub fn is_over() -> bool {
    IS_OVER.load(Ordering::Relaxed)
}

/// It ends, in any context: what comes from now on is its next life's.
#[no_mangle]
pub extern "C" fn mk_ipi_rs_over() {
    IS_OVER.store(true, Ordering::Relaxed);
}
