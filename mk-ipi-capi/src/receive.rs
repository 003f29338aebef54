// SPDX-License-Identifier: MIT OR Apache-2.0
//! Receiving: the doorbell's interrupt, polls, the deferred work; and the counters.

use crate::args::{call, code, count_of, place, place_if_wanted, put};
use crate::instance::{at, mk_ipi, Instance};
use crate::types::mk_ipi_stats;
use core::ffi::c_int;
use mk_ipi_core::abi::Errno;
use mk_ipi_core::{Deferred, PollError};

/// Handles a doorbell: schedules the deferred work. On RFC v2 it first copies the message in this CPU's slot, if any, into the
/// queue of this CPU.
///
/// Call it in the interrupt handler of the doorbell's vector, after the interrupt was acknowledged. It takes a bounded time, and
/// calls no callback. Does nothing if `mk` is not an instance of the library. Context: interrupts off; not NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_interrupt(mk: *mut mk_ipi) {
    // SAFETY: the caller.
    if let Ok(instance) = unsafe { at(mk) } {
        instance.end.on_interrupt();
    }
}

/// Looks for messages without an interrupt, so that a message whose doorbell was lost is found. On RFC v2 it reads
/// this CPU's exclusive slot. On the native link it schedules the deferred work, which reads the lanes.
///
/// Returns 1 on the native link. On RFC v2 returns 1 if it has taken a message from the slot; 0 if there was none, or if the
/// queue of this CPU was full. -EINVAL if `mk` is not an instance of the library, or the slots of this kernel are not exclusive;
/// -ENODEV if this kernel has no region; -ERANGE on a CPU whose index is not below `MK_IPI_MAX_CPUS`. Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_poll(mk: *mut mk_ipi) -> c_int {
    // SAFETY: the caller.
    let instance = unsafe { at(mk) };
    code(call(instance, |instance| {
        instance.end.poll().map(c_int::from).map_err(|e| match e {
            PollError::NotExclusive => Errno::EINVAL,
            PollError::NoRegion => Errno::ENODEV,
            PollError::BeyondCpus => Errno::ERANGE,
        })
    }))
}

/// Calls `run` with the instance. Stores in `*more` whether messages are left. Returns the number of handled messages.
///
/// # Safety
///
/// As [`mk_ipi_run_deferred`].
unsafe fn run(mk: *mut mk_ipi, more: *mut c_int, run: impl FnOnce(&Instance) -> Deferred) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |instance| {
        let more = place_if_wanted(more)?;
        let done = run(instance);
        // SAFETY: it may be written (the caller).
        unsafe { put(more, done.more.into()) };
        Ok(count_of(done.messages))
    }))
}

/// The deferred work: gives at most `MK_IPI_QUEUE` waiting messages to their callbacks.
///
/// Unless `more` is NULL, stores in `*more`: 1 if messages may be left, and then the deferred work is scheduled again; otherwise
/// 0. Returns the number of handled messages; -EINVAL if `mk` is not an instance of the library, or `more` is misaligned.
/// Context: on the CPU that scheduled it, outside of the interrupt handler; must not migrate.
///
/// # Safety
///
/// As `mk_ipi_identify`. `more` is NULL, or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_run_deferred(mk: *mut mk_ipi, more: *mut c_int) -> c_int {
    // SAFETY: the caller.
    unsafe { run(mk, more, |instance| instance.end.run_deferred()) }
}

/// The same as `mk_ipi_run_deferred`, for a kernel that polls from time to time. On the native link it does not request doorbells
/// when no message is left; a request by a former `mk_ipi_run_deferred` stays. It schedules another run only if another CPU tried
/// to read the lanes meanwhile. A CPU that polls all the time should use a poller (`mk_ipi_poller_begin`).
///
/// # Safety
///
/// As `mk_ipi_run_deferred`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_drain(mk: *mut mk_ipi, more: *mut c_int) -> c_int {
    // SAFETY: the caller.
    unsafe { run(mk, more, |instance| instance.end.drain()) }
}

/// Stores the counters of this kernel in `*stats`.
///
/// Returns 0, or -EINVAL if `mk` is not an instance of the library, or `stats` is NULL or misaligned. Context: any.
///
/// # Safety
///
/// As `mk_ipi_identify`. `stats` is NULL, or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_get_stats(mk: *mut mk_ipi, stats: *mut mk_ipi_stats) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |instance| {
        let place = place(stats)?;
        let s = instance.end.stats();
        let read = mk_ipi_stats {
            sent: s.sent,
            busy: s.busy,
            full: s.full,
            refused: s.refused.wrapping_add(s.claim_lost),
            rung: s.rung,
            not_rung: s.not_rung,
            interrupts: s.interrupts,
            received: s.received,
            handled: s.handled,
            unhandled: s.unhandled,
            empty: s.empty,
            bad_size: s.bad_size,
            overwritten: s.overwritten,
            dropped: s.dropped,
            left: s.left,
            no_region: s.no_region.wrapping_add(s.beyond_region),
            beyond_cpus: s.beyond_cpus,
            quarantined: s.quarantined,
        };
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { place.write(read) };
        Ok(0)
    }))
}
