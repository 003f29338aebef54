// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modes and steps of a run, and the report about it.

use mk_ipi_abi::{PhysAddr, PhysCpuId, Vector};
use std::fmt;

/// How the CPUs share the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One CPU runs at a time, and at every step the seed decides which. The same seed gives the same run.
    Stepped {
        /// The seed. Each seed gives another run.
        seed: u64,
    },
    /// All CPUs run side by side, as threads.
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
    /// Waited one turn.
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
    /// The number of this step, counted over all steps of the machine.
    pub step: u64,
    /// The CPU.
    pub cpu: PhysCpuId,
    /// What it did.
    pub what: Step,
    /// The address of the accessed word, if it is in physical memory.
    pub at: Option<PhysAddr>,
}

/// Numbers of doorbells, in all runs of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doorbells {
    /// Calls of `ring` that succeeded.
    pub rung: u64,
    /// How many of these found their vector pending already.
    pub coalesced: u64,
    /// How many of these were lost because of an ordered fault.
    pub lost: u64,
    /// Interrupts taken.
    pub taken: u64,
}

/// The report of a run that ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Steps of the machine so far.
    pub steps: u64,
    /// How often another CPU was chosen (0 in free mode).
    pub switches: u64,
    /// A hash of all steps so far. Equal runs have equal hashes. In free mode no step is hashed.
    pub trace: u64,
    /// The numbers of doorbells.
    pub doorbells: Doorbells,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// These CPUs sleep in their code, and nothing can wake them.
    Deadlock(Vec<PhysCpuId>),
    /// The run took more steps than [`Builder::step_limit`](crate::Builder::step_limit): probably a CPU waits for something
    /// that never comes.
    StepLimit,
    /// A CPU's code panicked.
    Panicked {
        /// The CPU.
        cpu: PhysCpuId,
        /// The message of the panic.
        message: String,
    },
}

/// A run that failed. It prints the mode, whose seed repeats the run, and the last steps.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// The mode with which the run can be repeated.
    pub mode: Mode,
    /// How many steps the machine has made.
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
