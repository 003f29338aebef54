// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages between the kernels of one machine. This is the crate of mk-ipi to begin with.
//!
//! The crate [`mk-ipi-core`](mk_ipi_core) implements the protocol. All of its public items are re-exported here: [`Endpoint`],
//! [`platform`], [`directory`], the wire layouts as [`abi`], and the others. This crate adds code that most kernels need:
//!
//! | module | what it is |
//! | --- | --- |
//! | [`typed`] | messages that are a Rust type: `register_typed`, `send_typed` |
//! | [`blocking`] | `send_blocking`: a send that waits for space until a deadline |
//! | [`asynchronous`] | `send_async` and [`Inbox`](asynchronous::Inbox): futures for any executor, without an allocator |
//! | [`peers`] | `peers`: iteration over the other kernels, with the state of each |
//! | [`bring_up`] | the start of a host from a plan, and of a spawned kernel from its command line |
//!
//! The trait [`EndpointExt`] makes the calls methods of every [`Endpoint`]. They use only the public calls of the core. A call that
//! a kernel does not use adds no code to the kernel.
//!
//! **If a message's type has no handler**, the core calls [`Observer::unhandled`](platform::Observer::unhandled) with the
//! message. Your implementation can pass the message to an [`Inbox`](asynchronous::Inbox) or to a [`Handler`].
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "a test may panic"))]

#[cfg(any(test, loom))]
extern crate std;

/// Declares a constructor that is `const`. Under loom it is not `const`, because loom's atomics have no const constructor.
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$meta])* $vis const fn $name($($arg: $ty),*) -> $ret $body
        #[cfg(loom)]
        $(#[$meta])* $vis fn $name($($arg: $ty),*) -> $ret $body
    };
}

/// Makes an array of `$n` elements, each initialized by `$init`. For constructors that `const_unless_loom` declares.
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
/// The crate that converts [`typed`] messages. It is re-exported so that its derive macros can be used.
pub use zerocopy;

/// Compiles the examples in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
