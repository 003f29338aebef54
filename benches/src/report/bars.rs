// SPDX-License-Identifier: MIT OR Apache-2.0
//! The goals of the native link on a machine that does nothing else. They are reported, and a missed goal is not an error,
//! because machines differ.

use super::{Outcome, Workload};
use crate::link::Kind;

/// A goal.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// The goal in words.
    pub what: String,
    /// The figure that was measured.
    pub found: f64,
    limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Bar {
    /// Whether the goal was reached.
    pub fn is_met(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) => self.found <= limit,
            Limit::AtLeast(limit) => self.found >= limit,
        }
    }

    /// The text of the limit, for the table.
    pub fn limit(&self) -> String {
        match self.limit {
            Limit::AtMost(limit) => format!("<= {limit:.2}"),
            Limit::AtLeast(limit) => format!(">= {limit:.2}"),
        }
    }
}

/// The goals that these workloads show.
pub fn bars(workloads: &[Workload]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for workload in workloads {
        let Some(ours) = workload.best(|outcome| outcome.label.ours) else { continue };
        let mut bar = |what: &str, found: Option<f64>, limit| {
            let what = format!("{} B {}, {what}", workload.bytes, workload.kind);
            bars.extend(found.map(|found| Bar { what, found, limit }));
        };
        let faster_than = |fits: &dyn Fn(&Outcome) -> bool| {
            let peer = workload.best(|outcome| !outcome.label.ours && fits(outcome))?;
            Some(peer.median_ns / ours.median_ns)
        };
        let room = |end: &'static str| faster_than(&|outcome| outcome.label.name.ends_with(end));
        match (workload.kind, workload.bytes) {
            (Kind::RoundTrip, bytes @ (48 | 256)) => {
                let limit = if bytes == 48 { 1.25 } else { 1.2 };
                bar("times the floor", Some(ours.ratio_to_floor.median), Limit::AtMost(limit));
                let ratio = ours.ratio_to_best_peer.map(|ratio| ratio.median);
                bar("times the best peer", ratio, Limit::AtMost(1.0));
            }
            (Kind::Stream, 48) => {
                bar("faster than the best peer of 64 cells by", room("64 cells"), Limit::AtLeast(2.0));
                bar(
                    "faster than the best peer of the same bytes by",
                    room("same bytes"),
                    Limit::AtLeast(1.0),
                );
            }
            (Kind::Stream, 256) => {
                bar("faster than the best peer by", faster_than(&|_| true), Limit::AtLeast(1.5));
            }
            _ => {}
        }
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::super::tests::workload;
    use super::*;

    #[test]
    fn the_best_of_ours_counts_and_the_best_peer_of_the_kind_that_is_meant() {
        let took = [
            ("mk-ipi send", 30.0),
            ("mk-ipi post_many", 20.0),
            ("a, 64 cells", 44.0),
            ("b, 64 cells", 90.0),
            ("a, same bytes", 19.0),
        ];
        let found = bars(&[workload(Kind::Stream, 48, &took)]);
        let figures: Vec<_> = found.iter().map(|bar| (bar.found, bar.is_met())).collect();
        assert_eq!(figures, [(2.2, true), (0.95, false)]);
    }

    #[test]
    fn a_round_trip_has_a_floor_and_a_peer() {
        let found = bars(&[workload(Kind::RoundTrip, 256, &[("mk-ipi send", 121.0), ("a, 64 cells", 50.0)])]);
        let figures: Vec<_> = found.iter().map(|bar| (bar.limit(), bar.is_met())).collect();
        assert_eq!(figures, [("<= 1.20".into(), false), ("<= 1.00".into(), false)]);
        assert_eq!(bars(&[workload(Kind::RoundTrip, 8, &[("mk-ipi send", 1.0)])]), []);
    }
}
