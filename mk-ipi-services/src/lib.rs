// SPDX-License-Identifier: MIT OR Apache-2.0
//! Services over mk-ipi links, as state machines: a console ([`console`], SPEC chapter K), and channels for messages between
//! programs ([`channel`], SPEC chapter G).
//!
//! These types do not send messages, and do not wait: the kernel passes received messages to them, and sends the messages that
//! they return. No call allocates, panics or takes a lock. A call copies at most its input and the content of one buffer. The
//! kernel supplies the buffers. A peer cannot fill more memory than these buffers have.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )
)]

#[cfg(test)]
extern crate std;

pub mod channel;
pub mod console;
pub mod ring;

pub use mk_ipi_abi as abi;

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
