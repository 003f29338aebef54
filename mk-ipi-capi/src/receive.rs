// SPDX-License-Identifier: MIT OR Apache-2.0
//! Receiving: interrupt, poll, deferred work, counters.

use crate::args::{call, code, count_of, place, place_if_wanted, put};
use crate::instance::{at, mk_ipi, Instance};
use crate::types::mk_ipi_stats;
use core::ffi::c_int;
use mk_ipi_core::abi::Errno;
use mk_ipi_core::{Deferred, PollError};

/// Handles a doorbell. On RFC v2 it copies the message in this CPU's slot, if any. It schedules the deferred work.
///
/// Call it in the vector's handler, after the EOI. Bounded; calls no handler. Does nothing if `mk` is not an instance of the
/// library. Context: interrupts off; not NMI.
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
/// this CPU's exclusive slot. On the native link it schedules the deferred work, which looks.
///
/// Returns 1 if the deferred work was scheduled (on the native link always); 0 if there was no message; -EINVAL if
/// `mk` is not an instance of the library, or its slots are not exclusive; -ENODEV without a region of its own; -ERANGE on a CPU whose
/// index is not below `MK_IPI_MAX_CPUS`. Context: any but NMI.
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

/// The deferred work: gives waiting messages to their handlers, at most `MK_IPI_QUEUE`.
///
/// Stores 1 in `*more`, unless `more` is NULL, if messages are left and it was scheduled again. Returns the number of handled
/// messages, or -EINVAL if `mk` is not an instance of the library. Context: on the CPU that scheduled it, outside the vector's
/// code; must not migrate.
///
/// # Safety
///
/// As `mk_ipi_identify`; `more` is NULL or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_run_deferred(mk: *mut mk_ipi, more: *mut c_int) -> c_int {
    // SAFETY: the caller.
    unsafe { run(mk, more, |instance| instance.end.run_deferred()) }
}

/// As `mk_ipi_run_deferred`, for a kernel that polls from time to time: on the native link it does not request doorbells,
/// and does not schedule another run. For constant polling use a poller (`mk_ipi_poller_begin`).
///
/// # Safety
///
/// As `mk_ipi_run_deferred`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_drain(mk: *mut mk_ipi, more: *mut c_int) -> c_int {
    // SAFETY: the caller.
    unsafe { run(mk, more, |instance| instance.end.drain()) }
}

/// Stores the counters in `*stats`.
///
/// Returns 0, or -EINVAL if `mk` is not an instance of the library, or `stats` is NULL. Context: any.
///
/// # Safety
///
/// As `mk_ipi_identify`; `stats` is NULL or may be written.
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
