// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel as the well-known tutorials build it. The `bootloader` crate boots it and maps all of physical memory. It
//! uses the `x86_64` crate, and masks both 8259s. before/main.rs is the same kernel without mk-ipi.
#![no_std]
#![no_main]
#![allow(dead_code, reason = "examples/bare-metal has more than a guest uses")]

mod mk_ipi;
mod test;
include!("../../guest/modules.rs");

use bootloader_api::config::{BootloaderConfig, Mapping};
use bootloader_api::info::MemoryRegions;
use bootloader_api::{entry_point, BootInfo};
use spin::Once;
use uart_16550::{Config, Uart16550};
use x86_64::instructions::port::Port;

const CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = Some(Mapping::Dynamic);
    config.kernel_stack_size = 512 * 1024;
    config
};
entry_point!(kernel_main, config = &CONFIG);

/// What the boot loader told this kernel.
static BOOT: Once<Told> = Once::new();

/// The part of it that is kept.
struct Told {
    offset: u64,
    image: (u64, u64),
    memory: &'static MemoryRegions,
    rsdp: Option<u64>,
}

fn kernel_main(info: &'static mut BootInfo) -> ! {
    BOOT.call_once(|| Told {
        offset: info.physical_memory_offset.into_option().expect("it was asked for"),
        image: (info.kernel_addr, info.kernel_len),
        rsdp: info.rsdp_addr.into_option(),
        memory: &info.memory_regions,
    });
    // SAFETY: COM1, which no other code uses yet.
    if let Ok(mut uart) = unsafe { Uart16550::new_port(COM1) } {
        let _ = uart.init(Config::default());
    }
    write(b"this is a kernel on bootloader_api\n");
    for port in [0x21, 0xa1] {
        // SAFETY: the mask registers of the two 8259s.
        unsafe { Port::<u8>::new(port).write(0xff) };
    }
    mk_ipi::start(test::wants_x2apic()).expect("a local APIC");
    test::run()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    test::panicked(info)
}

/// The first serial line.
const COM1: u16 = 0x3f8;

/// Prints bytes.
fn write(bytes: &[u8]) {
    // SAFETY: COM1, which this kernel has set up.
    if let Ok(mut uart) = unsafe { Uart16550::new_port(COM1) } {
        for &byte in bytes {
            while uart.try_send_byte(byte).is_err() {
                core::hint::spin_loop();
            }
        }
    }
}

/// What the boot loader told this kernel.
fn told() -> &'static Told {
    BOOT.get().expect("the first thing that is kept")
}
