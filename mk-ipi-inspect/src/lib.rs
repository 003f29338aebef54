// SPDX-License-Identifier: MIT OR Apache-2.0
//! Explains the contents of the shared memory of mk-ipi kernels (SPEC chapters D, L, N).
//!
//! The memory is that of a dump, of an ELF vmcore, or of a machine that runs. No byte is trusted: the memory is copied, and the
//! copy is checked. A value that is wrong or remarkable becomes a [`Finding`], which says what the value means for the kernels.
//!
//! Each module uses only modules that come before it in this list: [`finding`]; [`memory`]; [`native`] and [`rfc_v2`], the two
//! layouts of a region; [`directory`]; `beside`, which compares regions with the directory; [`machine`], all that was found;
//! [`rates`], what changed between two readings; [`text`], which shows all this as text; [`svg`], which draws a machine. [`json`]
//! writes all fields of a [`Machine`].
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

/// Returns all that was found, as one JSON object.
pub fn json(machine: &Machine) -> String {
    // This cannot fail: all types of the fields exist in JSON.
    serde_json::to_string_pretty(machine).unwrap_or_default()
}
