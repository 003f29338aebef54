// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls that send messages and ring doorbells. They report every failure as an error number.

use crate::args::{call, code, id_of, place, place_if_wanted, put};
use crate::instance::{at, mk_ipi, End, Instance};
use crate::types::{mk_ipi_payload, MK_IPI_MAX_LEN, MK_IPI_MAX_MANY};
use core::ffi::{c_int, c_ulong, c_void};
use mk_ipi_core::abi::{Errno, InstanceId, MessageType, PhysCpuId};
use mk_ipi_core::platform::{DoorbellError, ThisCpu};
use mk_ipi_core::SendError;

/// The `size` bytes at `data`. `EINVAL` if `data` is NULL and `size` is not 0, and if `size` is above 4096.
///
/// # Safety
///
/// `data` is NULL, or points to `size` bytes that are not written during `'a`.
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

/// The number of the message, if it was stored. If its doorbell failed, the number is 0. This is not an error, because after an
/// error the caller would send the message again.
pub(crate) fn sent(instance: &Instance, result: Result<u64, SendError>) -> Result<u64, Errno> {
    match result {
        Ok(number) => Ok(number),
        Err(SendError::NotRung(_)) => Ok(0),
        Err(e) => Err(instance.because(e)),
    }
}

/// Checks the arguments from C, calls `send`, and stores the number of the message.
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

/// Sends the `size` bytes at `data` to the instance `to`. On the native link `size` is 0 to 4096, or less if the region of `to`
/// was made for shorter messages. On RFC v2 it is 1 to 256, and the message goes to the doorbell CPU of `to`.
///
/// Returns 0, and stores the number of the message in `*number`, unless `number` is NULL. On the native link a later message has
/// a larger number. There are gaps between the numbers, and no number is 0. `mk_ipi_handled` and `mk_ipi_event` use these
/// numbers. On RFC v2 the number is 0.
///
/// If the message was stored but its doorbell failed, the call also returns 0, with the number 0. An error would make the caller
/// send the message again. The next doorbell or `mk_ipi_ring` delivers the message, or the receiver finds it when it polls.
/// `mk_ipi_get_stats` counts such messages in `not_rung`. On the native link `mk_ipi_flush` after `mk_ipi_post` returns the error
/// of the doorbell.
///
/// With any other result nothing was sent, and `*number` is unchanged:
///
/// -EINVAL: `mk` is not an instance of the library, `to` is unknown, there are too many bytes, `data` is NULL and `size` is not
/// 0, or `number` is misaligned. On RFC v2 also: there are 0 bytes; or the slot is exclusive and this kernel has no identity yet.
///
/// -ERANGE: `type` has more than 32 bits. On RFC v2 also: the physical id of this CPU has more than 31 bits.
///
/// -ESTALE: `to` was destroyed; or its region was created again after `to` was added: then destroy it and add it again
/// (`mk_ipi_follow` does so); or the host has cleared our claim on the slot, because it considers this life of ours dead.
///
/// -ENODEV: `to` has no region.
///
/// -EBUSY: the slot holds an unread message, or another sender is filling it. -ENOSPC: our lane is full. -EAGAIN: the receiver
/// has not answered this life of ours yet, or other CPUs took each position that this CPU tried. After these three errors, try
/// again.
///
/// -EPROTO: the peer has put our lane into quarantine; or the values that the peer wrote into its region contradict each other,
/// or its new life does not know our life. In the last two cases destroy the peer and add it again.
///
/// -ENXIO: the doorbell cannot reach the CPU (RFC v2 only). Other errors of the operation `doorbell_check` give -EAGAIN or
/// -EINVAL.
///
/// Context: any but NMI. It does not sleep, and does not wait for the receiver.
///
/// # Safety
///
/// As `mk_ipi_identify`. `data` is NULL, or points to `size` bytes. `number` is NULL, or may be written.
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

/// The same as `mk_ipi_send`, but to the CPU with physical id `cpu` of the instance. Returns -EINVAL also if that CPU does not
/// belong to the instance. The operation `peer_has_cpu` or the directory says which CPUs belong to it. Without both, only the
/// doorbell CPU does. On the native link messages go to an instance, not to a CPU. So `cpu` must be the CPU of its doorbell.
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

/// The same as `mk_ipi_send` on the native link, for any context, including NMI handlers and the output of a console. Returns
/// -EINVAL on RFC v2, and -ENXIO if the operation `doorbell_ring_nmi` is NULL. Context: any.
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

/// The same as `mk_ipi_send` on the native link, but without a doorbell. After the last of several messages call `mk_ipi_flush`.
/// Until then the receiver may not read them. Messages that a callback posts are flushed at the end of the run of deferred work
/// that called the callback; a poller flushes them within 384 calls. Returns -EINVAL on RFC v2.
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

/// Checks the payloads from C, and stores them in `room`: the first `MK_IPI_MAX_MANY` if there are more.
///
/// # Safety
///
/// `payloads` is NULL, or points to `count` structs. The `data` of each is NULL, or points to `size` bytes that are not written
/// during `'a`.
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
    // SAFETY: not NULL, so it points to `count` structs (the caller).
    let given = unsafe { core::slice::from_raw_parts(payloads, count) };
    for (to, from) in room.iter_mut().zip(given) {
        // SAFETY: the caller.
        *to = unsafe { payload_at(from.data, from.size) }?;
    }
    room.get(..count).ok_or(Errno::EINVAL)
}

/// Checks the arguments from C, posts several messages, and calls `then`.
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
        // The messages are stored. A failure of `then` is not reported: after an error the caller would send the messages again.
        then(&instance.end, to);
        Ok(0)
    }))
}

/// The same as `mk_ipi_post`, for `count` messages of one type; if `count` is larger than `MK_IPI_MAX_MANY`, only for the first
/// `MK_IPI_MAX_MANY`. Posts as many of them as fit into the lane, beginning with the first, and stores in `*done` how many it
/// posted. This is faster than one call for each message.
///
/// Returns 0, or an error as `mk_ipi_send`: then nothing was sent, and `*done` is unchanged. -ENOSPC: the first message does not
/// fit. -EINVAL also: any message is too long, or has NULL as `data` and a `size` that is not 0; or `done` is NULL or misaligned.
/// Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`. `payloads` is NULL, or points to `count` structs; the `data` of each is NULL, or points to `size` bytes.
/// `done` is NULL, or may be written.
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

/// The same as `mk_ipi_post_many`, and then rings the instance if it has requested a doorbell.
///
/// Returns 0 also if messages were stored and the doorbell failed. If you need the error of the doorbell, call `mk_ipi_post_many`
/// and `mk_ipi_flush` instead.
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

/// Checks the arguments from C, and calls `f` with the endpoint and the id of the instance `peer`.
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

/// Rings an instance after messages were posted, if it has requested a doorbell (native link).
///
/// Returns 0; -EINVAL and -ESTALE as `mk_ipi_send`; -EINVAL also on RFC v2; or the error of the doorbell. Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_flush(mk: *mut mk_ipi, to: c_int) -> c_int {
    // SAFETY: the caller.
    unsafe { with_peer(mk, to, |end, to| end.flush(to).map(|()| 0)) }
}

/// Rings an instance without sending a message, even if it has not requested a doorbell. An instance that is not live is not
/// rung: the result is then also 0.
///
/// Returns 0; -EINVAL and -ESTALE as `mk_ipi_send`; or the error of the doorbell. Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_ring(mk: *mut mk_ipi, to: c_int) -> c_int {
    // SAFETY: the caller.
    unsafe { with_peer(mk, to, |end, to| end.ring(to).map(|()| 0)) }
}

/// Requests the event `MK_IPI_EVENT_SPACE`. It is reported when this kernel can send a message of `len` bytes to the instance:
/// our lane has space, and the instance has answered this life of ours. Call this after -ENOSPC or -EAGAIN on the native link.
///
/// Returns 1 if the message can be sent now; the event may come nevertheless. Returns 0 if it cannot be sent yet. Then this event
/// will come, or another event that says that the peer refuses our messages, has ended or has restarted. `mk_ipi_tick` reports
/// the end and the restart. Returns -EINVAL and -ESTALE as `mk_ipi_send`; -EINVAL also on RFC v2, and for more bytes than a
/// message can have; or the error of the doorbell. Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_want_space(mk: *mut mk_ipi, to: c_int, len: usize) -> c_int {
    // SAFETY: the caller.
    unsafe { with_peer(mk, to, |end, to| end.want_space(to, len).map(c_int::from)) }
}
