// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deferred work: one budget in hard interrupt context (irq work), soon after the doorbell; whatever is left in process
//! context, a budget at a time, and until it is through nothing more is done in interrupt context. So a peer that sends without end
//! takes a task's share of the CPU, and the doorbells themselves.
//!
//! Callbacks run with interrupts off in both, and so do not migrate.

use crate::platform::{Linux, ENDPOINT, MAX_CPUS};
use crate::{ffi, stop};
use core::ffi::c_void;
use mk_ipi_core::platform::{LocalInterrupts, ThisCpu};
use mk_ipi_core::sync::{AtomicBool, Ordering};

/// Budgets that one piece of work in process context hands on before it queues itself again.
const ROUNDS: usize = 16;

/// What one CPU is at. It alone looks, with interrupts off.
struct State {
    /// Inside a run: what is scheduled now follows it.
    runs: AtomicBool,
    /// Something was scheduled during the run, or while the rest is due.
    again: AtomicBool,
    /// The rest is due, in process context.
    rest: AtomicBool,
}

static STATES: [State; MAX_CPUS] = [const {
    State { runs: AtomicBool::new(false), again: AtomicBool::new(false), rest: AtomicBool::new(false) }
}; MAX_CPUS];

/// This CPU's deferred work is due. Interrupts are off.
pub fn schedule() {
    let Some(state) = STATES.get(Linux.index()) else { return };
    if state.runs.load(Ordering::Relaxed) || state.rest.load(Ordering::Relaxed) {
        state.again.store(true, Ordering::Relaxed);
    } else {
        // SAFETY: interrupts are off, so this CPU's work is meant; `start_work` has made it.
        unsafe { ffi::mk_ipi_glue_queue_irq_work() };
    }
}

/// `cpu` is about to come online. What was due there when it went offline was done elsewhere.
pub fn cpu_starts(cpu: u32) {
    if let Some(state) = STATES.get(cpu as usize) {
        state.again.store(false, Ordering::Relaxed);
        state.rest.store(false, Ordering::Relaxed);
    }
}

/// One budget, with interrupts off; whether there is more, which is then due as the rest. After the `last` one that is queued.
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
        // SAFETY: interrupts are off, so this CPU's work is meant.
        unsafe { ffi::mk_ipi_glue_queue_rest() };
    }
    Linux.restore(interrupts);
    more
}

/// The irq work: hard interrupt context, on the CPU that queued it.
#[no_mangle]
extern "C" fn mk_ipi_rs_deferred(_: *mut c_void) {
    run(true);
}

/// The rest: process context, bound to the CPU. Its interrupts come between two budgets, other tasks when it is preempted or
/// has queued itself again.
#[no_mangle]
extern "C" fn mk_ipi_rs_deferred_rest(_: *mut c_void) {
    (1..=ROUNDS).all(|round| {
        // SAFETY: process context, interrupts on.
        unsafe { ffi::mk_ipi_net_hold_softirqs() };
        let more = run(round == ROUNDS);
        // SAFETY: as above. What the callbacks raised runs now, between two budgets.
        unsafe { ffi::mk_ipi_net_run_softirqs() };
        more
    });
}

/// Irq work, workqueue and tick; dropping it waits until none of them runs or will run again. By then nothing may
/// schedule any more.
pub struct Work(());

impl Work {
    /// Makes them.
    pub fn start() -> crate::failure::Result<Self> {
        // SAFETY: once; undone by `drop`.
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
