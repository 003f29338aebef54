// SPDX-License-Identifier: MIT OR Apache-2.0
//! The code of this kernel's second CPU, while it has one. That CPU only takes doorbells and runs deferred work.

use crate::arch::{self, interrupts};
use crate::machine;
use crate::platform::Kernel;
use core::hint::spin_loop;
use mk_ipi_abi::PhysCpuId;
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering};

/// State: the kernel has no second CPU.
const OFF: u32 = 0;
/// State: the second CPU runs and accepts doorbells.
const ON: u32 = 1;
/// State: the second CPU was told to leave the kernel.
const LEAVING: u32 = 2;

/// How long a CPU that leaves keeps interrupts on to take pending doorbells, in turns of a loop.
const LAST_TURNS: u32 = 1000;

static STATE: AtomicU32 = AtomicU32::new(OFF);
/// The second CPU's physical id. The CPU writes it before it sets the state `ON`.
static CPU: AtomicU64 = AtomicU64::new(0);

/// The second CPU's physical id.
pub fn physical_id() -> PhysCpuId {
    PhysCpuId(CPU.load(Ordering::Relaxed))
}

/// The address at which a second CPU enters this image.
pub fn entry() -> u64 {
    arch::second_entry().unwrap_or_else(|| fatal!("no second CPU can enter a kernel on this architecture"))
}

/// Returns whether the second CPU runs and accepts doorbells.
pub fn is_on() -> bool {
    STATE.load(Ordering::Acquire) == ON
}

/// Returns whether the second CPU has left the kernel. From then on it does not access the kernel's memory.
pub fn is_off() -> bool {
    STATE.load(Ordering::Acquire) == OFF
}

/// Tells the second CPU, which must be on, to leave. The CPU reads this at its next interrupt, such as the tick.
pub fn leave() {
    STATE.store(LEAVING, Ordering::Release);
}

/// second.s calls this on the second CPU's own stack, with interrupts off.
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
    // All kernels now send their doorbells to another CPU. This CPU takes the doorbells that are still pending here.
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
