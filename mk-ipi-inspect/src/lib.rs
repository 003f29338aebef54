// SPDX-License-Identifier: MIT OR Apache-2.0
//! Explains what lies in the shared memory of mk-ipi kernels (SPEC chapters D, L, N).
//!
//! The bytes come from a dump, an ELF vmcore, or memory that kernels write meanwhile. None of them is believed: each is copied
//! once, the copy is checked, and what makes no sense is a [`Finding`] that says what it means.
//!
//! From bottom to top: [`finding`], [`memory`]; [`native`] and [`rfc_v2`], the two layouts of a region; [`directory`]; [`machine`], all of
//! it; [`rates`], what changed between two looks; [`text`] and [`svg`], how it is shown. As JSON everything is shown as it is.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic"))]

pub mod directory;
pub mod finding;
pub mod machine;
pub mod memory;
pub mod native;
pub mod rates;
pub mod rfc_v2;
pub mod svg;
pub mod text;

pub use finding::{Finding, Severity};
pub use machine::Machine;
pub use memory::Memory;

/// All that was found, as one JSON object.
pub fn json(machine: &Machine) -> String {
    // Nothing in it has a form that JSON lacks.
    serde_json::to_string_pretty(machine).unwrap_or_default()
}
