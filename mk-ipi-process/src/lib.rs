// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine whose kernels are Linux processes: for development and tests without an emulator.
//!
//! The machine's memory is one shared file. A physical address is an offset in this file. A kernel is a process. It has one CPU,
//! which is one thread of the process. To ring a doorbell, the sender sets a bit in the file, and wakes the receiver's process by
//! a futex. A helper thread of that process then interrupts the CPU's thread by a signal, at any instruction. A process can be
//! killed at any moment, just as a kernel can die at any moment. What the process wrote into the file stays there.
//!
//! # What a process does
//!
//! 1. The host makes the file ([`Machine::create`] or [`Machine::in_memory`]), writes the directory by a [`Host`], and starts
//!    the other processes with the file and with what [`Host::command_line`] returns.
//! 2. A kernel boots ([`boot`]). It opens the file ([`Machine::open`]), and enters the machine ([`Kernel::enter`]): from then
//!    on the calling thread is the kernel's CPU. The kernel makes an `Endpoint`, sets the handler of the doorbell's vector
//!    ([`Kernel::set_vector`]), and joins the other kernels (`Endpoint::join`).
//! 3. When the kernel has nothing to do, it waits ([`wait`]): it sleeps ([`Kernel::idle`]), and runs the deferred work
//!    (`Endpoint::run_deferred`) when `idle` returns true.
//!
//! # What is real, and what is not
//!
//! Interrupts are real: the vector's handler runs in a signal handler, between any two instructions. So the vector's handler must
//! not allocate, lock or print. It may call `Endpoint::on_interrupt`. The deferred work, which calls the message handlers, does
//! not run in a signal handler, and may do all of this.
//!
//! Page tables are real too: a kernel cannot write memory that it has mapped read-only. But each process can map all of the file
//! for writing. So the processes must trust each other, as kernels must on a machine that does not separate them by page tables.
//!
//! # The modules
//!
//! Each module uses only modules that come before it in this list: `sys`, `map`, `machine`, `host`, `kernel`, `link`.
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
