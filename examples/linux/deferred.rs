// SPDX-License-Identifier: MIT OR Apache-2.0
//! The deferred work: it calls the handlers of messages. A budget is the largest number of messages of one run (`BUDGET`).
//!
//! The first run after a doorbell is an irq work, in hard interrupt context. If more messages are left, a work item handles
//! them in process context, one budget after the other. Until it has finished, no run is made in interrupt context. So a
//! peer that sends without end uses only the CPU time of one task, and of the doorbell interrupts.
//!
//! Handlers run with interrupts off in both contexts, so they stay on their CPU.

use crate::platform::{Linux, ENDPOINT, MAX_CPUS};
use crate::{ffi, stop};
use core::ffi::c_void;
use mk_ipi_core::platform::{LocalInterrupts, ThisCpu};
use mk_ipi_core::sync::{AtomicBool, Ordering};

/// How many budgets one work item in process context runs before it queues itself again.
const ROUNDS: usize = 16;

/// The state of one CPU's deferred work. Only that CPU accesses it, with interrupts off.
struct State {
    /// True during a run. If work is scheduled during it, another run must follow.
    runs: AtomicBool,
    /// True if work was scheduled during a run, or while `rest` was true.
    again: AtomicBool,
    /// True if messages are left, which the work item in process context must handle.
    rest: AtomicBool,
}

static STATES: [State; MAX_CPUS] = [const {
    State { runs: AtomicBool::new(false), again: AtomicBool::new(false), rest: AtomicBool::new(false) }
}; MAX_CPUS];

/// Schedules the deferred work of this CPU. Interrupts must be off.
pub fn schedule() {
    let Some(state) = STATES.get(Linux.index()) else { return };
    if state.runs.load(Ordering::Relaxed) || state.rest.load(Ordering::Relaxed) {
        state.again.store(true, Ordering::Relaxed);
    } else {
        // SAFETY: interrupts are off, so this queues the irq work of this CPU. `start_work` has initialised it.
        unsafe { ffi::mk_ipi_glue_queue_irq_work() };
    }
}

/// Called before `cpu` comes online. When it went offline, its work was done on other CPUs, so nothing is left to do.
pub fn cpu_starts(cpu: u32) {
    if let Some(state) = STATES.get(cpu as usize) {
        state.again.store(false, Ordering::Relaxed);
        state.rest.store(false, Ordering::Relaxed);
    }
}

/// Does one run, with interrupts off. Returns whether work is left. If work is left and `last` is true, queues the work item
/// that does it.
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
        // SAFETY: interrupts are off, so this queues the work item of this CPU.
        unsafe { ffi::mk_ipi_glue_queue_rest() };
    }
    Linux.restore(interrupts);
    more
}

/// The irq work. It runs in hard interrupt context, on the CPU that has queued it.
#[no_mangle]
extern "C" fn mk_ipi_rs_deferred(_: *mut c_void) {
    run(true);
}

/// The work item. It runs in process context, on the CPU that has queued it. Interrupts are on between two runs. Other
/// tasks can run when the work item is preempted, and after `ROUNDS` runs, when it has queued itself again.
#[no_mangle]
extern "C" fn mk_ipi_rs_deferred_rest(_: *mut c_void) {
    (1..=ROUNDS).all(|round| {
        // SAFETY: process context, interrupts on.
        unsafe { ffi::mk_ipi_net_hold_softirqs() };
        let more = run(round == ROUNDS);
        // SAFETY: as above. The softirqs that the handlers have raised run now, between two runs.
        unsafe { ffi::mk_ipi_net_run_softirqs() };
        more
    });
}

/// The irq works, the workqueue with its work items, and the tick. Dropping this stops them all, and waits until none of them
/// runs. Before that, all code that schedules work must have been stopped.
pub struct Work(());

impl Work {
    /// Initialises the irq works and work items, and makes the workqueue.
    pub fn start() -> crate::failure::Result<Self> {
        // SAFETY: called once; `drop` undoes it.
        crate::failure::check(
            unsafe { ffi::mk_ipi_glue_start_work() },
            format_args!("the workqueue cannot be made"),
        )?;
        Ok(Self(()))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // SAFETY: `start` has made them.
        unsafe { ffi::mk_ipi_glue_stop_work() };
    }
}
