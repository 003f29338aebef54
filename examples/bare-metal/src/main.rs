// SPDX-License-Identifier: MIT OR Apache-2.0
//! mk-ipi on bare metal: a kernel program. Several copies of it run side by side on one machine.
//!
//! The same program is linked once for each kernel, each time at another address (src/layout.rs):
//!
//! ```text
//! MK_IPI_IMAGE_BASE=0x1000000 cargo build --release --target x86_64-unknown-none     # kernel 0, the host
//! MK_IPI_IMAGE_BASE=0x2000000 cargo build --release --target x86_64-unknown-none     # kernel 1
//! ```
//!
//! Each build writes the same file, `target/x86_64-unknown-none/release/mk-ipi-bare-metal`, so copy it before the next build.
//! QEMU boots kernel 0 with `-kernel`, and puts the files of the others into memory with `-device loader`. The command line
//! in `-append` tells kernel 0 the addresses of these files. Each kernel has its own CPU, GDT, IDT, page tables and stack.
//! The kernels share the machine's RAM and its serial line. QEMU also needs `-device isa-debug-exit,iobase=0xf4,iosize=4`
//! (src/machine.rs). `cargo xtask demo` does all of this.
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

/// boot.s calls this, on this kernel's own stack and page tables, and with interrupts off.
#[no_mangle]
extern "C" fn kernel_main(argument: u64) -> ! {
    // SAFETY: boot.s passes on the argument that its entry got.
    let boot = unsafe { arch::boot(argument) };
    let Some(boot) = boot else {
        // Without a start info this kernel does not know whether it is the host, and whether it may use the console. If the
        // image is outside of the memory map, the machine belongs to a host of another kind, and this kernel must not end the
        // machine.
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
        (Ok(None), Run::Serve) => {
            fatal!("mk_ipi_shared= is absent: no host started this kernel, so it cannot serve")
        }
        (Ok(Some(shared)), _) => play::run(&spawned::start(options, boot.cmdline(), shared), None),
        (Ok(None), _) => {
            let (node, mut machine) = host::start(options);
            play::run(&node, Some(&mut machine))
        }
        (Err(e), _) => fatal!("bad mk_ipi_shared=: {e:?}"),
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    console::fatal(format_args!("panic: {info}"), Exit::Panic)
}
