// SPDX-License-Identifier: MIT OR Apache-2.0
//! mk-ipi on bare metal: one kernel, and several of it side by side on one machine.
//!
//! The same program is linked once for each kernel, at an address of its own (src/layout.rs):
//!
//! ```text
//! MK_IPI_IMAGE_BASE=0x1000000 cargo build --release --target x86_64-unknown-none     # kernel 0, the host
//! MK_IPI_IMAGE_BASE=0x2000000 cargo build --release --target x86_64-unknown-none     # kernel 1
//! ```
//!
//! and each time copied away from `target/x86_64-unknown-none/release/mk-ipi-bare-metal`. QEMU boots kernel 0
//! with `-kernel`, puts the others' files into memory with `-device loader`, and its `-append` says where.
//! Each kernel has its own CPU, GDT, IDT, page tables and stack. They share the machine's RAM and its serial
//! line. Run on its own, it needs `-device isa-debug-exit,iobase=0xf4,iosize=4` (src/machine.rs). `cargo
//! xtask demo` does it all.
#![no_std]
#![no_main]

#[macro_use]
mod console;
mod acpi_tables;
mod boot;
mod clock;
mod conformance;
mod control;
mod demo;
mod drains;
mod host;
mod image;
mod interrupts;
mod journal;
mod kill;
mod layout;
mod machine;
mod node;
mod options;
mod payload;
mod platform;
mod progress;
mod receive;
mod spawned;
mod stream;
mod timer;

use crate::boot::Boot;
use crate::control::control;
use crate::host::Machine;
use crate::machine::Exit;
use crate::node::{Node, DONE};
use crate::options::{Options, Run};
use crate::platform::ENDPOINT;
use mk_ipi_abi::boot_param::mk_ipi_shared;
use mk_ipi_core::platform::ThisCpu;

/// What boot.s calls, on this kernel's own stack and page tables, interrupts off.
#[no_mangle]
extern "C" fn kernel_main(start_info: u64) -> ! {
    // SAFETY: boot.s passes on what the PVH entry was given.
    let boot = unsafe { Boot::read(start_info) };
    // Without a start info there is no telling a host from a spawned kernel, nor whose the console is.
    let Some(boot) = boot else { machine::exit(Exit::Error) };
    let boot = ENDPOINT.platform().set_boot(boot);
    let shared = mk_ipi_shared(boot.cmdline());
    let is_host = shared == Ok(None);
    if is_host {
        control::reset();
        console::init();
        machine::mask_8259();
    }
    let line =
        core::str::from_utf8(boot.cmdline()).unwrap_or_else(|_| fatal!("the command line is no UTF-8"));
    let options = Options::parse(line).unwrap_or_else(|e| fatal!("command line: {e}"));
    if let Err(e) = ENDPOINT.platform().set_up_interrupts(options.mode) {
        fatal!("the local APIC cannot be in {} mode: {e:?}", options.mode);
    }
    match shared {
        Ok(None) => {
            let (node, mut machine) = host::start(options);
            run(&node, Some(&mut machine))
        }
        Ok(Some(shared)) => run(&spawned::start(options, boot.cmdline(), shared), None),
        Err(e) => fatal!("mk_ipi_shared=: {e:?}"),
    }
}

/// What all kernels do, once all are up. The host has the `machine`.
fn run(node: &Node, machine: Option<&mut Machine>) -> ! {
    let cpu = ENDPOINT.platform().physical_id().0;
    let life = ENDPOINT.identity().map_or(0, |(_, incarnation)| incarnation.get());
    record!("{{\"kernel\":{{\"id\":{},\"lang\":\"rust\",\"cpu\":{cpu},\"life\":{life}}}}}", node.me);
    log!("image at {:#x}, {}", layout::own_image().start().0, node.options);
    node.wait_for_all(node::READY, "not all kernels are up", || {});
    let ok = match node.options.run {
        Run::Demo => demo::run(node, machine),
        Run::Conformance => conformance::run(node),
    };
    control().set_verdict(node.me, ok);
    node.reach(DONE);
    if node.me == 0 {
        host::finish(node)
    }
    machine::halt()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    console::fatal(format_args!("panic: {info}"), Exit::Panic)
}
