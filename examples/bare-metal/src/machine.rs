// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PC around the CPU: the exit device, the 8259s.

use x86_64::instructions::{hlt, interrupts, port::Port};

/// What the emulator's exit status says: QEMU's `isa-debug-exit` at port `0xf4` makes it `value * 2 + 1`.
///
/// 0 is none of them: that is what a triple fault gives under `-no-reboot`.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Exit {
    /// Everything was done and found right: status 33.
    Success = 0x10,
    /// Something was lost, torn, doubled, or a case failed: status 35.
    Failed = 0x11,
    /// A kernel gave up, an error record says why: status 37.
    Error = 0x12,
    /// A kernel panicked: status 39.
    Panic = 0x13,
    /// A CPU exception: status 41.
    Exception = 0x14,
}

/// Ends the machine, all kernels at once.
pub fn exit(how: Exit) -> ! {
    // SAFETY: the port is the emulator's exit device, or nothing at all.
    unsafe { Port::<u8>::new(0xf4).write(how as u8) };
    halt()
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}

/// Masks every line of both 8259s: their vectors are those of exceptions.
pub fn mask_8259() {
    for port in [0x21, 0xa1] {
        // SAFETY: the mask registers of the two 8259s, or nothing at all.
        unsafe { Port::<u8>::new(port).write(0xff) };
    }
}
