// SPDX-License-Identifier: MIT OR Apache-2.0
//! mk-ipi on bare metal: one kernel program, of which several copies run side by side on one machine.
//!
//! The same program is linked once for each kernel, each time at another address (src/layout.rs):
//!
//! ```text
//! MK_IPI_IMAGE_BASE=0x1000000 cargo build --release --target x86_64-unknown-none     # kernel 0, the host
//! MK_IPI_IMAGE_BASE=0x2000000 cargo build --release --target x86_64-unknown-none     # kernel 1
//! ```
//!
//! Each time the file is copied away from `target/x86_64-unknown-none/release/mk-ipi-bare-metal`. QEMU boots kernel 0
//! with `-kernel`, and puts the others' files into memory with `-device loader`; its `-append` says where. Each kernel
//! has its own CPU, GDT, IDT, page tables and stack. They share the machine's RAM and its serial line. If you run it by
//! hand, it needs `-device isa-debug-exit,iobase=0xf4,iosize=4` (src/machine.rs). `cargo xtask demo` does all of this.
#![no_std]
#![no_main]

#[macro_use]
mod console;
mod arch;
mod boot;
mod clock;
mod conformance;
mod control;
mod cpus;
mod demo;
mod drains;
mod hand_over;
mod host;
mod hostile;
mod image;
mod inbox;
mod journal;
mod kill;
mod layout;
mod link_log;
mod machine;
mod mover;
mod net;
mod node;
mod options;
mod order;
mod own;
mod payload;
mod platform;
mod play;
mod pools;
mod progress;
mod receive;
mod requests;
mod second;
mod serve;
mod shares;
mod spawned;
mod stream;
mod stream_check;

use crate::machine::Exit;
use crate::options::{Options, Run};
use crate::platform::{Kernel, Role};
use mk_ipi_abi::boot_param::mk_ipi_shared;

/// boot.s calls this on this kernel's own stack and page tables, with interrupts off.
#[no_mangle]
extern "C" fn kernel_main(argument: u64) -> ! {
    // SAFETY: boot.s passes on what its entry was given.
    let boot = unsafe { arch::boot(argument) };
    let Some(boot) = boot else {
        // Without a start info nothing tells a host from a spawned kernel, or who owns the console. And an image
        // outside of the memory map is a guest on another kernel's machine.
        match own::kernel() {
            u8::MAX => machine::halt(),
            _ => machine::exit(Exit::Error),
        }
    };
    let boot = Kernel.set_boot(boot);
    let shared = mk_ipi_shared(boot.cmdline());
    if options::is_to_serve(boot.cmdline()) {
        Kernel.play(Role::Serve);
        console::init_own(options::own_console(boot.cmdline()));
    } else if shared == Ok(None) {
        control::reset();
        console::init();
        arch::machine::prepare();
    }
    let line =
        core::str::from_utf8(boot.cmdline()).unwrap_or_else(|_| fatal!("the command line is not UTF-8"));
    let mut options = Options::parse(line).unwrap_or_else(|e| fatal!("command line: {e}"));
    options.mode = Kernel
        .set_up_interrupts(options.mode)
        .unwrap_or_else(|e| fatal!("the interrupt controller cannot be in {} mode: {e:?}", options.mode));
    hand_over::prepare(&options);
    match (shared, options.run) {
        (Ok(Some(shared)), Run::Serve) => serve::run(boot.cmdline(), shared, &options),
        (Ok(None), Run::Serve) => fatal!("no host to serve: mk_ipi_shared= is missing"),
        (Ok(Some(shared)), _) => play::run(&spawned::start(options, boot.cmdline(), shared), None),
        (Ok(None), _) => {
            let (node, mut machine) = host::start(options);
            play::run(&node, Some(&mut machine))
        }
        (Err(e), _) => fatal!("mk_ipi_shared=: {e:?}"),
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    console::fatal(format_args!("panic: {info}"), Exit::Panic)
}
