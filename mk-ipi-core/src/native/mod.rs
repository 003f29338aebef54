// SPDX-License-Identifier: MIT OR Apache-2.0
//! The native link: reliable, in order, one lane per sending instance (SPEC chapter N).
//!
//! [`send`] and [`receive`] are the two ends of a lane; [`life`] is what happens to them at a birth and a death;
//! [`lane`] are the words, [`region`] finds them. Whatever is read from a peer's pages is read once, checked, and only then used.

mod lane;
mod life;
mod receive;
mod region;
mod send;

pub(crate) use lane::{OwnRegion, PeerRegion};
pub(crate) use life::Pulse;
pub(crate) use receive::{Events, Receiver};
pub(crate) use region::create;
pub(crate) use send::{Sender, Unsent};

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
