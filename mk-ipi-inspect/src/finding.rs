// SPDX-License-Identifier: MIT OR Apache-2.0
//! Findings: what was found, and what it means.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing. Nothing is wrong.
    Note,
    /// This is right if it passes soon, and wrong if it lasts. Look again.
    Suspect,
    /// No honest kernel writes this, or no kernel can use it.
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
    /// Starts findings about `place`, to be added to `list`.
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
