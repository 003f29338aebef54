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

/// Where memory begins.
pub const RAM: u64 = 0x4000_0000;
/// End of what boot.s maps as memory.
pub const CACHED_END: u64 = 0x8000_0000;
/// From here on boot.s maps all of memory a second time, read-only.
pub const READ_ONLY_ALIAS: u64 = 1 << 38;

/// The doorbell's vector: SGI 1.
pub const DOORBELL: Vector = Vector::of_number(1).unwrap();
/// The doorbell vector of the kernels that this one starts: they are of the same kind.
pub const DOORBELL_OF_SPAWNED: Vector = DOORBELL;
/// A second vector, for the conformance suite: SGI 2.
pub const SPARE_VECTOR: Vector = Vector::of_number(2).unwrap();

/// There are too few SGIs to give each kernel one: no CPU is moved here.
pub fn doorbell_of(_: usize) -> Option<Vector> {
    None
}

/// What the entry was given in x0. The kernel that starts another one passes a start info. The emulator passes nothing,
/// and puts a device tree to where memory begins.
///
/// # Safety
///
/// `argument` is what the entry was given.
pub unsafe fn boot(argument: u64) -> Option<Boot> {
    if argument != 0 {
        // SAFETY: the caller promises it.
        return unsafe { Boot::read(argument) };
    }
    // SAFETY: memory, which boot.s maps.
    unsafe { Tree::at(RAM) }?.boot()
}

/// Where the image is entered.
pub fn image_entry(elf: &ElfBytes<'_, LittleEndian>) -> Result<u64, ImageError> {
    Ok(elf.ehdr.e_entry)
}

/// Writes `range` back to memory, for a CPU that starts with its caches off.
pub fn publish(range: PhysRange) {
    let kind: u64;
    // SAFETY: a read.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) kind, options(nostack, preserves_flags)) };
    // DminLine: the shortest line of all caches, in words of 4 bytes.
    let line = 4 << (kind >> 16 & 0xf);
    for at in (range.start().0..range.end().0).step_by(line) {
        // SAFETY: mapped memory. The instruction does not change the content, it only writes it to memory.
        unsafe { asm!("dc cvac, {}", in(reg) at, options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// The mask of interrupts.
pub mod interrupts {
    use core::arch::asm;

    /// Returns whether this CPU takes interrupts.
    pub fn are_enabled() -> bool {
        let daif: u64;
        // SAFETY: a read.
        unsafe { asm!("mrs {}, daif", out(reg) daif, options(nostack, preserves_flags)) };
        daif & 1 << 7 == 0
    }

    /// Makes this CPU take no interrupts.
    pub fn disable() {
        // SAFETY: EL1 may do that.
        unsafe { asm!("msr daifset, #2", options(nostack, preserves_flags)) };
    }

    /// Makes this CPU take interrupts.
    pub fn enable() {
        // SAFETY: EL1 may do that, and there is a handler.
        unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
    }

    /// Waits for an interrupt and takes it. Interrupts are off when it is called. An interrupt that comes after the
    /// call is not missed, because a pending one ends the wait, too.
    pub fn enable_and_wait() {
        // SAFETY: as above.
        unsafe { asm!("dsb sy", "wfi", "msr daifclr, #2", "isb", options(nostack, preserves_flags)) };
    }
}

/// The machine around the CPU.
pub mod machine {
    use core::arch::asm;

    /// `SYS_EXIT_EXTENDED` (Semihosting for AArch32 and AArch64, 6.10).
    const EXIT: u64 = 0x20;
    /// `ADP_Stopped_ApplicationExit`.
    const APPLICATION_EXIT: u64 = 0x2_0026;

    /// Ends the machine, all kernels at once, by semihosting; QEMU's status is `value * 2 + 1`, as on x86-64.
    pub fn exit(value: u8) -> ! {
        let block = [APPLICATION_EXIT, u64::from(value) * 2 + 1];
        // SAFETY: the emulator's call, which reads the block.
        unsafe { asm!("hlt #0xf000", inout("x0") EXIT => _, in("x1") block.as_ptr(), options(nostack)) };
        halt()
    }

    /// Stops this CPU for good.
    pub fn halt() -> ! {
        loop {
            super::interrupts::disable();
            // SAFETY: it waits for an interrupt, which stays masked.
            unsafe { asm!("wfi", options(nostack, preserves_flags)) };
        }
    }

    /// What the machine's first kernel does first: nothing on this architecture.
    pub fn prepare() {}

    /// Runs an undefined instruction, which raises an exception.
    pub fn undefined_instruction() {
        // SAFETY: it raises an exception, which ends the machine.
        unsafe { asm!("udf #0") }
    }
}

/// The virtual counter, in nanoseconds.
pub mod clock {
    use core::arch::asm;

    /// Nanoseconds in a second.
    pub const SECOND: u64 = 1_000_000_000;

    /// The time now, read after all that comes before it in the program.
    pub fn now() -> u64 {
        let (ticks, frequency): (u64, u64);
        // SAFETY: reads of registers that EL1 may read.
        unsafe {
            asm!("isb", "mrs {}, cntvct_el0", "mrs {}, cntfrq_el0", out(reg) ticks, out(reg) frequency, options(nostack, preserves_flags));
        }
        let frequency = frequency.max(1);
        (ticks / frequency).wrapping_mul(SECOND).wrapping_add(ticks % frequency * SECOND / frequency)
    }
}

/// The serial line: a PL011 (Arm DDI 0183).
pub mod uart {
    /// Where its registers are.
    pub type Port = usize;
    /// The line that all kernels share: QEMU's machine `virt` has it there.
    pub const SHARED: Port = 0x0900_0000;

    /// Data register.
    const DATA: usize = 0;
    /// Flag register.
    const FLAGS: usize = 0x18;
    /// Flag: there is no room for a byte.
    const FULL: u32 = 1 << 5;
    /// Line control: 8 bits, FIFOs.
    const LINE_CONTROL: (usize, u32) = (0x2c, 0x70);
    /// Control: transmitter and UART on.
    const CONTROL: (usize, u32) = (0x30, 0x101);

    fn write(port: Port, register: usize, value: u32) {
        // SAFETY: a UART's registers, which boot.s maps as a device's.
        unsafe { ((port + register) as *mut u32).write_volatile(value) };
    }

    /// Sets up a UART that no other kernel uses.
    pub fn set_up(port: Port) {
        for (register, value) in [LINE_CONTROL, CONTROL] {
            write(port, register, value);
        }
    }

    /// Sends bytes to the UART at `port`, which was set up.
    pub fn send(port: Port, bytes: &[u8]) {
        for &byte in bytes {
            // Bounded: a line that takes nothing must not hang the kernel.
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

/// This CPU's number within the kernel. There is only one.
pub fn own_index() -> usize {
    0
}

/// No second CPU can enter a kernel on this architecture.
pub fn second_entry() -> Option<u64> {
    None
}
