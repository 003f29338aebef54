// SPDX-License-Identifier: MIT OR Apache-2.0
//! This kernel's second CPU, while it has one: it takes doorbells and runs deferred work, nothing else.

use crate::arch::{self, interrupts};
use crate::machine;
use crate::platform::Kernel;
use core::hint::spin_loop;
use mk_ipi_abi::PhysCpuId;
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering};
/// Not here.
const OFF: u32 = 0;
/// Here, and ready for doorbells.
const ON: u32 = 1;
/// To leave.
const LEAVING: u32 = 2;

/// Turns with interrupts on in which a CPU that leaves takes what is pending.
const LAST_TURNS: u32 = 1000;

static STATE: AtomicU32 = AtomicU32::new(OFF);
/// Its physical id, which it writes before it is on.
static CPU: AtomicU64 = AtomicU64::new(0);

/// The second CPU's physical id.
pub fn physical_id() -> PhysCpuId {
    PhysCpuId(CPU.load(Ordering::Relaxed))
}

/// Where a second CPU enters this image.
pub fn entry() -> u64 {
    arch::second_entry()
        .unwrap_or_else(|| fatal!("no second CPU can enter this kernel: not on this architecture"))
}

/// Whether it is here and ready for doorbells.
pub fn is_on() -> bool {
    STATE.load(Ordering::Acquire) == ON
}

/// Whether it has left: it will touch nothing of this kernel any more.
pub fn is_off() -> bool {
    STATE.load(Ordering::Acquire) == OFF
}

/// Has it leave, which is on: it finds out at its next tick.
pub fn leave() {
    STATE.store(LEAVING, Ordering::Release);
}

/// What the second CPU's entry calls, on its own stack, interrupts off.
#[no_mangle]
extern "C" fn second_main() -> ! {
    let kernel = Kernel;
    let cpu = kernel.enter_second();
    CPU.store(cpu.0, Ordering::Relaxed);
    STATE.store(ON, Ordering::Release);
    loop {
        kernel.run_due();
        if STATE.load(Ordering::Acquire) == LEAVING {
            break;
        }
        interrupts::enable_and_wait();
        interrupts::disable();
    }
    // Nobody rings this CPU any more; what has come so far is taken now.
    interrupts::enable();
    for _ in 0..LAST_TURNS {
        spin_loop();
    }
    interrupts::disable();
    kernel.run_due();
    kernel.hand_on_due();
    STATE.store(OFF, Ordering::Release);
    machine::halt()
}
