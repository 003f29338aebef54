// SPDX-License-Identifier: MIT OR Apache-2.0
//! riscv64: QEMU's machine `virt` with an SBI firmware below.

mod controller;

pub use self::controller::{Controller, Mode};
pub use super::device_tree::cpus;

use super::device_tree::Tree;
use crate::boot::Boot;
use crate::console;
use crate::image::ImageError;
use crate::machine::Exit;
use core::arch::asm;
use elf::endian::LittleEndian;
use elf::ElfBytes;
use mk_ipi_abi::{PhysRange, Vector};
use mk_ipi_riscv::SOFTWARE_INTERRUPT;

core::arch::global_asm!(include_str!("boot.s"));

/// Where memory begins.
pub const RAM: u64 = 0x8000_0000;
/// End of what boot.s maps as memory.
pub const CACHED_END: u64 = 0xc000_0000;
/// From here on boot.s maps all of memory a second time, read-only.
pub const READ_ONLY_ALIAS: u64 = 1 << 37;

/// The doorbell's vector: the software interrupt, or identity 1 of an IMSIC.
pub const DOORBELL: Vector = SOFTWARE_INTERRUPT;
/// The doorbell vector of the kernels that this one starts: they are of the same kind.
pub const DOORBELL_OF_SPAWNED: Vector = DOORBELL;
/// A second vector, for the conformance suite: identity 2. Without an IMSIC there is none.
pub const SPARE_VECTOR: Vector = Vector::of_number(2).unwrap();

/// Kernels have no vectors of their own here: no CPU is moved.
pub fn doorbell_of(_: usize) -> Option<Vector> {
    None
}

/// What the entry was given in a1. The kernel that starts another one passes a start info. The firmware passes a device
/// tree.
///
/// # Safety
///
/// `argument` is what the entry was given.
pub unsafe fn boot(argument: u64) -> Option<Boot> {
    // SAFETY: the caller promises it. The first word of each says which of the two it is.
    unsafe { Boot::read(argument).or_else(|| Tree::at(argument)?.boot()) }
}

/// Where the image is entered.
pub fn image_entry(elf: &ElfBytes<'_, LittleEndian>) -> Result<u64, ImageError> {
    Ok(elf.ehdr.e_entry)
}

/// Makes what was written to `range` visible to a hart that starts. It need do nothing: caches are coherent, and
/// `Hsm::start` has the fence.
pub fn publish(_: PhysRange) {}

/// The switch for interrupts.
pub mod interrupts {
    use core::arch::asm;

    /// Returns whether this hart takes interrupts.
    pub fn are_enabled() -> bool {
        let status: u64;
        // SAFETY: a read.
        unsafe { asm!("csrr {}, sstatus", out(reg) status, options(nostack)) };
        status & 2 != 0
    }

    /// Makes this hart take no interrupts.
    pub fn disable() {
        // SAFETY: supervisor mode may do that.
        unsafe { asm!("csrci sstatus, 2", options(nostack)) };
    }

    /// Makes this hart take interrupts.
    pub fn enable() {
        // SAFETY: supervisor mode may do that, and there is a handler.
        unsafe { asm!("csrsi sstatus, 2", options(nostack)) };
    }

    /// Waits for an interrupt and takes it. Interrupts are off when it is called. An interrupt that comes after the
    /// call is not missed, because a pending one ends the wait, too.
    pub fn enable_and_wait() {
        // SAFETY: as above.
        unsafe { asm!("wfi", "csrsi sstatus, 2", options(nostack)) };
    }
}

/// The machine around the hart.
pub mod machine {
    use core::arch::asm;

    /// QEMU's device that ends the machine, where the machine `virt` has it. And its word for "failed", whose upper
    /// half is the status.
    const FINISHER: *mut u32 = 0x10_0000 as *mut u32;
    const FAIL: u32 = 0x3333;

    /// Ends the machine, all kernels at once; QEMU's status is `value * 2 + 1`, as on x86-64.
    pub fn exit(value: u8) -> ! {
        // SAFETY: the emulator's device, which boot.s maps as one.
        unsafe { FINISHER.write_volatile((u32::from(value) * 2 + 1) << 16 | FAIL) };
        halt()
    }

    /// Stops this hart for good.
    pub fn halt() -> ! {
        loop {
            super::interrupts::disable();
            // SAFETY: it waits for an interrupt, which is not taken.
            unsafe { asm!("wfi", options(nostack)) };
        }
    }

    /// What the machine's first kernel does first: nothing on this architecture.
    pub fn prepare() {}

    /// Runs an undefined instruction, which raises an exception.
    pub fn undefined_instruction() {
        // SAFETY: it raises an exception, which ends the machine.
        unsafe { asm!("unimp") }
    }
}

/// The time, in nanoseconds: QEMU's machine `virt` has a counter of 10 MHz, as its device tree says (`timebase-frequency`).
pub mod clock {
    use core::arch::asm;

    /// Nanoseconds in a second.
    pub const SECOND: u64 = 1_000_000_000;
    /// Nanoseconds of a tick of the counter.
    pub const TICK: u64 = 100;

    /// The counter's ticks, read after all that comes before it in the program.
    pub fn ticks() -> u64 {
        let ticks;
        // SAFETY: a read; the fence only orders accesses.
        unsafe { asm!("fence iorw, iorw", "rdtime {}", out(reg) ticks, options(nostack)) };
        ticks
    }

    /// The time now.
    pub fn now() -> u64 {
        ticks().wrapping_mul(TICK)
    }
}

/// The serial line: a 16550.
pub mod uart {
    use core::ptr::NonNull;
    use uart_16550::backend::MmioBackend;
    use uart_16550::{Config, Uart16550};

    /// Where its registers are.
    pub type Port = usize;
    /// The line that all kernels share: QEMU's machine `virt` has it there.
    pub const SHARED: Port = 0x1000_0000;

    fn at(port: Port) -> Option<Uart16550<MmioBackend>> {
        // SAFETY: a UART's registers, which boot.s maps as a device's. The caller is the only user of the UART.
        unsafe { Uart16550::new_mmio(NonNull::new(port as *mut u8)?, 1) }.ok()
    }

    /// Sets up a UART that no other kernel uses.
    pub fn set_up(port: Port) {
        if let Some(mut uart) = at(port) {
            // Without a serial line there is nowhere to report this. The exit status still tells the result.
            let _ = uart.init(Config::default());
        }
    }

    /// Sends bytes to the UART at `port`, which was set up.
    pub fn send(port: Port, bytes: &[u8]) {
        if let Some(mut uart) = at(port) {
            for &byte in bytes {
                // Bounded: a line that takes nothing must not hang the kernel.
                for _ in 0..100_000 {
                    if uart.try_send_byte(byte).is_ok() {
                        break;
                    }
                    core::hint::spin_loop();
                }
            }
        }
    }
}

/// This hart's number within the kernel. There is only one.
pub fn own_index() -> usize {
    0
}

/// No second hart can enter a kernel on this architecture.
pub fn second_entry() -> Option<u64> {
    None
}

/// boot.s calls this for an exception, with its cause (privileged, "Supervisor Cause (scause) Register").
#[no_mangle]
extern "C" fn exception(cause: u64) -> ! {
    let (at, value): (u64, u64);
    // SAFETY: reads of registers that supervisor mode may read.
    unsafe { asm!("csrr {}, sepc", "csrr {}, stval", out(reg) at, out(reg) value, options(nostack)) };
    console::fatal(format_args!("exception {cause}, sepc {at:#x}, stval {value:#x}"), Exit::Exception)
}
