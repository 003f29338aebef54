// SPDX-License-Identifier: MIT OR Apache-2.0
//! What kernels offer each other over mk-ipi's links, as state machines: a console ([`console`], SPEC chapter K), and channels
//! by which programs talk ([`channel`], SPEC chapter G).
//!
//! Nothing here sends or waits: a kernel hands in what came, and sends what it is told to. No call allocates, panics or takes a lock,
//! and what each does is bounded by the bytes that it is given and one buffer. The buffers are the kernel's, and their size is all the memory
//! that a peer can fill.
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
