// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls of the native link only.

use crate::args::{call, code, place};
use crate::instance::{at, mk_ipi};
use crate::send::with_peer;
use crate::types::mk_ipi_lane_stats;
use core::ffi::{c_int, c_uint};
use mk_ipi_core::abi::{Errno, Incarnation, PhysCpuId, Vector};

/// Advances the heartbeat of this kernel, schedules the deferred work to look at all lanes, and checks all native peers.
/// Changes are reported by `peer_event`. Call it periodically.
///
/// `now`: the kernel's clock, in any unit. A peer whose heartbeat does not change for more than `patience` of these units
/// is suspect. Returns 0, or -EINVAL if `mk` is not an instance of the library. Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_tick(mk: *mut mk_ipi, now: u64, patience: u64) -> c_int {
    // SAFETY: the caller.
    code(unsafe { at(mk) }.map(|instance| {
        instance.end.tick(now, patience);
        0
    }))
}

/// Tells all peers that this life of the kernel has ended. Unread messages stay in its region for its next
/// life.
///
/// Returns 0, or -EINVAL if `mk` is not an instance of the library. Context: any.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_goodbye(mk: *mut mk_ipi) -> c_int {
    // SAFETY: the caller.
    code(unsafe { at(mk) }.map(|instance| {
        instance.end.goodbye();
        0
    }))
}

/// Makes this life of the kernel begin with empty lanes: messages that former lives left unread are not delivered, and
/// their senders are told (`MK_IPI_EVENT_DISCARDED`). Call it before this kernel's own instance is added.
///
/// Returns 0, or -EINVAL if `mk` is not an instance of the library. Context: any.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_discard_unread(mk: *mut mk_ipi) -> c_int {
    // SAFETY: the caller.
    code(unsafe { at(mk) }.map(|instance| {
        instance.end.discard_unread();
        0
    }))
}

/// Stores in `*number` how far an instance has handled the messages of this life of ours: all messages with a number up to it
/// were handled. The instance confirms several messages at once.
///
/// Returns 0; -EINVAL, -ESTALE as `mk_ipi_send`, and -EINVAL if `number` is NULL; -EPROTO if the number from the peer is
/// impossible. Context: any.
///
/// # Safety
///
/// As `mk_ipi_identify`; `number` is NULL or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_handled(mk: *mut mk_ipi, to: c_int, number: *mut u64) -> c_int {
    let Ok(place) = place(number) else { return Errno::EINVAL.to_c() };
    let read = |end: &crate::instance::End, to| {
        let handled = end.handled(to)?;
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { place.write(handled) };
        Ok(0)
    };
    // SAFETY: the caller.
    unsafe { with_peer(mk, to, read) }
}

/// Tells this life of an instance to stop at once. It stops only if this kernel is the host, instance 0.
///
/// Returns 0; -EINVAL, -ESTALE as `mk_ipi_send`, and -EINVAL for incarnation 0; or the doorbell's error.
/// Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_stop(mk: *mut mk_ipi, to: c_int, incarnation: u32) -> c_int {
    let Some(incarnation) = Incarnation::new(incarnation) else { return Errno::EINVAL.to_c() };
    // SAFETY: the caller.
    unsafe { with_peer(mk, to, |end, to| end.stop(to, incarnation).map(|()| 0)) }
}

/// Sets the CPU and vector at which the next life of this kernel is rung from the beginning, instead of those in the
/// directory. Call it before `mk_ipi_join`.
///
/// Returns 0; -EINVAL if `mk` is not an instance of the library, `cpu` has more than 48 bits, or `vector` is not 0x20 to 0xfe.
/// Context: any.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_begin_at(mk: *mut mk_ipi, cpu: u64, vector: c_uint) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |instance| {
        let vector = u8::try_from(vector).ok().and_then(Vector::new).ok_or(Errno::EINVAL)?;
        instance.end.begin_at(PhysCpuId(cpu), vector).map(|()| 0).map_err(|e| e.errno())
    }))
}

/// Makes senders ring this kernel at `cpu` with `vector` from now on. After the deferred work that this
/// schedules, the old doorbell does not ring any more.
///
/// Returns 0; -EINVAL if `mk` is not an instance of the library, its region is not native, `cpu` is not one of its CPUs, or
/// `vector` is not 0x20 to 0xfe. Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_move_doorbell(mk: *mut mk_ipi, cpu: u64, vector: c_uint) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |instance| {
        let vector = u8::try_from(vector).ok().and_then(Vector::new).ok_or(Errno::EINVAL)?;
        instance.end.move_doorbell(PhysCpuId(cpu), vector).map(|()| 0).map_err(|e| e.errno())
    }))
}

/// Stores statistics of our lane to an instance in `*stats`.
///
/// Returns 0; -EINVAL if `mk` is not an instance of the library, `stats` is NULL, or the link is not native; -ESTALE as
/// `mk_ipi_send`. Context: any.
///
/// # Safety
///
/// As `mk_ipi_identify`; `stats` is NULL or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_get_lane_stats(
    mk: *mut mk_ipi,
    to: c_int,
    stats: *mut mk_ipi_lane_stats,
) -> c_int {
    let Ok(place) = place(stats) else { return Errno::EINVAL.to_c() };
    let read = |end: &crate::instance::End, to| {
        let s = end.lane_stats(to)?;
        let last_breach = s.last_breach.map_or(0, |breach| breach as u64);
        let read = mk_ipi_lane_stats {
            number: s.number,
            full: s.full,
            rung: s.rung,
            received: s.received,
            resets: s.resets,
            bad: s.bad,
            last_breach,
        };
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { place.write(read) };
        Ok(0)
    };
    // SAFETY: the caller.
    unsafe { with_peer(mk, to, read) }
}
