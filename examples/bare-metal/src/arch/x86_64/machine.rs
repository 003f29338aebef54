// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices of a PC other than the APIC: QEMU's exit device, and the 8259 interrupt controllers.

use x86_64::instructions::{hlt, port::Port};

/// Ends the machine, and so all kernels on it, by QEMU's device `isa-debug-exit` at port `0xf4`. QEMU's exit status is `value
/// * 2 + 1`.
pub fn exit(value: u8) -> ! {
    // SAFETY: the port belongs to the emulator's exit device, or to no device.
    unsafe { Port::<u8>::new(0xf4).write(value) };
    halt()
}

/// Stops this CPU for ever.
pub fn halt() -> ! {
    loop {
        super::interrupts::disable();
        hlt();
    }
}

/// Masks all lines of both 8259s, because the vectors of their interrupts are also vectors of exceptions. The machine's first
/// kernel calls this before it turns interrupts on.
pub fn prepare() {
    for port in [0x21, 0xa1] {
        // SAFETY: the ports are the mask registers of the two 8259s, or belong to no device.
        unsafe { Port::<u8>::new(port).write(0xff) };
    }
}

/// Runs an undefined instruction, which raises an exception.
pub fn undefined_instruction() {
    // SAFETY: the exception's handler ends the machine.
    unsafe { core::arch::asm!("ud2") }
}
