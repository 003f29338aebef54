// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages that are a Rust type. zerocopy makes bytes of them and checks the bytes that come.
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
//! /// To be given to `register_typed`.
//! static TEMPERATURES: TypedHandler<Temperature> = TypedHandler::new(|message, temperature| {
//!     let _ = (message.sender(), temperature.sensor, temperature.millikelvin);
//! });
//! assert_eq!(TEMPERATURES.wrong_length(), 0);
//! ```
//!
//! The type of a message says nothing that a peer must keep to: only the length is checked. So every bit pattern is a value (zerocopy's
//! `FromBytes`), and what a field means is for the handler to check. Both kernels must agree on the layout: `#[repr(C)]`, fields of fixed
//! size, little endian.

use core::marker::PhantomData;
use mk_ipi_core::abi::MessageType;
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_core::{Handler, Message};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A Rust type that is the payload of one type of message.
pub trait TypedMessage: FromBytes + IntoBytes + Immutable + 'static {
    /// The number by which both kernels know the message.
    const TYPE: MessageType;
}

/// What is called for each message that is a `T`: gets the message, for its sender and number, and the value.
pub type OnMessage<T> = fn(&Message<'_>, &T);

/// A handler of messages that are a `T`. Keep it in a `static`, and register it by
/// [`register_typed`](crate::EndpointExt::register_typed).
///
/// A message of another length than a `T` does not reach `F`: it is counted ([`wrong_length`](Self::wrong_length)), and given to what
/// [`on_wrong_length`](Self::on_wrong_length) named.
#[derive(Debug)]
pub struct TypedHandler<T, F = OnMessage<T>> {
    handle: F,
    wrong_length: AtomicU64,
    on_wrong_length: Option<fn(&Message<'_>)>,
    /// It takes a `T` and holds none.
    of: PhantomData<fn(&T)>,
}

impl<T, F> TypedHandler<T, F> {
    const_unless_loom! {
        /// The handler that calls `handle` for each message that is exactly as long as a `T`.
        pub fn new(handle: F) -> Self {
            Self { handle, wrong_length: AtomicU64::new(0), on_wrong_length: None, of: PhantomData }
        }
    }

    /// Has `report` called for each message of another length. It is called as a handler is, under the same rules.
    #[must_use]
    pub const fn on_wrong_length(mut self, report: fn(&Message<'_>)) -> Self {
        self.on_wrong_length = Some(report);
        self
    }

    /// How many messages had another length than a `T`. Wraps at 2^64.
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

/// Any handler that lives in a `static`: the handler type of an endpoint whose handlers are of several kinds.
///
/// `static ENDPOINT: Endpoint<Kernel, DynHandler> = Endpoint::new(Kernel);`
#[derive(Clone, Copy)]
pub struct DynHandler(&'static dyn Handler);

impl DynHandler {
    /// The handler that calls `handler`.
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
