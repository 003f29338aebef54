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
/// End of what boot.s maps write-back cached. It maps more beyond this, for the APICs' registers.
pub const CACHED_END: u64 = 3 << 30;
/// From here on boot.s maps all of memory a second time, read-only: by the second entry of the top page table.
pub const READ_ONLY_ALIAS: u64 = 1 << 39;

/// The doorbell's vector.
pub const DOORBELL: Vector = Vector::RFC_V2;
/// The doorbell vector of the kernels that this one starts: they are of the same kind.
pub const DOORBELL_OF_SPAWNED: Vector = DOORBELL;
/// A second vector, for the conformance suite.
pub const SPARE_VECTOR: Vector = Vector::new(0x40).unwrap();
/// When each kernel has its own vector, this is the first of them.
const FIRST_OF_KERNELS: u8 = 0xd0;

/// The vector of kernel `k` alone. There are 16.
pub fn doorbell_of(k: usize) -> Option<Vector> {
    let k = u8::try_from(k).ok().filter(|k| *k < 16)?;
    Vector::new(FIRST_OF_KERNELS.checked_add(k)?)
}

/// Makes what was written to `range` visible to a CPU that starts. It need do nothing: caches are coherent from the
/// CPU's first instruction on.
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

    /// Sets up a UART that no other kernel uses.
    pub fn set_up(port: Port) {
        // SAFETY: no other kernel uses these ports: none runs yet, or the UART is this kernel's own.
        if let Ok(mut uart) = unsafe { Uart16550::new_port(port) } {
            // Without a serial line there is nowhere to report this. The exit status still tells the result.
            let _ = uart.init(Config::default());
        }
    }

    /// Sends bytes to the UART at `port`, which was set up.
    pub fn send(port: Port, bytes: &[u8]) {
        // SAFETY: the UART is this kernel's own; or it is COM1, and the lock keeps other kernels off, or its holder is
        // dead.
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

/// The task register of the CPU that the image began on, set by boot.s.
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
