// SPDX-License-Identifier: MIT OR Apache-2.0
//! Findings: what was found, and what it means.

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing is wrong.
    Note,
    /// Normal for a short time, and wrong if it stays. Look again later.
    Suspect,
    /// No correct kernel writes this, or no kernel can use it.
    Broken,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where it was found: a region, a lane, a directory, an entry or a slot.
    pub place: String,
    /// What was found.
    pub what: String,
    /// What it means for the kernels.
    pub meaning: String,
}

/// Adds findings about one place to a list.
pub(crate) struct Notes<'a> {
    place: String,
    list: &'a mut Vec<Finding>,
}

impl<'a> Notes<'a> {
    /// For findings about `place`, which are added to `list`.
    pub fn of(place: impl Into<String>, list: &'a mut Vec<Finding>) -> Self {
        Self { place: place.into(), list }
    }

    fn add(&mut self, severity: Severity, what: String, meaning: &str) {
        self.list.push(Finding { severity, place: self.place.clone(), what, meaning: meaning.into() });
    }

    /// Adds a [`Severity::Note`]. `what` was found, and `meaning` says what it means for the kernels.
    pub fn note(&mut self, what: impl Into<String>, meaning: &str) {
        self.add(Severity::Note, what.into(), meaning);
    }

    /// Adds a [`Severity::Suspect`], as [`note`](Self::note) does.
    pub fn suspect(&mut self, what: impl Into<String>, meaning: &str) {
        self.add(Severity::Suspect, what.into(), meaning);
    }

    /// Adds a [`Severity::Broken`], as [`note`](Self::note) does.
    pub fn broken(&mut self, what: impl Into<String>, meaning: &str) {
        self.add(Severity::Broken, what.into(), meaning);
    }
}
