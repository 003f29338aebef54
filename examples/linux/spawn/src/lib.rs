// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the Linux host decides and writes before a spawned kernel starts.
//!
//! [`image`] reads the kernel's file and says where it can lie. [`acpi`] writes the tables that describe the machine to
//! it. [`start_info`] writes what the kernel is given at its entry. All three work on slices. The caller maps the
//! memory and starts the CPUs. Cargo builds this crate for its tests, and Kbuild builds it as a part of the kernel
//! module.
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

/// The first address that is out of reach at a kernel's 32-bit entry.
const FOUR_GIB: u64 = 1 << 32;
