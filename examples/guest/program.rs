// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs what the command line says: the demo or the conformance suite, with this kernel as the host.

use crate::arch::{Controller, Mode};
use crate::boot::Boot;
use crate::machine::Exit;
use crate::options::Options;
use crate::platform::Kernel;
use crate::{console, control, host, play};
use mk_ipi_abi::PhysRange;

/// Runs it, after mk-ipi has been started. `ram` is the machine's RAM, `firmware` the physical address of the ACPI
/// RSDP.
pub fn run(line: &[u8], ram: impl Iterator<Item = PhysRange>, firmware: u64) -> ! {
    let mut boot = Boot::new(firmware);
    let fits = boot.set_cmdline(line).is_some();
    // Pieces for which there is no room are not used.
    let _ = ram.map_while(|piece| boot.add_ram(piece).then_some(())).count();
    Kernel.set_up(boot, Controller(crate::mk_ipi::apic()));
    control::reset();
    console::init();
    if !fits {
        fatal!("the command line is too long");
    }
    let line = core::str::from_utf8(Kernel.boot().cmdline());
    let line = line.unwrap_or_else(|_| fatal!("the command line is not UTF-8"));
    let mut options = Options::parse(line).unwrap_or_else(|e| fatal!("command line: {e}"));
    let found = Kernel.controller().mode();
    if options.mode != Mode::Present && options.mode != found {
        fatal!("the kernel below runs the APIC in {found} mode, not in {}", options.mode);
    }
    options.mode = found;
    if options.moves.is_some() {
        fatal!("mk_ipi.move=: not by this kernel");
    }
    let (node, mut machine) = host::start(options);
    play::run(&node, Some(&mut machine))
}

/// Reports a panic, and ends the machine.
pub fn panicked(info: &core::panic::PanicInfo) -> ! {
    console::fatal(format_args!("panic: {info}"), Exit::Panic)
}
