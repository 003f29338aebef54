// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handlers: C functions by message type.

use crate::instance::{at, code, mk_ipi, Instance};
use crate::types::{
    mk_ipi_callback_t, mk_ipi_data, mk_ipi_handler, mk_ipi_message, mk_ipi_message_callback_t,
    MK_MAX_DATA_SIZE,
};
use core::ffi::{c_char, c_int, c_void};
use mk_ipi_core::abi::{Errno, Incarnation, MessageType};
use mk_ipi_core::{Handler, Message};

/// A C function and its context.
#[derive(Debug)]
pub struct CHandler {
    call: Call,
    ctx: *mut c_void,
}

#[derive(Debug)]
enum Call {
    /// Of `multikernel_register_handler`.
    Data(unsafe extern "C" fn(*mut mk_ipi_data, *mut c_void)),
    /// Of `mk_ipi_register`.
    Message(unsafe extern "C" fn(*const mk_ipi_message, *mut c_void)),
}

// SAFETY: whoever registers it is told by the header that any CPU may call it, with its context.
unsafe impl Send for CHandler {}
// SAFETY: as above.
unsafe impl Sync for CHandler {}

impl Handler for CHandler {
    fn handle(&self, message: &Message<'_>) {
        let (payload, size) = (message.payload(), message.payload().len());
        match self.call {
            // It has no room for more, and half a message is none.
            Call::Data(_) if size > MK_MAX_DATA_SIZE => {}
            Call::Data(call) => {
                let mut data = mk_ipi_data {
                    sender_cpu: c_int::try_from(message.sender_cpu().0).unwrap_or(-1),
                    r#type: message.msg_type().0,
                    data_size: size,
                    buffer: [0; MK_MAX_DATA_SIZE],
                };
                for (to, from) in data.buffer.iter_mut().zip(payload) {
                    *to = *from as c_char;
                }
                // SAFETY: the kernel's own function and context; `data` is there until it returns.
                unsafe { call(&mut data, self.ctx) };
            }
            Call::Message(call) => {
                let message = mk_ipi_message {
                    payload: payload.as_ptr().cast(),
                    size,
                    number: message.number().unwrap_or(0),
                    sender_cpu: message.sender_cpu().0,
                    r#type: message.msg_type().0,
                    sender: message.sender().map_or(-1, |id| id.get().into()),
                    sender_incarnation: message.sender_incarnation().map_or(0, Incarnation::get),
                    receiver_incarnation: message.receiver_incarnation().map_or(0, Incarnation::get),
                };
                // SAFETY: as above, and so is the payload.
                unsafe { call(&message, self.ctx) };
            }
        }
    }
}

/// Bits of a handle, which is a number: 63..40 the instance's tag, 39..8 serial, 7..1 index, 0 set, so that
/// it is never NULL.
const TAG_SHIFT: u32 = 40;
const TAG_MASK: u64 = 0xff_ffff;

fn to_pointer(instance: &Instance, bits: u64) -> *mut mk_ipi_handler {
    let (index, serial) = (bits & 0x7f, bits >> 32);
    let number = ((u64::from(instance.tag) & TAG_MASK) << TAG_SHIFT) | (serial << 8) | (index << 1) | 1;
    core::ptr::without_provenance_mut(usize::try_from(number).unwrap_or(0))
}

const _: () = assert!(crate::instance::MK_IPI_MAX_HANDLERS <= 0x80 && size_of::<usize>() == 8);

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

/// As `multikernel_register_handler`, on `instance`.
pub(crate) fn register_data(
    instance: &Instance,
    ty: u32,
    callback: mk_ipi_callback_t,
    ctx: *mut c_void,
) -> Result<*mut mk_ipi_handler, Errno> {
    let handler = callback.map(|call| CHandler { call: Call::Data(call), ctx });
    register(instance, ty, handler.ok_or(Errno::EINVAL))
}

/// As `mk_ipi_unregister`, on `instance`.
pub(crate) fn unregister(instance: &Instance, handler: *mut mk_ipi_handler) -> Result<c_int, Errno> {
    let handle = instance.end.handle_from_bits(from_pointer(instance, handler)?);
    if crate::poller::is_here(instance) {
        // It may keep the handler from one look to the next, and looks no more while we wait for it.
        return Err(Errno::EDEADLK);
    }
    instance.end.unregister(handle).map(|()| 0).map_err(|e| e.errno())
}

/// Has `callback` called for each message of type `type`, with `ctx`. Several may serve one type, in no
/// promised order.
///
/// The handle goes to `*handler`. Returns 0; -EINVAL if `mk` is none, or `callback` or `handler` is NULL;
/// -ENOMEM if `MK_IPI_MAX_HANDLERS` are registered. Context: any but NMI, callbacks included.
///
/// # Safety
///
/// As `mk_ipi_identify`; any CPU may call `callback` with `ctx`; `handler` is NULL or may be written.
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
    code(instance.and_then(|instance| {
        if handler.is_null() {
            return Err(Errno::EINVAL);
        }
        let call = callback.map(|call| CHandler { call: Call::Message(call), ctx });
        let handle = register(instance, r#type, call.ok_or(Errno::EINVAL))?;
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { handler.write(handle) };
        Ok(0)
    }))
}

/// Ends a registration. When this returns 0, the callback is not running and will not run again.
///
/// Returns 0; -ESTALE if it was ended before; -EINVAL for NULL and for a handle of another instance of the
/// library; -EDEADLK on a CPU that is inside a callback or has a poller. Context: may sleep (waits for
/// callbacks on other CPUs, and for the next look of a poller there); not in interrupt context.
///
/// # Safety
///
/// As `mk_ipi_identify`. Any value is good for `handler`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_unregister(mk: *mut mk_ipi, handler: *mut mk_ipi_handler) -> c_int {
    // SAFETY: the caller.
    code(unsafe { at(mk) }.and_then(|instance| unregister(instance, handler)))
}
