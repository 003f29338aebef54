// SPDX-License-Identifier: MIT OR Apache-2.0
//! Medians, the table and the JSON.

use std::fmt;

use comfy_table::{presets, CellAlignment, Table};
use serde::Serialize;

/// What the two threads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// One message there, one back.
    RoundTrip,
    /// One after the other, in one direction.
    Stream,
}

/// A pattern and a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// What the threads do.
    pub pattern: Pattern,
    /// Bytes of a message.
    pub bytes: usize,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = match self.pattern {
            Pattern::RoundTrip => "round trip",
            Pattern::Stream => "stream",
        };
        write!(f, "{} B {pattern}", self.bytes)
    }
}

/// One contender's part in one workload.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Who.
    pub contender: &'static str,
    /// Messages that it can hold.
    pub cells: usize,
    /// The median over the rounds of its time by the round's floor.
    pub times_floor: f64,
    /// The median, in ns per round trip or per message.
    pub ns: f64,
    /// A stream's median in millions of messages per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub million_per_second: Option<f64>,
}

/// All that was measured of one workload.
#[derive(Debug, Serialize)]
pub struct Section {
    /// What was done.
    #[serde(flatten)]
    pub workload: Workload,
    /// The floor's median: ns per round trip of one cache line.
    pub floor_ns: f64,
    /// The contenders, in their order.
    pub outcomes: Vec<Outcome>,
}

impl Section {
    /// From what each round gave: the floor, and each contender's time.
    pub fn new(workload: Workload, contenders: &[(&'static str, usize)], rounds: &[(f64, Vec<f64>)]) -> Self {
        let outcome = |(at, &(contender, cells)): (usize, &(&'static str, usize))| {
            let ns = median(rounds.iter().map(|(_, times)| times[at]));
            Outcome {
                contender,
                cells,
                times_floor: median(rounds.iter().map(|(floor, times)| times[at] / floor)),
                ns,
                million_per_second: (workload.pattern == Pattern::Stream).then_some(1e3 / ns),
            }
        };
        Self {
            workload,
            floor_ns: median(rounds.iter().map(|(floor, _)| *floor)),
            outcomes: contenders.iter().enumerate().map(outcome).collect(),
        }
    }
}

/// A run of the program.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The CPUs of the two threads.
    pub cpus: [usize; 2],
    /// Rounds per workload.
    pub rounds: usize,
    /// Messages, or round trips, per measurement.
    pub messages: u64,
    /// One per workload.
    pub workloads: Vec<Section>,
}

impl fmt::Display for Report {
    /// One row per contender, two columns per workload: the ratio and the absolute.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        let mut header = vec![String::new(), "cells".into()];
        let mut floor = vec!["floor (one cache line)".into(), String::new()];
        for section in &self.workloads {
            header.extend([format!("{}\n× floor", section.workload), unit(section.workload.pattern).into()]);
            floor.extend(["1.00".into(), format!("{:.0} ns", section.floor_ns)]);
        }
        table.set_header(header).add_row(floor);
        for (at, first) in self.workloads.iter().take(1).flat_map(|s| s.outcomes.iter().enumerate()) {
            let mut row = vec![first.contender.to_owned(), first.cells.to_string()];
            for outcome in self.workloads.iter().map(|section| &section.outcomes[at]) {
                row.extend(match outcome.million_per_second {
                    Some(millions) => [format!("{:.3}", outcome.times_floor), format!("{millions:.1}")],
                    None => [format!("{:.2}", outcome.times_floor), format!("{:.0}", outcome.ns)],
                });
            }
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let Self { cpus: [a, b], rounds, messages, .. } = self;
        writeln!(f, "{table}\nCPUs {a} and {b}; medians of {rounds} rounds, {messages} messages each; less is better but for M/s")
    }
}

const fn unit(pattern: Pattern) -> &'static str {
    match pattern {
        Pattern::RoundTrip => "\nns",
        Pattern::Stream => "\nM/s",
    }
}

/// The middle one; of an even number the mean of the middle two. 0 of none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle.saturating_sub(1 - values.len() % 2)..=middle) {
        Some(middle) if !middle.is_empty() => middle.iter().sum::<f64>() / middle.len() as f64,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median([7.0].into_iter()), 7.0);
        assert_eq!(median([].into_iter()), 0.0);
    }

    #[test]
    fn a_ratio_is_to_its_own_rounds_floor() {
        let workload = Workload { pattern: Pattern::Stream, bytes: 48 };
        let rounds = [(10.0, vec![20.0]), (100.0, vec![200.0]), (50.0, vec![100.0])];
        let section = Section::new(workload, &[("x", 64)], &rounds);
        let [x] = section.outcomes.as_slice() else { panic!("one contender") };
        assert_eq!(
            (section.floor_ns, x.times_floor, x.ns, x.million_per_second),
            (50.0, 2.0, 100.0, Some(10.0))
        );
    }
}
