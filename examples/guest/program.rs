// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the demo or the conformance suite, as the command line says, with this kernel as the host.

use crate::arch::{Controller, Mode};
use crate::boot::Boot;
use crate::machine::Exit;
use crate::options::Options;
use crate::platform::Kernel;
use crate::{console, control, host, play};
use mk_ipi_abi::PhysRange;

/// Runs the demo or the suite, and ends the machine. The caller has called `mk_ipi::start`. `line` is the command line, `ram` the
/// machine's RAM, and `firmware` the physical address of the ACPI RSDP.
pub fn run(line: &[u8], ram: impl Iterator<Item = PhysRange>, firmware: u64) -> ! {
    let mut boot = Boot::new(firmware);
    let fits = boot.set_cmdline(line).is_some();
    // Pieces of RAM for which `boot` has no room are not used.
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
        fatal!("this kernel runs the APIC in {found} mode, not in {} mode", options.mode);
    }
    options.mode = found;
    if options.moves.is_some() {
        fatal!("this kernel does not support mk_ipi.move=");
    }
    let (node, mut machine) = host::start(options);
    play::run(&node, Some(&mut machine))
}

/// Reports a panic, and ends the machine.
pub fn panicked(info: &core::panic::PanicInfo) -> ! {
    console::fatal(format_args!("panic: {info}"), Exit::Panic)
}
