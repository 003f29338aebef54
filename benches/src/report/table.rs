// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report as tables.

use std::fmt;

use comfy_table::{presets, CellAlignment, Table};

use super::bars::{bars, Bar};
use super::{Outcome, Report, Workload};
use crate::stats::Quartiles;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.topology)?;
        let how = if self.realtime {
            "with priority over all ordinary threads (SCHED_FIFO)"
        } else {
            "with ordinary priority (the operating system does not allow SCHED_FIFO, or an option excludes it)"
        };
        writeln!(f, "The threads ran {how}.")?;
        self.workloads.iter().try_for_each(|workload| write!(f, "{workload}"))?;
        if self.workloads.len() > 1 {
            writeln!(f, "\nThe best contenders at each size\n{}", overview(&self.workloads))?;
        }
        let bars = bars(&self.workloads);
        if !bars.is_empty() {
            writeln!(f, "\nGoals of the native link\n{}", bar_table(&bars))?;
        }
        if !self.wake_up.is_empty() {
            writeln!(
                f,
                "\nA message to a receiver that waits for a doorbell: from the send to the end of the deferred work\n{}",
                wake_up(self)
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, bytes, rounds, discarded, .. } = self;
        let best = self.best_peer.as_deref().unwrap_or("none");
        writeln!(f, "\n{bytes} B {kind}: {rounds} rounds, {discarded} discarded; best peer: {best}")?;
        let header = [
            "",
            "interface",
            "messages",
            "bytes",
            "pause",
            "ns",
            "x floor",
            "[quartiles]",
            "x best peer",
            "[quartiles]",
        ];
        let mut table = new_table(header.map(ToOwned::to_owned));
        for floor in &self.floors {
            let [ratio, quartiles] = ratio(Some(floor.nanos.by(self.floor_ns)));
            let blank = String::new;
            table.add_row([
                floor.name.to_string(),
                "floor".into(),
                blank(),
                blank(),
                floor.pause.to_string(),
                nanos(floor.nanos.median),
                ratio,
                quartiles,
            ]);
        }
        self.contenders.iter().for_each(|outcome| _ = table.add_row(row(outcome)));
        right(&mut table, 2);
        writeln!(f, "{table}")
    }
}

fn row(outcome: &Outcome) -> [String; 10] {
    let label = &outcome.label;
    let [floor, floor_quartiles] = ratio(Some(outcome.ratio_to_floor));
    let [peer, peer_quartiles] = ratio(outcome.ratio_to_best_peer);
    [
        label.name.clone(),
        label.interface.slug().into(),
        label.room.messages.to_string(),
        label.room.memory_bytes.to_string(),
        outcome.pause.to_string(),
        nanos(outcome.median_ns),
        floor,
        floor_quartiles,
        peer,
        peer_quartiles,
    ]
}

/// A table with a line for each workload: the best link of mk-ipi, and the best peer.
fn overview(workloads: &[Workload]) -> Table {
    let header =
        ["", "floor ns", "best of ours", "ns", "x floor", "best peer", "ns", "x floor", "ours x best peer"];
    let mut table = new_table(header.map(ToOwned::to_owned));
    for workload in workloads {
        let [ours, peer] = [true, false].map(|ours| workload.best(|outcome| outcome.label.ours == ours));
        let who = |outcome: Option<&Outcome>| match outcome {
            Some(outcome) => [
                outcome.label.name.clone(),
                nanos(outcome.median_ns),
                format!("{:.2}", outcome.ratio_to_floor.median),
            ],
            None => [(); 3].map(|()| String::new()),
        };
        let [ratio, _] = ratio(ours.and_then(|outcome| outcome.ratio_to_best_peer));
        let mut row = vec![format!("{} B {}", workload.bytes, workload.kind), nanos(workload.floor_ns)];
        row.extend(who(ours).into_iter().chain(who(peer)).chain([ratio]));
        table.add_row(row);
    }
    right(&mut table, 1);
    table
}

fn bar_table(bars: &[Bar]) -> Table {
    let mut table = new_table(["", "limit", "found", ""].map(ToOwned::to_owned));
    for bar in bars {
        let met = if bar.is_met() { "met" } else { "NOT MET" };
        table.add_row([bar.what.clone(), bar.limit(), format!("{:.2}", bar.found), met.into()]);
    }
    right(&mut table, 1);
    table
}

fn wake_up(report: &Report) -> Table {
    let header = ["idle peers", "ns", "[quartiles]", "loads", "stores", "atomic read-modify-writes"];
    let mut table = new_table(header.map(ToOwned::to_owned));
    for wake_up in &report.wake_up {
        let [_, quartiles] = ratio(Some(wake_up.nanos));
        table.add_row([
            wake_up.idle_peers.to_string(),
            nanos(wake_up.nanos.median),
            quartiles,
            wake_up.accesses.loads.to_string(),
            wake_up.accesses.stores.to_string(),
            wake_up.accesses.exchanges.to_string(),
        ]);
    }
    right(&mut table, 0);
    table
}

fn new_table<const N: usize>(header: [String; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header);
    table
}

fn right(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn nanos(nanos: f64) -> String {
    format!("{nanos:.1}")
}

/// The texts for the median, and for the first and the third quartile.
fn ratio(ratio: Option<Quartiles>) -> [String; 2] {
    match ratio {
        Some(Quartiles { q1, median, q3 }) => [format!("{median:.2}"), format!("[{q1:.2} {q3:.2}]")],
        None => [(); 2].map(|()| String::new()),
    }
}
