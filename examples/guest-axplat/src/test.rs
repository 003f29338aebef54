// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the test in examples/guest needs from this kernel: the command line, the memory, the serial line.

use crate::arch::acpi_tables::rsdp;
use crate::mk_ipi::{ram, virtual_address};
use crate::program;

/// Runs the demo or the suite, as the command line says.
pub fn run(multiboot: usize) -> ! {
    program::run(command_line(multiboot), ram(), rsdp().unwrap_or(0))
}

/// Reports a panic, and ends the machine.
pub fn panicked(info: &core::panic::PanicInfo) -> ! {
    program::panicked(info)
}

/// Writes bytes to the serial line.
pub fn write(bytes: &[u8]) {
    axplat::console::write_bytes(bytes);
}

/// The command line from the Multiboot information (Multiboot specification 0.6.96, 3.3: flag 2, offset 16): the image's
/// name, and the words of QEMU's `-append`.
fn command_line(multiboot: usize) -> &'static [u8] {
    let word = |at: usize| {
        let at = virtual_address((multiboot + at) as u64) as *const u32;
        // SAFETY: this is the boot loader's Multiboot information, in mapped memory.
        unsafe { at.read_unaligned() }
    };
    if word(0) & 1 << 2 == 0 {
        return b"";
    }
    // SAFETY: as above. The command line is a string that ends with NUL.
    unsafe { core::ffi::CStr::from_ptr(virtual_address(word(16).into()) as *const _) }.to_bytes()
}
