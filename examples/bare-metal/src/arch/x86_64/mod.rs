// SPDX-License-Identifier: MIT OR Apache-2.0
//! x86-64: a PC with a local APIC, booted by PVH.

mod acpi_tables;
pub mod clock;
mod controller;
mod idt;
pub mod machine;
mod mode;
mod pvh;
mod timer;
mod trampoline;

pub use self::acpi_tables::cpus;
pub use self::controller::Controller;
pub use self::mode::Mode;
pub use self::pvh::{boot, image_entry};

use mk_ipi_abi::{PhysRange, Vector};

core::arch::global_asm!(include_str!("boot.s"), options(att_syntax));
core::arch::global_asm!(include_str!("second.s"), options(att_syntax));

/// The physical address at which memory begins.
pub const RAM: u64 = 0;
/// The end of the memory that boot.s maps write-back cached. Above it, boot.s maps the APICs' registers uncached.
pub const CACHED_END: u64 = 3 << 30;
/// The distance from a memory address to its second, read-only mapping. boot.s makes it by the second entry of the top page
/// table.
pub const READ_ONLY_ALIAS: u64 = 1 << 39;

/// The doorbell's vector.
pub const DOORBELL: Vector = Vector::RFC_V2;
/// The doorbell vector of the kernels that this one starts. It is the same, because they run the same program.
pub const DOORBELL_OF_SPAWNED: Vector = DOORBELL;
/// A second vector, for the conformance suite.
pub const SPARE_VECTOR: Vector = Vector::new(0x40).unwrap();
/// The doorbell vector of kernel 0, if each kernel has its own vector.
const FIRST_OF_KERNELS: u8 = 0xd0;

/// The doorbell vector of kernel `k`, if each kernel has its own vector. `None` if `k` is above 15.
pub fn doorbell_of(k: usize) -> Option<Vector> {
    let k = u8::try_from(k).ok().filter(|k| *k < 16)?;
    Vector::new(FIRST_OF_KERNELS.checked_add(k)?)
}

/// Does nothing. A CPU that starts sees all that was written before, because caches are coherent from its first instruction on.
pub fn publish(_: PhysRange) {}

/// Turns this CPU's interrupts off and on, and waits for one.
pub mod interrupts {
    pub use x86_64::instructions::interrupts::{
        are_enabled, disable, enable, enable_and_hlt as enable_and_wait,
    };
}

/// The serial line.
pub mod uart {
    use uart_16550::{Config, Uart16550};

    /// The base port of a UART.
    pub type Port = u16;
    /// The line that all kernels share: COM1.
    pub const SHARED: Port = 0x3f8;

    /// Sets up a UART that no other kernel uses.
    pub fn set_up(port: Port) {
        // SAFETY: no other kernel uses these ports. Either no other kernel runs yet, or the UART belongs to this kernel alone.
        if let Ok(mut uart) = unsafe { Uart16550::new_port(port) } {
            // An error cannot be reported, because this is the line for reports. The exit status still tells the result.
            let _ = uart.init(Config::default());
        }
    }

    /// Sends bytes to the UART at `port`. It must be set up.
    pub fn send(port: Port, bytes: &[u8]) {
        // SAFETY: the UART belongs to this kernel alone, or this kernel holds the lock of COM1. (After a time-out it takes the
        // lock from a holder that it considers dead.)
        if let Ok(mut uart) = unsafe { Uart16550::new_port(port) } {
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

/// The task register of the kernel's first CPU. boot.s sets it. second.s sets another value on a second CPU.
const FIRST_TASK: u16 = 0x18;

/// This CPU's number within the kernel: 0 for the CPU on which the kernel began, 1 for the second one.
pub fn own_index() -> usize {
    let task: u16;
    // SAFETY: this only reads the task register. Each CPU loads it before it runs Rust code.
    unsafe { core::arch::asm!("str {:x}", out(reg) task, options(nomem, nostack, preserves_flags)) };
    usize::from(task != FIRST_TASK)
}

/// The address at which a second CPU enters this image, in 32-bit protected mode. The code there calls `second_main`.
pub fn second_entry() -> Option<u64> {
    extern "C" {
        static second_entry: u8;
    }
    Some(&raw const second_entry as u64)
}
