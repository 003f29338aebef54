// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the test in examples/guest needs from this kernel: the command line and the serial line.

use crate::mk_ipi::{ram, virtual_address};
use crate::program;
pub(crate) use crate::write;

/// The physical address of the command line. The boot loader passes no command line, so the emulator writes one to this address.
const COMMAND_LINE: u64 = 0x1fff_0000;

/// Runs the demo or the suite, as the command line says.
pub fn run() -> ! {
    program::run(command_line(), ram(), crate::told().rsdp.unwrap_or(0))
}

/// Reports a panic, and ends the machine.
pub fn panicked(info: &core::panic::PanicInfo) -> ! {
    program::panicked(info)
}

/// Returns whether the command line asks for x2APIC mode.
pub fn wants_x2apic() -> bool {
    command_line().split(u8::is_ascii_whitespace).any(|word| word == b"mk_ipi.mode=x2apic")
}

fn command_line() -> &'static [u8] {
    let at = virtual_address(COMMAND_LINE) as *const _;
    // SAFETY: this is mapped RAM. The emulator has written a string that ends with 0.
    unsafe { core::ffi::CStr::from_ptr(at) }.to_bytes()
}
