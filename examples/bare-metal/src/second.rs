// SPDX-License-Identifier: MIT OR Apache-2.0
//! This kernel's second CPU, while it has one: it takes doorbells and runs deferred work, nothing else.

use crate::machine;
use crate::platform::Kernel;
use core::hint::spin_loop;
use mk_ipi_abi::PhysCpuId;
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering};
use x86_64::instructions::interrupts as cpu_interrupts;

core::arch::global_asm!(include_str!("second.s"), options(att_syntax));

/// The task register of the CPU that the image began on: boot.s.
const FIRST_TASK: u16 = 0x18;

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

/// This CPU's number within the kernel: 0 for the one that the image began on.
pub fn index() -> usize {
    let task: u16;
    // SAFETY: it reads the task register, which each CPU loads before any Rust runs there.
    unsafe { core::arch::asm!("str {:x}", out(reg) task, options(nomem, nostack, preserves_flags)) };
    usize::from(task != FIRST_TASK)
}

/// The second CPU's physical id.
pub fn physical_id() -> PhysCpuId {
    PhysCpuId(CPU.load(Ordering::Relaxed))
}

/// Where a second CPU enters this image, in 32-bit protected mode.
pub fn entry() -> u64 {
    extern "C" {
        static second_entry: u8;
    }
    &raw const second_entry as u64
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

/// What second.s calls, on the second CPU's own stack, interrupts off.
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
        cpu_interrupts::enable_and_hlt();
        cpu_interrupts::disable();
    }
    // Nobody rings this CPU any more; what has come so far is taken now.
    cpu_interrupts::enable();
    for _ in 0..LAST_TURNS {
        spin_loop();
    }
    cpu_interrupts::disable();
    kernel.run_due();
    kernel.hand_on_due();
    STATE.store(OFF, Ordering::Release);
    machine::halt()
}
