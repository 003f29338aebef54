// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tick from the local APIC's timer, so that no CPU sleeps past a time-out.

use mk_ipi_abi::Vector;
use mk_ipi_x86::Mode;
use x86_64::registers::model_specific::Msr;

/// The tick's vector.
pub const VECTOR: Vector = Vector::new(0xeb).unwrap();
/// Timer counts from one tick to the next: 2 ms at the emulator's 1 GHz, and of that order on a real machine.
const PERIOD: u32 = 2_000_000;

/// LVT timer register (Intel SDM vol. 3A, 10.5.4), offset in the xAPIC's page.
const LVT_TIMER: u32 = 0x320;
/// Initial count register.
const INITIAL_COUNT: u32 = 0x380;
/// Divide configuration register.
const DIVIDE: u32 = 0x3e0;
/// LVT timer: periodic.
const PERIODIC: u32 = 1 << 17;
/// Divide configuration: by 1.
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
            // SAFETY: the caller promises it; the registers take these values.
            Mode::XApic => unsafe { ((page + u64::from(register)) as *mut u32).write_volatile(value) },
            // SAFETY: as above; the MSR of a register is 0x800 + offset / 16.
            Mode::X2Apic => unsafe { Msr::new(0x800 + (register >> 4)).write(value.into()) },
        }
    }
}
