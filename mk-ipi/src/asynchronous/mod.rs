// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sending and receiving for tasks of any executor, without an allocator.
//!
//! **Sending.** Keep [`Waiters`] in a `static`, and tell it of what happens to peers; then
//! [`send_async`](crate::EndpointExt::send_async) gives a future that waits for space.
//!
//! ```
//! use mk_ipi::asynchronous::Waiters;
//! use mk_ipi::platform::{Observer, Peer, PeerEvent};
//!
//! /// As many tasks may wait for space at a time.
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
//! That a peer died or restarted is found by [`tick`](mk_ipi_core::Endpoint::tick), and by [`follow`](mk_ipi_core::Endpoint::follow), whose callback also calls
//! [`Waiters::wake`]. On the RFC v2 layout nothing tells that a slot is free again: there a waiting task is woken at once and tries anew whenever it
//! is its turn.
//!
//! **Receiving.** Keep an [`Inbox`] in a `static`, register it as a handler, and await [`Receiver::receive`].
//!
//! Wakers are called from the deferred work, and wherever else the platform is told of an event, with no lock held. They must do what a
//! handler may do, no more: make a task ready, and not run it.

mod inbox;
mod send;

pub use inbox::{Inbox, Receive, Received, Receiver};
pub use send::{AsyncSendError, SendFuture, Waiters};
