// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network interface between two kernels, over mk-ipi messages (SPEC chapter E).
//!
//! A kernel has one [`Port`] for each peer: it opens and closes, knows whether there is a carrier, and cuts frames into messages
//! ([`FrameSplitter`]). What comes in, [`FrameAssembler`] checks and puts in order. None of them allocates, waits or touches shared memory: who
//! uses them sends what they say, and hands them the private copies of what was received.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        reason = "a test may panic"
    )
)]

#[cfg(test)]
extern crate std;

mod assemble;
mod port;
mod split;

pub use assemble::{FrameAssembler, FrameBytes, FrameError};
pub use mk_ipi_abi::net;
pub use port::{CarrierChange, Port};
pub use split::{FrameSplitter, Head, Piece, SplitError};

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
