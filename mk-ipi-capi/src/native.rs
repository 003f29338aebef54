// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that only the native link has.

use crate::args::{call, code, id_of, place};
use crate::instance::{at, mk_ipi, Instance};
use crate::types::mk_ipi_lane_stats;
use core::ffi::{c_int, c_uint};
use mk_ipi_core::abi::{Errno, Incarnation, PhysCpuId, Vector};

/// Advances the heartbeat of this kernel, schedules the deferred work to read all lanes, and checks all peers with native
/// regions. The operation `peer_event` reports changes. Call it periodically.
///
/// `now` is the time on the kernel's clock. The clock is a counter that does not wrap, in any unit. If the heartbeat of a peer
/// does not change for more than `patience` of these units, the event `MK_IPI_EVENT_SUSPECT` is reported. Returns 0, or -EINVAL
/// if `mk` is not an instance of the library. Context: any but NMI.
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

/// Tells all peers that this life of the kernel has ended. Afterwards call only `mk_ipi_destroy_instance` and `mk_ipi_fini`.
/// Unread messages stay in the region of this kernel for its next life.
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

/// Makes this life of the kernel begin with empty lanes. Messages that former lives left unread are not delivered. Their senders
/// get `MK_IPI_EVENT_DISCARDED`. Call it before this kernel's own instance is added.
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

/// Stores a message number in `*number`. The instance has handled all messages of this life of ours whose numbers are not above
/// that number. It may have handled more, because it confirms several messages together.
///
/// Returns 0; -EINVAL and -ESTALE as `mk_ipi_send`; -EINVAL also on RFC v2, and if `number` is NULL or misaligned; -EPROTO if the
/// peer has written an impossible number. Context: any.
///
/// # Safety
///
/// As `mk_ipi_identify`. `number` is NULL, or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_handled(mk: *mut mk_ipi, to: c_int, number: *mut u64) -> c_int {
    let read = |mk: &Instance| {
        let place = place(number)?;
        let handled = mk.end.handled(id_of(to)?).map_err(|e| mk.because(e))?;
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { place.write(handled) };
        Ok(0)
    };
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, read))
}

/// Tells the life `incarnation` of an instance to stop at once. Only the host, instance 0, can do this: the instance ignores it
/// from other kernels.
///
/// Returns 0; -EINVAL and -ESTALE as `mk_ipi_send`; -EINVAL also on RFC v2, and for incarnation 0; or the error of the doorbell.
/// Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_stop(mk: *mut mk_ipi, to: c_int, incarnation: u32) -> c_int {
    let stop = |mk: &Instance| {
        let incarnation = Incarnation::new(incarnation).ok_or(Errno::EINVAL)?;
        mk.end.stop(id_of(to)?, incarnation).map_err(|e| mk.because(e))?;
        Ok(0)
    };
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, stop))
}

/// Sets the CPU and the vector of this kernel's doorbell, instead of those in the directory. Peers ring it from the moment when
/// this kernel joins. Call it before `mk_ipi_start` or `mk_ipi_join`; afterwards call `mk_ipi_move_doorbell`. Peers ring this CPU
/// only if the directory lists it as a CPU of this kernel.
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

/// Moves the doorbell of this kernel to `cpu` with `vector`: senders ring it from now on. After the deferred work that this call
/// schedules has run, senders do not ring the old doorbell any more.
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
/// Returns 0; -EINVAL and -ESTALE as `mk_ipi_send`; -EINVAL also on RFC v2, and if `stats` is NULL or misaligned. Context: any.
///
/// # Safety
///
/// As `mk_ipi_identify`. `stats` is NULL, or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_get_lane_stats(
    mk: *mut mk_ipi,
    to: c_int,
    stats: *mut mk_ipi_lane_stats,
) -> c_int {
    let read = |mk: &Instance| {
        let place = place(stats)?;
        let s = mk.end.lane_stats(id_of(to)?).map_err(|e| mk.because(e))?;
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
    code(call(unsafe { at(mk) }, read))
}
