// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sending. Every failure is an error.

use crate::args::{call, code, id_of, place, place_if_wanted, put};
use crate::instance::{at, mk_ipi, End, Instance};
use crate::types::{mk_ipi_payload, MK_IPI_MAX_LEN, MK_IPI_MAX_MANY};
use core::ffi::{c_int, c_ulong, c_void};
use mk_ipi_core::abi::{Errno, InstanceId, MessageType, PhysCpuId};
use mk_ipi_core::platform::{DoorbellError, ThisCpu};
use mk_ipi_core::SendError;

/// The `size` bytes at `data`; `EINVAL` for NULL with a size and above 4096.
///
/// # Safety
///
/// `data` is NULL or holds `size` bytes, which are not written during `'a`.
pub(crate) unsafe fn payload_at<'a>(data: *const c_void, size: usize) -> Result<&'a [u8], Errno> {
    match (data.is_null(), size) {
        (_, 0) => Ok(&[]),
        (false, 1..=MK_IPI_MAX_LEN) => {
            // SAFETY: not NULL, so there are `size` bytes (the caller).
            Ok(unsafe { core::slice::from_raw_parts(data.cast(), size) })
        }
        _ => Err(Errno::EINVAL),
    }
}

/// The number of a message that was stored. If its doorbell failed, the result is 0 and not an error: a caller that gets an error
/// would send the message twice.
pub(crate) fn sent(instance: &Instance, result: Result<u64, SendError>) -> Result<u64, Errno> {
    match result {
        Ok(number) => Ok(number),
        Err(SendError::NotRung(_)) => Ok(0),
        Err(e) => Err(instance.because(e)),
    }
}

/// Checks the arguments from C, and sends by `send`.
///
/// # Safety
///
/// As [`mk_ipi_send`].
unsafe fn send_by(
    mk: *mut mk_ipi,
    to: c_int,
    ty: c_ulong,
    (data, size): (*const c_void, usize),
    number: *mut u64,
    send: impl FnOnce(&End, InstanceId, MessageType, &[u8]) -> Result<u64, SendError>,
) -> c_int {
    // SAFETY: the caller.
    let (instance, payload) = unsafe { (at(mk), payload_at(data, size)) };
    code(call(instance, |instance| {
        let ty = MessageType::try_from(ty).map_err(|e| e.errno())?;
        let number = place_if_wanted(number)?;
        let sent = sent(instance, send(&instance.end, id_of(to)?, ty, payload?))?;
        // SAFETY: it may be written (the caller).
        unsafe { put(number, sent) };
        Ok(0)
    }))
}

/// Sends `size` bytes to an instance: on the native link 0 to 4096, or fewer if its region was made for
/// fewer; on RFC v2 1 to 256, to its doorbell CPU.
///
/// Returns 0, and stores the message's number in `*number`, unless that is NULL. On the native link the number grows from
/// message to message, but not by one, and is never 0 (`mk_ipi_handled`, `mk_ipi_event`); on RFC v2 it is 0. If the message was
/// stored but its doorbell failed, the call also returns 0, with a number of 0, so that the message is not sent twice. The next
/// doorbell delivers it, or `mk_ipi_ring`, or the receiver finds it when it looks by itself. `mk_ipi_get_stats` counts these
/// messages in `not_rung`; on the native link `mk_ipi_post` and `mk_ipi_flush` say which doorbell failed. With another result
/// nothing was sent, and `*number` is unchanged:
///
/// -EINVAL: `mk` is not an instance of the library, `to` is unknown, there are too many bytes, `data` is NULL and `size` is not
/// 0; on RFC v2 also 0 bytes, or this kernel was not identified.
///
/// -ERANGE: `type` above 32 bits, or this CPU's id above 31 bits on RFC v2.
///
/// -ESTALE: `to` was destroyed, or its region was created again since it was added; in the second case add it again
/// (`mk_ipi_follow` does so). -ENODEV: it has no region.
///
/// -EBUSY: its slot is occupied. -ENOSPC: our lane is full. -EAGAIN: this life of ours was not answered yet, or
/// other CPUs took the space first.
///
/// -EPROTO: the peer has our lane in quarantine, or its words contradict each other, or its new life does
/// not know our life. Then add the peer again.
///
/// -ENXIO: the doorbell cannot reach the CPU (RFC v2).
///
/// Context: any but NMI. It neither sleeps nor waits.
///
/// # Safety
///
/// As `mk_ipi_identify`; `data` is NULL or holds `size` bytes; `number` is NULL or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_send(
    mk: *mut mk_ipi,
    to: c_int,
    r#type: c_ulong,
    data: *const c_void,
    size: usize,
    number: *mut u64,
) -> c_int {
    // SAFETY: the caller.
    unsafe { send_by(mk, to, r#type, (data, size), number, |end, to, ty, payload| end.send(to, ty, payload)) }
}

/// As `mk_ipi_send`, to the CPU of that instance with physical id `cpu`. -EINVAL if that CPU does not belong to the instance,
/// according to the operation `peer_has_cpu` or the directory; without both, only the doorbell CPU belongs to it. On the native
/// link messages go to an instance, so `cpu` must be the CPU of its doorbell; otherwise -EINVAL.
///
/// # Safety
///
/// As `mk_ipi_send`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_send_to_cpu(
    mk: *mut mk_ipi,
    to: c_int,
    cpu: u64,
    r#type: c_ulong,
    data: *const c_void,
    size: usize,
    number: *mut u64,
) -> c_int {
    let cpu = PhysCpuId(cpu);
    let send = |end: &End, to, ty, payload: &[u8]| end.send_to_cpu(to, cpu, ty, payload);
    // SAFETY: the caller.
    unsafe { send_by(mk, to, r#type, (data, size), number, send) }
}

/// As `mk_ipi_send` on the native link, from any context, including NMI and console paths. -EINVAL on RFC v2; -ENXIO if the
/// operation `doorbell_ring_nmi` is NULL. Context: any.
///
/// # Safety
///
/// As `mk_ipi_send`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_send_from_nmi(
    mk: *mut mk_ipi,
    to: c_int,
    r#type: c_ulong,
    data: *const c_void,
    size: usize,
    number: *mut u64,
) -> c_int {
    let send = |end: &End, to, ty, payload: &[u8]| match end.platform().rings_from_nmi() {
        true => end.send_from_nmi(to, ty, payload),
        false => Err(SendError::Unreachable(DoorbellError::Unreachable(end.platform().physical_id()))),
    };
    // SAFETY: the caller.
    unsafe { send_by(mk, to, r#type, (data, size), number, send) }
}

/// As `mk_ipi_send` on the native link, but without a doorbell. After the last of several messages call
/// `mk_ipi_flush`. Until then the receiver may not notice them. Messages that handlers post are flushed at the end of the
/// deferred work. -EINVAL on RFC v2.
///
/// # Safety
///
/// As `mk_ipi_send`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_post(
    mk: *mut mk_ipi,
    to: c_int,
    r#type: c_ulong,
    data: *const c_void,
    size: usize,
    number: *mut u64,
) -> c_int {
    let send = |end: &End, to, ty, payload: &[u8]| end.post(to, ty, payload);
    // SAFETY: the caller.
    unsafe { send_by(mk, to, r#type, (data, size), number, send) }
}

/// Stores the payloads from C in `room`, at most as many as fit.
///
/// # Safety
///
/// `payloads` is NULL or holds `count`, each of which is NULL or holds its size, for `'a`.
unsafe fn payloads_at<'a, 'r>(
    payloads: *const mk_ipi_payload,
    count: usize,
    room: &'r mut [&'a [u8]; MK_IPI_MAX_MANY],
) -> Result<&'r [&'a [u8]], Errno> {
    let count = count.min(MK_IPI_MAX_MANY);
    if count == 0 {
        return Ok(&[]);
    }
    place(payloads.cast_mut())?;
    // SAFETY: not NULL, so it holds `count` (the caller).
    let given = unsafe { core::slice::from_raw_parts(payloads, count) };
    for (to, from) in room.iter_mut().zip(given) {
        // SAFETY: the caller.
        *to = unsafe { payload_at(from.data, from.size) }?;
    }
    room.get(..count).ok_or(Errno::EINVAL)
}

/// Posts several messages, then calls `then`.
///
/// # Safety
///
/// As [`mk_ipi_post_many`].
unsafe fn post_all(
    mk: *mut mk_ipi,
    to: c_int,
    ty: c_ulong,
    payloads: (*const mk_ipi_payload, usize),
    done: *mut usize,
    then: impl FnOnce(&End, InstanceId),
) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |instance| {
        let ty = MessageType::try_from(ty).map_err(|e| e.errno())?;
        let (to, mut room) = (id_of(to)?, [&[][..]; MK_IPI_MAX_MANY]);
        // SAFETY: the caller.
        let payloads = unsafe { payloads_at(payloads.0, payloads.1, &mut room) }?;
        let done = place(done)?;
        let count = instance.end.post_many(to, ty, payloads).map_err(|e| instance.because(e))?;
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { done.write(count) };
        // The messages are stored. A failure of `then` is not reported, because the caller would send them twice.
        then(&instance.end, to);
        Ok(0)
    }))
}

/// As `mk_ipi_post`, for several messages of one type: `count`, but at most the first `MK_IPI_MAX_MANY`. Posts as many as there
/// is space for, from the first on, and stores their number in `*done`. This is cheaper than one call for each.
///
/// Returns 0, or an error as `mk_ipi_send`: then nothing was sent, and `*done` is unchanged. -ENOSPC if there is no space
/// for the first; -EINVAL if any is too long, or NULL with a size, and if `done` is NULL. Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`; `payloads` is NULL or holds `count`, each of which is NULL or holds its size; `done` is
/// NULL or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_post_many(
    mk: *mut mk_ipi,
    to: c_int,
    r#type: c_ulong,
    payloads: *const mk_ipi_payload,
    count: usize,
    done: *mut usize,
) -> c_int {
    // SAFETY: the caller.
    unsafe { post_all(mk, to, r#type, (payloads, count), done, |_, _| ()) }
}

/// As `mk_ipi_post_many`. Then rings the instance if it wants to be rung.
///
/// Returns 0 also if messages were stored and the doorbell failed. To learn of that, call `mk_ipi_post_many` and `mk_ipi_flush`
/// instead.
///
/// # Safety
///
/// As `mk_ipi_post_many`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_send_many(
    mk: *mut mk_ipi,
    to: c_int,
    r#type: c_ulong,
    payloads: *const mk_ipi_payload,
    count: usize,
    done: *mut usize,
) -> c_int {
    // SAFETY: the caller.
    unsafe { post_all(mk, to, r#type, (payloads, count), done, |end, to| _ = end.flush(to)) }
}

/// Calls `f` with the endpoint and an instance's id.
///
/// # Safety
///
/// As `mk_ipi_identify`.
pub(crate) unsafe fn with_peer(
    mk: *mut mk_ipi,
    peer: c_int,
    f: impl FnOnce(&End, InstanceId) -> Result<c_int, SendError>,
) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |mk| f(&mk.end, id_of(peer)?).map_err(|e| mk.because(e))))
}

/// Rings an instance for posted messages, if it wants to be rung (native).
///
/// Returns 0; -EINVAL, -ESTALE as `mk_ipi_send`; or the doorbell's error. Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_flush(mk: *mut mk_ipi, to: c_int) -> c_int {
    // SAFETY: the caller.
    unsafe { with_peer(mk, to, |end, to| end.flush(to).map(|()| 0)) }
}

/// Rings an instance, without a message, even if it does not want to be rung.
///
/// Returns 0; -EINVAL, -ESTALE as `mk_ipi_send`; or the doorbell's error. Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_ring(mk: *mut mk_ipi, to: c_int) -> c_int {
    // SAFETY: the caller.
    unsafe { with_peer(mk, to, |end, to| end.ring(to).map(|()| 0)) }
}

/// Call this after -ENOSPC or -EAGAIN on the native link. It asks for the event `MK_IPI_EVENT_SPACE` when our lane to the
/// instance has space for a message of `len` bytes, or is answered.
///
/// Returns 1 if it has space now; the event may come all the same. Returns 0 if this event will come, or another event which says
/// that the peer refuses us, has ended or has restarted (the last two from `mk_ipi_tick`). -EINVAL, -ESTALE as `mk_ipi_send`, and
/// -EINVAL for more bytes than a message can have; or the doorbell's error. Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_want_space(mk: *mut mk_ipi, to: c_int, len: usize) -> c_int {
    // SAFETY: the caller.
    unsafe { with_peer(mk, to, |end, to| end.want_space(to, len).map(c_int::from)) }
}
