// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handlers of messages: a handler is a C function of another module, or a Rust function of this module. This file also
//! traces all messages (dynamic debug).

use crate::ffi;
use core::ffi::{c_int, c_void};
use mk_ipi_core::abi::rfc_v2::{MkIpiData, MK_MAX_DATA_SIZE};
use mk_ipi_core::{Handler, Message};

/// `mk_ipi_callback_t`.
pub type DataCallback = unsafe extern "C" fn(*mut MkIpiData, *mut c_void);

/// A handler.
pub enum Callback {
    /// A C function and its context, which were passed to `multikernel_register_handler`.
    Data(DataCallback, *mut c_void),
    /// A function of this module.
    Rust(fn(&Message<'_>)),
}

// SAFETY: mk_ipi_linux.h says that a registered C function can be called on any CPU.
unsafe impl Send for Callback {}
// SAFETY: as above.
unsafe impl Sync for Callback {}

impl Handler for Callback {
    fn handle(&self, message: &Message<'_>) {
        let (ty, payload) = (message.msg_type(), message.payload());
        let peer = message.sender().map_or(-1, |id| id.get().into());
        // SAFETY: it only writes a line to the log.
        unsafe { ffi::mk_ipi_glue_trace(false, peer, ty.0, payload.len() as u32, 0) };
        match *self {
            Self::Rust(call) => call(message),
            // `MkIpiData` has no room for a longer message, so C functions do not get longer messages.
            Self::Data(..) if payload.len() > MK_MAX_DATA_SIZE => {}
            Self::Data(call, ctx) => {
                let mut data = MkIpiData {
                    sender_cpu: i32::try_from(message.sender_cpu().0).unwrap_or(-1),
                    msg_type: ty.0,
                    data_size: payload.len() as u64,
                    buffer: [0; MK_MAX_DATA_SIZE],
                };
                data.buffer.iter_mut().zip(payload).for_each(|(to, from)| *to = *from);
                // SAFETY: the other module has registered this function with this context, and unregisters it before it is
                // unloaded. `data` exists until the call returns.
                unsafe { call(&mut data, ctx) };
            }
        }
    }
}

/// Traces a message that was sent or could not be sent. `result` is 0 or a negative error number.
pub fn trace_sent(to: u8, ty: u32, len: usize, result: c_int) {
    // SAFETY: it only writes a line to the log.
    unsafe { ffi::mk_ipi_glue_trace(true, to.into(), ty, len as u32, result) };
}
