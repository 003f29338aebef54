// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deferred work. One budget runs in hard interrupt context (irq work), soon after the doorbell. What is left runs in
//! process context, a budget at a time; until it has finished, nothing more is done in interrupt context. So a peer
//! that sends without end takes only a task's share of the CPU, and the time of the doorbell interrupts.
//!
//! Callbacks run with interrupts off in both contexts, so they do not migrate.

use crate::platform::{Linux, ENDPOINT, MAX_CPUS};
use crate::{ffi, stop};
use core::ffi::c_void;
use mk_ipi_core::platform::{LocalInterrupts, ThisCpu};
use mk_ipi_core::sync::{AtomicBool, Ordering};

/// How many budgets one work item in process context runs before it queues itself again.
const ROUNDS: usize = 16;

/// The state of one CPU's deferred work. Only that CPU accesses it, with interrupts off.
struct State {
    /// True while a run is in progress: work that is scheduled now must follow it.
    runs: AtomicBool,
    /// True if something was scheduled during the run, or while the rest is due.
    again: AtomicBool,
    /// True if the rest is due, in process context.
    rest: AtomicBool,
}

static STATES: [State; MAX_CPUS] = [const {
    State { runs: AtomicBool::new(false), again: AtomicBool::new(false), rest: AtomicBool::new(false) }
}; MAX_CPUS];

/// Makes this CPU's deferred work due. Interrupts are off.
pub fn schedule() {
    let Some(state) = STATES.get(Linux.index()) else { return };
    if state.runs.load(Ordering::Relaxed) || state.rest.load(Ordering::Relaxed) {
        state.again.store(true, Ordering::Relaxed);
    } else {
        // SAFETY: interrupts are off, so it queues the work of this CPU; `start_work` has made it.
        unsafe { ffi::mk_ipi_glue_queue_irq_work() };
    }
}

/// `cpu` is about to come online. Other CPUs did what was due there when it went offline.
pub fn cpu_starts(cpu: u32) {
    if let Some(state) = STATES.get(cpu as usize) {
        state.again.store(false, Ordering::Relaxed);
        state.rest.store(false, Ordering::Relaxed);
    }
}

/// Runs one budget, with interrupts off. Returns whether there is more. If the `last` budget of a work item
/// leaves more, the rest is queued.
fn run(last: bool) -> bool {
    if stop::is_over() {
        return false;
    }
    let interrupts = Linux.disable();
    let more = STATES.get(Linux.index()).is_some_and(|state| {
        state.runs.store(true, Ordering::Relaxed);
        let left = ENDPOINT.run_deferred().more;
        state.runs.store(false, Ordering::Relaxed);
        let more = state.again.swap(false, Ordering::Relaxed) || left;
        state.rest.store(more, Ordering::Relaxed);
        more
    });
    if more && last {
        // SAFETY: interrupts are off, so it queues the work of this CPU.
        unsafe { ffi::mk_ipi_glue_queue_rest() };
    }
    Linux.restore(interrupts);
    more
}

/// The irq work. It runs in hard interrupt context, on the CPU that queued it.
#[no_mangle]
extern "C" fn mk_ipi_rs_deferred(_: *mut c_void) {
    run(true);
}

/// The rest. It runs in process context, bound to its CPU. Interrupts can come between two budgets. Other tasks can run
/// when it is preempted or has queued itself again.
#[no_mangle]
extern "C" fn mk_ipi_rs_deferred_rest(_: *mut c_void) {
    (1..=ROUNDS).all(|round| {
        // SAFETY: process context, interrupts on.
        unsafe { ffi::mk_ipi_net_hold_softirqs() };
        let more = run(round == ROUNDS);
        // SAFETY: as above. The softirqs that the callbacks raised run now, between two budgets.
        unsafe { ffi::mk_ipi_net_run_softirqs() };
        more
    });
}

/// Irq work, workqueue and tick. Dropping it waits until none of them runs or will run again. Nothing may schedule work
/// any more at that time.
pub struct Work(());

impl Work {
    /// Makes irq work, workqueue and tick.
    pub fn start() -> crate::failure::Result<Self> {
        // SAFETY: called once; `drop` undoes it.
        crate::failure::check(unsafe { ffi::mk_ipi_glue_start_work() }, format_args!("no workqueue"))?;
        Ok(Self(()))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // SAFETY: made by `start`.
        unsafe { ffi::mk_ipi_glue_stop_work() };
    }
}
