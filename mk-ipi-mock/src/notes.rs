// SPDX-License-Identifier: MIT OR Apache-2.0
//! Notes of what happened in a run, for a trace.

use crate::memory::lock;
use mk_ipi_abi::{PhysAddr, Vector};
use std::sync::Mutex;

/// What happened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NoteKind {
    /// A word was written.
    Store(PhysAddr, u64),
    /// A CPU, by its number, was rung.
    Ring(usize, Vector),
    /// An interrupt was taken.
    Interrupt(Vector),
    /// Its handler has returned.
    InterruptEnd,
    /// The deferred work begins.
    Deferred,
    /// The deferred work ends.
    DeferredEnd,
    /// The CPU noticed that its kernel was stopped.
    Stopped,
}

/// What happened, when, and on which CPU (its number).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    pub time: u64,
    pub cpu: usize,
    pub what: NoteKind,
}

/// The notes of all runs of a machine; `None` if it keeps none.
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

    /// All notes, in the order in which they were made.
    pub fn all(&self) -> Vec<Note> {
        self.0.as_ref().map(|notes| lock(notes).clone()).unwrap_or_default()
    }
}
