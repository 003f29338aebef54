// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modes and steps of a run, and the report about it.

use mk_ipi_abi::{PhysAddr, PhysCpuId, Vector};
use std::fmt;

/// How the CPUs are scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only one CPU runs at a time. At each step the seed decides whether another CPU continues, and which one. The same seed
    /// gives the same run.
    Stepped {
        /// The seed of the random numbers. Other seeds give other runs.
        seed: u64,
    },
    /// All CPUs run in parallel, as threads.
    Free,
}

/// The action of a CPU in a step. The machine counts the step before the action. If the kernel is stopped in this step, the
/// action has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Loads a word.
    Load,
    /// Stores a word.
    Store,
    /// Compares and exchanges a word.
    CompareExchange,
    /// Rings the CPU with this physical id at this vector.
    Ring(PhysCpuId, Vector),
    /// Takes an interrupt.
    Interrupt(Vector),
    /// Runs its deferred work.
    Deferred,
    /// Calls [`Cpu::relax`](crate::Cpu::relax), so that another CPU can run.
    Relax,
    /// Calls [`Cpu::idle`](crate::Cpu::idle), to sleep until the next interrupt.
    Idle,
    /// Switches its interrupts off.
    InterruptsOff,
    /// Switches its interrupts on.
    InterruptsOn,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// The number of this step, counted over all runs of the machine.
    pub step: u64,
    /// The physical id of the CPU.
    pub cpu: PhysCpuId,
    /// The action of the CPU.
    pub what: Step,
    /// The physical address of the accessed word. `None` if the step is not an access, or the word is not in the machine's
    /// memory.
    pub at: Option<PhysAddr>,
}

/// Counters of doorbells, over all runs of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doorbells {
    /// The number of calls of `ring` that succeeded.
    pub rung: u64,
    /// How often a doorbell arrived while its vector was already pending.
    pub coalesced: u64,
    /// The number of doorbells that did not arrive, because of an injected fault.
    pub lost: u64,
    /// The number of interrupts whose handler has returned.
    pub taken: u64,
}

/// The report of a run that ended without a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The number of steps in all runs of the machine so far.
    pub steps: u64,
    /// How often the scheduler gave the turn to a CPU (0 in free mode).
    pub switches: u64,
    /// A hash of all steps so far. Equal runs have equal hashes. In free mode no step is hashed.
    pub trace: u64,
    /// The counters of doorbells.
    pub doorbells: Doorbells,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The code of these CPUs sleeps, and no CPU runs that could wake them.
    Deadlock(Vec<PhysCpuId>),
    /// The machine took as many steps as [`Builder::step_limit`](crate::Builder::step_limit) allows. Often the reason is a CPU
    /// that waits in a loop for an event that never comes.
    StepLimit,
    /// A CPU's code panicked.
    Panicked {
        /// The physical id of the CPU.
        cpu: PhysCpuId,
        /// The message of the panic.
        message: String,
    },
}

/// The report of a run that failed. Its text contains the cause, the mode and the last steps. In stepped mode, a machine with the
/// seed in this mode repeats the run.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// The mode of the machine.
    pub mode: Mode,
    /// The number of steps in all runs of the machine so far.
    pub steps: u64,
    /// Why the run failed.
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
