// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's own image. A guest is the host of its machine: kernel 0.

use mk_ipi_abi::PhysRange;

/// The memory of this image.
pub fn image() -> PhysRange {
    crate::mk_ipi::image_range()
}

/// The host's number.
pub fn kernel() -> u8 {
    0
}
