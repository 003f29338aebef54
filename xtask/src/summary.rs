// SPDX-License-Identifier: MIT OR Apache-2.0
//! Collects the results of one or more runs of the machine, and prints them as a table or as JSON.

use std::fmt;

use anyhow::Result;
use comfy_table::{presets, CellAlignment, Table};
use serde::Serialize;

use crate::record::{
    pairs, Cycles, Drains, Generation, Kernel, Killed, Listed, Mode, Moved, Received, Report, Sent, Spare,
};

/// The counts of the sender and the receiver of a pair of kernels, or the sums of these counts for many pairs.
#[derive(Debug, Default, Serialize)]
struct Counts {
    sent: u64,
    received: u64,
    lost: u64,
    in_doubt: u64,
    torn: u64,
    doubled: u64,
    disordered: u64,
    doorbells: u64,
}

/// One row of the table: a sender and a receiver.
#[derive(Debug, Serialize)]
struct Pair {
    from: u32,
    to: u32,
    mode: Mode,
    generation: Generation,
    #[serde(flatten)]
    counts: Counts,
    rtt_cycles: Cycles,
}

impl Pair {
    fn of(s: &Sent, r: &Received) -> Self {
        Self {
            from: s.from,
            to: s.to,
            mode: s.mode,
            generation: s.generation,
            counts: Counts {
                sent: s.sent,
                received: r.received,
                lost: r.lost,
                in_doubt: s.in_doubt,
                torn: r.torn,
                doubled: r.doubled,
                disordered: r.disordered,
                doorbells: s.doorbells,
            },
            rtt_cycles: s.rtt_cycles,
        }
    }

    /// The number of doorbells for 1000 messages.
    fn per_message(&self) -> u64 {
        self.counts.doorbells.saturating_mul(1000).checked_div(self.counts.sent).unwrap_or(0)
    }
}

/// The whole result, as `--json` prints it.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    kernels: Vec<Kernel>,
    pairs: Vec<Pair>,
    drains: Vec<Drains>,
    killed: Vec<Killed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    listed: Vec<Listed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    moved: Vec<Moved>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    spare: Vec<Spare>,
}

impl Summary {
    /// Adds the records of a run. A sender and its receiver are added only if both of them have reported.
    pub fn add(&mut self, report: &Report, kernels: u32) {
        for kernel in report.kernels.values() {
            if !self.kernels.contains(kernel) {
                self.kernels.push(kernel.clone());
            }
        }
        self.drains.extend(report.drains.values());
        self.killed.extend(report.killed);
        self.listed.extend(report.listed.values());
        self.moved.extend(report.moved);
        self.spare.extend(report.spare.values());
        for generation in [Generation::Native, Generation::RfcV2] {
            for (from, to) in pairs(kernels) {
                let key = (from, to, generation);
                let both = report.sent.get(&key).zip(report.received.get(&key));
                self.pairs.extend(both.map(|(s, r)| Pair::of(s, r)));
            }
        }
    }

    /// Whether there is a row for the table.
    pub fn has_pairs(&self) -> bool {
        !self.pairs.is_empty()
    }

    /// Returns the table, and lines of text with the other results.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        let ends = ["mode", "link", "from", "to"];
        let faults = ["lost", "in doubt", "torn", "doubled", "disordered"];
        let rest = ["doorbells", "per message", "rtt min", "median", "p99"];
        let counts = ["sent", "received"];
        table.set_header(ends.iter().chain(&counts).chain(&faults).chain(&rest));
        for p in &self.pairs {
            let head = [p.mode.to_string(), p.generation.to_string(), p.from.to_string(), p.to.to_string()];
            let c = &p.counts;
            let numbers =
                [c.sent, c.received, c.lost, c.in_doubt, c.torn, c.doubled, c.disordered, c.doorbells];
            let share = format!("{}.{:03}", p.per_message() / 1000, p.per_message() % 1000);
            let rtt = [p.rtt_cycles.min, p.rtt_cycles.median, p.rtt_cycles.p99];
            let text = |n: u64| n.to_string();
            let numbers = numbers.into_iter().map(text).chain([share]).chain(rtt.into_iter().map(text));
            table.add_row(head.into_iter().chain(numbers));
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let kernels: Vec<String> =
            self.kernels.iter().map(|k| format!("kernel {} ({}, CPU {})", k.id, k.lang, k.cpu)).collect();
        let mut lines = vec![kernels.join(", "), table.to_string()];
        lines.push("rtt: round trip in cycles of the emulator; they say nothing about hardware".into());
        lines.extend(self.notes());
        lines.join("\n")
    }

    /// Returns the results that have no column in the table, as lines of text.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.pairs.iter().any(|p| !matches!(p.mode, Mode::Xapic | Mode::X2apic)) {
            notes.push("on this architecture a cycle is one nanosecond of the machine's clock".into());
        }
        if let Some(worst) = self.drains.iter().max_by_key(|d| d.longest) {
            notes.push(format!(
                "drains: {} calls; at most {} calls in a row took nothing from a lane with messages; {} are allowed",
                self.drains.iter().map(|d| d.calls).sum::<u64>(),
                worst.longest,
                worst.allowed
            ));
        }
        for l in self.listed.iter().filter(|l| l.host_cpus > 1) {
            let Listed { kernel, host_cpus, room } = l;
            notes.push(format!(
                "kernel {kernel} found {host_cpus} CPUs of the host in the directory; it can have {room} CPUs itself"
            ));
        }
        for m in &self.moved {
            notes.push(format!(
                "CPU {} was moved between running kernels {} times, {} times in mid-stream",
                m.cpu, m.times, m.in_stream
            ));
        }
        for Spare { kernel, had, arrived, stray } in &self.spare {
            notes.push(format!(
                "kernel {kernel} was given this CPU {had} times, and {arrived} doorbells interrupted it there; stray doorbells: \
                 {stray}"
            ));
        }
        for k in &self.killed {
            notes.push(format!(
                "kernel {} was killed {} times in mid-stream; while it was dead, the host received {} messages of others\n\
                 in doubt: the kernel died while it handled or sent this message; no other message may be missing",
                k.kernel, k.times, k.meanwhile
            ));
        }
        notes
    }
}

/// The sums of the results of several runs.
#[derive(Debug, Default)]
pub struct Totals {
    boots: u64,
    kills: u64,
    counts: Counts,
}

impl Totals {
    /// Adds the results of a run.
    pub fn add(&mut self, run: &Summary) {
        self.boots += 1;
        self.kills += run.killed.iter().map(|k| u64::from(k.times)).sum::<u64>();
        for Pair { counts, .. } in &run.pairs {
            self.counts.sent += counts.sent;
            self.counts.received += counts.received;
            self.counts.lost += counts.lost;
            self.counts.in_doubt += counts.in_doubt;
            self.counts.torn += counts.torn;
            self.counts.doubled += counts.doubled;
            self.counts.disordered += counts.disordered;
            self.counts.doorbells += counts.doorbells;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { boots, kills, counts } = self;
        let Counts { sent, received, lost, in_doubt, torn, doubled, disordered, doorbells } = counts;
        write!(
            f,
            "{boots} boots, {kills} kills, {doorbells} doorbells, {sent} messages sent, {received} received, {in_doubt} in doubt, \
             {lost} lost, {torn} torn, {doubled} doubled, {disordered} disordered"
        )
    }
}

/// Prints the result of a command. If there is no `json`, the lines go to stdout. Otherwise the lines go to stderr, and `json` is
/// printed as the last line of stdout.
pub fn show(lines: &[String], json: Option<&impl Serialize>) -> Result<()> {
    if let Some(value) = json {
        eprintln!("{}", lines.join("\n"));
        println!("{}", serde_json::to_string(value)?);
    } else {
        println!("{}", lines.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let mut report = Report::default();
        for line in [
            r#"@{"kernel":{"id":0,"lang":"rust","cpu":0,"life":1}}"#,
            r#"@{"kernel":{"id":1,"lang":"rust","cpu":4,"life":1}}"#,
            r#"@{"sent":{"from":0,"to":1,"mode":"x2apic","generation":"rfc-v2","sent":9,"doorbells":8,"busy":7,"in_doubt":2,"rtt_cycles":{"min":1,"median":2,"p99":3}}}"#,
            r#"@{"received":{"from":0,"to":1,"mode":"x2apic","generation":"rfc-v2","received":6,"lost":3,"torn":5,"doubled":4,"disordered":2}}"#,
            r#"@{"drains":{"kernel":0,"calls":9,"longest":0,"allowed":1}}"#,
            r#"@{"listed":{"kernel":1,"host_cpus":128,"room":1}}"#,
            r#"@{"killed":{"kernel":1,"times":3,"in_stream":3,"meanwhile":8}}"#,
            r#"@{"received":{"from":1,"to":0,"mode":"x2apic","generation":"rfc-v2","received":6,"lost":3,"torn":5,"doubled":4}}"#,
        ] {
            assert!(report.take(line).is_some());
        }
        let mut summary = Summary::default();
        summary.add(&report, 2);
        summary
    }

    #[test]
    fn the_shape_of_the_json() {
        let expected = r#"{"kernels":[{"id":0,"lang":"rust","cpu":0,"life":1},{"id":1,"lang":"rust","cpu":4,"life":1}],"pairs":[{"from":0,"to":1,"mode":"x2apic","generation":"rfc-v2","sent":9,"received":6,"lost":3,"in_doubt":2,"torn":5,"doubled":4,"disordered":2,"doorbells":8,"rtt_cycles":{"min":1,"median":2,"p99":3}}],"drains":[{"kernel":0,"calls":9,"longest":0,"allowed":1}],"killed":[{"kernel":1,"times":3,"in_stream":3,"meanwhile":8}],"listed":[{"kernel":1,"host_cpus":128,"room":1}]}"#;
        assert_eq!(serde_json::to_string(&summary()).ok().as_deref(), Some(expected));
    }

    #[test]
    fn the_table_says_whose_cycles_they_are() {
        let text = summary().table();
        assert!(text.contains("kernel 1 (rust, CPU 4)"));
        assert!(text.contains("cycles of the emulator; they say nothing about hardware"));
        assert!(text.contains("0.888"), "doorbells per message");
        assert!(text.contains("killed 3 times"));
    }
}
