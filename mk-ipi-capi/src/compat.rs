// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls of generation RFC v2, with the names and results of the Linux patch. The calls that send can also return errors that
//! the patch does not have. All calls use the default instance of the library.

use crate::args::{call, code, id_of, place};
use crate::early;
use crate::handlers::{register_data, unregister};
use crate::instance::{default, Instance};
use crate::pages;
use crate::send::{payload_at, sent};
use crate::types::{mk_ipi_callback_t, mk_ipi_data, mk_ipi_handler, MK_MAX_DATA_SIZE, MK_PFN_IPI_TYPE};
use core::ffi::{c_int, c_uint, c_ulong, c_void};
use mk_ipi_core::abi::{Errno, MessageType};
use mk_ipi_core::{LookupError, SendError};

/// Registers `callback` for messages of type `ipi_type`. The callback gets `ctx`. A type may have several callbacks. The order
/// in which they are called is not defined. If there is no default instance, the registration waits until the next
/// `mk_ipi_set_default`. So the parts of a kernel can start in any order.
///
/// Returns a handle; NULL for a null callback, or if `MK_IPI_MAX_HANDLERS` callbacks are registered or wait. Context: any but
/// NMI. Callbacks may call it.
///
/// # Safety
///
/// Any CPU may call `callback` with `ctx`.
#[no_mangle]
pub unsafe extern "C" fn multikernel_register_handler(
    callback: mk_ipi_callback_t,
    ctx: *mut c_void,
    ipi_type: c_uint,
) -> *mut mk_ipi_handler {
    let handle = match default() {
        Ok(instance) => register_data(instance, ipi_type, callback, ctx),
        Err(_) => early::register(ipi_type, callback, ctx),
    };
    handle.unwrap_or(core::ptr::null_mut())
}

/// Ends a registration: when this returns, the callback is not running and will not run again.
///
/// The call does nothing for NULL, for a handle that was unregistered before, and for a handle of another instance of the
/// library. It must not be made on a CPU that runs a callback or has a poller, because it would wait for itself. There it does
/// nothing: the callback stays registered, and the call writes a line to the kernel's log. Context: may sleep (waits for
/// callbacks on other CPUs); not in interrupt context.
#[no_mangle]
pub extern "C" fn multikernel_unregister_handler(handler: *mut mk_ipi_handler) {
    if handler.is_null() {
        return;
    }
    let Ok(instance) = default() else {
        if early::is_early(handler) {
            _ = early::unregister(None, handler);
        }
        return;
    };
    let ended = call(Ok(instance), |instance| unregister(instance, handler));
    if ended == Err(Errno::EDEADLK) {
        instance.end.platform().log(
            c"mk_ipi: a handler cannot be unregistered inside a callback, or on a CPU that has a poller",
        );
    }
}

/// Sends `data_size` bytes, at most 256, to the doorbell CPU of an instance. If `data` is NULL, sends `data_size` zeros.
///
/// Returns 0; -EINVAL for an unknown instance and for more than 256 bytes; -ENODEV if the instance has no region, or if there is
/// no default instance of the library. If these checks pass and the message has 0 bytes, it returns 0, and nothing is sent. Only
/// the low 32 bits of `type` are sent.
///
/// It also returns errors that the patch does not have, and then nothing was sent: -EBUSY on exclusive slots, -ENOSPC and -EAGAIN
/// on the native link, -ENXIO if the doorbell cannot reach the CPU, and the other errors of `mk_ipi_send`. If the message was
/// stored and the doorbell failed, it returns 0 (`mk_ipi_send` says why). Context: any but NMI.
///
/// # Safety
///
/// `data` is NULL or holds `data_size` bytes.
#[no_mangle]
pub unsafe extern "C" fn multikernel_send_ipi_data(
    instance_id: c_int,
    data: *mut c_void,
    data_size: usize,
    r#type: c_ulong,
) -> c_int {
    // SAFETY: the caller.
    let payload = || unsafe { payload_at(data, data_size) };
    code(call(default(), |instance| send(instance, instance_id, data.is_null(), data_size, payload, r#type)))
}

fn send<'a>(
    instance: &Instance,
    to: c_int,
    zeros: bool,
    size: usize,
    payload: impl FnOnce() -> Result<&'a [u8], Errno>,
    ty: c_ulong,
) -> Result<c_int, Errno> {
    let to = id_of(to)?;
    let found = instance.end.instance(to).map_err(|_| instance.because(LookupError::Unknown))?;
    if size > MK_MAX_DATA_SIZE {
        return Err(Errno::EINVAL);
    }
    if found.region().is_none() {
        return Err(instance.because(SendError::NoRegion));
    }
    if size == 0 {
        return Ok(0);
    }
    let payload = if zeros { ZEROS.get(..size).ok_or(Errno::EINVAL)? } else { payload()? };
    #[expect(clippy::cast_possible_truncation, reason = "the Linux patch also sends the low 32 bits only")]
    let ty = MessageType(ty as u32);
    match instance.end.send_held(&found, ty, payload) {
        Err(SendError::Instance(LookupError::Destroyed)) => Err(Errno::EINVAL),
        result => sent(instance, result).map(|_| 0),
    }
}

static ZEROS: [u8; MK_MAX_DATA_SIZE] = [0; MK_MAX_DATA_SIZE];

/// Handles a doorbell of the default instance, as `mk_ipi_interrupt` does. Does nothing if there is no default instance.
///
/// Call it in the interrupt handler of the doorbell's vector, after the interrupt was acknowledged. Context: interrupts off; not
/// NMI.
#[no_mangle]
pub extern "C" fn generic_multikernel_interrupt() {
    if let Ok(instance) = default() {
        instance.end.on_interrupt();
    }
}

/// Sends the number of a page: its physical address divided by 4096.
///
/// Returns as `multikernel_send_ipi_data`. Context: any but NMI.
#[no_mangle]
pub extern "C" fn mk_send_pfn(instance_id: c_int, pfn: c_ulong) -> c_int {
    let bytes = pfn.to_le_bytes();
    let ty = MK_PFN_IPI_TYPE.into();
    code(call(default(), |mk| send(mk, instance_id, false, bytes.len(), || Ok(&bytes), ty)))
}

/// Reads the page frame number in a message, and stores it in `*out_pfn`.
///
/// Returns 0; -EINVAL for null and misaligned pointers, for a message of another type, and for a message whose size is not that
/// of an `unsigned long`. After an error `*out_pfn` is unchanged. Context: any.
///
/// # Safety
///
/// `data` is NULL, or points to a message. `out_pfn` is NULL, or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_receive_pfn(data: *mut mk_ipi_data, out_pfn: *mut c_ulong) -> c_int {
    let Ok(place) = place(out_pfn) else { return Errno::EINVAL.to_c() };
    // SAFETY: the caller.
    code(unsafe { pages::pfn_of(data) }.map(|pfn| {
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { place.write(pfn.0) };
        0
    }))
}

/// Maps the page of 4096 bytes that a message names, write-back cached. The operation `peer_may_share` must allow it.
///
/// Returns the address; NULL after any error. Context: may sleep. So a callback must not make this call. It should copy the
/// message, and map the page later.
///
/// # Safety
///
/// `data` is NULL, or points to a message.
#[no_mangle]
pub unsafe extern "C" fn mk_receive_map_page(data: *mut mk_ipi_data) -> *mut c_void {
    // SAFETY: the caller.
    let page = default().and_then(|mk| pages::map(mk, unsafe { pages::pfn_of(data) }?));
    page.unwrap_or(core::ptr::null_mut())
}

/// Unmaps a page that `mk_receive_map_page` mapped. Does nothing for NULL. (In the patch this is a macro.) Context: may sleep.
///
/// # Safety
///
/// `page` is NULL, or an address that `mk_receive_map_page` returned. It is unmapped only once, and not used afterwards. The
/// default instance has not changed since the page was mapped.
#[no_mangle]
pub unsafe extern "C" fn mk_receive_unmap_page(page: *mut c_void) {
    if let Ok(instance) = default() {
        // SAFETY: the caller.
        unsafe { pages::unmap(instance, page) };
    }
}
