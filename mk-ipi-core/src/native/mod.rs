// SPDX-License-Identifier: MIT OR Apache-2.0
//! Generation "native": a reliable link that keeps the order of messages. Each sending instance has one lane (SPEC chapter N).
//!
//! Both ends: `lane` accesses the words of a lane. `region` finds, checks and maps a region.
//!
//! Receiver: `own` writes the words that are for all senders. `state` keeps what the receiver knows of a lane. `take` copies
//! messages out of a lane. `birth` does the handshake when either end begins a life. `receive` visits all lanes.
//!
//! Sender: `begin` begins a life, `send` sends, `space` waits for space, and `watch` observes the receiver.
//!
//! Code here reads each word of a peer's pages once, checks the copy, and uses only the copy.

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

#[cfg(all(test, not(loom)))]
#[cfg_attr(miri, allow(dead_code, reason = "a part of it is for tests that Miri does not run"))]
mod arena_for_tests;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

// Tables with many cases, which would take Miri too long. `tests` runs the same unsafe code there.
#[cfg(all(test, not(any(loom, miri))))]
mod birth_tests;
#[cfg(all(test, not(any(loom, miri))))]
mod hello_tests;
#[cfg(all(test, not(any(loom, miri))))]
mod poll_tests;
#[cfg(all(test, not(any(loom, miri))))]
mod region_tests;
#[cfg(all(test, not(any(loom, miri))))]
mod sender_tests;
#[cfg(all(test, not(any(loom, miri))))]
mod watch_tests;
