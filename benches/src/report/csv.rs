// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures as CSV, with a line for each floor and each contender of each workload. The columns `floor_*` and `best_peer_*`
//! are ratios: the time, divided by the floor of this message size, or by the time of the best peer.

use super::Report;
use crate::link::{Label, Room};
use crate::stats::Quartiles;

const HEADER: &str = "kind,bytes,name,ours,interface,messages,memory_bytes,pause,median_ns,\
    floor_q1,floor_median,floor_q3,best_peer_q1,best_peer_median,best_peer_q3\n";

impl Report {
    /// The text of the CSV file. In the line of a floor, `interface` is `floor`, and the columns `ours`, `messages`,
    /// `memory_bytes` and `best_peer_*` are empty.
    pub fn csv(&self) -> String {
        let mut text = HEADER.to_owned();
        for workload in &self.workloads {
            let line = |name: &str, what: String, pause, nanos, ratios: String| {
                format!(
                    "{},{},\"{name}\",{what},{pause},{nanos:.2},{ratios}\n",
                    workload.kind.slug(),
                    workload.bytes
                )
            };
            for floor in &workload.floors {
                let ratios = [Some(floor.nanos.by(workload.floor_ns)), None].map(fields).join(",");
                text += &line(
                    &floor.name.to_string(),
                    ",floor,,".into(),
                    floor.pause,
                    floor.nanos.median,
                    ratios,
                );
            }
            for outcome in &workload.contenders {
                let Label { name, ours, interface, room: Room { messages, memory_bytes } } = &outcome.label;
                let what = format!("{ours},{},{messages},{memory_bytes}", interface.slug());
                let ratios = [Some(outcome.ratio_to_floor), outcome.ratio_to_best_peer].map(fields).join(",");
                text += &line(name, what, outcome.pause, outcome.median_ns, ratios);
            }
        }
        text
    }
}

fn fields(ratio: Option<Quartiles>) -> String {
    ratio.map_or_else(|| ",,".into(), |Quartiles { q1, median, q3 }| format!("{q1:.4},{median:.4},{q3:.4}"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{report, workload};
    use super::HEADER;
    use crate::link::Kind;

    #[test]
    fn each_line_has_every_column() {
        let report = report(vec![workload(Kind::Stream, 48, &[("mk-ipi", 20.0), ("rtrb", 40.0)])]);
        let csv = report.csv();
        assert_eq!(csv.lines().count(), 1 + 1 + 2);
        let columns = |line: &str| line.replace(", ", " ").split(',').count();
        assert!(csv.lines().all(|line| columns(line) == columns(HEADER)), "{csv}");
        assert!(
            csv.contains("stream,48,\"rtrb\",false,single,64,3072,1,40.00,0.4000,0.4000,0.4000,0.8000"),
            "{csv}"
        );
    }
}
