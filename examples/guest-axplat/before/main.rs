// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same kernel without mk-ipi. README.md says how many lines src/main.rs has in addition to this file.
#![no_std]
#![no_main]

extern crate axplat_x86_pc;

use axcpu::trap::{register_trap_handler, IRQ};

#[axplat::main]
fn kernel_main(cpu: usize, multiboot: usize) -> ! {
    axcpu::init::init_percpu(cpu);
    axplat::init::init_early(cpu, multiboot);
    axplat::init::init_later(cpu, multiboot);
    axplat::console_println!("this is a kernel on axplat");
    axplat::power::system_off()
}

/// Called for every interrupt that is not an exception.
#[register_trap_handler(IRQ)]
fn on_irq(vector: usize) -> bool {
    axplat::irq::handle(vector);
    true
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    axplat::console_println!("{info}");
    axplat::power::system_off()
}
