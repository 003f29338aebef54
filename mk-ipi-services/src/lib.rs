// SPDX-License-Identifier: MIT OR Apache-2.0
//! Services over mk-ipi links, as state machines: a console ([`console`], SPEC chapter K), and channels for messages between programs
//! ([`channel`], SPEC chapter G).
//!
//! Nothing here sends or waits: the kernel passes in received messages, and sends the messages that it gets back. No call allocates,
//! panics or takes a lock. The work of a call is bounded by its input and one buffer. The kernel supplies the buffers, and a peer cannot
//! fill more memory than these.
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

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
