// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes a disk image from which a BIOS boots the kernel: `guest-bootloader-disk KERNEL DISK`.

use std::path::Path;

use anyhow::{bail, Result};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, disk] = words.as_slice() else { bail!("usage: guest-bootloader-disk KERNEL DISK") };
    bootloader::BiosBoot::new(Path::new(kernel)).create_disk_image(Path::new(disk))
}
