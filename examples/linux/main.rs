// SPDX-License-Identifier: MIT OR Apache-2.0
//! mk-ipi in Linux: this kernel as the host of others on the same machine, or as one that a host started (`role.rs`).
//!
//! mk-ipi-abi, mk-ipi-core and mk-ipi-x86 are linked unchanged; this module is what Linux adds. `platform.rs` is the
//! border: it implements what core asks of a kernel. The way of a message: a peer rings, `vector.rs` takes the
//! interrupt, `deferred.rs` runs core's drain, `callback.rs` calls the handler. The life of an instance: `command.rs`,
//! `host`, `memory.rs`, `cpus.rs`, `image.rs`, `start.rs`, and mk-ipi-spawn, which writes what a kernel finds at its
//! entry. A Linux that was started: `joined.rs`, `stop.rs`, `spawned.c`. CPUs that move: `moves.rs`. Consoles,
//! terminals and programs that talk: `services`, `tty.c`, `peer.c`. docs/book/src/linux.md says how to use it.

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
mod file;
mod host;
mod image;
mod joined;
mod listed;
mod lock;
mod memory;
mod moves;
mod net;
#[path = "../bare-metal/src/order.rs"]
mod order;
#[path = "../bare-metal/src/payload.rs"]
mod payload;
mod peers;
mod platform;
mod role;
mod services;
mod show;
mod start;
mod stop;
#[path = "../bare-metal/src/stream_check.rs"]
mod stream_check;
mod tick;
mod traffic;
mod vector;

use core::ffi::{c_void, CStr};
use failure::{failure, refuse, Result};
use mk_ipi_core::abi::Vector;
use platform::{Linux, ENDPOINT};

// `module!` took one author before Linux 6.14, and takes a list since then (Kbuild checks the version).
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

/// The module. The fields are dropped in the reverse order of their making.
struct MkIpi {
    _services: services::Services,
    _files: Files,
    _power: Power,
    _net: net::Net,
    _service: Service,
    _doorbell: vector::Doorbell,
    _role: Role,
    // Dropped after the goodbye: messages before it have handlers, and later messages go to the next life.
    _serviced: services::Handlers,
    _moves: moves::Moves,
    _handlers: traffic::Handlers,
    _work: deferred::Work,
    _cpus: cpus::Watch,
    _memory: memory::Claimed,
}

/// The role of this Linux. The value is only held; it is not read.
#[allow(dead_code, reason = "dropping them ends it")]
enum Role {
    Host(host::Own),
    Joined(End, joined::Joined),
}

/// Watches for this kernel's end, if another kernel is the host.
struct End(());

impl End {
    fn watch() -> Result<Self> {
        // SAFETY: called once; `drop` undoes it.
        failure::check(
            unsafe { ffi::mk_ipi_glue_watch_end() },
            format_args!("no notifier of this kernel's end"),
        )?;
        Ok(Self(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // SAFETY: made by `watch`.
        unsafe { ffi::mk_ipi_glue_unwatch_end() };
    }
}

/// The thread that serves the host, if it was begun.
struct Service;

impl Drop for Service {
    fn drop(&mut self) {
        traffic::end_service();
    }
}

/// Does what the host asks for, in process context.
#[no_mangle]
extern "C" fn mk_ipi_rs_host_request(_: *mut c_void) {
    moves::run_host_request();
    stop::run();
}

/// The last thing that this kernel does in an orderly end, on the doorbell's CPU.
#[no_mangle]
extern "C" fn mk_ipi_rs_goodbye() {
    stop::mk_ipi_rs_over();
    ENDPOINT.goodbye();
}

/// `/dev/mk_ipi` and the files in debugfs.
struct Files(());

impl Files {
    fn new() -> Result<Self> {
        // SAFETY: called once; `drop` undoes it.
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

/// Watches for the machine's end and sleep.
struct Power(());

impl Power {
    fn new() -> Result<Self> {
        // SAFETY: called once; `drop` undoes it.
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
        let (memory, low) = unsafe { (ffi::mk_ipi_glue_memory, ffi::mk_ipi_glue_low) };
        let memory = parameter(memory);
        let told = if memory.is_none() { Some(role::join()?) } else { None };
        let generation = generation()?;
        cpus::check_count()?;
        let apic = apic::open().map_err(|e| failure!(ENODEV, "no usable APIC: {e:?}"))?;
        let mode = apic.mode();
        // SAFETY: called once, and nothing is sent yet.
        unsafe { Linux.set_apic(apic) };
        let _memory = memory::claim(memory, parameter(low))?;
        let _cpus = cpus::Watch::new()?;
        let _work = deferred::Work::start()?;
        let _doorbell = vector::Doorbell::new()?;
        let vector = _doorbell.vector()?;
        // Before this kernel joins: messages that former lives left unread are then handed out at once.
        let _handlers = traffic::register()?;
        let _moves = moves::Moves::register()?;
        let _serviced = services::Handlers::register()?;
        let _role = Self::take_role(told, generation, vector)?;
        let _power = Power::new()?;
        let _net = net::Net::new()?;
        let _files = Files::new()?;
        let _services = services::Services::new(generation == host::Generation::Native)?;
        tick::start();
        pr_info!("{mode:?}, doorbell: vector {:#x} of CPU 0\n", vector.get());
        Ok(Self {
            _services,
            _files,
            _power,
            _net,
            _service: Service,
            _doorbell,
            _role,
            _serviced,
            _moves,
            _handlers,
            _work,
            _cpus,
            _memory,
        })
    }

    fn take_role(told: Option<role::Told>, generation: host::Generation, vector: Vector) -> Result<Role> {
        match told {
            Some(told) => {
                let end = End::watch()?;
                Ok(Role::Joined(end, joined::Joined::new(told, vector)?))
            }
            None => Ok(Role::Host(host::Own::new(generation, vector, vector::DOORBELL_CPU)?)),
        }
    }
}

/// The layout of the regions, from the parameter.
fn generation() -> Result<host::Generation> {
    // SAFETY: as above.
    match parameter(unsafe { ffi::mk_ipi_glue_generation }).map(CStr::to_bytes) {
        Some(b"native") => Ok(host::Generation::Native),
        Some(b"rfc-v2") => Ok(host::Generation::RfcV2),
        _ => refuse!(EINVAL, "generation= is native or rfc-v2"),
    }
}

impl kernel::Module for MkIpi {
    fn init(_module: &'static ThisModule) -> kernel::error::Result<Self> {
        Self::set_up().map_err(|e| Error::from_errno(e.to_c()))
    }
}
