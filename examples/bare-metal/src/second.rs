// SPDX-License-Identifier: MIT OR Apache-2.0
//! This kernel's second CPU, while it has one. It takes doorbells and runs deferred work, nothing else.

use crate::arch::{self, interrupts};
use crate::machine;
use crate::platform::Kernel;
use core::hint::spin_loop;
use mk_ipi_abi::PhysCpuId;
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering};
/// The second CPU is not here.
const OFF: u32 = 0;
/// It is here, and ready for doorbells.
const ON: u32 = 1;
/// It was told to leave.
const LEAVING: u32 = 2;

/// Turns with interrupts on, in which a CPU that leaves takes what is pending.
const LAST_TURNS: u32 = 1000;

static STATE: AtomicU32 = AtomicU32::new(OFF);
/// The second CPU's physical id, which it writes before it is on.
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

/// Returns whether the second CPU is here and ready for doorbells.
pub fn is_on() -> bool {
    STATE.load(Ordering::Acquire) == ON
}

/// Returns whether the second CPU has left. It then does not access this kernel any more.
pub fn is_off() -> bool {
    STATE.load(Ordering::Acquire) == OFF
}

/// Tells the second CPU, which is on, to leave. It finds out at its next tick.
pub fn leave() {
    STATE.store(LEAVING, Ordering::Release);
}

/// The second CPU's entry calls this on its own stack, with interrupts off.
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
    // No kernel rings this CPU any more. Doorbells that have come so far are taken now.
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
