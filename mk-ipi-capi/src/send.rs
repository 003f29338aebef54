// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sending, strictly: what cannot be sent is an error.

use crate::instance::{at, code, id_of, mk_ipi, End};
use crate::types::MK_MAX_DATA_SIZE;
use core::ffi::{c_int, c_ulong, c_void};
use mk_ipi_core::abi::{Errno, InstanceId, MessageType, PhysCpuId};
use mk_ipi_core::SendError;

/// The `size` bytes at `data`; `EINVAL` for NULL with a size and above 256.
///
/// # Safety
///
/// `data` is NULL or holds `size` bytes, which nobody writes for `'a`.
pub(crate) unsafe fn payload_at<'a>(data: *const c_void, size: usize) -> Result<&'a [u8], Errno> {
    match (data.is_null(), size) {
        (_, 0) => Ok(&[]),
        (false, 1..=MK_MAX_DATA_SIZE) => {
            // SAFETY: not NULL, so there are `size` bytes (the caller).
            Ok(unsafe { core::slice::from_raw_parts(data.cast(), size) })
        }
        _ => Err(Errno::EINVAL),
    }
}

/// What a C call returns for a send: 1 for a message that was stored and not rung for, so that nobody sends
/// it again.
pub(crate) fn sent(result: Result<(), SendError>) -> Result<c_int, Errno> {
    match result {
        Ok(()) => Ok(0),
        Err(SendError::NotRung(_)) => Ok(1),
        Err(e) => Err(e.errno()),
    }
}

/// Checks what C gave, and sends it by `send`.
///
/// # Safety
///
/// As [`mk_ipi_send`].
unsafe fn send_by(
    mk: *mut mk_ipi,
    to: c_int,
    ty: c_ulong,
    data: *const c_void,
    size: usize,
    send: impl FnOnce(&End, InstanceId, MessageType, &[u8]) -> Result<(), SendError>,
) -> c_int {
    // SAFETY: the caller.
    let (instance, payload) = unsafe { (at(mk), payload_at(data, size)) };
    code(instance.and_then(|instance| {
        let ty = MessageType::try_from(ty).map_err(|e| e.errno())?;
        sent(send(&instance.end, id_of(to)?, ty, payload?))
    }))
}

/// Sends `size` bytes, 0 to 256, to an instance; on RFC v2 at least 1, to its doorbell CPU.
///
/// Returns 0; 1 if the message was stored, but the doorbell failed: `mk_ipi_ring` tries again. Else nothing
/// was sent:
///
/// -EINVAL: `mk` is none, `to` is unknown, above 256 bytes, NULL with a size, 0 bytes on RFC v2, this kernel
/// was not identified, or on the native link this CPU is not one of its instance's.
///
/// -ERANGE: `type` above 32 bits, or this CPU's id above 31 bits on RFC v2.
///
/// -ESTALE: `to` was destroyed. -ENODEV: it has no region.
///
/// -EBUSY: its slot is occupied. -ENOSPC: our lane is full. -EAGAIN: this life of ours was not acknowledged
/// yet, or other CPUs were quicker.
///
/// -EPROTO: the peer has our lane in quarantine, or its words contradict each other.
///
/// -ENXIO: the doorbell cannot reach the CPU (RFC v2).
///
/// Context: any but NMI. Neither sleeps nor waits.
///
/// # Safety
///
/// As `mk_ipi_identify`; `data` is NULL or holds `size` bytes.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_send(
    mk: *mut mk_ipi,
    to: c_int,
    r#type: c_ulong,
    data: *const c_void,
    size: usize,
) -> c_int {
    // SAFETY: the caller.
    unsafe { send_by(mk, to, r#type, data, size, |end, to, ty, payload| end.send(to, ty, payload)) }
}

/// As `mk_ipi_send`, to the CPU of that instance with physical id `cpu`; -EINVAL if it is not one of its. On
/// the native link that CPU is rung, if any is.
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
) -> c_int {
    let cpu = PhysCpuId(cpu);
    // SAFETY: the caller.
    unsafe {
        send_by(mk, to, r#type, data, size, |end, to, ty, payload| end.send_to_cpu(to, cpu, ty, payload))
    }
}

/// As `mk_ipi_send` on the native link, from any context, NMI and console paths included; -EINVAL on RFC v2.
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
) -> c_int {
    // SAFETY: the caller.
    unsafe { send_by(mk, to, r#type, data, size, |end, to, ty, payload| end.send_from_nmi(to, ty, payload)) }
}

/// As `mk_ipi_send` on the native link, but rings nobody: after the last of several messages call
/// `mk_ipi_flush`. -EINVAL on RFC v2.
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
) -> c_int {
    // SAFETY: the caller.
    unsafe { send_by(mk, to, r#type, data, size, |end, to, ty, payload| end.post(to, ty, payload)) }
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
    code(unsafe { at(mk) }.and_then(|mk| f(&mk.end, id_of(peer)?).map_err(|e| e.errno())))
}

/// Rings an instance for what `mk_ipi_post` left, if it wants to be rung (native).
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

/// Rings an instance once more, without a message, wanted or not.
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

/// After -ENOSPC or -EAGAIN on the native link: asks for `MK_IPI_EVENT_SPACE` when our lane to the instance
/// has space.
///
/// Returns 1 if it has now, and no event comes; 0 if the event comes; -EINVAL, -ESTALE as `mk_ipi_send`; or
/// the doorbell's error. Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_want_space(mk: *mut mk_ipi, to: c_int) -> c_int {
    // SAFETY: the caller.
    unsafe { with_peer(mk, to, |end, to| end.want_space(to).map(c_int::from)) }
}
