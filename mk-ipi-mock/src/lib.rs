// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine in a process: several kernels, each on CPUs of its own, with shared memory and interrupts.
//!
//! Each CPU is a thread. Every access to shared memory goes through [`MockWord`], so the machine can do
//! there what real ones do: let another CPU run, take an interrupt, stop a kernel. In [`Mode::Stepped`] one
//! CPU runs at a time and a seed decides which; the same seed gives the same run. In [`Mode::Free`] the
//! threads run side by side. [`Fault`]s are ordered beforehand or at any time.
//!
//! # The machine's habits
//!
//! - A vector that is pending is not counted twice; the highest pending vector is taken first.
//! - An interrupt is taken at an access, at [`Cpu::relax`], [`Cpu::idle`] and where interrupts go on: nested
//!   into what runs there, on its stack, never while interrupts are off. The handler starts with them off.
//! - The entry code acknowledges (EOI) before the handler runs: a ring meanwhile is pending, not lost.
//! - Deferred work runs after the outermost handler, with interrupts on.
//! - Physical memory is checked: an access by a kernel that has not mapped the page, a store to a page it mapped
//!   read-only, an `unmap` without `map`, a double `free` and a `free` of mapped memory are panics, and
//!   [`Machine::run`] reports them. Memory comes out of a pool full of [`POISON_ALLOC`] and goes back full
//!   of [`POISON_FREE`]. A page that a kernel has mapped both ways may be stored to through either.
//!
//! # What it cannot show
//!
//! Stepped mode is sequentially consistent: a missing barrier does not show there (the models under loom show
//! it). Code between two accesses runs as a whole, so a loop that waits must call `relax`.
//!
//! # The modules
//!
//! Each uses only those named before it: `report`, `fault`, `interrupts`, `word`, `memory`, `notes`, `kernel`, `sched`,
//! `cpu`, `platform`, `machine`, `link`, `trace`.
#![expect(clippy::disallowed_types, reason = "the scheduler is no part of what a kernel links")]
#![expect(clippy::indexing_slicing, reason = "own tables; a wrong index is a bug of the mock and may panic")]
#![expect(clippy::panic, clippy::expect_used, reason = "a test machine stops the test")]
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
