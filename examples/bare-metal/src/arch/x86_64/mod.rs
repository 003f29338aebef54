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

/// Where memory begins.
pub const RAM: u64 = 0;
/// End of what boot.s maps write-back cached; what it maps beyond is for the APICs' registers.
pub const CACHED_END: u64 = 3 << 30;
/// From where on boot.s maps all of memory once more, read-only: the second entry of the top page table.
pub const READ_ONLY_ALIAS: u64 = 1 << 39;

/// The doorbell's vector.
pub const DOORBELL: Vector = Vector::RFC_V2;
/// That of the kernels which this one starts: they are of its kind.
pub const DOORBELL_OF_SPAWNED: Vector = DOORBELL;
/// A second one, of the conformance suite.
pub const SPARE_VECTOR: Vector = Vector::new(0x40).unwrap();
/// The first of the vectors of kernels that have one each.
const FIRST_OF_KERNELS: u8 = 0xd0;

/// A vector for kernel `k` alone; there are 16.
pub fn doorbell_of(k: usize) -> Option<Vector> {
    let k = u8::try_from(k).ok().filter(|k| *k < 16)?;
    Vector::new(FIRST_OF_KERNELS.checked_add(k)?)
}

/// Has what was written to `range` be seen by a CPU that starts: caches are coherent from its first instruction on.
pub fn publish(_: PhysRange) {}

/// The switch for interrupts.
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

    /// Sets a UART up that nobody else uses.
    pub fn set_up(port: Port) {
        // SAFETY: a UART's ports that nobody else uses: no other kernel runs yet, or it is this kernel's own.
        if let Ok(mut uart) = unsafe { Uart16550::new_port(port) } {
            // Without a serial line there is nobody to tell; the exit status still says how it ended.
            let _ = uart.init(Config::default());
        }
    }

    /// Sends bytes to the UART at `port`, which was set up.
    pub fn send(port: Port, bytes: &[u8]) {
        // SAFETY: this kernel's own UART; or COM1, where the lock keeps others off, or its holder is dead.
        if let Ok(mut uart) = unsafe { Uart16550::new_port(port) } {
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

/// The task register of the CPU that the image began on: boot.s.
const FIRST_TASK: u16 = 0x18;

/// This CPU's number within the kernel: 0 for the one that the image began on.
pub fn own_index() -> usize {
    let task: u16;
    // SAFETY: it reads the task register, which each CPU loads before any Rust runs there.
    unsafe { core::arch::asm!("str {:x}", out(reg) task, options(nomem, nostack, preserves_flags)) };
    usize::from(task != FIRST_TASK)
}

/// Where a second CPU enters this image, in 32-bit protected mode; it calls `second_main`.
pub fn second_entry() -> Option<u64> {
    extern "C" {
        static second_entry: u8;
    }
    Some(&raw const second_entry as u64)
}
