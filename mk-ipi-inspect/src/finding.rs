// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is worth saying, and what it means.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing. Nothing is wrong.
    Note,
    /// Right if it passes, wrong if it lasts. Look again.
    Suspect,
    /// What no honest kernel writes, or what no kernel can use.
    Broken,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where: a region, a lane, an entry, a slot.
    pub place: String,
    /// What was found.
    pub what: String,
    /// What it means for the kernels.
    pub meaning: String,
}

/// Findings about one place.
pub(crate) struct Notes<'a> {
    place: String,
    list: &'a mut Vec<Finding>,
}

impl<'a> Notes<'a> {
    /// Of `place`.
    pub fn of(place: impl Into<String>, list: &'a mut Vec<Finding>) -> Self {
        Self { place: place.into(), list }
    }

    fn add(&mut self, severity: Severity, what: String, meaning: &str) {
        self.list.push(Finding { severity, place: self.place.clone(), what, meaning: meaning.into() });
    }

    /// See [`Severity::Note`].
    pub fn note(&mut self, what: impl Into<String>, meaning: &str) {
        self.add(Severity::Note, what.into(), meaning);
    }

    /// See [`Severity::Suspect`].
    pub fn suspect(&mut self, what: impl Into<String>, meaning: &str) {
        self.add(Severity::Suspect, what.into(), meaning);
    }

    /// See [`Severity::Broken`].
    pub fn broken(&mut self, what: impl Into<String>, meaning: &str) {
        self.add(Severity::Broken, what.into(), meaning);
    }
}
