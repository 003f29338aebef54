// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handlers: C functions that are registered for a message type.

use crate::args::{call, code, place};
use crate::callback::{CHandler, Call};
use crate::early;
use crate::instance::{at, mk_ipi, Instance};
use crate::limits::MK_IPI_MAX_HANDLERS;
use crate::types::{mk_ipi_callback_t, mk_ipi_handler, mk_ipi_message_callback_t};
use core::ffi::{c_int, c_void};
use mk_ipi_core::abi::{Errno, MessageType};
use mk_ipi_core::UnregisterError;

// A handle is a number, not an address. Bits 63..40 are the tag of the instance of the library, 39..8 the serial number of the
// registration, 7..1 its index. Bit 0 is set, so that a handle is never NULL.

/// The lowest bit of the tag.
const TAG_SHIFT: u32 = 40;
/// The part of a tag that fits into a handle.
const TAG_MASK: u64 = 0xff_ffff;

fn to_pointer(instance: &Instance, bits: u64) -> *mut mk_ipi_handler {
    let (index, serial) = (bits & 0x7f, bits >> 32);
    let number = ((u64::from(instance.tag) & TAG_MASK) << TAG_SHIFT) | (serial << 8) | (index << 1) | 1;
    core::ptr::without_provenance_mut(usize::try_from(number).unwrap_or(0))
}

const _: () = assert!(MK_IPI_MAX_HANDLERS <= 0x80 && size_of::<usize>() == 8);

fn from_pointer(instance: &Instance, handler: *mut mk_ipi_handler) -> Result<u64, Errno> {
    let number = handler.addr() as u64;
    if number & 1 == 0 || number >> TAG_SHIFT != u64::from(instance.tag) & TAG_MASK {
        return Err(Errno::EINVAL);
    }
    Ok((((number >> 8) & 0xffff_ffff) << 32) | ((number >> 1) & 0x7f))
}

fn register(
    instance: &Instance,
    ty: u32,
    handler: Result<CHandler, Errno>,
) -> Result<*mut mk_ipi_handler, Errno> {
    let handle = instance.end.register(MessageType(ty), handler?).map_err(|e| e.errno())?;
    Ok(to_pointer(instance, handle.to_bits()))
}

/// The same as `multikernel_register_handler`, for `instance`.
pub(crate) fn register_data(
    instance: &Instance,
    ty: u32,
    callback: mk_ipi_callback_t,
    ctx: *mut c_void,
) -> Result<*mut mk_ipi_handler, Errno> {
    let handler = callback.map(|call| CHandler { call: Call::Data(call), ctx });
    register(instance, ty, handler.ok_or(Errno::EINVAL))
}

/// Whether `instance` made this handle.
pub(crate) fn is_of(instance: &Instance, handler: *mut mk_ipi_handler) -> bool {
    from_pointer(instance, handler).is_ok()
}

/// The same as `mk_ipi_unregister`, for `instance`.
pub(crate) fn unregister(instance: &Instance, handler: *mut mk_ipi_handler) -> Result<c_int, Errno> {
    if early::is_early(handler) {
        return early::unregister(Some(instance), handler);
    }
    unregister_own(instance, handler)
}

/// The same as [`unregister`], for a handle that `instance` made.
pub(crate) fn unregister_own(instance: &Instance, handler: *mut mk_ipi_handler) -> Result<c_int, Errno> {
    let handle = instance.end.handle_from_bits(from_pointer(instance, handler)?);
    if crate::poller::is_here(instance) {
        // The poller may keep a reference to the handler between two polls. It cannot poll while this call waits on its CPU.
        return Err(instance.because(UnregisterError::InCallback));
    }
    instance.end.unregister(handle).map(|()| 0).map_err(|e| instance.because(e))
}

/// Registers `callback` for messages of type `type`. The callback gets `ctx`. A type may have several callbacks. The order in
/// which they are called is not defined.
///
/// Stores the handle in `*handler`. Returns 0; -EINVAL if `mk` is not an instance of the library, `callback` is NULL, or
/// `handler` is NULL or misaligned; -ENOMEM if `MK_IPI_MAX_HANDLERS` callbacks are registered. Context: any but NMI. Callbacks
/// may call it.
///
/// # Safety
///
/// As `mk_ipi_identify`. Any CPU may call `callback` with `ctx`. `handler` is NULL, or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_register(
    mk: *mut mk_ipi,
    r#type: u32,
    callback: mk_ipi_message_callback_t,
    ctx: *mut c_void,
    handler: *mut *mut mk_ipi_handler,
) -> c_int {
    // SAFETY: the caller.
    let instance = unsafe { at(mk) };
    code(call(instance, |instance| {
        let place = place(handler)?;
        let call = callback.map(|call| CHandler { call: Call::Message(call), ctx });
        let handle = register(instance, r#type, call.ok_or(Errno::EINVAL))?;
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { place.write(handle) };
        Ok(0)
    }))
}

/// Ends a registration. When this returns 0, the callback is not running and will not run again.
///
/// Returns 0; -ESTALE if the registration has ended before; -EINVAL if `mk` is not an instance of the library, for NULL, and for
/// a handle of another instance of the library; -EDEADLK on a CPU that runs a callback or has a poller. Context: may sleep (waits
/// for callbacks on other CPUs, and for the next poll of a poller on another CPU); not in interrupt context.
///
/// # Safety
///
/// As `mk_ipi_identify`. `handler` may have any value.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_unregister(mk: *mut mk_ipi, handler: *mut mk_ipi_handler) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |instance| unregister(instance, handler)))
}
