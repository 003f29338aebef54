// SPDX-License-Identifier: MIT OR Apache-2.0
//! mk-ipi in Linux: this kernel as the host of others on the same machine.
//!
//! mk-ipi-abi, mk-ipi-core and mk-ipi-x86 are linked as they are; this is what Linux adds. `platform.rs` is the border:
//! what core asks of a kernel. The way of a message: a peer rings, `vector.rs` takes the interrupt, `deferred.rs` runs core's
//! drain, `callback.rs` calls the handler. The life of an instance: `command.rs`, `host.rs`, `memory.rs`, `cpus.rs`, `image.rs`,
//! `start.rs`. docs/linux.md tells how to use it.

#![allow(
    unreachable_pub,
    reason = "the bare-metal kernel shares some of these files; and `pub` says what a file offers"
)]

use kernel::prelude::*;

mod apic;
mod callback;
mod command;
mod cpus;
mod deferred;
mod exports;
mod failure;
mod ffi;
mod host;
mod image;
mod listed;
mod lock;
mod memory;
#[path = "../bare-metal/src/order.rs"]
mod order;
#[path = "../bare-metal/src/payload.rs"]
mod payload;
mod peers;
mod platform;
mod show;
mod start;
#[path = "../bare-metal/src/stream_check.rs"]
mod stream_check;
mod traffic;
mod vector;

use core::ffi::CStr;
use failure::{failure, refuse, Result};
use platform::Linux;

// `module!` took one author before Linux 6.14, and a list since then (Kbuild asks).
#[cfg(module_authors)]
module! {
    type: MkIpi,
    name: "mk_ipi",
    authors: ["The mk-ipi authors"],
    description: "Messages between the kernels of one machine",
    license: "Dual MIT/GPL",
}
#[cfg(not(module_authors))]
module! {
    type: MkIpi,
    name: "mk_ipi",
    author: "The mk-ipi authors",
    description: "Messages between the kernels of one machine",
    license: "Dual MIT/GPL",
}

/// The module. What was made last goes first.
struct MkIpi {
    _files: Files,
    _power: Power,
    _handlers: traffic::Handlers,
    _doorbell: vector::Doorbell,
    _own: host::Own,
    _work: deferred::Work,
    _cpus: cpus::Watch,
    _memory: memory::Claimed,
}

/// `/dev/mk_ipi` and what is in debugfs.
struct Files(());

impl Files {
    fn new() -> Result<Self> {
        // SAFETY: once; undone by `drop`.
        failure::check(unsafe { ffi::mk_ipi_glue_add_files() }, format_args!("/dev/mk_ipi"))?;
        Ok(Self(()))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // SAFETY: made by `new`.
        unsafe { ffi::mk_ipi_glue_remove_files() };
    }
}

/// Who is told of the machine's end and sleep.
struct Power(());

impl Power {
    fn new() -> Result<Self> {
        // SAFETY: once; undone by `drop`.
        failure::check(unsafe { ffi::mk_ipi_glue_watch_power() }, format_args!("no notifier"))?;
        Ok(Self(()))
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        // SAFETY: made by `new`.
        unsafe { ffi::mk_ipi_glue_unwatch_power() };
    }
}

/// A parameter that is text.
fn parameter(at: *const core::ffi::c_char) -> Option<&'static CStr> {
    // SAFETY: NULL, or the kernel's copy of a string, which lasts as long as the module; it is read-only.
    (!at.is_null()).then(|| unsafe { CStr::from_ptr(at.cast()) })
}

impl MkIpi {
    fn set_up() -> Result<Self> {
        // SAFETY: parameters are set before the module begins, and read-only.
        let (memory, generation) = unsafe { (ffi::mk_ipi_glue_memory, ffi::mk_ipi_glue_generation) };
        let generation = match parameter(generation).map(CStr::to_bytes) {
            Some(b"native") => host::Generation::Native,
            Some(b"rfc-v2") => host::Generation::RfcV2,
            _ => return refuse!(EINVAL, "generation= is native or rfc-v2"),
        };
        let Some(memory) = parameter(memory) else {
            return refuse!(EINVAL, "memory= is missing: START+BYTES or a name (modinfo tells more)");
        };
        cpus::check_count()?;
        let apic = apic::open().map_err(|e| failure!(ENODEV, "no usable APIC: {e:?}"))?;
        let mode = apic.mode();
        // SAFETY: once, and nothing is sent yet.
        unsafe { Linux.set_apic(apic) };
        let _memory = memory::claim(memory)?;
        let _cpus = cpus::Watch::new()?;
        let _work = deferred::Work::start()?;
        let _doorbell = vector::Doorbell::new()?;
        let vector = _doorbell.vector()?;
        let _own = host::Own::new(generation, vector, vector::DOORBELL_CPU)?;
        let _handlers = traffic::Handlers::register()?;
        let _power = Power::new()?;
        let _files = Files::new()?;
        deferred::start_tick();
        pr_info!("{}, {mode:?}, doorbell: vector {:#x} of CPU 0\n", generation.name(), vector.get());
        Ok(Self { _files, _power, _handlers, _doorbell, _own, _work, _cpus, _memory })
    }
}

impl kernel::Module for MkIpi {
    fn init(_module: &'static ThisModule) -> kernel::error::Result<Self> {
        Self::set_up().map_err(|e| Error::from_errno(e.to_c()))
    }
}
