// SPDX-License-Identifier: MIT OR Apache-2.0
//! mk-ipi as a module of Linux. This Linux is the host of other kernels on the same machine, or a kernel that a host
//! started (`role.rs`). docs/book/src/linux.md says how to use the module.
//!
//! The crates mk-ipi-abi, mk-ipi-core, mk-ipi-net, mk-ipi-services and mk-ipi-x86 are linked unchanged. This module
//! connects them to Linux. `platform.rs` implements the traits by which mk-ipi-core calls a kernel. The other files:
//!
//! - A message arrives: a peer rings the doorbell, `vector.rs` handles the interrupt, `deferred.rs` calls the drain of
//!   mk-ipi-core, and `callback.rs` calls the message's handler.
//! - The host makes and starts an instance: `command.rs`, `host`, `memory.rs`, `cpus.rs`, `image.rs`, `start.rs`. The
//!   crate mk-ipi-spawn writes the data that a kernel needs at its entry.
//! - A Linux that a host started: `joined.rs`, `stop.rs`, `spawned.c`.
//! - CPUs move to and from a kernel that runs: `moves.rs`.
//! - Consoles, terminals, and messages between programs: `services`, `tty.c`, `peer.c`.
//! - Network interfaces: `net.rs`, `net.c`.

#![allow(
    unreachable_pub,
    reason = "the bare-metal kernel also uses some of these files; `pub` marks what other files may use"
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

// Before Linux 6.14 the macro `module!` has the key `author`. Since 6.14 it has the key `authors`, a list. Kbuild sets
// `module_authors` according to the version.
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

/// All that the loaded module owns. Unloading the module drops the fields in the order in which they are declared here.
/// This is the reverse of the order in which `set_up` makes them, with two exceptions: the notifiers of `_power` are
/// removed before `_net`, and the doorbell is released before the role ends.
struct MkIpi {
    _services: services::Services,
    _files: Files,
    _power: Power,
    _net: net::Net,
    _service: Service,
    _doorbell: vector::Doorbell,
    _role: Role,
    // The next three are dropped after `_role`, because dropping `_role` says goodbye. So each message that this life
    // receives has a handler. Messages that come after the goodbye stay unread, and the next life receives them.
    _serviced: services::Handlers,
    _moves: moves::Moves,
    _handlers: traffic::Handlers,
    _work: deferred::Work,
    _cpus: cpus::Watch,
    _memory: memory::Claimed,
}

/// The role of this Linux, with the values whose drop ends the role.
#[allow(dead_code, reason = "the values are kept only for their drop")]
enum Role {
    Host(host::Own),
    Joined(End, joined::Joined),
}

/// If another kernel is the host: the notifiers that Linux calls when this kernel ends (spawned.c). Dropping this unregisters
/// them.
struct End(());

impl End {
    fn watch() -> Result<Self> {
        // SAFETY: called once; `drop` undoes it.
        failure::check(
            unsafe { ffi::mk_ipi_glue_watch_end() },
            format_args!("the notifiers of this kernel's end cannot be registered"),
        )?;
        Ok(Self(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // SAFETY: `watch` has registered the notifiers.
        unsafe { ffi::mk_ipi_glue_unwatch_end() };
    }
}

/// Dropping this ends the thread that serves the host, if it was started.
struct Service;

impl Drop for Service {
    fn drop(&mut self) {
        traffic::end_service();
    }
}

/// Does the requests of the host: a move of a CPU, or a stop. Runs in process context.
#[no_mangle]
extern "C" fn mk_ipi_rs_host_request(_: *mut c_void) {
    moves::run_host_request();
    stop::run();
}

/// Says goodbye to the other kernels, at an orderly end of this kernel. Runs on the CPU that receives the doorbell.
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
        // SAFETY: `new` has added the files.
        unsafe { ffi::mk_ipi_glue_remove_files() };
    }
}

/// The notifiers of a reboot and of a sleep of the machine. Dropping this unregisters them.
struct Power(());

impl Power {
    fn new() -> Result<Self> {
        // SAFETY: called once; `drop` undoes it.
        failure::check(
            unsafe { ffi::mk_ipi_glue_watch_power() },
            format_args!("the notifiers of reboot and sleep cannot be registered"),
        )?;
        Ok(Self(()))
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        // SAFETY: `new` has registered the notifiers.
        unsafe { ffi::mk_ipi_glue_unwatch_power() };
    }
}

/// The text of a module parameter; `None` if the parameter was not given.
fn parameter(at: *const core::ffi::c_char) -> Option<&'static CStr> {
    // SAFETY: NULL, or the kernel's copy of a string, which lasts as long as the module; it is read-only.
    (!at.is_null()).then(|| unsafe { CStr::from_ptr(at.cast()) })
}

impl MkIpi {
    fn set_up() -> Result<Self> {
        // SAFETY: Linux sets the parameters before it calls this, and they are read-only.
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
        // The handlers are registered before this kernel takes its role, because then the messages that former lives
        // left unread are delivered at once.
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

/// The layout of the regions, from the parameter `generation=`.
fn generation() -> Result<host::Generation> {
    // SAFETY: the parameter is set before the module begins, and is read-only.
    match parameter(unsafe { ffi::mk_ipi_glue_generation }).map(CStr::to_bytes) {
        Some(b"native") => Ok(host::Generation::Native),
        Some(b"rfc-v2") => Ok(host::Generation::RfcV2),
        _ => refuse!(EINVAL, "generation= must be native or rfc-v2"),
    }
}

impl kernel::Module for MkIpi {
    fn init(_module: &'static ThisModule) -> kernel::error::Result<Self> {
        Self::set_up().map_err(|e| Error::from_errno(e.to_c()))
    }
}
