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

/// Has `callback` called for each message of type `ty`; NULL for a null callback, and if all places are taken.
///
/// # Safety
///
/// Any CPU may call `callback` with `ctx`, with interrupts off, until it is unregistered.
#[no_mangle]
unsafe extern "C" fn multikernel_register_handler(
    callback: Option<DataCallback>,
    ctx: *mut c_void,
    ty: c_uint,
) -> *mut c_void {
    let handle = callback.and_then(|call| ENDPOINT.register(MessageType(ty), Callback::Data(call, ctx)).ok());
    // Bits 63..32 serial, 31..0 index: plus 1, it is never NULL.
    handle.map_or(core::ptr::null_mut(), |h| (h.to_bits() as usize).wrapping_add(1) as *mut c_void)
}

/// Ends a registration. NULL, and what was ended before, change nothing. May sleep.
#[no_mangle]
extern "C" fn multikernel_unregister_handler(handler: *mut c_void) {
    let Some(bits) = (handler as usize).checked_sub(1) else { return };
    let handle = ENDPOINT.handle_from_bits(bits as u64);
    if ENDPOINT.unregister(handle) == Err(UnregisterError::InCallback) {
        // Callbacks run with interrupts off: no task is ever inside one, but who calls this from one's own.
        pr_err!("a handler cannot be unregistered inside a callback, and stays\n");
    }
}

/// Sends `len` bytes at `data`, zeros if that is NULL.
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
        // SAFETY: the caller; `payload` has room.
        unsafe { payload.as_mut_ptr().copy_from_nonoverlapping(data.cast(), len) };
    }
    send(to, ty, payload.get(..len).unwrap_or(&[]))
}

/// In the order of this generation's checks; the field for the type has 32 bits.
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
        // Stored is sent: who takes a lost doorbell for a failure sends twice.
        Ok(_) | Err(SendError::NotRung(_)) => 0,
        Err(SendError::Instance(LookupError::Destroyed)) => Errno::EINVAL.to_c(),
        Err(e) => e.errno().to_c(),
    };
    trace_sent(to, ty as u32, payload.len(), result);
    result
}

/// For a vector of the caller's own that peers ring. Interrupts are off.
#[no_mangle]
extern "C" fn generic_multikernel_interrupt() {
    ENDPOINT.on_interrupt();
}

/// Sends the number of a page.
#[no_mangle]
extern "C" fn mk_send_pfn(to: c_int, pfn: c_ulong) -> c_int {
    send(to, MK_PFN_IPI_TYPE.0.into(), &encode_pfn(Pfn(pfn)))
}

/// # Safety
///
/// `data` is NULL or a message.
unsafe fn pfn_of(data: *const MkIpiData) -> Option<Pfn> {
    // SAFETY: the caller.
    let data = unsafe { data.as_ref() }?;
    let payload = data.check().ok()?;
    decode_pfn(MessageType(data.msg_type), payload).ok()
}

/// The page frame number in a message, to `*out`; on an error that stays as it is.
///
/// # Safety
///
/// `data` is NULL or a message, `out` is NULL or may be written.
#[no_mangle]
unsafe extern "C" fn mk_receive_pfn(data: *const MkIpiData, out: *mut c_ulong) -> c_int {
    // SAFETY: the caller.
    match unsafe { (pfn_of(data), out.as_mut()) } {
        (Some(pfn), Some(out)) => {
            *out = pfn.0;
            0
        }
        _ => Errno::EINVAL.to_c(),
    }
}

/// Maps the page that a message names; NULL if it is in no instance's pool. May sleep.
///
/// # Safety
///
/// `data` is NULL or a message.
#[no_mangle]
unsafe extern "C" fn mk_receive_map_page(data: *const MkIpiData) -> *mut c_void {
    // SAFETY: the caller.
    let page = unsafe { pfn_of(data) }.and_then(|pfn| ENDPOINT.map_pfn(pfn).ok());
    page.map_or(core::ptr::null_mut(), |page| {
        let at = page.words().as_ptr().cast_mut().cast();
        // `mk_receive_unmap_page` unmaps it.
        core::mem::forget(page);
        at
    })
}

/// Undoes `mk_receive_map_page`; NULL is a no-op.
///
/// # Safety
///
/// `page` is NULL or what `mk_receive_map_page` gave, once.
#[no_mangle]
unsafe extern "C" fn mk_receive_unmap_page(page: *mut c_void) {
    if let Some(first) = NonNull::new(page.cast::<AtomicU64>()) {
        let words = NonNull::slice_from_raw_parts(first, PAGE_SIZE as usize / 8);
        // SAFETY: the mapping that `mk_receive_map_page` has left to us (the caller).
        unsafe { Linux.unmap(Mapping::new(words)) };
    }
}
