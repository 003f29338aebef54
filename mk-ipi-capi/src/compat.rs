// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls of generation RFC v2, with their C names and results. They work on the default instance.

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

/// Registers `callback` for messages of type `ipi_type`. It is called with `ctx`. A type may have several callbacks,
/// which are called in no defined order. Without a default instance the registration waits, and begins with the next
/// `mk_ipi_set_default`, so that the order in which parts of a kernel start does not matter.
///
/// Returns a handle; NULL for a null callback, or if `MK_IPI_MAX_HANDLERS` are registered or wait. Context: any but NMI,
/// callbacks included.
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
/// NULL, a handle that was unregistered before, and a handle of another instance of the library change nothing. A call on a CPU
/// that runs a callback changes nothing either, because it would wait for itself. The callback stays registered, and a line in
/// the kernel's log says so. Context: may sleep (waits for callbacks on other CPUs); not in
/// interrupt context.
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
        instance.end.platform().log(c"mk_ipi: a handler cannot be unregistered inside a callback");
    }
}

/// Sends `data_size` bytes, at most 256, to the doorbell CPU of an instance. A null `data` with a size sends
/// zeros.
///
/// Returns 0; -EINVAL for an unknown instance and for more than 256 bytes; -ENODEV if the instance has no region. For a message
/// of 0 bytes it returns 0, and nothing is sent. Only the low 32 bits of `type` are sent. Results that the patch does not have:
/// -EBUSY on exclusive slots, -ENOSPC and -EAGAIN on the native link, -ENXIO if the doorbell cannot reach the CPU (nothing was
/// sent). If the message was stored and the doorbell failed, it returns 0: see `mk_ipi_send`. Context: any but NMI.
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
    #[expect(clippy::cast_possible_truncation, reason = "as this generation's senders do")]
    let ty = MessageType(ty as u32);
    match instance.end.send_held(&found, ty, payload) {
        Err(SendError::Instance(LookupError::Destroyed)) => Err(Errno::EINVAL),
        result => sent(instance, result).map(|_| 0),
    }
}

static ZEROS: [u8; MK_MAX_DATA_SIZE] = [0; MK_MAX_DATA_SIZE];

/// Handles a doorbell: takes the message in this CPU's slot, if any, and schedules the deferred work.
///
/// Call it in the vector's handler, after the EOI. Without a default instance or a region of its own it does
/// nothing. Context: interrupts off; not NMI.
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

/// Stores the page frame number that a message carries in `*out_pfn`.
///
/// Returns 0; -EINVAL for null pointers, another type, or a size that is not that of an `unsigned long`; then
/// `*out_pfn` is unchanged. Context: any.
///
/// # Safety
///
/// `data` is NULL or a message, `out_pfn` is NULL or may be written.
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

/// Maps the page that a message names, 4096 bytes, write-back cached, if the kernel lets peers share it.
///
/// Returns the address, or NULL. Context: may sleep, so a callback should copy the message, and map the page later.
///
/// # Safety
///
/// `data` is NULL or a message.
#[no_mangle]
pub unsafe extern "C" fn mk_receive_map_page(data: *mut mk_ipi_data) -> *mut c_void {
    // SAFETY: the caller.
    let page = default().and_then(|mk| pages::map(mk, unsafe { pages::pfn_of(data) }?));
    page.unwrap_or(core::ptr::null_mut())
}

/// Undoes `mk_receive_map_page`; NULL is a no-op. (In the patch this is a macro.) Context: may sleep.
///
/// # Safety
///
/// `page` is NULL or what `mk_receive_map_page` gave, unmapped once and not used again; the default instance
/// is still the same.
#[no_mangle]
pub unsafe extern "C" fn mk_receive_unmap_page(page: *mut c_void) {
    if let Ok(instance) = default() {
        // SAFETY: the caller.
        unsafe { pages::unmap(instance, page) };
    }
}
