// SPDX-License-Identifier: MIT OR Apache-2.0
//! The items of examples/bare-metal/src/arch/mod.rs that the demo and the suite need, for a guest. A guest is a kernel whose
//! own code drives the machine, such as examples/guest-axplat.

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

/// The physical address at which memory begins.
pub const RAM: u64 = 0;
/// The end of the memory that the demo uses. The APICs' registers are above it.
pub const CACHED_END: u64 = 3 << 30;
/// The doorbell vector of the kernels that the guest starts. These are kernels of examples/bare-metal.
pub const DOORBELL_OF_SPAWNED: Vector = Vector::RFC_V2;

/// Always `None`: the kernels do not have different vectors, because a guest moves no CPUs.
pub fn doorbell_of(_: usize) -> Option<Vector> {
    None
}

/// Does nothing. A CPU that starts sees all that was written before, because caches are coherent from its first instruction on.
pub fn publish(_: PhysRange) {}

/// The virtual address at which the guest reads and writes the physical address `physical`.
pub fn at(physical: u64) -> u64 {
    crate::mk_ipi::virtual_address(physical)
}

/// Turns this CPU's interrupts off and on.
pub mod interrupts {
    pub use x86_64::instructions::interrupts::{are_enabled, disable, enable};
}

/// The serial line. The guest has set it up as its console.
pub mod uart {
    /// The base port of a UART.
    pub type Port = u16;
    /// The line that all kernels share: COM1.
    pub const SHARED: Port = 0x3f8;

    /// Does nothing: the guest has set up the line.
    pub fn set_up(_: Port) {}

    /// Sends bytes to the serial line.
    pub fn send(_: Port, bytes: &[u8]) {
        crate::test::write(bytes);
    }
}

/// Always `None`: a guest has one CPU.
pub fn second_entry() -> Option<u64> {
    None
}

/// Runs `f` with this CPU's interrupts off.
pub fn without_interrupts<R>(f: impl FnOnce() -> R) -> R {
    x86_64::instructions::interrupts::without_interrupts(f)
}
