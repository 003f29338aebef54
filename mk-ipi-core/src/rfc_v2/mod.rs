// SPDX-License-Identifier: MIT OR Apache-2.0
//! Generation RFC v2: one slot per CPU, as the C peers define it (SPEC chapters S, R, X).
//!
//! `slot` stores a message in a slot, and takes it out. `queue` holds messages in private memory until their handlers are called.

mod queue;
mod slot;

pub(crate) use queue::{Queue, QueueError};
pub use slot::SlotPolicy;
pub(crate) use slot::{NotTaken, Outgoing, Slot, Unsendable};
