// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sending and receiving for tasks of any executor, without an allocator.
//!
//! **Sending.** Keep [`Waiters`] in a `static`, and pass it the events of peers. Then
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
//! [`tick`](mk_ipi_core::Endpoint::tick) and [`follow`](mk_ipi_core::Endpoint::follow) notice that a peer died or restarted.
//! The callback of `follow` must also call [`Waiters::wake`]. On the RFC v2 layout there is no event when a slot is free again:
//! there a waiting task is woken at once, and tries again at its next turn.
//!
//! **Receiving.** Keep an [`Inbox`] in a `static`, register it as a handler, and await [`Receiver::receive`].
//!
//! Wakers are called in the deferred work, and in every other call in which the platform is told of an event, with no lock
//! held. The rules for handlers hold for them: they may make a task ready, but must not run it.

mod inbox;
mod send;

pub use inbox::{Inbox, Receive, Received, Receiver};
pub use send::{AsyncSendError, SendFuture, Waiters};
