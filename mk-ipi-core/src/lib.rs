// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mk-ipi protocol: handler registry, send, receive, deferred work and the table of instances.
//!
//! A kernel implements the traits of [`platform`], keeps one [`Endpoint`] in a `static`, calls
//! [`Endpoint::on_interrupt`] from the doorbell's vector and [`Endpoint::run_deferred`] soon after. No call
//! allocates or panics, none holds a lock across a callback, and what runs in interrupt context is bounded.
//!
//! The path of a message: `send` -> slot of the target's region -> doorbell -> `on_interrupt` copies and checks ->
//! queue of that CPU -> `run_deferred` -> handlers. SPEC.md is normative.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "a test may panic"))]

#[cfg(any(test, loom))]
extern crate std;

pub mod directory;
mod endpoint;
mod instance;
mod message;
mod native;
mod peers;
mod pfn;
#[cfg(not(loom))]
mod place;
pub mod platform;
mod published;
mod queue;
mod registry;
mod slot;
mod stats;
pub mod sync;

pub use endpoint::{Deferred, Endpoint, LaneStats, MoveError, PollError, SendError};
pub use instance::{AddError, DestroyError, InstanceConfig, InstanceRef, LinkConfig, LookupError};
pub use message::Message;
pub use mk_ipi_abi as abi;
pub use pfn::{MapPfnError, MappedPage};
pub use registry::{Handle, Handler, RegistryFull, UnregisterError};
pub use slot::Occupied;
pub use stats::Stats;
