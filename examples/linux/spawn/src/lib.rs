// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prepares the start of a kernel: checks its image, and writes the data that it gets at its entry.
//!
//! [`image`] checks the file of the kernel, and says at which addresses the image can be put. [`acpi`] writes ACPI tables,
//! which tell the kernel its CPUs. [`start_info`] writes the page that the kernel gets at its entry. These modules work on
//! slices. The caller maps the memory and starts the CPUs. Cargo builds this crate for its tests, and Kbuild builds it as a
//! part of the Linux module.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "a test may panic")
)]

#[cfg(test)]
extern crate std;

pub mod acpi;
pub mod image;
pub mod start_info;

/// The first address that a kernel cannot access at its entry, in 32-bit mode.
const FOUR_GIB: u64 = 1 << 32;
