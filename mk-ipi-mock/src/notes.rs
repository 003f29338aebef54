// SPDX-License-Identifier: MIT OR Apache-2.0
//! The events of a run that are recorded for a trace.

use crate::memory::lock;
use mk_ipi_abi::{PhysAddr, Vector};
use std::sync::Mutex;

/// The kind of a recorded event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoteKind {
    /// A value is stored to a word. Compare-and-swaps are not recorded.
    Store(PhysAddr, u64),
    /// The CPU with this number is rung.
    Ring(usize, Vector),
    /// An interrupt is taken.
    Interrupt(Vector),
    /// The handler of the last interrupt has returned.
    InterruptEnd,
    /// The deferred work begins.
    Deferred,
    /// The deferred work ends.
    DeferredEnd,
    /// The CPU noticed that its kernel was stopped.
    Stopped,
}

/// A recorded event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    /// The step of the machine.
    pub time: u64,
    /// The number of the CPU that did it.
    pub cpu: usize,
    pub what: NoteKind,
}

/// The recorded events of all runs of a machine; `None` if it records none.
#[derive(Debug, Default)]
pub(crate) struct Notes(Option<Mutex<Vec<Note>>>);

impl Notes {
    pub fn kept() -> Self {
        Self(Some(Mutex::default()))
    }

    pub fn add(&self, time: u64, cpu: usize, what: NoteKind) {
        if let Some(notes) = &self.0 {
            lock(notes).push(Note { time, cpu, what });
        }
    }

    /// Returns all recorded events, in order.
    pub fn all(&self) -> Vec<Note> {
        self.0.as_ref().map(|notes| lock(notes).clone()).unwrap_or_default()
    }
}
