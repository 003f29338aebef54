// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel on ArceOS's `axplat`, with mk-ipi. The crate `axplat-x86-pc` from the registry drives the machine. before/main.rs
//! is the same kernel without mk-ipi.
#![no_std]
#![no_main]
#![allow(dead_code, reason = "a guest does not use all of examples/bare-metal")]

extern crate axplat_x86_pc;

mod mk_ipi;
mod test;
include!("../../guest/modules.rs");

use axcpu::trap::{register_trap_handler, IRQ};

#[axplat::main]
fn kernel_main(cpu: usize, multiboot: usize) -> ! {
    axcpu::init::init_percpu(cpu);
    axplat::init::init_early(cpu, multiboot);
    axplat::init::init_later(cpu, multiboot);
    axplat::console_println!("this is a kernel on axplat");
    mk_ipi::start().expect("mk-ipi can use the local APIC");
    test::run(multiboot)
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
    test::panicked(info)
}
