// SPDX-License-Identifier: MIT OR Apache-2.0
//! riscv64: QEMU's machine `virt` with an SBI firmware.

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

/// The physical address at which memory begins.
pub const RAM: u64 = 0x8000_0000;
/// The end of the memory that boot.s maps.
pub const CACHED_END: u64 = 0xc000_0000;
/// The distance from a memory address to its second, read-only mapping, which boot.s makes.
pub const READ_ONLY_ALIAS: u64 = 1 << 37;

/// The doorbell's vector: the software interrupt, or identity 1 of an IMSIC.
pub const DOORBELL: Vector = SOFTWARE_INTERRUPT;
/// The doorbell vector of the kernels that this one starts. It is the same, because they run the same program.
pub const DOORBELL_OF_SPAWNED: Vector = DOORBELL;
/// A second vector, for the conformance suite: identity 2 of an IMSIC. Without IMSICs it cannot be used.
pub const SPARE_VECTOR: Vector = Vector::of_number(2).unwrap();

/// Always `None`: the kernels do not have different vectors, so no hart is moved on this architecture.
pub fn doorbell_of(_: usize) -> Option<Vector> {
    None
}

/// Reads what this kernel is told at its start. A kernel that starts another one passes the address of a start info in a1. The
/// firmware passes the address of a device tree.
///
/// # Safety
///
/// `argument` is the value that the entry in boot.s got in a1.
pub unsafe fn boot(argument: u64) -> Option<Boot> {
    // SAFETY: the caller keeps the safety rules of this function. The first word of a start info differs
    // from the first word of a device tree.
    unsafe { Boot::read(argument).or_else(|| Tree::at(argument)?.boot()) }
}

/// The address at which the image in this ELF file must be entered.
pub fn image_entry(elf: &ElfBytes<'_, LittleEndian>) -> Result<u64, ImageError> {
    Ok(elf.ehdr.e_entry)
}

/// Does nothing. A hart that starts sees all that was written before: caches are coherent, and `Hsm::start` has the fence.
pub fn publish(_: PhysRange) {}

/// Turns this hart's interrupts off and on, and waits for one.
pub mod interrupts {
    use core::arch::asm;

    /// Returns whether this hart takes interrupts.
    pub fn are_enabled() -> bool {
        let status: u64;
        // SAFETY: this only reads a register.
        unsafe { asm!("csrr {}, sstatus", out(reg) status, options(nostack)) };
        status & 2 != 0
    }

    /// Makes this hart take no interrupts.
    pub fn disable() {
        // SAFETY: supervisor mode may turn interrupts off.
        unsafe { asm!("csrci sstatus, 2", options(nostack)) };
    }

    /// Makes this hart take interrupts.
    pub fn enable() {
        // SAFETY: supervisor mode may turn interrupts on, and boot.s has a handler for them.
        unsafe { asm!("csrsi sstatus, 2", options(nostack)) };
    }

    /// Waits for an interrupt and takes it. The caller has turned interrupts off. `wfi` also ends if an interrupt is already
    /// pending, so an interrupt that comes before `wfi` is not missed.
    pub fn enable_and_wait() {
        // SAFETY: as in `enable`.
        unsafe { asm!("wfi", "csrsi sstatus, 2", options(nostack)) };
    }
}

/// Ends the machine, or stops this hart.
pub mod machine {
    use core::arch::asm;

    /// The device of QEMU's machine `virt` that ends the machine.
    const FINISHER: *mut u32 = 0x10_0000 as *mut u32;
    /// A word for that device: end with the exit status in the upper half of the word.
    const FAIL: u32 = 0x3333;

    /// Ends the machine, and so all kernels on it. QEMU's exit status is `value * 2 + 1`, as on x86-64.
    pub fn exit(value: u8) -> ! {
        // SAFETY: this is a device of the emulator, and boot.s maps it as a device.
        unsafe { FINISHER.write_volatile((u32::from(value) * 2 + 1) << 16 | FAIL) };
        halt()
    }

    /// Stops this hart for ever.
    pub fn halt() -> ! {
        loop {
            super::interrupts::disable();
            // SAFETY: this waits for an interrupt, and interrupts stay off.
            unsafe { asm!("wfi", options(nostack)) };
        }
    }

    /// Does nothing: on this architecture the machine's first kernel has nothing to prepare.
    pub fn prepare() {}

    /// Runs an undefined instruction, which raises an exception.
    pub fn undefined_instruction() {
        // SAFETY: the exception's handler ends the machine.
        unsafe { asm!("unimp") }
    }
}

/// The time, in nanoseconds. The counter of QEMU's machine `virt` has 10 MHz (`timebase-frequency` in its device tree).
pub mod clock {
    use core::arch::asm;

    /// Nanoseconds in a second.
    pub const SECOND: u64 = 1_000_000_000;
    /// The length of a tick of the counter, in nanoseconds.
    pub const TICK: u64 = 100;

    /// The counter's value, in ticks. All memory accesses before the call are completed before the counter is read.
    pub fn ticks() -> u64 {
        let ticks;
        // SAFETY: this only reads the counter. The fence only orders accesses.
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

    /// The address of a UART's registers.
    pub type Port = usize;
    /// The UART of the serial line that all kernels share, at its address in QEMU's machine `virt`.
    pub const SHARED: Port = 0x1000_0000;

    fn at(port: Port) -> Option<Uart16550<MmioBackend>> {
        // SAFETY: these are a UART's registers, and boot.s maps them as a device. The caller is the only user of the UART.
        unsafe { Uart16550::new_mmio(NonNull::new(port as *mut u8)?, 1) }.ok()
    }

    /// Sets up a UART that no other kernel uses.
    pub fn set_up(port: Port) {
        if let Some(mut uart) = at(port) {
            // An error cannot be reported, because this is the line for reports. The exit status still tells the result.
            let _ = uart.init(Config::default());
        }
    }

    /// Sends bytes to the UART at `port`. It must be set up.
    pub fn send(port: Port, bytes: &[u8]) {
        if let Some(mut uart) = at(port) {
            for &byte in bytes {
                // The wait is bounded, because a UART that takes no bytes must not hang the kernel.
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

/// This hart's number within the kernel: always 0, because there is only one.
pub fn own_index() -> usize {
    0
}

/// Always `None`: no second hart can enter a kernel on this architecture.
pub fn second_entry() -> Option<u64> {
    None
}

/// boot.s calls this for an exception, with its cause (privileged, "Supervisor Cause (scause) Register").
#[no_mangle]
extern "C" fn exception(cause: u64) -> ! {
    let (at, value): (u64, u64);
    // SAFETY: this only reads registers that supervisor mode may read.
    unsafe { asm!("csrr {}, sepc", "csrr {}, stval", out(reg) at, out(reg) value, options(nostack)) };
    console::fatal(format_args!("exception {cause}, sepc {at:#x}, stval {value:#x}"), Exit::Exception)
}
