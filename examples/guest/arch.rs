// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same names as in the folder `arch` of examples/bare-metal, implemented by the guest's own machine layer.

#[path = "../bare-metal/src/arch/x86_64/acpi_tables.rs"]
pub mod acpi_tables;
#[path = "../bare-metal/src/arch/x86_64/clock.rs"]
pub mod clock;
#[path = "controller.rs"]
mod controller;
#[path = "../bare-metal/src/arch/x86_64/machine.rs"]
pub mod machine;
#[path = "../bare-metal/src/arch/x86_64/mode.rs"]
mod mode;
#[path = "../bare-metal/src/arch/x86_64/pvh.rs"]
mod pvh;
#[path = "../bare-metal/src/arch/x86_64/trampoline.rs"]
mod trampoline;

pub use self::acpi_tables::cpus;
pub use self::controller::Controller;
pub use self::mode::Mode;
pub use self::pvh::image_entry;
pub use crate::mk_ipi::{DOORBELL, SPARE_VECTOR};

use mk_ipi_abi::{PhysRange, Vector};

/// Where memory begins.
pub const RAM: u64 = 0;
/// End of the memory that is used. Above it are the APICs' registers.
pub const CACHED_END: u64 = 3 << 30;
/// The doorbell vector of the kernels that this one starts: those of examples/bare-metal.
pub const DOORBELL_OF_SPAWNED: Vector = Vector::RFC_V2;

/// A kernel has no vector of its own here, because a guest moves no CPUs.
pub fn doorbell_of(_: usize) -> Option<Vector> {
    None
}

/// Makes what was written to `range` visible to a CPU that starts. It need do nothing: caches are coherent from the
/// CPU's first instruction on.
pub fn publish(_: PhysRange) {}

/// Where the guest's kernel has mapped a physical address, to read and write.
pub fn at(physical: u64) -> u64 {
    crate::mk_ipi::virtual_address(physical)
}

/// The switch for interrupts.
pub mod interrupts {
    pub use x86_64::instructions::interrupts::{are_enabled, disable, enable};
}

/// The serial line: the console of the guest's kernel, which has set it up.
pub mod uart {
    /// The base port of a UART.
    pub type Port = u16;
    /// The line that all kernels share: COM1.
    pub const SHARED: Port = 0x3f8;

    /// Does nothing: the line is set up already.
    pub fn set_up(_: Port) {}

    /// Sends bytes.
    pub fn send(_: Port, bytes: &[u8]) {
        crate::test::write(bytes);
    }
}

/// A guest has one CPU.
pub fn second_entry() -> Option<u64> {
    None
}

/// Runs `f` with this CPU's interrupts off.
pub fn without_interrupts<R>(f: impl FnOnce() -> R) -> R {
    x86_64::instructions::interrupts::without_interrupts(f)
}
