// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts that differ by architecture. Each has a folder, and all folders have the same names in them:
//!
//! | name | what |
//! | --- | --- |
//! | `RAM`, `CACHED_END` | where memory begins, and the end of what is mapped of it |
//! | `at` | where this kernel has mapped a physical address, to read and write |
//! | `READ_ONLY_ALIAS` | where the second, read-only mapping of all memory begins |
//! | `DOORBELL`, `DOORBELL_OF_SPAWNED`, `SPARE_VECTOR`, `doorbell_of` | the vectors of doorbells |
//! | `Mode` | how the interrupt controller is driven |
//! | `boot`, `cpus`, `image_entry` | what firmware, or the kernel that started this one, tells; where an image is entered |
//! | `publish` | makes memory visible to a CPU that starts |
//! | `Controller` | the doorbell, and start and stop of CPUs |
//! | `interrupts` | off, on, and the wait for one |
//! | `machine` | the end of the machine, and of this CPU |
//! | `clock` | time |
//! | `uart` | the serial line |
//! | `own_index`, `second_entry` | the kernel's second CPU |
//!
//! The folder's boot.s calls `kernel_main` with the argument for `boot`. The handlers of the folder acknowledge an
//! interrupt and then call `on_doorbell`, `on_tick` and `on_foreign` of platform.rs, or `on_spare` of conformance.rs.

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

/// Where a physical address of RAM is mapped, to read and write. The mapping is one to one.
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
