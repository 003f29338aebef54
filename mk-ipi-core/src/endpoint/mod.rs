// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls of a kernel: send, receive, handlers, instances.
//!
//! Modules, from the lowest layer to the highest: `busy`, `ringing`, `base`; `error`; `ring`; `upkeep`; `send`, `post`; `poller`,
//! `receive`; `peers`, `instances`; `join`, `follow`, `pfn`.

mod base;
mod busy;
mod error;
mod follow;
mod instances;
mod join;
mod peers;
mod pfn;
mod poller;
mod post;
mod receive;
mod ring;
mod ringing;
mod send;
mod upkeep;

pub use base::Endpoint;
pub use error::SendError;
pub use follow::Followed;
pub use join::{config_of, JoinError};
pub use peers::MoveError;
pub use pfn::{MapPfnError, MappedPage};
pub use poller::{Deferred, Poller};
pub use receive::PollError;
