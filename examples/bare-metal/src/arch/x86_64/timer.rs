// SPDX-License-Identifier: MIT OR Apache-2.0
//! A periodic tick from the local APIC's timer. It wakes a CPU that sleeps, so that the CPU notices a time-out.

use mk_ipi_abi::Vector;
use mk_ipi_x86::Mode;
use x86_64::registers::model_specific::Msr;

/// The tick's vector.
pub const VECTOR: Vector = Vector::new(0xeb).unwrap();
/// The time between two ticks, in counts of the timer. It is 2 ms in the emulator, whose timer has 1 GHz, and of the same
/// order on a real machine.
const PERIOD: u32 = 2_000_000;

/// Offset of the LVT timer register in the xAPIC's page (Intel SDM vol. 3A, 10.5.4).
const LVT_TIMER: u32 = 0x320;
/// Offset of the initial count register.
const INITIAL_COUNT: u32 = 0x380;
/// Offset of the divide configuration register.
const DIVIDE: u32 = 0x3e0;
/// Bit of the LVT timer register: the timer is periodic.
const PERIODIC: u32 = 1 << 17;
/// Value of the divide configuration register: divide by 1.
const BY_1: u32 = 0b1011;

/// Starts the tick on this CPU.
///
/// # Safety
///
/// The APIC is in `mode` and enabled, its page is mapped one to one, and the IDT has an entry for [`VECTOR`].
pub unsafe fn start(mode: Mode, page: u64) {
    let lvt = PERIODIC | u32::from(VECTOR.get());
    for (register, value) in [(DIVIDE, BY_1), (LVT_TIMER, lvt), (INITIAL_COUNT, PERIOD)] {
        match mode {
            // SAFETY: the caller keeps the safety rules of this function. These values are valid for these registers.
            Mode::XApic => unsafe { ((page + u64::from(register)) as *mut u32).write_volatile(value) },
            // SAFETY: as above. In x2APIC mode the MSR of a register is 0x800 + offset / 16.
            Mode::X2Apic => unsafe { Msr::new(0x800 + (register >> 4)).write(value.into()) },
        }
    }
}
