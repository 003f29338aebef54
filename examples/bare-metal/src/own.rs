// SPDX-License-Identifier: MIT OR Apache-2.0
//! This kernel's own image: its addresses, which also tell the kernel's number.

use crate::layout::{contains, image_window, MAX_KERNELS};
use mk_ipi_abi::{PhysAddr, PhysRange};

/// The memory of this image, from symbols of kernel.ld.
pub fn image() -> PhysRange {
    extern "C" {
        static __image_start: u8;
        static __image_end: u8;
    }
    let (start, end) = (&raw const __image_start as u64, &raw const __image_end as u64);
    PhysRange::new(PhysAddr(start), end - start).expect("an image ends after its beginning")
}

/// The number of the kernel whose window (layout.rs) contains this image. It is known before the directory is read. 255 if no
/// window contains the image.
pub fn kernel() -> u8 {
    let window = (0..MAX_KERNELS).find(|&k| contains(image_window(k), image()));
    window.map_or(u8::MAX, |k| k as u8)
}
