// SPDX-License-Identifier: MIT OR Apache-2.0
//! The records that the kernels write to the serial line. Checks these records.
//!
//! A line that begins with `@` is one record: a JSON object with one member, whose name is the kind of the record. Every other
//! line is log text.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub use crate::cpus::{Listed, Moved, Spare};

/// The mode of the interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A local APIC, which the kernels access by memory-mapped registers.
    Xapic,
    /// A local APIC, which the kernels access by model-specific registers.
    X2apic,
    /// A GICv3, which the kernels access by system registers.
    Gicv3,
    /// riscv64: software interrupts, which the kernels send through the SBI firmware.
    Sbi,
    /// riscv64: message-signalled interrupts, which the kernels send through IMSICs.
    Imsic,
}

impl Mode {
    /// Returns the name of the mode in the kernels' command line and in the records.
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
    /// The native link: one lane for each sender; reliable, and in order
    Native,
    /// The layout of the Linux patches: one slot for each CPU
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

/// The record of a kernel that has started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Instance id; 0 is the host.
    pub id: u32,
    /// The language in which it is written.
    pub lang: String,
    /// Physical id of its first CPU.
    pub cpu: u64,
    /// How often this kernel was started, this start included.
    pub life: u32,
}

/// The record of a kernel about its progress in the streams.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Progress {
    /// Instance id.
    pub kernel: u32,
    /// Number of messages that the kernel has received so far.
    pub done: u64,
    /// The smallest number of messages that it will receive in total.
    pub total: u64,
}

/// The times of round trips, in cycles of the emulated CPU (x86) or in nanoseconds (other architectures).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cycles {
    /// The shortest time.
    pub min: u64,
    /// The median: half of the round trips were shorter.
    pub median: u64,
    /// The 99th percentile: one round trip in a hundred was longer.
    pub p99: u64,
}

/// The record of a sender about its messages to one receiver.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Sent {
    /// Sending instance.
    pub from: u32,
    /// Receiving instance.
    pub to: u32,
    /// The mode of the interrupt controller.
    pub mode: Mode,
    /// The layout of the link.
    pub generation: Generation,
    /// Number of messages that were sent.
    pub sent: u64,
    /// Number of interrupts that were sent for them.
    pub doorbells: u64,
    /// How often the sender found the slot occupied, or the lane full.
    #[serde(default)]
    pub busy: u64,
    /// Number of messages in doubt: the receiver died while it handled the message, or the sender died while it sent the
    /// message. Such a message may have been handled or not.
    #[serde(default)]
    pub in_doubt: u64,
    /// The times of round trips: a message, and its answer.
    pub rtt_cycles: Cycles,
}

/// The record of a receiver about the messages from one sender.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Received {
    /// Sending instance.
    pub from: u32,
    /// Receiving instance.
    pub to: u32,
    /// The mode of the interrupt controller.
    pub mode: Mode,
    /// The layout of the link.
    pub generation: Generation,
    /// Number of different messages that were received with a right checksum.
    pub received: u64,
    /// Number of messages that were not received, without those in doubt.
    pub lost: u64,
    /// Number of messages with a wrong checksum.
    pub torn: u64,
    /// How often a message was received that had been received before.
    pub doubled: u64,
    /// Number of messages that were received after a message that was sent later.
    #[serde(default)]
    pub disordered: u64,
}

/// The record of a receiver about its drain, the call that takes messages from all lanes (native link). It shows whether each
/// lane had its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drains {
    /// The receiver.
    pub kernel: u32,
    /// How often the drain was called while the streams ran.
    pub calls: u64,
    /// The largest number of calls in a row that took nothing from a lane, although messages waited in it. The lane of the kernel
    /// that is killed does not count.
    pub longest: u64,
    /// The largest allowed value of `longest`. It is not 0, because one call can take messages from only some of the lanes.
    pub allowed: u64,
}

/// The record of the host about the kernel that it killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    /// The kernel that was killed.
    pub kernel: u32,
    /// How often this kernel was killed.
    pub times: u32,
    /// How often it was killed while the streams of the other kernels ran.
    pub in_stream: u32,
    /// How many messages of other kernels the host received while this kernel was dead.
    pub meanwhile: u64,
}

/// The result of a conformance case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaseResult {
    /// The clause holds.
    Pass,
    /// The clause does not hold.
    Fail,
    /// The case cannot run on this machine. The detail says why.
    Skip,
}

/// The record of a conformance case.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Case {
    /// The case's name.
    pub name: String,
    /// The clause of SPEC.md that the case tests.
    pub clause: String,
    /// The kernel on which the case ran.
    pub kernel: u32,
    /// The result.
    pub result: CaseResult,
    /// The reason, if the case failed or was skipped.
    #[serde(default)]
    pub detail: String,
}

/// The record of a step of the Linux scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The step's name.
    pub name: String,
    /// Whether the step passed.
    pub ok: bool,
    /// Details of the result, as text.
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

/// A record from the serial line.
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
    /// The number of moves of a CPU that are done, and the number that was ordered.
    Moving {
        done: u32,
        of: u32,
    },
    Spare(Spare),
    Case(Case),
    Step(Step),
    /// How often Linux has loaded the module, started the bare-metal kernels, stopped them, and unloaded the module.
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

/// What the kernels of a demo were told to do.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The number of kernels.
    pub kernels: u32,
    /// Messages that each kernel sends to each other kernel.
    pub messages: u64,
    /// The mode of the interrupt controller.
    pub mode: Mode,
    /// The layout of the links.
    pub generation: Generation,
    /// How often [`VICTIM`] is killed.
    pub kills: u32,
    /// How many CPUs the directory lists for the host.
    pub host_cpus: u32,
    /// How often a CPU is moved from one running kernel to another.
    pub moves: u32,
}

/// If a stream on the native link has at least this number of messages, at most one doorbell for ten messages is allowed. With
/// kills or moves there is no such limit.
const STREAM: u64 = 1000;

/// The instance id of the kernel that is killed.
pub const VICTIM: u32 = 1;

/// Sender, receiver, and the layout of their link.
type Ends = (u32, u32, Generation);

/// All records of one run of the machine.
#[derive(Debug, Default)]
pub struct Report {
    /// The last record of each kernel that has started, by instance id.
    pub kernels: BTreeMap<u32, Kernel>,
    /// The records of the senders, by sender, receiver and layout.
    pub sent: BTreeMap<Ends, Sent>,
    /// The records of the receivers, by sender, receiver and layout.
    pub received: BTreeMap<Ends, Received>,
    /// The records about the drain, by instance id.
    pub drains: BTreeMap<u32, Drains>,
    /// The record about the kernel that was killed.
    pub killed: Option<Killed>,
    /// The records about the CPUs in the directory, by instance id of the kernel that read it.
    pub listed: BTreeMap<u32, Listed>,
    /// The record of the host about the CPU that was moved.
    pub moved: Option<Moved>,
    /// The record of each kernel about that CPU, by instance id.
    pub spare: BTreeMap<u32, Spare>,
    /// The conformance cases, in the order in which they were reported.
    pub cases: Vec<Case>,
    /// The steps of the Linux scenario, in the order in which they were reported.
    pub steps: Vec<Step>,
    /// The number in the last [`Record::Cycles`].
    pub cycles: u64,
    /// If true, a kernel that was started before may report life 1 again. This happens if the shared memory is destroyed and made
    /// again during the run.
    pub anew: bool,
    /// Errors that kernels reported, invalid records, and records that came twice or in the wrong order.
    pub errors: Vec<String>,
    /// The result that the host reported at the end. `None` if it has not reported one.
    pub done: Option<bool>,
}

impl Report {
    /// Adds the record in a line of the serial line, and returns it. Returns `None` if the line has no record. It also returns
    /// `None` if the line ends with the ASCII character CAN, because then the kernel died while it wrote the line. If the record
    /// is invalid, it adds an error.
    pub fn take(&mut self, line: &str) -> Option<Record> {
        let json = line.strip_prefix('@').filter(|json| !json.ends_with('\u{18}'))?;
        match serde_json::from_str::<Record>(json) {
            Ok(record) => {
                self.keep(record.clone());
                Some(record)
            }
            Err(err) => {
                self.errors.push(format!("invalid record ({err}): {line}"));
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
        self.errors.extend(twice.map(|what| format!("a record came twice, or in the wrong order: {what}")));
    }

    /// Returns the problems that can occur in a run of any kind.
    pub fn common_problems(&self, kernels: u32) -> Vec<String> {
        let mut problems = self.errors.clone();
        let missing = (0..kernels).filter(|id| !self.kernels.contains_key(id));
        problems.extend(missing.map(|id| format!("kernel {id} did not report that it started")));
        problems.extend(
            self.kernels
                .keys()
                .filter(|id| **id >= kernels)
                .map(|id| format!("kernel {id} reported, but there is no such kernel")),
        );
        match self.done {
            Some(true) => {}
            Some(false) => problems.push("the host reported that the run failed (done ok:false)".into()),
            None => problems.push(self.no_end()),
        }
        problems
    }

    /// The problem that the host did not report the end of the run.
    fn no_end(&self) -> String {
        let last = self.steps.last().map(|step| format!("; its last step was: {}", step.name));
        format!("the host did not report the end of the run{}", last.unwrap_or_default())
    }

    /// Returns all problems of a demo whose kernels were told to do `order`.
    pub fn demo_problems(&self, order: &Order) -> Vec<String> {
        let mut problems = self.common_problems(order.kernels);
        problems.extend(self.pair_problems(order));
        problems.extend(self.sent.values().filter_map(|s| doubt_problem(s, order)));
        // A kernel with two CPUs drains on either of them, so its records do not show whether a single drain is fair.
        if order.generation == Generation::Native && order.moves == 0 {
            problems.extend(self.drain_problems(order));
        }
        if order.kills != 0 {
            problems.extend(self.kill_problem(order));
        }
        problems.extend(self.cpu_problems(order));
        problems
    }

    /// Returns the problems in the records of senders and receivers, for each pair of kernels.
    pub fn pair_problems(&self, order: &Order) -> Vec<String> {
        let mut problems = Vec::new();
        for (from, to) in pairs(order.kernels) {
            let name = format!("{} {from}->{to}", order.mode);
            let ends = (from, to, order.generation);
            let (sent, received) = (self.sent.get(&ends), self.received.get(&ends));
            let found =
                [sent.map(|s| sent_problems(s, order)), received.map(|r| received_problems(r, order))];
            for (found, who) in found.into_iter().zip(["sender", "receiver"]) {
                let found = found.unwrap_or_else(|| vec![format!("the {who} did not report")]);
                problems.extend(found.into_iter().map(|p| format!("{name}: {p}")));
            }
            if let (Some(s), Some(r)) = (sent, received) {
                problems.extend(sum_problem(s, r).map(|p| format!("{name}: {p}")));
            }
        }
        problems
    }

    fn drain_problems(&self, order: &Order) -> Vec<String> {
        let problem = |id| {
            match self.drains.get(&id) {
            None => Some(format!("kernel {id} did not report about its drain")),
            Some(d) if d.longest > d.allowed => Some(format!(
                "kernel {id}: {} drains in a row took nothing from a lane with messages, at most {} in a row may do so",
                d.longest, d.allowed
            )),
            Some(_) => None,
        }
        };
        (0..order.kernels).filter(|id| order.kills == 0 || *id != VICTIM).filter_map(problem).collect()
    }

    /// Returns a problem if the kernel was not killed and restarted as often as ordered, each time while the others streamed. It
    /// is also a problem if the host received no message of other kernels while this kernel was dead.
    fn kill_problem(&self, order: &Order) -> Option<String> {
        let lives = self.kernels.get(&VICTIM).map_or(0, |k| k.life);
        match self.killed {
            None => Some("the host did not report which kernel it killed".into()),
            Some(Killed { kernel: VICTIM, times, in_stream, meanwhile: 1.. })
                if times == order.kills && in_stream == times && lives == times + 1 =>
            {
                None
            }
            Some(k) => Some(format!(
                "kernel {VICTIM} was to be killed {} times in mid-stream, but kernel {} was killed {} times, {} times in \
                 mid-stream; kernel {VICTIM} was started {lives} times; meanwhile the host received {} messages of others",
                order.kills, k.kernel, k.times, k.in_stream, k.meanwhile
            )),
        }
    }

    /// Returns the numbers of cases that passed, were skipped, and failed, as text.
    pub fn case_counts(&self) -> String {
        let count = |result| self.cases.iter().filter(|c| c.result == result).count();
        let (passed, skipped) = (count(CaseResult::Pass), count(CaseResult::Skip));
        format!("{passed} cases passed, {skipped} skipped, {} failed", count(CaseResult::Fail))
    }

    /// Returns all problems of a run of the conformance suite.
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
        problems.push(format!("the sender ran in {} mode", s.mode));
    }
    // Streams run on until the last kill or move, so they can have more messages than ordered.
    let goes_on = order.kills != 0 || order.moves != 0;
    if s.sent < order.messages || (s.sent != order.messages && !goes_on) {
        problems.push(format!("sent {} of {}", s.sent, order.messages));
    }
    // While a kernel is dead, ARMED can stay 1 in its region. Then each message to it causes a doorbell.
    let streams = order.generation == Generation::Native && !goes_on && s.sent >= STREAM;
    if streams && s.doorbells > s.sent / 10 {
        problems.push(format!("{} doorbells for {} messages are more than one for ten", s.doorbells, s.sent));
    }
    problems
}

fn received_problems(r: &Received, order: &Order) -> Vec<String> {
    let mut problems = Vec::new();
    if r.mode != order.mode {
        problems.push(format!("the receiver ran in {} mode", r.mode));
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

/// Returns a problem if the number of messages in doubt is larger than the number of deaths of the sender and the receiver.
fn doubt_problem(s: &Sent, order: &Order) -> Option<String> {
    let deaths = if s.from == VICTIM || s.to == VICTIM { order.kills.into() } else { 0 };
    let Sent { from, to, in_doubt, .. } = *s;
    (in_doubt > deaths).then(|| format!("{} {from}->{to}: {in_doubt} in doubt after {deaths} deaths", s.mode))
}

/// Returns a problem if a message that was sent was neither received, nor lost, nor in doubt. It is also a problem if more
/// messages were received or lost than were sent.
fn sum_problem(s: &Sent, r: &Received) -> Option<String> {
    let missing = s.sent.checked_sub(r.received + r.lost);
    let Received { received, lost, .. } = r;
    missing
        .is_none_or(|missing| missing > s.in_doubt)
        .then(|| format!("received {received} and lost {lost} of {}, {} in doubt", s.sent, s.in_doubt))
}

/// Returns each ordered pair of two of `kernels` kernels.
pub fn pairs(kernels: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..kernels).flat_map(move |from| (0..kernels).filter(move |to| *to != from).map(move |to| (from, to)))
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
