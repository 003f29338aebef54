// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report: all figures. The names of the fields are also the names in the JSON output.

mod bars;
mod csv;
mod plots;
mod table;

use serde::Serialize;

use crate::floor::Floor;
use crate::link::{Contender, Kind, Label};
use crate::machine::Topology;
use crate::message::Handler;
use crate::ours::WakeUp;
use crate::pair::Pause;
use crate::rounds::Measured;
use crate::stats::{Best, Quartiles};

/// The figures of one run of the program.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The machine.
    pub topology: Topology,
    /// Whether the threads had priority over all ordinary threads. Without this priority the operating system interrupts them.
    pub realtime: bool,
    /// How much of each message was read.
    pub handler: Handler,
    /// The workloads, one for each kind and size.
    pub workloads: Vec<Workload>,
    /// The cost of a message to a receiver that waits for a doorbell.
    pub wake_up: Vec<WakeUp>,
}

/// All figures of one kind and one message size.
#[derive(Debug, Serialize)]
pub struct Workload {
    /// What the threads did.
    pub kind: Kind,
    /// Bytes of a message.
    pub bytes: usize,
    /// Nanoseconds of the floor of a message of this size. Ratios are multiples of it.
    pub floor_ns: f64,
    /// All floors. The floor of this message size is the first.
    pub floors: Vec<FloorTime>,
    /// How many rounds count.
    pub rounds: usize,
    /// How many rounds did not count, because a floor changed too much.
    pub discarded: usize,
    /// The name of the peer (a queue that is not of mk-ipi) with the smallest median.
    pub best_peer: Option<String>,
    /// All contenders.
    pub contenders: Vec<Outcome>,
}

/// The time of a floor.
#[derive(Debug, Serialize)]
pub struct FloorTime {
    /// Which floor.
    pub name: Floor,
    /// The pause that was best.
    pub pause: Pause,
    /// Nanoseconds of a round trip. The quartiles are far apart if the machine changed between rounds, as virtual machines do.
    pub nanos: Quartiles,
}

/// The times of one contender.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The contender.
    #[serde(flatten)]
    pub label: Label,
    /// The pause that was best.
    pub pause: Pause,
    /// Nanoseconds of a round trip or a message.
    pub median_ns: f64,
    /// The time, divided by the floor of the same round.
    pub ratio_to_floor: Quartiles,
    /// The time, divided by the time of the best peer in the same round. `None` if there was no peer.
    pub ratio_to_best_peer: Option<Quartiles>,
}

impl Workload {
    /// Computes the figures; `None` if nothing was measured.
    pub fn new(kind: Kind, bytes: usize, contenders: &[Contender], measured: &Measured) -> Option<Self> {
        let floors: Vec<_> =
            measured.floors.iter().filter_map(|(floor, times)| Some((*floor, times.best()?))).collect();
        let (_, own_floor) = floors.first()?;
        let labels = contenders.iter().map(|contender| &contender.label);
        let all: Vec<(&Label, Best<'_>)> = labels
            .zip(&measured.contenders)
            .filter_map(|(label, times)| Some((label, times.best()?)))
            .collect();
        let peers = all.iter().filter(|(label, _)| !label.ours);
        let best_peer = peers.min_by(|(_, a), (_, b)| a.median_ns().total_cmp(&b.median_ns()));
        let outcome = |(label, best): &(&Label, Best<'_>)| {
            Some(Outcome {
                label: (*label).clone(),
                pause: best.pause,
                median_ns: best.median_ns(),
                ratio_to_floor: best.ratio_to(own_floor)?,
                ratio_to_best_peer: best_peer.and_then(|(_, peer)| best.ratio_to(peer)),
            })
        };
        let floor = |(name, best): &(Floor, Best<'_>)| FloorTime {
            name: *name,
            pause: best.pause,
            nanos: best.quartiles,
        };
        Some(Self {
            kind,
            bytes,
            floor_ns: own_floor.median_ns(),
            floors: floors.iter().map(floor).collect(),
            rounds: measured.rounds,
            discarded: measured.discarded,
            best_peer: best_peer.map(|(label, _)| label.name.clone()),
            contenders: all.iter().filter_map(outcome).collect(),
        })
    }

    /// The contender with the smallest median, among those for which `fits` is true.
    pub fn best(&self, fits: impl Fn(&Outcome) -> bool) -> Option<&Outcome> {
        let all = self.contenders.iter().filter(|outcome| fits(outcome));
        all.min_by(|a, b| a.median_ns.total_cmp(&b.median_ns))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::link::{Interface, Room};

    /// A report with these workloads.
    pub fn report(workloads: Vec<Workload>) -> Report {
        let topology = Topology::default();
        Report { topology, realtime: false, handler: Handler::Heavy, workloads, wake_up: Vec::new() }
    }

    fn quartiles(all: f64) -> Quartiles {
        Quartiles { q1: all, median: all, q3: all }
    }

    /// A workload with these contenders and their times, and a floor of 100 ns.
    pub fn workload(kind: Kind, bytes: usize, took: &[(&str, f64)]) -> Workload {
        let outcome = |(name, nanos): &(&str, f64)| {
            let ratio = |by: f64| quartiles(*nanos).by(by);
            Outcome {
                label: Label {
                    name: (*name).into(),
                    ours: name.starts_with("mk-ipi"),
                    interface: Interface::Single,
                    room: Room { messages: 64, memory_bytes: 64 * bytes },
                },
                pause: 1,
                median_ns: *nanos,
                ratio_to_floor: ratio(100.0),
                ratio_to_best_peer: Some(ratio(50.0)),
            }
        };
        Workload {
            kind,
            bytes,
            floor_ns: 100.0,
            floors: vec![FloorTime { name: Floor::of(bytes), pause: 0, nanos: quartiles(100.0) }],
            rounds: 3,
            discarded: 0,
            best_peer: Some("rtrb, 64 cells".into()),
            contenders: took.iter().map(outcome).collect(),
        }
    }

    #[test]
    fn the_tables_can_be_printed() {
        let took = [("mk-ipi send", 110.0), ("rtrb, 64 cells", 50.0)];
        let text = report([48, 256].map(|bytes| workload(Kind::Stream, bytes, &took)).into()).to_string();
        for part in ["rtrb, 64 cells", "5 lines, one writer", "256 B stream", "NOT MET"] {
            assert!(text.contains(part), "{part}");
        }
    }

    #[test]
    fn the_json_has_what_is_promised() {
        let workload = workload(Kind::RoundTrip, 48, &[("mk-ipi send", 110.0), ("rtrb, 64 cells", 50.0)]);
        let json = serde_json::to_value(&workload).expect("it can be written");
        assert_eq!((&json["kind"], &json["bytes"]), (&"round_trip".into(), &48.into()));
        assert_eq!(json["floor_ns"], 100.0);
        let ours = &json["contenders"][0];
        assert_eq!((&ours["ours"], &ours["interface"]), (&true.into(), &"single".into()));
        assert_eq!((&ours["messages"], &ours["memory_bytes"]), (&64.into(), &3072.into()));
        assert_eq!(ours["ratio_to_floor"]["median"], 1.1);
        assert!(ours["ratio_to_best_peer"]["q1"].is_number() && ours["median_ns"].is_number());
    }
}
