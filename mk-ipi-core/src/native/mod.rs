// SPDX-License-Identifier: MIT OR Apache-2.0
//! Generation "native": reliable, in order, one lane per sending instance (SPEC chapter N).
//!
//! From bottom to top: `lane`, the words of a lane as each end maps them; `region`, which maps them; `own`, the words of a
//! receiver for all senders. For the receiver: `state`, what it knows of a lane; `take`, which copies messages out of a lane;
//! `birth`, the handshake when either end begins a life; `receive`, all lanes together. For the sender: `send`, `begin` and `space`;
//! `watch`, which observes the receiver.
//! A word in a peer's pages is read once, checked, and only then used.

mod begin;
mod birth;
mod lane;
mod own;
mod receive;
mod region;
mod send;
mod space;
mod state;
mod take;
mod watch;

pub(crate) use begin::Opening;
pub(crate) use lane::{OwnRegion, PeerRegion};
pub(crate) use receive::{Hold, Receiver};
pub(crate) use region::{create, mapped_by, RegionError};
pub(crate) use send::{Sender, Unsent};
pub(crate) use state::Events;
pub use watch::LaneStats;
pub(crate) use watch::{Unsettled, Watch};

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
