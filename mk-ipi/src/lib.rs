// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages between the kernels of one machine: the front crate of mk-ipi.
//!
//! The protocol is [`mk-ipi-core`](mk_ipi_core), of which everything is re-exported here: [`Endpoint`], [`platform`],
//! [`directory`], and the wire layouts as [`abi`]. This crate adds what a kernel author would otherwise write by hand:
//!
//! | module | what it is |
//! | --- | --- |
//! | [`typed`] | messages that are a Rust type: `register_typed`, `send_typed` |
//! | [`blocking`] | `send_blocking`: a send that waits for space until a deadline |
//! | [`asynchronous`] | `send_async` and an [`Inbox`](asynchronous::Inbox): futures for any executor, without an allocator |
//! | [`peers`] | iteration over the other kernels and the state of each |
//! | [`bring_up`] | the start of a host from a plan, and of a spawned kernel from its command line |
//!
//! Import [`EndpointExt`] for the calls; each is a method of every [`Endpoint`]. They use only the public calls of the core, so a
//! kernel that does not call them pays nothing for them.
//!
//! **Messages whose type has no handler**: the core calls [`Observer::unhandled`](platform::Observer::unhandled) for each of
//! them. It may pass the message to an [`Inbox`](asynchronous::Inbox) or to a [`Handler`].
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "a test may panic"))]

#[cfg(any(test, loom))]
extern crate std;

/// Declares a constructor that is `const`, except under loom, whose atomics have no const constructor.
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$meta])* $vis const fn $name($($arg: $ty),*) -> $ret $body
        #[cfg(loom)]
        $(#[$meta])* $vis fn $name($($arg: $ty),*) -> $ret $body
    };
}

/// An array of `$n` times `$init`, in a constructor declared by `const_unless_loom`.
macro_rules! array_of {
    ($init:expr; $n:expr) => {{
        #[cfg(not(loom))]
        let array = [const { $init }; $n];
        #[cfg(loom)]
        let array = core::array::from_fn(|_| $init);
        array
    }};
}

pub mod asynchronous;
pub mod blocking;
pub mod bring_up;
mod ext;
pub mod peers;
pub mod typed;
mod waker;

pub use ext::{AnyEndpoint, EndpointExt};
#[doc(no_inline)]
pub use mk_ipi_core::*;
/// The crate that converts [`typed`] messages; re-exported for its derive macros.
pub use zerocopy;

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
