// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the test (examples/guest) needs of this kernel: its command line and its serial line.

use crate::mk_ipi::{ram, virtual_address};
use crate::program;
pub(crate) use crate::write;

/// The address of the command line. The boot loader passes none, so the emulator puts one there.
const COMMAND_LINE: u64 = 0x1fff_0000;

/// Runs what the command line says.
pub fn run() -> ! {
    program::run(command_line(), ram(), crate::told().rsdp.unwrap_or(0))
}

/// Ends the machine.
pub fn panicked(info: &core::panic::PanicInfo) -> ! {
    program::panicked(info)
}

/// Returns whether the command line asks for x2APIC mode.
pub fn wants_x2apic() -> bool {
    command_line().split(u8::is_ascii_whitespace).any(|word| word == b"mk_ipi.mode=x2apic")
}

fn command_line() -> &'static [u8] {
    let at = virtual_address(COMMAND_LINE) as *const _;
    // SAFETY: it is RAM, and mapped. A 0 follows what the emulator put there.
    unsafe { core::ffi::CStr::from_ptr(at) }.to_bytes()
}
