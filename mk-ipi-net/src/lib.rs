// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network interface between two kernels, over mk-ipi messages (SPEC chapter E).
//!
//! A kernel has one [`Port`] for each peer. The port opens and closes this kernel's end of the interface, and says whether there
//! is a carrier. A [`FrameSplitter`] splits a frame into messages. A [`FrameAssembler`] checks received messages, and says where
//! their bytes belong in the frame. These types do not allocate, do not wait, and do not access shared memory. The caller sends
//! the messages that they make, and passes private copies of received messages to them.
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

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
