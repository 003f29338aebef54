// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints what the host finds in kernel images, and how it would load them:
//! `cargo run -p mk-ipi-spawn --example look -- FILE...`

use mk_ipi_spawn::image::Image;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    for path in std::env::args_os().skip(1) {
        let file = std::fs::read(&path)?;
        println!("{}: {} bytes", path.to_string_lossy(), file.len());
        let image = match Image::parse(&file) {
            Ok(image) => image,
            Err(error) => {
                println!("  refused: {error}");
                continue;
            }
        };
        let extent = image.extent();
        println!("  linked at {:#x}, {:#x} bytes", extent.start().0, extent.len());
        for segment in image.segments() {
            let (offset, bytes, zeroed) = (segment.offset, segment.bytes.len(), segment.zeroed);
            println!("  segment at +{offset:#x}: {bytes:#x} bytes, then {zeroed:#x} zero bytes");
        }
        match image.relocation() {
            Some(to) => println!(
                "  can be moved: to a multiple of {:#x}, not below {:#x}, with its last byte not above {:#x}",
                to.align, to.min.0, to.max.0
            ),
            None => println!("  cannot be moved"),
        }
        match image.place(extent.start()) {
            Ok(placed) => println!("  PVH entry at the linked address: {:#x}", placed.entry),
            Err(error) => println!("  at the linked address: {error}"),
        }
    }
    Ok(())
}
