// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a handler is here: a C function of some module's, or a Rust function of ours. And the one place where messages are
//! traced.

use crate::ffi;
use core::ffi::{c_int, c_void};
use mk_ipi_core::abi::rfc_v2::{MkIpiData, MK_MAX_DATA_SIZE};
use mk_ipi_core::{Handler, Message};

/// `mk_ipi_callback_t`.
pub type DataCallback = unsafe extern "C" fn(*mut MkIpiData, *mut c_void);

/// A handler.
pub enum Callback {
    /// Of `multikernel_register_handler`.
    Data(DataCallback, *mut c_void),
    /// Of this module.
    Rust(fn(&Message<'_>)),
}

// SAFETY: the header tells whoever registers a C function that any CPU may call it, with its context.
unsafe impl Send for Callback {}
// SAFETY: as above.
unsafe impl Sync for Callback {}

impl Handler for Callback {
    fn handle(&self, message: &Message<'_>) {
        let (ty, payload) = (message.msg_type(), message.payload());
        let peer = message.sender().map_or(-1, |id| id.get().into());
        // SAFETY: no more than a line for the log.
        unsafe { ffi::mk_ipi_glue_trace(false, peer, ty.0, payload.len() as u32, 0) };
        match *self {
            Self::Rust(call) => call(message),
            // Its message has room for no more: a longer one is none of these calls'.
            Self::Data(..) if payload.len() > MK_MAX_DATA_SIZE => {}
            Self::Data(call, ctx) => {
                let mut data = MkIpiData {
                    sender_cpu: i32::try_from(message.sender_cpu().0).unwrap_or(-1),
                    msg_type: ty.0,
                    data_size: payload.len() as u64,
                    buffer: [0; MK_MAX_DATA_SIZE],
                };
                data.buffer.iter_mut().zip(payload).for_each(|(to, from)| *to = *from);
                // SAFETY: the module's own function and context, which it unregisters before it goes; `data` is there until
                // the call returns.
                unsafe { call(&mut data, ctx) };
            }
        }
    }
}

/// Traces a message that was sent, or was not: `result` as a C call returns it.
pub fn trace_sent(to: u8, ty: u32, len: usize, result: c_int) {
    // SAFETY: no more than a line for the log.
    unsafe { ffi::mk_ipi_glue_trace(true, to.into(), ty, len as u32, result) };
}
