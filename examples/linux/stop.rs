// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a Linux that another kernel started: when its host says so (SPEC N-15), and when something else ends it
//! (spawned.c).

use crate::{ffi, role};
use mk_ipi_core::sync::{AtomicBool, Ordering};

/// True once the host has told this kernel to stop.
static IS_TOLD: AtomicBool = AtomicBool::new(false);
/// True once the stop was begun.
static IS_BEGUN: AtomicBool = AtomicBool::new(false);
/// True once this kernel has ended, in order or not. It then takes no message any more, and sends none.
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Called in interrupt context, again and again.
pub fn on_stop() {
    if role::is_joined() && !IS_TOLD.swap(true, Ordering::Relaxed) {
        // SAFETY: `start_work` has made it.
        unsafe { ffi::mk_ipi_glue_queue_host_request() };
    }
}

/// Begins to stop, if the host wants that. Runs in process context.
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

/// This kernel ends. Can be called in any context. Messages that come from now on go to its next life.
#[no_mangle]
pub extern "C" fn mk_ipi_rs_over() {
    IS_OVER.store(true, Ordering::Relaxed);
}
