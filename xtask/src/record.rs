// SPDX-License-Identifier: MIT OR Apache-2.0
//! The records that the kernels send over the serial line, and the verdict on them.
//!
//! A line that begins with `@` carries one record, a JSON object with one member that names its kind. Every
//! other line is log.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub use crate::cpus::{Listed, Moved, Spare};

/// The mode of the interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A local APIC, by memory-mapped registers.
    Xapic,
    /// A local APIC, by model-specific registers.
    X2apic,
    /// A GICv3, by system registers.
    Gicv3,
    /// riscv64's software interrupts, through the SBI firmware.
    Sbi,
    /// riscv64's IMSICs.
    Imsic,
}

impl Mode {
    /// Its name in the kernels' options and in the records.
    pub const fn word(self) -> &'static str {
        match self {
            Mode::Xapic => "xapic",
            Mode::X2apic => "x2apic",
            Mode::Gicv3 => "gicv3",
            Mode::Sbi => "sbi",
            Mode::Imsic => "imsic",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Xapic => "xAPIC",
            Mode::X2apic => "x2APIC",
            Mode::Gicv3 => "GICv3",
            Mode::Sbi => "SBI",
            Mode::Imsic => "IMSIC",
        })
    }
}

/// The layout of the regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Generation {
    /// Reliable, in order, a lane per sender
    Native,
    /// A slot per CPU, as in the Linux patches
    #[value(name = "rfc-v2")]
    RfcV2,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Generation::Native => "native",
            Generation::RfcV2 => "rfc-v2",
        })
    }
}

/// A kernel that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Instance id; 0 is the host.
    pub id: u32,
    /// The language in which it is written.
    pub lang: String,
    /// Physical id of its first CPU.
    pub cpu: u64,
    /// Which of its lives this is, from 1.
    pub life: u32,
}

/// The progress of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Progress {
    /// Instance id.
    pub kernel: u32,
    /// Messages handled so far.
    pub done: u64,
    /// Messages to handle.
    pub total: u64,
}

/// Round trips in cycles of the emulated CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cycles {
    /// The shortest.
    pub min: u64,
    /// Half of the round trips were shorter.
    pub median: u64,
    /// One round trip in a hundred was longer.
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
    pub generation: Generation,
    /// Messages sent.
    pub sent: u64,
    /// Interrupts sent for them.
    pub doorbells: u64,
    /// How often the slot was found occupied, or the lane full.
    #[serde(default)]
    pub busy: u64,
    /// Messages in doubt, each of which may have arrived or not: the receiver died while it handled the message, or the sender
    /// died while it sent it.
    #[serde(default)]
    pub in_doubt: u64,
    /// Round trips of a message and its answer.
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
    pub generation: Generation,
    /// Messages that arrived whole, each counted once.
    pub received: u64,
    /// Sequence numbers that never arrived, without those in doubt.
    pub lost: u64,
    /// Payloads whose checksum is wrong.
    pub torn: u64,
    /// Sequence numbers that arrived a second time.
    pub doubled: u64,
    /// Messages that arrived after a later one.
    #[serde(default)]
    pub disordered: u64,
}

/// How fair a kernel's drain was (native).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drains {
    /// The kernel that drained.
    pub kernel: u32,
    /// Calls of the drain while the streams ran.
    pub calls: u64,
    /// The largest number of calls in a row that took no message from a lane in which messages waited. Lanes of a kernel that was
    /// killed do not count.
    pub longest: u64,
    /// How many such calls in a row the design allows.
    pub allowed: u64,
}

/// What happened to the kernel that was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    /// The kernel.
    pub kernel: u32,
    /// How often it was killed.
    pub times: u32,
    /// How often it was killed while the others' streams ran.
    pub in_stream: u32,
    /// How many messages other survivors sent to the host while it was dead.
    pub meanwhile: u64,
}

/// How a conformance case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaseResult {
    /// The clause holds.
    Pass,
    /// The clause does not hold.
    Fail,
    /// The case cannot run here; the detail says why.
    Skip,
}

/// One conformance case.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Case {
    /// The case's name.
    pub name: String,
    /// The clause of SPEC.md.
    pub clause: String,
    /// The kernel on which it ran.
    pub kernel: u32,
    /// How it ended.
    pub result: CaseResult,
    /// The reason, if it did not pass.
    #[serde(default)]
    pub detail: String,
}

/// One step of a scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The step's name.
    pub name: String,
    /// Whether the step passed.
    pub ok: bool,
    /// What was seen.
    #[serde(default)]
    pub detail: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = if self.ok { "ok" } else { "FAILED" };
        write!(f, "step {}: {result}", self.name)?;
        if self.detail.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.detail)
    }
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
    Drains(Drains),
    Killed(Killed),
    Listed(Listed),
    Moved(Moved),
    /// How often a CPU was moved so far.
    Moving {
        done: u32,
        of: u32,
    },
    Spare(Spare),
    Case(Case),
    Step(Step),
    /// How often everything was started and ended so far.
    Cycles {
        done: u64,
    },
    Error {
        kernel: u32,
        text: String,
    },
    Done {
        ok: bool,
    },
}

/// The task of a demo.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// How many kernels.
    pub kernels: u32,
    /// Messages each way per pair.
    pub messages: u64,
    /// The mode of the local APIC.
    pub mode: Mode,
    /// The layout in use.
    pub generation: Generation,
    /// How often [`VICTIM`] is killed.
    pub kills: u32,
    /// How many CPUs the host has.
    pub host_cpus: u32,
    /// How often a spare CPU is moved between the others.
    pub moves: u32,
}

/// From this number of messages on, at most one doorbell for ten messages is allowed.
const STREAM: u64 = 1000;

/// The kernel that is killed. It is not the host, whose CPU booted the machine.
pub const VICTIM: u32 = 1;

/// Sender, receiver, and the layout of their link.
type Ends = (u32, u32, Generation);

/// All records of one run of the machine.
#[derive(Debug, Default)]
pub struct Report {
    /// By instance id.
    pub kernels: BTreeMap<u32, Kernel>,
    /// By sender, receiver and layout.
    pub sent: BTreeMap<Ends, Sent>,
    /// By sender, receiver and layout.
    pub received: BTreeMap<Ends, Received>,
    /// By instance id.
    pub drains: BTreeMap<u32, Drains>,
    /// The record of the kernel that was killed.
    pub killed: Option<Killed>,
    /// What each spawned kernel found in the directory, by instance id.
    pub listed: BTreeMap<u32, Listed>,
    /// The record of the CPU that was moved.
    pub moved: Option<Moved>,
    /// What each kernel reports about that CPU, by instance id.
    pub spare: BTreeMap<u32, Spare>,
    /// In the order they came.
    pub cases: Vec<Case>,
    /// In the order they came.
    pub steps: Vec<Step>,
    /// How often everything was started and ended.
    pub cycles: u64,
    /// Whether a kernel may begin again with life 1, because all shared memory is made again during the run.
    pub anew: bool,
    /// Errors that kernels reported, and records that are invalid or out of turn.
    pub errors: Vec<String>,
    /// Whether the host reported success at the end; `None` if it has not reported the end.
    pub done: Option<bool>,
}

impl Report {
    /// Takes one line. `None` if it is log, or if it ends with ASCII's CAN, because its writer died while writing it.
    pub fn take(&mut self, line: &str) -> Option<Record> {
        let json = line.strip_prefix('@').filter(|json| !json.ends_with('\u{18}'))?;
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
            Record::Kernel(k) => {
                let (id, life) = (k.id, k.life);
                let before = self.kernels.insert(id, k).map_or(0, |k| k.life);
                let first = self.anew && life == 1;
                (life != before + 1 && !first).then(|| format!("kernel {id}, life {life} after {before}"))
            }
            Record::Sent(s) => {
                let ends = (s.from, s.to, s.generation);
                self.sent.insert(ends, s).map(|s| format!("sent {}->{}", s.from, s.to))
            }
            Record::Received(r) => {
                let ends = (r.from, r.to, r.generation);
                self.received.insert(ends, r).map(|r| format!("received {}->{}", r.from, r.to))
            }
            Record::Drains(d) => self.drains.insert(d.kernel, d).map(|d| format!("drains {}", d.kernel)),
            Record::Listed(l) => {
                self.listed.insert(l.kernel, l);
                None
            }
            Record::Moved(m) => self.moved.replace(m).map(|_| "moved".to_owned()),
            Record::Spare(s) => self.spare.insert(s.kernel, s).map(|s| format!("spare {}", s.kernel)),
            Record::Killed(k) => self.killed.replace(k).map(|_| "killed".to_owned()),
            Record::Done { ok } => self.done.replace(ok).map(|_| "done".to_owned()),
            Record::Error { kernel, text } => {
                self.errors.push(format!("kernel {kernel}: {text}"));
                None
            }
            Record::Case(case) => {
                self.cases.push(case);
                None
            }
            Record::Step(step) => {
                self.steps.push(step);
                None
            }
            Record::Cycles { done } => {
                self.cycles = self.cycles.max(done);
                None
            }
            Record::Progress(_) | Record::Moving { .. } => None,
        };
        self.errors.extend(twice.map(|what| format!("reported twice, or out of turn: {what}")));
    }

    /// Problems that can occur in every run.
    pub fn common_problems(&self, kernels: u32) -> Vec<String> {
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

    /// All problems of a demo with the task `order`.
    pub fn demo_problems(&self, order: &Order) -> Vec<String> {
        let mut problems = self.common_problems(order.kernels);
        problems.extend(self.pair_problems(order));
        problems.extend(self.sent.values().filter_map(|s| doubt_problem(s, order)));
        // With two CPUs, which of them drains is random.
        if order.generation == Generation::Native && order.moves == 0 {
            problems.extend(self.drain_problems(order));
        }
        if order.kills != 0 {
            problems.extend(self.kill_problem(order));
        }
        problems.extend(self.cpu_problems(order));
        problems
    }

    /// Problems between each pair of kernels.
    pub fn pair_problems(&self, order: &Order) -> Vec<String> {
        let mut problems = Vec::new();
        for (from, to) in pairs(order.kernels) {
            let name = format!("{} {from}->{to}", order.mode);
            let ends = (from, to, order.generation);
            let (sent, received) = (self.sent.get(&ends), self.received.get(&ends));
            let found =
                [sent.map(|s| sent_problems(s, order)), received.map(|r| received_problems(r, order))];
            for (found, who) in found.into_iter().zip(["sender", "receiver"]) {
                let found = found.unwrap_or_else(|| vec![format!("the {who} never reported")]);
                problems.extend(found.into_iter().map(|p| format!("{name}: {p}")));
            }
            if let (Some(s), Some(r)) = (sent, received) {
                problems.extend(sum_problem(s, r).map(|p| format!("{name}: {p}")));
            }
        }
        problems
    }

    fn drain_problems(&self, order: &Order) -> Vec<String> {
        let problem = |id| match self.drains.get(&id) {
            None => Some(format!("kernel {id} never said how fair its drain was")),
            Some(d) if d.longest > d.allowed => Some(format!(
                "kernel {id}: {} calls of the drain left a stream waiting, {} are allowed",
                d.longest, d.allowed
            )),
            Some(_) => None,
        };
        (0..order.kernels).filter(|id| order.kills == 0 || *id != VICTIM).filter_map(problem).collect()
    }

    /// The kernel must have been killed and restarted as often as ordered, while the others streamed.
    fn kill_problem(&self, order: &Order) -> Option<String> {
        let lives = self.kernels.get(&VICTIM).map_or(0, |k| k.life);
        match self.killed {
            None => Some("the host never said whom it killed".into()),
            Some(Killed { kernel: VICTIM, times, in_stream, meanwhile: 1.. })
                if times == order.kills && in_stream == times && lives == times + 1 =>
            {
                None
            }
            Some(k) => Some(format!("{} kills were ordered: {k:?}, {lives} lives", order.kills)),
        }
    }

    /// How many cases ended how.
    pub fn case_counts(&self) -> String {
        let count = |result| self.cases.iter().filter(|c| c.result == result).count();
        let (passed, skipped) = (count(CaseResult::Pass), count(CaseResult::Skip));
        format!("{passed} cases passed, {skipped} skipped, {} failed", count(CaseResult::Fail))
    }

    /// All problems of a run of the conformance suite.
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

fn sent_problems(s: &Sent, order: &Order) -> Vec<String> {
    let mut problems = Vec::new();
    if s.mode != order.mode {
        problems.push(format!("sent in {}", s.mode));
    }
    // Streams run on until the last kill or move, so they can have more messages than ordered.
    let goes_on = order.kills != 0 || order.moves != 0;
    if s.sent < order.messages || (s.sent != order.messages && !goes_on) {
        problems.push(format!("sent {} of {}", s.sent, order.messages));
    }
    // A kernel that died while ARMED was 1 is rung for each message.
    let streams = order.generation == Generation::Native && !goes_on && s.sent >= STREAM;
    if streams && s.doorbells > s.sent / 10 {
        problems.push(format!("{} doorbells for {} messages", s.doorbells, s.sent));
    }
    problems
}

fn received_problems(r: &Received, order: &Order) -> Vec<String> {
    let mut problems = Vec::new();
    if r.mode != order.mode {
        problems.push(format!("received in {}", r.mode));
    }
    for (what, count) in
        [("lost", r.lost), ("torn", r.torn), ("doubled", r.doubled), ("out of order", r.disordered)]
    {
        if count != 0 {
            problems.push(format!("{count} {what}"));
        }
    }
    problems
}

/// For each death of either end one message may be in doubt.
fn doubt_problem(s: &Sent, order: &Order) -> Option<String> {
    let deaths = if s.from == VICTIM || s.to == VICTIM { order.kills.into() } else { 0 };
    let Sent { from, to, in_doubt, .. } = *s;
    (in_doubt > deaths).then(|| format!("{} {from}->{to}: {in_doubt} in doubt after {deaths} deaths", s.mode))
}

/// Each message that was sent must have arrived, be lost, or be in doubt.
fn sum_problem(s: &Sent, r: &Received) -> Option<String> {
    let missing = s.sent.checked_sub(r.received + r.lost);
    let Received { received, lost, .. } = r;
    missing
        .is_none_or(|missing| missing > s.in_doubt)
        .then(|| format!("received {received} and lost {lost} of {}, {} in doubt", s.sent, s.in_doubt))
}

/// All ordered pairs of `kernels` kernels.
pub fn pairs(kernels: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..kernels).flat_map(move |from| (0..kernels).filter(move |to| *to != from).map(move |to| (from, to)))
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
