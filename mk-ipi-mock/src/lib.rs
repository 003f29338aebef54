// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine in a process: several kernels, each on CPUs of its own, with shared memory and interrupts.
//!
//! Each CPU is a thread. Every access to shared memory goes through [`MockWord`]. So at each access the machine can let
//! another CPU run, take an interrupt, or stop a kernel, as can happen on a real machine. In [`Mode::Stepped`] one CPU
//! runs at a time, and a seed decides which; the same seed gives the same run. In [`Mode::Free`] the threads run side by
//! side. [`Fault`]s can be ordered before a run and during it.
//!
//! # What the machine does
//!
//! - A vector that is pending is not counted twice; the highest pending vector is taken first.
//! - An interrupt is taken at an access, at [`Cpu::relax`], at [`Cpu::idle`], and where interrupts are switched on. Its
//!   handler runs on the stack of the code that it interrupts. It is never taken while interrupts are off, and its
//!   handler starts with them off.
//! - The entry code acknowledges (EOI) before the handler runs: a ring meanwhile is pending, not lost.
//! - Deferred work runs after the outermost handler, with interrupts on.
//! - Physical memory is checked. These are panics, which [`Machine::run`] reports: an access by a kernel that has not
//!   mapped the page, a store to a page that it mapped read-only, an `unmap` without `map`, a double `free`, and a `free`
//!   of mapped memory.
//! - Memory from a pool is full of [`POISON_ALLOC`], and memory that was given back is full of [`POISON_FREE`].
//! - If a kernel has mapped a page both read-only and for writing, it can store to the page through either mapping.
//!
//! # What it cannot show
//!
//! Stepped mode is sequentially consistent: a missing barrier has no effect there. (The models under loom find
//! it.) Code between two accesses runs without interruption, so a loop that waits must call `relax`.
//!
//! # The modules
//!
//! Each uses only those that come before it in this list: `report`, `fault`, `interrupts`, `word`, `memory`, `notes`,
//! `kernel`, `sched`, `cpu`, `platform`, `machine`, `link`, `trace`.
#![expect(clippy::disallowed_types, reason = "kernels do not link this scheduler")]
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
