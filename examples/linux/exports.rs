// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls of generation RFC v2, for C modules of this Linux (mk_ipi_linux.h; SPEC chapter C). glue.c exports them.

use crate::callback::{trace_sent, Callback, DataCallback};
use crate::platform::{Linux, ENDPOINT};
use core::ffi::{c_int, c_uint, c_ulong, c_void};
use core::ptr::NonNull;
use kernel::prelude::*;
use mk_ipi_core::abi::rfc_v2::{decode_pfn, encode_pfn, MkIpiData, MK_MAX_DATA_SIZE, MK_PFN_IPI_TYPE};
use mk_ipi_core::abi::{Errno, InstanceId, MessageType, Pfn, PAGE_SIZE};
use mk_ipi_core::platform::{Mapping, PhysMemory};
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_core::{LookupError, SendError, UnregisterError};

/// Registers `callback` for messages of type `ty`. Returns NULL if `callback` is NULL, or if no more handlers can be
/// registered.
///
/// # Safety
///
/// Until it is unregistered, `callback` can be called with `ctx` on any CPU, with interrupts off.
#[no_mangle]
unsafe extern "C" fn multikernel_register_handler(
    callback: Option<DataCallback>,
    ctx: *mut c_void,
    ty: c_uint,
) -> *mut c_void {
    let handle = callback.and_then(|call| ENDPOINT.register(MessageType(ty), Callback::Data(call, ctx)).ok());
    // The handle consists of a serial number (bits 63..32) and an index (bits 31..0). 1 is added, so that the result is not
    // NULL.
    handle.map_or(core::ptr::null_mut(), |h| (h.to_bits() as usize).wrapping_add(1) as *mut c_void)
}

/// Unregisters a handler. Does nothing if `handler` is NULL, or was unregistered before. Can sleep.
#[no_mangle]
extern "C" fn multikernel_unregister_handler(handler: *mut c_void) {
    let Some(bits) = (handler as usize).checked_sub(1) else { return };
    let handle = ENDPOINT.handle_from_bits(bits as u64);
    if ENDPOINT.unregister(handle) == Err(UnregisterError::InCallback) {
        // Callbacks run with interrupts off, so no other code of this CPU runs during a callback. So this error means that
        // the callback itself has called this function.
        pr_err!("a handler cannot be unregistered inside a callback; it stays registered\n");
    }
}

/// Sends `len` bytes at `data`, or zeros if `data` is NULL.
///
/// # Safety
///
/// `data` is NULL or holds `len` bytes.
#[no_mangle]
unsafe extern "C" fn multikernel_send_ipi_data(
    to: c_int,
    data: *const c_void,
    len: usize,
    ty: c_ulong,
) -> c_int {
    if len > MK_MAX_DATA_SIZE {
        return Errno::EINVAL.to_c();
    }
    let mut payload = [0u8; MK_MAX_DATA_SIZE];
    if !data.is_null() {
        // SAFETY: the caller promises it; `payload` has room.
        unsafe { payload.as_mut_ptr().copy_from_nonoverlapping(data.cast(), len) };
    }
    send(to, ty, payload.get(..len).unwrap_or(&[]))
}

/// Sends a message. Makes the checks in the same order as RFC v2. Only the low 32 bits of `ty` are sent.
fn send(to: c_int, ty: c_ulong, payload: &[u8]) -> c_int {
    let Ok(to) = u8::try_from(to) else { return Errno::EINVAL.to_c() };
    let id = InstanceId::new(to);
    match ENDPOINT.instance(id) {
        Err(_) => return Errno::EINVAL.to_c(),
        Ok(instance) if instance.region().is_none() => return Errno::ENODEV.to_c(),
        Ok(_) if payload.is_empty() => return 0,
        Ok(_) => {}
    }
    let result = match ENDPOINT.send(id, MessageType(ty as u32), payload) {
        // The message was stored, but the doorbell failed. This is no error, because otherwise the caller would send the
        // message again, and it would be delivered twice.
        Ok(_) | Err(SendError::NotRung(_)) => 0,
        Err(SendError::Instance(LookupError::Destroyed)) => Errno::EINVAL.to_c(),
        Err(e) => e.errno().to_c(),
    };
    trace_sent(to, ty as u32, payload.len(), result);
    result
}

/// Handles a doorbell at a vector that the calling module has allocated itself. Interrupts must be off.
#[no_mangle]
extern "C" fn generic_multikernel_interrupt() {
    ENDPOINT.on_interrupt();
}

/// Sends a page frame number.
#[no_mangle]
extern "C" fn mk_send_pfn(to: c_int, pfn: c_ulong) -> c_int {
    send(to, MK_PFN_IPI_TYPE.0.into(), &encode_pfn(Pfn(pfn)))
}

/// The page frame number in a message; `None` if it is not a valid message with a page frame number.
///
/// # Safety
///
/// `data` is NULL or a message.
unsafe fn pfn_of(data: *const MkIpiData) -> Option<Pfn> {
    // SAFETY: the caller promises it.
    let data = unsafe { data.as_ref() }?;
    let payload = data.check().ok()?;
    decode_pfn(MessageType(data.msg_type), payload).ok()
}

/// Writes the page frame number in a message to `*out`. On an error `*out` does not change.
///
/// # Safety
///
/// `data` is NULL or a message, `out` is NULL or may be written.
#[no_mangle]
unsafe extern "C" fn mk_receive_pfn(data: *const MkIpiData, out: *mut c_ulong) -> c_int {
    // SAFETY: the caller promises it.
    match unsafe { (pfn_of(data), out.as_mut()) } {
        (Some(pfn), Some(out)) => {
            *out = pfn.0;
            0
        }
        _ => Errno::EINVAL.to_c(),
    }
}

/// Maps the page whose number is in a message. Returns NULL if the page is not in the pool of an instance. Can sleep.
///
/// # Safety
///
/// `data` is NULL or a message.
#[no_mangle]
unsafe extern "C" fn mk_receive_map_page(data: *const MkIpiData) -> *mut c_void {
    // SAFETY: the caller promises it.
    let page = unsafe { pfn_of(data) }.and_then(|pfn| ENDPOINT.map_pfn(pfn).ok());
    page.map_or(core::ptr::null_mut(), |page| {
        let at = page.words().as_ptr().cast_mut().cast();
        // The page stays mapped until `mk_receive_unmap_page`.
        core::mem::forget(page);
        at
    })
}

/// Unmaps a page that `mk_receive_map_page` has mapped. Does nothing if `page` is NULL.
///
/// # Safety
///
/// `page` is NULL or a result of `mk_receive_map_page` that was not unmapped yet.
#[no_mangle]
unsafe extern "C" fn mk_receive_unmap_page(page: *mut c_void) {
    if let Some(first) = NonNull::new(page.cast::<AtomicU64>()) {
        let words = NonNull::slice_from_raw_parts(first, PAGE_SIZE as usize / 8);
        // SAFETY: `mk_receive_map_page` has made this mapping, and it still exists (the caller promises it).
        unsafe { Linux.unmap(Mapping::new(words)) };
    }
}
