// SPDX-License-Identifier: MIT OR Apache-2.0
//! C functions as message handlers.

use crate::types::{mk_ipi_data, mk_ipi_message, MK_MAX_DATA_SIZE};
use core::ffi::{c_char, c_int, c_void};
use mk_ipi_core::abi::Incarnation;
use mk_ipi_core::{Handler, Message};

/// A C function and its context.
#[derive(Debug)]
pub struct CHandler {
    pub(crate) call: Call,
    pub(crate) ctx: *mut c_void,
}

#[derive(Debug)]
pub(crate) enum Call {
    /// Registered by `multikernel_register_handler`.
    Data(unsafe extern "C" fn(*mut mk_ipi_data, *mut c_void)),
    /// Registered by `mk_ipi_register`.
    Message(unsafe extern "C" fn(*const mk_ipi_message, *mut c_void)),
}

// SAFETY: the header requires of the caller that any CPU may call a registered function with its context.
unsafe impl Send for CHandler {}
// SAFETY: as above.
unsafe impl Sync for CHandler {}

impl Handler for CHandler {
    fn handle(&self, message: &Message<'_>) {
        match self.call {
            // `mk_ipi_data` has room for 256 bytes only. A handler must not get a part of a message.
            Call::Data(_) if message.payload().len() > MK_MAX_DATA_SIZE => {}
            Call::Data(call) => {
                let mut data = data_of(message);
                // SAFETY: the kernel registered this function and its context. `data` exists until the function returns.
                unsafe { call(&mut data, self.ctx) };
            }
            Call::Message(call) => {
                let message = message_of(message);
                // SAFETY: as above. The payload exists until the function returns, too.
                unsafe { call(&message, self.ctx) };
            }
        }
    }
}

/// Copies a message into the struct of RFC v2. The payload has at most 256 bytes.
fn data_of(message: &Message<'_>) -> mk_ipi_data {
    let payload = message.payload();
    let mut data = mk_ipi_data {
        sender_cpu: c_int::try_from(message.sender_cpu().0).unwrap_or(-1),
        r#type: message.msg_type().0,
        data_size: payload.len(),
        buffer: [0; MK_MAX_DATA_SIZE],
    };
    for (to, from) in data.buffer.iter_mut().zip(payload) {
        *to = *from as c_char;
    }
    data
}

/// The struct that C callbacks get for a message. It points into `message`, and is valid as long as `message` exists.
pub(crate) fn message_of(message: &Message<'_>) -> mk_ipi_message {
    let payload = message.payload();
    mk_ipi_message {
        payload: payload.as_ptr().cast(),
        size: payload.len(),
        number: message.number().unwrap_or(0),
        sender_cpu: message.sender_cpu().0,
        r#type: message.msg_type().0,
        sender: message.sender().map_or(-1, |id| id.get().into()),
        sender_incarnation: message.sender_incarnation().map_or(0, Incarnation::get),
        receiver_incarnation: message.receiver_incarnation().map_or(0, Incarnation::get),
    }
}
