// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mk-ipi protocol: handler registry, send, receive, deferred work and the table of instances.
#![no_std]

#[cfg(any(test, loom))]
extern crate std;

pub mod platform;
pub mod sync;
