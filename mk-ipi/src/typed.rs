// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages whose payload is a value of a Rust type. The crate zerocopy converts the value to bytes, and received bytes to a
//! value.
//!
//! ```
//! use mk_ipi::abi::MessageType;
//! use mk_ipi::typed::{TypedHandler, TypedMessage};
//! use zerocopy::{FromBytes, Immutable, IntoBytes};
//!
//! #[derive(FromBytes, IntoBytes, Immutable)]
//! #[repr(C)]
//! struct Temperature {
//!     sensor: u32,
//!     millikelvin: u32,
//! }
//!
//! impl TypedMessage for Temperature {
//!     const TYPE: MessageType = MessageType(7);
//! }
//!
//! /// Pass this to `register_typed`.
//! static TEMPERATURES: TypedHandler<Temperature> = TypedHandler::new(|message, temperature| {
//!     let _ = (message.sender(), temperature.sensor, temperature.millikelvin);
//! });
//! assert_eq!(TEMPERATURES.wrong_length(), 0);
//! ```
//!
//! Only the length of a received message is checked. A peer can send any bytes with any message type. So every bit pattern must
//! be a valid value of the type (zerocopy's `FromBytes`), and the handler must check the value of each field before it uses it.
//! Both kernels must use the same layout: `#[repr(C)]`, fields of fixed size, little endian.

use core::marker::PhantomData;
use mk_ipi_core::abi::MessageType;
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_core::{Handler, Message};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A Rust type whose values are the payload of one message type.
pub trait TypedMessage: FromBytes + IntoBytes + Immutable + 'static {
    /// The message type. Both kernels must use the same one.
    const TYPE: MessageType;
}

/// A function that handles a message with a `T`. The first argument is the message, with its sender and its number. The second
/// argument is the value.
pub type OnMessage<T> = fn(&Message<'_>, &T);

/// A handler of messages whose payload is a `T`. Keep it in a `static`, and register it by
/// [`register_typed`](crate::EndpointExt::register_typed).
///
/// It calls `F` only for a message that is as long as a `T`. Every other message is counted
/// ([`wrong_length`](Self::wrong_length)), and passed to the function that was set by [`on_wrong_length`](Self::on_wrong_length).
#[derive(Debug)]
pub struct TypedHandler<T, F = OnMessage<T>> {
    handle: F,
    wrong_length: AtomicU64,
    on_wrong_length: Option<fn(&Message<'_>)>,
    /// The handler uses `T` as an argument type, but contains no `T`.
    of: PhantomData<fn(&T)>,
}

impl<T, F> TypedHandler<T, F> {
    const_unless_loom! {
        /// Makes a handler that calls `handle` for each message that is as long as a `T`.
        pub fn new(handle: F) -> Self {
            Self { handle, wrong_length: AtomicU64::new(0), on_wrong_length: None, of: PhantomData }
        }
    }

    /// Sets the function `report`, which is called for each message that is not as long as a `T`. `report` must follow the rules
    /// for handlers ([`Handler`]).
    #[must_use]
    pub const fn on_wrong_length(mut self, report: fn(&Message<'_>)) -> Self {
        self.on_wrong_length = Some(report);
        self
    }

    /// The number of messages that were not as long as a `T`. Wraps at 2^64.
    pub fn wrong_length(&self) -> u64 {
        self.wrong_length.load(Ordering::Relaxed)
    }
}

impl<T: TypedMessage, F: Fn(&Message<'_>, &T) + Send + Sync> Handler for TypedHandler<T, F> {
    fn handle(&self, message: &Message<'_>) {
        match message.read::<T>() {
            Some(value) => (self.handle)(message, &value),
            None => {
                self.wrong_length.fetch_add(1, Ordering::Relaxed);
                if let Some(report) = self.on_wrong_length {
                    report(message);
                }
            }
        }
    }
}

/// A reference to a handler of any type. Use it as the handler type of an endpoint if its handlers have different types.
///
/// `static ENDPOINT: Endpoint<Kernel, DynHandler> = Endpoint::new(Kernel);`
#[derive(Clone, Copy)]
pub struct DynHandler(&'static dyn Handler);

impl DynHandler {
    /// Makes a handler that calls `handler`.
    pub const fn new(handler: &'static dyn Handler) -> Self {
        Self(handler)
    }
}

impl<T: Handler + 'static> From<&'static T> for DynHandler {
    fn from(handler: &'static T) -> Self {
        Self(handler)
    }
}

impl Handler for DynHandler {
    fn handle(&self, message: &Message<'_>) {
        self.0.handle(message);
    }
}

impl core::fmt::Debug for DynHandler {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("DynHandler").field(&core::ptr::from_ref(self.0).cast::<()>()).finish()
    }
}
