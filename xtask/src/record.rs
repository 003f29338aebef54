// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernels report over the serial line, and the verdict on it.
//!
//! A line that begins with `@` carries one record, a JSON object with one member that names its kind. Every
//! other line is log.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the local APIC is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Mode {
    /// By memory-mapped registers.
    Xapic,
    /// By model-specific registers.
    X2apic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Xapic => "xAPIC",
            Mode::X2apic => "x2APIC",
        })
    }
}

/// A kernel that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Instance id; 0 is the host.
    pub id: u32,
    /// The language it is written in.
    pub lang: String,
    /// Physical id of its first CPU.
    pub cpu: u64,
}

/// How far a kernel is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Progress {
    /// Instance id.
    pub kernel: u32,
    /// Messages dealt with so far.
    pub done: u64,
    /// Messages to deal with.
    pub total: u64,
}

/// Round trips in cycles of the emulated CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cycles {
    /// The shortest.
    pub min: u64,
    /// Half were shorter.
    pub median: u64,
    /// One in a hundred was longer.
    pub p99: u64,
}

/// What a sender counted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Sent {
    /// Sending instance.
    pub from: u32,
    /// Receiving instance.
    pub to: u32,
    /// The APIC's mode.
    pub mode: Mode,
    /// The layout in use.
    pub generation: String,
    /// Messages sent.
    pub sent: u64,
    /// Interrupts sent for them.
    pub doorbells: u64,
    /// How often the slot was found occupied.
    #[serde(default)]
    pub busy: u64,
    /// Message and answer.
    pub rtt_cycles: Cycles,
}

/// What a receiver counted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Received {
    /// Sending instance.
    pub from: u32,
    /// Receiving instance.
    pub to: u32,
    /// The APIC's mode.
    pub mode: Mode,
    /// The layout in use.
    pub generation: String,
    /// Messages that came, whole and once.
    pub received: u64,
    /// Sequence numbers that never came.
    pub lost: u64,
    /// Payloads whose checksum is wrong.
    pub torn: u64,
    /// Sequence numbers that came again.
    pub doubled: u64,
}

/// How a conformance case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaseResult {
    /// As the clause says.
    Pass,
    /// Not as the clause says.
    Fail,
    /// It cannot run here; the detail says why.
    Skip,
}

/// One conformance case.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Case {
    /// The case's name.
    pub name: String,
    /// The clause of SPEC.md.
    pub clause: String,
    /// Where it ran.
    pub kernel: u32,
    /// How it ended.
    pub result: CaseResult,
    /// Why, where it did not pass.
    #[serde(default)]
    pub detail: String,
}

/// One record of the serial line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Record {
    Kernel(Kernel),
    Progress(Progress),
    Sent(Sent),
    Received(Received),
    Case(Case),
    Error { kernel: u32, text: String },
    Done { ok: bool },
}

/// All that one run of the machine reported.
#[derive(Debug, Default)]
pub struct Report {
    /// By instance id.
    pub kernels: BTreeMap<u32, Kernel>,
    /// By (from, to).
    pub sent: BTreeMap<(u32, u32), Sent>,
    /// By (from, to).
    pub received: BTreeMap<(u32, u32), Received>,
    /// In the order they came.
    pub cases: Vec<Case>,
    /// Errors that kernels reported, and records that break the line's rules.
    pub errors: Vec<String>,
    /// The last word, if it was said.
    pub done: Option<bool>,
}

impl Report {
    /// Takes one line. `None` if it is log.
    pub fn take(&mut self, line: &str) -> Option<Record> {
        let json = line.strip_prefix('@')?;
        match serde_json::from_str::<Record>(json) {
            Ok(record) => {
                self.keep(record.clone());
                Some(record)
            }
            Err(err) => {
                self.errors.push(format!("not a record ({err}): {line}"));
                None
            }
        }
    }

    fn keep(&mut self, record: Record) {
        let twice = match record {
            Record::Kernel(k) => self.kernels.insert(k.id, k).map(|k| format!("kernel {}", k.id)),
            Record::Sent(s) => {
                self.sent.insert((s.from, s.to), s).map(|s| format!("sent {}->{}", s.from, s.to))
            }
            Record::Received(r) => {
                self.received.insert((r.from, r.to), r).map(|r| format!("received {}->{}", r.from, r.to))
            }
            Record::Done { ok } => self.done.replace(ok).map(|_| "done".to_owned()),
            Record::Error { kernel, text } => {
                self.errors.push(format!("kernel {kernel}: {text}"));
                None
            }
            Record::Case(case) => {
                self.cases.push(case);
                None
            }
            Record::Progress(_) => None,
        };
        self.errors.extend(twice.map(|what| format!("reported twice: {what}")));
    }

    /// What every run must show, whatever it did.
    fn common_problems(&self, kernels: u32) -> Vec<String> {
        let mut problems = self.errors.clone();
        let missing = (0..kernels).filter(|id| !self.kernels.contains_key(id));
        problems.extend(missing.map(|id| format!("kernel {id} never reported")));
        problems.extend(
            self.kernels
                .keys()
                .filter(|id| **id >= kernels)
                .map(|id| format!("a kernel {id} reported, unasked")),
        );
        match self.done {
            Some(true) => {}
            Some(false) => problems.push("the host says that the run failed (done ok:false)".into()),
            None => problems.push("the host never said that it was done".into()),
        }
        problems
    }

    /// Every way in which this is not a good demo of `kernels` kernels, `messages` messages each way per pair.
    pub fn demo_problems(&self, kernels: u32, messages: u64, mode: Mode) -> Vec<String> {
        let mut problems = self.common_problems(kernels);
        for pair @ (from, to) in pairs(kernels) {
            let name = format!("{mode} {from}->{to}");
            match self.sent.get(&pair) {
                None => problems.push(format!("{name}: the sender never reported")),
                Some(s) if s.mode != mode => problems.push(format!("{name}: sent in {}", s.mode)),
                Some(s) if s.sent != messages => {
                    problems.push(format!("{name}: sent {} of {messages}", s.sent))
                }
                Some(_) => {}
            }
            match self.received.get(&pair) {
                None => problems.push(format!("{name}: the receiver never reported")),
                Some(r) if r.mode != mode => problems.push(format!("{name}: received in {}", r.mode)),
                Some(r) => {
                    if r.received != messages {
                        problems.push(format!("{name}: received {} of {messages}", r.received));
                    }
                    for (what, count) in [("lost", r.lost), ("torn", r.torn), ("doubled", r.doubled)] {
                        if count != 0 {
                            problems.push(format!("{name}: {count} {what}"));
                        }
                    }
                }
            }
        }
        problems
    }

    /// How many cases ended how.
    pub fn case_counts(&self) -> String {
        let count = |result| self.cases.iter().filter(|c| c.result == result).count();
        let (passed, skipped) = (count(CaseResult::Pass), count(CaseResult::Skip));
        format!("{passed} cases passed, {skipped} skipped, {} failed", count(CaseResult::Fail))
    }

    /// Every way in which this is not a good run of the conformance suite.
    pub fn conformance_problems(&self, kernels: u32) -> Vec<String> {
        let mut problems = self.common_problems(kernels);
        if !self.cases.iter().any(|c| c.result == CaseResult::Pass) {
            problems.push("no case passed".into());
        }
        for case in &self.cases {
            match case.result {
                CaseResult::Pass => {}
                CaseResult::Skip if !case.detail.is_empty() => {}
                CaseResult::Skip => {
                    problems.push(format!("{} ({}): skipped without a reason", case.name, case.clause))
                }
                CaseResult::Fail => problems.push(format!(
                    "{} ({}) on kernel {}: {}",
                    case.name, case.clause, case.kernel, case.detail
                )),
            }
        }
        problems
    }
}

/// All ordered pairs of `kernels` kernels.
pub fn pairs(kernels: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..kernels).flat_map(move |from| (0..kernels).filter(move |to| *to != from).map(move |to| (from, to)))
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
