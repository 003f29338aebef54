// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a run goes, step by step, and what it was like.

use mk_ipi_abi::{PhysAddr, PhysCpuId, Vector};
use std::fmt;

/// How the CPUs share the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One at a time; at every step the seed decides who. The same seed gives the same run.
    Stepped {
        /// Which of all runs.
        seed: u64,
    },
    /// Side by side, as threads.
    Free,
}

/// What a CPU did in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Read a word.
    Load,
    /// Wrote a word.
    Store,
    /// Compared and exchanged a word.
    CompareExchange,
    /// Rang another CPU.
    Ring(PhysCpuId, Vector),
    /// Took an interrupt.
    Interrupt(Vector),
    /// Ran its deferred work.
    Deferred,
    /// Waited a turn.
    Relax,
    /// Went to sleep until the next interrupt.
    Idle,
    /// Switched its interrupts off.
    InterruptsOff,
    /// Switched its interrupts on.
    InterruptsOn,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// Steps of the machine so far.
    pub step: u64,
    /// The CPU.
    pub cpu: PhysCpuId,
    /// What it did.
    pub what: Step,
    /// The word accessed, if it lies in physical memory.
    pub at: Option<PhysAddr>,
}

/// Doorbells of the machine's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doorbells {
    /// Calls of `ring` that succeeded.
    pub rung: u64,
    /// Of these, found their vector pending already.
    pub coalesced: u64,
    /// Of these, lost on order.
    pub lost: u64,
    /// Interrupts taken.
    pub taken: u64,
}

/// A run that ended as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Steps of the machine so far.
    pub steps: u64,
    /// How often another CPU was chosen (0 in free mode).
    pub switches: u64,
    /// A hash of every step so far: equal for equal runs (0 in free mode).
    pub trace: u64,
    /// What became of the doorbells.
    pub doorbells: Doorbells,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// These CPUs sleep in their code, and nothing will wake them.
    Deadlock(Vec<PhysCpuId>),
    /// More steps than [`Builder::step_limit`](crate::Builder::step_limit): some CPUs wait in vain.
    StepLimit,
    /// A CPU's code panicked.
    Panicked {
        /// The CPU.
        cpu: PhysCpuId,
        /// What it said.
        message: String,
    },
}

/// A run that failed. It prints the mode, whose seed gives the same run again, and the last steps.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// How to run it again.
    pub mode: Mode,
    /// Steps so far.
    pub steps: u64,
    /// What happened.
    pub cause: Cause,
    /// The last steps, oldest first (none in free mode).
    pub tail: Vec<Event>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} after {} steps; replay with Mode::{:?}", self.cause, self.steps, self.mode)?;
        for Event { step, cpu, what, at } in &self.tail {
            write!(f, "  {step:>8}  cpu {:<4} {what:?}", cpu.0)?;
            match at {
                Some(at) => writeln!(f, " {:#x}", at.0)?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {}
