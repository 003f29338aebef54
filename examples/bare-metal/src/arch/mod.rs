// SPDX-License-Identifier: MIT OR Apache-2.0
//! The code that differs by architecture. Each architecture has a module, and each of these modules has the same items:
//!
//! | item | what it is |
//! | --- | --- |
//! | `RAM`, `CACHED_END` | the physical addresses at which memory begins, and at which the mapped memory ends |
//! | `at` (in this file) | the virtual address of a physical address, to read and write |
//! | `READ_ONLY_ALIAS` | the distance from a memory address to its second, read-only mapping |
//! | `DOORBELL`, `DOORBELL_OF_SPAWNED`, `SPARE_VECTOR`, `doorbell_of` | the vectors of doorbells |
//! | `Mode` | the mode in which the interrupt controller runs |
//! | `boot`, `cpus` | what this kernel is told at its start by firmware or by another kernel; the machine's CPUs |
//! | `image_entry` | the address at which another kernel's image is entered |
//! | `publish` | makes memory visible to a CPU that starts |
//! | `Controller` | sends and receives doorbells; starts and stops CPUs |
//! | `interrupts` | turns this CPU's interrupts off and on, and waits for one |
//! | `machine` | ends the machine, or stops this CPU |
//! | `clock` | the time |
//! | `uart` | the serial line |
//! | `own_index`, `second_entry` | the kernel's second CPU |
//!
//! Each module has a boot.s, which calls `kernel_main` with the argument for `boot`. The module's interrupt handlers
//! acknowledge an interrupt, and then call `on_doorbell`, `on_tick` or `on_foreign` of platform.rs, or `on_spare` of
//! conformance.rs.

cfg_if::cfg_if! {
    if #[cfg(target_arch = "x86_64")] {
        mod x86_64;
        pub use self::x86_64::*;
    } else if #[cfg(target_arch = "aarch64")] {
        mod aarch64;
        mod device_tree;
        pub use self::aarch64::*;
    } else if #[cfg(target_arch = "riscv64")] {
        mod device_tree;
        mod riscv64;
        pub use self::riscv64::*;
    } else {
        compile_error!("no kernel for this architecture");
    }
}

/// The virtual address at which this kernel reads and writes the physical address `physical`. Both are equal.
pub const fn at(physical: u64) -> u64 {
    physical
}

/// Runs `f` with this CPU's interrupts off.
pub fn without_interrupts<R>(f: impl FnOnce() -> R) -> R {
    let were_on = interrupts::are_enabled();
    interrupts::disable();
    let result = f();
    if were_on {
        interrupts::enable();
    }
    result
}
