// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the simulated machine, and of endpoints of `mk-ipi-core` on it. All these tests are one program. The reason is that
//! `cargo xtask mutants` builds them for each change, and one program is linked much faster than many. Tests that take more than
//! a few seconds are programs of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are small"
)]

mod changes;
mod changing;
mod directory;
mod endpoints;
mod faults;
mod habits;
mod life;
mod liveness;
mod native;
mod native_hostile;
mod native_link;
mod odd;
mod region_ends;
mod trace;
mod unwind;
