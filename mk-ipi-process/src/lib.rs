// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine whose kernels are Linux processes: for development and tests without an emulator.
//!
//! The machine's memory is one shared file. A physical address is an offset in it. A kernel is a process with one CPU, which
//! is one of its threads. The doorbell sets a bit in the file and wakes the process by a futex; a helper thread there interrupts the
//! CPU's thread by a signal, at any instruction. A process can be killed at any moment, as a kernel can die. Its data in the file stays.
//!
//! # What a process does
//!
//! 1. The host makes the file ([`Machine::create`] or [`Machine::in_memory`]), writes the directory by a [`Host`], and starts
//!    the other processes with the file and with what [`Host::command_line`] returns.
//! 2. A kernel boots ([`boot`]). It opens the file ([`Machine::open`]), and enters the machine ([`Kernel::enter`]): from then
//!    on the calling thread is its CPU. It makes an `Endpoint`, sets the vector's handler ([`Kernel::set_vector`]), and joins.
//! 3. When it has nothing to do, it waits ([`wait`]): it sleeps ([`Kernel::idle`]), and runs the deferred work when `idle`
//!    returns true.
//!
//! # What is real, and what is not
//!
//! Interrupts are real: the vector's handler runs in a signal handler, between any two instructions. So it must not allocate, lock or
//! print. `Endpoint::on_interrupt` is safe there. The deferred work, which calls message handlers, runs where the kernel calls it, and
//! may do anything.
//!
//! Page tables are real too: a kernel cannot write memory that it has mapped read-only. But each process can map the whole file, so
//! processes must trust each other, as kernels must on a machine that does not separate them by page tables.
//!
//! # The modules
//!
//! Each uses only those that come before it in this list: `sys`, `map`, `machine`, `host`, `kernel`, `link`.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "this runs in a process, which may panic; a sum that overflows panics"
)]

mod host;
mod kernel;
mod link;
mod machine;
mod map;
mod sys;

pub use host::{Host, HostError};
pub use kernel::{EnterError, Kernel};
pub use link::{boot, wait, BootError, Callback, Link};
pub use machine::{Machine, OpenError, Shape};
pub use map::Map;
