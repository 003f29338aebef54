// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network interface between two kernels, over mk-ipi messages (SPEC chapter E).
//!
//! A kernel has one [`Port`] for each peer. It opens and closes the interface, and knows whether there is a carrier. A
//! [`FrameSplitter`] splits a frame into messages; a [`FrameAssembler`] checks received messages, and says where their bytes belong. None
//! of them allocates, waits or touches shared memory. The caller sends the messages, and passes in private copies of received ones.
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
