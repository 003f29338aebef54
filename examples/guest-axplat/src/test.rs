// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the test (examples/guest) needs of this kernel: its command line, its memory, its serial line.

use crate::arch::acpi_tables::rsdp;
use crate::mk_ipi::{ram, virtual_address};
use crate::program;

/// Runs what the command line says.
pub fn run(multiboot: usize) -> ! {
    program::run(command_line(multiboot), ram(), rsdp().unwrap_or(0))
}

/// Ends the machine.
pub fn panicked(info: &core::panic::PanicInfo) -> ! {
    program::panicked(info)
}

/// Prints bytes.
pub fn write(bytes: &[u8]) {
    axplat::console::write_bytes(bytes);
}

/// The words of QEMU's `-append`, which follow the image's name (Multiboot specification 0.6.96, 3.3: flag 2, offset
/// 16).
fn command_line(multiboot: usize) -> &'static [u8] {
    let word = |at: usize| {
        let at = virtual_address((multiboot + at) as u64) as *const u32;
        // SAFETY: it is the boot loader's information, in memory that is mapped.
        unsafe { at.read_unaligned() }
    };
    if word(0) & 1 << 2 == 0 {
        return b"";
    }
    // SAFETY: as above. It is a string that ends with NUL.
    unsafe { core::ffi::CStr::from_ptr(virtual_address(word(16).into()) as *const _) }.to_bytes()
}
