// SPDX-License-Identifier: MIT OR Apache-2.0
//! A simulated machine in one process: several kernels, each on CPUs of its own, with shared memory and interrupts.
//!
//! Each CPU is a thread. Every access to shared memory goes through [`MockWord`]. So at each access the machine can let
//! another CPU run, take an interrupt, or stop a kernel, as can happen on a real machine. In [`Mode::Stepped`] only one CPU
//! runs at a time, and a seed decides which one. The same seed gives the same run. In [`Mode::Free`] the threads run in
//! parallel. A test can inject [`Fault`]s before a run and during a run.
//!
//! # What the machine does
//!
//! - If a CPU is rung several times at one vector before it takes the interrupt, it takes only one interrupt. Of several
//!   pending vectors it takes the highest first.
//! - A CPU takes interrupts at an access, at [`Cpu::relax`], at [`Cpu::idle`], and when interrupts are switched on. The
//!   handler runs on the stack of the code that it interrupts. A CPU takes no interrupt while its interrupts are off. A
//!   handler starts with interrupts off.
//! - The machine acknowledges the interrupt (EOI) before it calls the handler. So a doorbell that rings while the handler
//!   runs causes another interrupt after it.
//! - Deferred work runs after the outermost handler, with interrupts on.
//! - The machine checks the use of physical memory. These faults panic, and [`Machine::run`] reports the panic: an access to
//!   a page that the kernel has not mapped, a store to a page that it has mapped read-only, an `unmap` without `map`, a
//!   double `free`, and a `free` of mapped memory.
//! - Each word of newly allocated memory is [`POISON_ALLOC`]. Each word of memory that was given back is [`POISON_FREE`].
//! - If a kernel has mapped a page both read-only and for writing, it can store to the page through either mapping.
//!
//! # What the machine cannot show
//!
//! Stepped mode is sequentially consistent, so a missing barrier has no effect in it. (The loom models of `mk-ipi-core`
//! find missing barriers.) Between two accesses a CPU takes no interrupt, and in stepped mode no other CPU runs. So a loop
//! that waits must call `relax`.
//!
//! # The modules
//!
//! Each module uses only modules that come before it in this list: `report`, `fault`, `interrupts`, `word`, `memory`,
//! `notes`, `kernel`, `sched`, `cpu`, `platform`, `machine`, `link`, `trace`.
#![expect(clippy::disallowed_types, reason = "kernels do not link this scheduler")]
#![expect(
    clippy::indexing_slicing,
    reason = "only tables of the mock; a wrong index is a bug of the mock, and may panic"
)]
#![expect(clippy::panic, clippy::expect_used, reason = "a panic ends the test, as it must")]
#![expect(clippy::arithmetic_side_effects, reason = "overflow panics, as in every profile")]

mod cpu;
mod fault;
mod interrupts;
mod kernel;
mod link;
mod machine;
mod memory;
mod notes;
mod platform;
mod report;
mod sched;
mod trace;
mod word;

pub use cpu::Cpu;
pub use fault::{DoorbellFault, Fault, When};
pub use kernel::{RegionEvent, Unhandled};
pub use link::{Callback, Link};
pub use machine::{Builder, Machine};
pub use memory::{MEMORY_START, POISON_ALLOC, POISON_FREE};
pub use platform::MockPlatform;
pub use report::{Cause, Doorbells, Event, Failure, Mode, Report, Step};
pub use word::MockWord;

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
