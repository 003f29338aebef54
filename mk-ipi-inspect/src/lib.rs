// SPDX-License-Identifier: MIT OR Apache-2.0
//! Explains what lies in the shared memory of mk-ipi kernels (SPEC chapters D, L, N).
//!
//! The bytes come from a dump, an ELF vmcore, or memory that kernels write meanwhile. No byte is trusted: each is copied once,
//! the copy is checked, and a value that cannot be right becomes a [`Finding`] that says what it means.
//!
//! The modules from bottom to top: [`finding`] and [`memory`]; [`native`] and [`rfc_v2`], the two layouts of a region;
//! [`directory`]; `beside`, which compares the two; [`machine`], a whole machine; [`rates`], what changed between two looks;
//! [`text`] and [`svg`], which show it. [`json`] writes all fields of a [`Machine`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic"))]

mod beside;
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
    // This cannot fail: all types of the fields exist in JSON.
    serde_json::to_string_pretty(machine).unwrap_or_default()
}
