// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PC around the CPU: the exit device, the 8259s.

use x86_64::instructions::{hlt, port::Port};

/// Ends the machine, all kernels at once, by QEMU's `isa-debug-exit` at port `0xf4`: its status is `value * 2 + 1`.
pub fn exit(value: u8) -> ! {
    // SAFETY: the port is the emulator's exit device, or nothing at all.
    unsafe { Port::<u8>::new(0xf4).write(value) };
    halt()
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        super::interrupts::disable();
        hlt();
    }
}

/// What the machine's first kernel does first: masks every line of both 8259s, because their vectors are also those of
/// exceptions.
pub fn prepare() {
    for port in [0x21, 0xa1] {
        // SAFETY: the mask registers of the two 8259s, or nothing at all.
        unsafe { Port::<u8>::new(port).write(0xff) };
    }
}

/// Runs an undefined instruction, which raises an exception.
pub fn undefined_instruction() {
    // SAFETY: it raises an exception, which ends the machine.
    unsafe { core::arch::asm!("ud2") }
}
