// SPDX-License-Identifier: MIT OR Apache-2.0
//! arm64: QEMU's machine `virt` with a GICv3, PSCI and semihosting.

mod controller;
mod exceptions;

pub use self::controller::{Controller, Mode};
pub use super::device_tree::cpus;

use super::device_tree::Tree;
use crate::boot::Boot;
use crate::image::ImageError;
use core::arch::asm;
use elf::endian::LittleEndian;
use elf::ElfBytes;
use mk_ipi_abi::{PhysRange, Vector};

core::arch::global_asm!(include_str!("boot.s"));

/// The physical address at which memory begins.
pub const RAM: u64 = 0x4000_0000;
/// The end of the memory that boot.s maps.
pub const CACHED_END: u64 = 0x8000_0000;
/// The distance from a memory address to its second, read-only mapping, which boot.s makes.
pub const READ_ONLY_ALIAS: u64 = 1 << 38;

/// The doorbell's vector: SGI 1.
pub const DOORBELL: Vector = Vector::of_number(1).unwrap();
/// The doorbell vector of the kernels that this one starts. It is the same, because they run the same program.
pub const DOORBELL_OF_SPAWNED: Vector = DOORBELL;
/// A second vector, for the conformance suite: SGI 2.
pub const SPARE_VECTOR: Vector = Vector::of_number(2).unwrap();

/// Always `None`. The demo moves a CPU only if each kernel has its own doorbell vector, and there are too few SGIs for that. So
/// on this architecture no CPU is moved.
pub fn doorbell_of(_: usize) -> Option<Vector> {
    None
}

/// Reads what this kernel is told at its start. A kernel that starts another one passes the address of a start info in x0. The
/// emulator passes 0, and has put a device tree at the start of memory.
///
/// # Safety
///
/// `argument` is the value that the entry in boot.s got in x0.
pub unsafe fn boot(argument: u64) -> Option<Boot> {
    if argument != 0 {
        // SAFETY: the caller keeps the safety rules of this function.
        return unsafe { Boot::read(argument) };
    }
    // SAFETY: this is memory, and boot.s maps it.
    unsafe { Tree::at(RAM) }?.boot()
}

/// The address at which the image in this ELF file must be entered.
pub fn image_entry(elf: &ElfBytes<'_, LittleEndian>) -> Result<u64, ImageError> {
    Ok(elf.ehdr.e_entry)
}

/// Writes the cached content of `range` back to memory, because a CPU that starts has its caches off.
pub fn publish(range: PhysRange) {
    let kind: u64;
    // SAFETY: this only reads a register.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) kind, options(nostack, preserves_flags)) };
    // `DminLine`: the binary logarithm of the shortest cache line, in words of 4 bytes.
    let line = 4 << (kind >> 16 & 0xf);
    for at in (range.start().0..range.end().0).step_by(line) {
        // SAFETY: the memory is mapped. The instruction writes a cache line to memory, and changes no content.
        unsafe { asm!("dc cvac, {}", in(reg) at, options(nostack, preserves_flags)) };
    }
    // SAFETY: this is only a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Turns this CPU's interrupts off and on, and waits for one.
pub mod interrupts {
    use core::arch::asm;

    /// Returns whether this CPU takes interrupts.
    pub fn are_enabled() -> bool {
        let daif: u64;
        // SAFETY: this only reads a register.
        unsafe { asm!("mrs {}, daif", out(reg) daif, options(nostack, preserves_flags)) };
        daif & 1 << 7 == 0
    }

    /// Makes this CPU take no interrupts.
    pub fn disable() {
        // SAFETY: EL1 may mask interrupts.
        unsafe { asm!("msr daifset, #2", options(nostack, preserves_flags)) };
    }

    /// Makes this CPU take interrupts.
    pub fn enable() {
        // SAFETY: EL1 may unmask interrupts, and boot.s has a handler for them.
        unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
    }

    /// Waits for an interrupt and takes it. The caller has turned interrupts off. `wfi` also ends if an interrupt is already
    /// pending, so an interrupt that comes before `wfi` is not missed.
    pub fn enable_and_wait() {
        // SAFETY: as in `enable`.
        unsafe { asm!("dsb sy", "wfi", "msr daifclr, #2", "isb", options(nostack, preserves_flags)) };
    }
}

/// Ends the machine, or stops this CPU.
pub mod machine {
    use core::arch::asm;

    /// `SYS_EXIT_EXTENDED` (Semihosting for AArch32 and AArch64, 6.10).
    const EXIT: u64 = 0x20;
    /// `ADP_Stopped_ApplicationExit`.
    const APPLICATION_EXIT: u64 = 0x2_0026;

    /// Ends the machine, and so all kernels on it, by a semihosting call. QEMU's exit status is `value * 2 + 1`, as on x86-64.
    pub fn exit(value: u8) -> ! {
        let block = [APPLICATION_EXIT, u64::from(value) * 2 + 1];
        // SAFETY: this is a call of the emulator, which only reads the block.
        unsafe { asm!("hlt #0xf000", inout("x0") EXIT => _, in("x1") block.as_ptr(), options(nostack)) };
        halt()
    }

    /// Stops this CPU for ever.
    pub fn halt() -> ! {
        loop {
            super::interrupts::disable();
            // SAFETY: this waits for an interrupt, and interrupts stay masked.
            unsafe { asm!("wfi", options(nostack, preserves_flags)) };
        }
    }

    /// Does nothing: on this architecture the machine's first kernel has nothing to prepare.
    pub fn prepare() {}

    /// Runs an undefined instruction, which raises an exception.
    pub fn undefined_instruction() {
        // SAFETY: the exception's handler ends the machine.
        unsafe { asm!("udf #0") }
    }
}

/// The time, from the virtual counter, in nanoseconds.
pub mod clock {
    use core::arch::asm;

    /// Nanoseconds in a second.
    pub const SECOND: u64 = 1_000_000_000;

    /// The time now. The `isb` prevents the CPU from reading the counter ahead of earlier instructions.
    pub fn now() -> u64 {
        let (ticks, frequency): (u64, u64);
        // SAFETY: this only reads registers that EL1 may read.
        unsafe {
            asm!("isb", "mrs {}, cntvct_el0", "mrs {}, cntfrq_el0", out(reg) ticks, out(reg) frequency, options(nostack, preserves_flags));
        }
        let frequency = frequency.max(1);
        (ticks / frequency).wrapping_mul(SECOND).wrapping_add(ticks % frequency * SECOND / frequency)
    }
}

/// The serial line: a PL011 (Arm DDI 0183).
pub mod uart {
    /// The address of a UART's registers.
    pub type Port = usize;
    /// The UART of the serial line that all kernels share, at its address in QEMU's machine `virt`.
    pub const SHARED: Port = 0x0900_0000;

    /// Data register.
    const DATA: usize = 0;
    /// Flag register.
    const FLAGS: usize = 0x18;
    /// Flag: the transmit FIFO is full.
    const FULL: u32 = 1 << 5;
    /// Line control: 8 bits, FIFOs.
    const LINE_CONTROL: (usize, u32) = (0x2c, 0x70);
    /// Control: transmitter and UART on.
    const CONTROL: (usize, u32) = (0x30, 0x101);

    fn write(port: Port, register: usize, value: u32) {
        // SAFETY: these are a UART's registers, and boot.s maps them as a device.
        unsafe { ((port + register) as *mut u32).write_volatile(value) };
    }

    /// Sets up a UART that no other kernel uses.
    pub fn set_up(port: Port) {
        for (register, value) in [LINE_CONTROL, CONTROL] {
            write(port, register, value);
        }
    }

    /// Sends bytes to the UART at `port`. It must be set up.
    pub fn send(port: Port, bytes: &[u8]) {
        for &byte in bytes {
            // The wait is bounded, because a UART that takes no bytes must not hang the kernel.
            for _ in 0..100_000 {
                // SAFETY: as in `write`.
                if unsafe { ((port + FLAGS) as *const u32).read_volatile() } & FULL == 0 {
                    break;
                }
                core::hint::spin_loop();
            }
            write(port, DATA, byte.into());
        }
    }
}

/// This CPU's number within the kernel: always 0, because there is only one.
pub fn own_index() -> usize {
    0
}

/// Always `None`: on this architecture no CPU is moved (`doorbell_of`), so a kernel never gets a second CPU.
pub fn second_entry() -> Option<u64> {
    None
}
