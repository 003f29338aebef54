// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mk-ipi protocol: handler registry, send, receive, deferred work and the table of instances.
//!
//! A kernel implements the traits of [`platform`], keeps one [`Endpoint`] in a `static`, calls [`Endpoint::on_interrupt`] from
//! the handler of the doorbell's vector, and [`Endpoint::run_deferred`] soon after. No call allocates or panics, and no call
//! holds a lock while it calls a handler. Calls in interrupt context take bounded time.
//!
//! The path of a message: `send` -> slot of the target's region -> doorbell -> `on_interrupt` copies and checks -> queue of that
//! CPU -> `run_deferred` -> handlers. On the native link: `send` -> our lane in the target's region -> doorbell, if the target
//! wants to be rung -> `run_deferred` copies, checks and calls the handlers. SPEC.md is normative.
//!
//! Modules, from the lowest layer to the highest: `sync`, `place`; `message`, `published`, `stats`; `registry`; `platform`; the
//! generations `rfc_v2` and `native`; `link`, which has a variant for each generation; `instance`, `directory`; `endpoint`.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "a test may panic"))]

#[cfg(any(test, loom))]
extern crate std;

pub mod directory;
mod endpoint;
mod instance;
mod link;
#[cfg(all(test, not(loom)))]
mod litmus;
mod message;
mod native;
#[cfg(not(loom))]
mod place;
pub mod platform;
mod published;
mod registry;
mod rfc_v2;
mod stats;
pub mod sync;

pub use endpoint::{
    config_of, Deferred, Endpoint, Followed, JoinError, MapPfnError, MappedPage, MoveError, PollError,
    Poller, SendError,
};
pub use instance::{DestroyError, InstanceConfig, InstanceRef, LookupError};
pub use link::{AddError, LinkConfig};
pub use message::Message;
pub use mk_ipi_abi as abi;
pub use native::LaneStats;
pub use registry::{Handle, Handler, RegistryFull, UnregisterError};
pub use rfc_v2::SlotPolicy;
pub use stats::Stats;

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
