// SPDX-License-Identifier: MIT OR Apache-2.0
//! Futures that send and receive, for any executor. They need no allocator.
//!
//! **Sending.** Keep [`Waiters`] in a `static`, and pass the events of peers to it. Then
//! [`send_async`](crate::EndpointExt::send_async) returns a future that waits for space.
//!
//! ```
//! use mk_ipi::asynchronous::Waiters;
//! use mk_ipi::platform::{Observer, Peer, PeerEvent};
//!
//! /// Up to 8 tasks can wait for space at a time.
//! static WAITERS: Waiters<8> = Waiters::new();
//!
//! struct Kernel;
//!
//! impl Observer for Kernel {
//!     fn peer_event(&self, peer: Peer, event: PeerEvent) {
//!         WAITERS.peer_event(&peer, &event);
//!     }
//! }
//! ```
//!
//! [`tick`](mk_ipi_core::Endpoint::tick) and [`follow`](mk_ipi_core::Endpoint::follow) find out that a peer died or restarted. So
//! call them, and call [`Waiters::wake`] in the callback of `follow`. On the RFC v2 layout there is no event when a slot becomes
//! free. There the future wakes its own task at once, and tries again when the executor polls it.
//!
//! **Receiving.** Keep an [`Inbox`] in a `static`, register it as a handler, and await [`Receiver::receive`].
//!
//! mk-ipi calls wakers in the deferred work, and in every other call that reports an event to the observer. It holds no lock
//! while it calls them. Wakers must follow the rules for handlers: they may mark a task as ready, but must not run it.

mod inbox;
mod send;

pub use inbox::{Inbox, Receive, Received, Receiver};
pub use send::{AsyncSendError, SendFuture, Waiters};
