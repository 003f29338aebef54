// SPDX-License-Identifier: MIT OR Apache-2.0
//! Generation RFC v2: one slot per CPU, as the C peers define it (SPEC chapters S, R, X).
//!
//! `slot`: how a message gets into a slot and out of it. `queue`: where it waits for its handlers, in private memory.

mod queue;
mod slot;

pub(crate) use queue::{Queue, QueueError};
pub use slot::SlotPolicy;
pub(crate) use slot::{NotTaken, Outgoing, Slot, Unsendable};
