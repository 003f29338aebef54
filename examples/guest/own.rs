// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replaces examples/bare-metal/src/own.rs: the guest's image and number. A guest is the host of its machine, so it is kernel 0.

use mk_ipi_abi::PhysRange;

/// The memory of the guest's image.
pub fn image() -> PhysRange {
    crate::mk_ipi::image_range()
}

/// The guest's number: 0, because it is the host.
pub fn kernel() -> u8 {
    0
}
