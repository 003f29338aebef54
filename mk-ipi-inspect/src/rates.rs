// SPDX-License-Identifier: MIT OR Apache-2.0
//! What changed between two looks at a machine.

use crate::machine::{Machine, Region};
use crate::native::{self, Lane};
use serde::Serialize;
use std::time::Duration;

/// What a lane did between the two looks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaneRates {
    /// The region.
    pub region: u64,
    /// The instance that sends.
    pub from: u32,
    /// Lines that were handled, each second.
    pub lines: f64,
    /// Messages that were handled, each second, as the receiver counts them.
    pub messages: f64,
    /// Doorbells for this lane, each second, as the sender counts them.
    pub doorbells: f64,
    /// Sends that found the lane full, each second.
    pub full: f64,
    /// Messages that are unread now.
    pub unread: u64,
    /// A remark, or empty.
    pub note: String,
}

/// What a receiver did between the two looks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReceiverRates {
    /// Its region.
    pub region: u64,
    /// Its heartbeats, each second.
    pub beats: f64,
    /// A remark, or empty.
    pub note: &'static str,
}

/// What a machine did between the two looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Seconds between the two looks.
    pub seconds: f64,
    /// The receivers.
    pub receivers: Vec<ReceiverRates>,
    /// The lanes.
    pub lanes: Vec<LaneRates>,
}

impl Rates {
    /// Computes the rates from `before` to `now`, which are `time` apart.
    pub fn between(before: &Machine, now: &Machine, time: Duration) -> Self {
        let seconds = time.as_secs_f64().max(1e-9);
        let mut rates = Self { seconds, ..Self::default() };
        for region in natives(now) {
            let Some(old) = natives(before).find(|old| old.at == region.at) else { continue };
            if let Some((was, is)) = old.receiver.as_ref().zip(region.receiver.as_ref()) {
                let note = if was.life != is.life { ", another life" } else { "" };
                let beats = grown(was.heartbeat, is.heartbeat, seconds);
                rates.receivers.push(ReceiverRates { region: region.at, beats, note });
            }
            for lane in &region.lanes {
                if let Some(was) = old.lanes.iter().find(|was| was.instance == lane.instance) {
                    rates.lanes.push(lane_rates(region.at, was, lane, seconds));
                }
            }
        }
        rates
    }
}

fn natives(machine: &Machine) -> impl Iterator<Item = &native::Region> {
    machine.regions.iter().filter_map(|owned| match &owned.region {
        Region::Native(region) => Some(region),
        Region::RfcV2(_) => None,
    })
}

/// How much a counter grew, each second; 0 if it was reset.
fn grown(was: u64, is: u64, seconds: f64) -> f64 {
    is.saturating_sub(was) as f64 / seconds
}

fn lane_rates(region: u64, was: &Lane, is: &Lane, seconds: f64) -> LaneRates {
    let per_second = |of: fn(&Lane) -> u64| grown(of(was), of(is), seconds);
    let lines = per_second(|lane| lane.control.credit);
    let stuck = lines == 0.0 && is.lines.unread != 0 && was.lines.unread != 0;
    let another = was.header.hello_word != is.header.hello_word;
    let note = match () {
        () if another => "another life or attachment of the sender",
        () if stuck => "nothing is read",
        () => "",
    };
    LaneRates {
        region,
        from: is.instance,
        lines,
        messages: per_second(|lane| lane.control.received),
        doorbells: per_second(|lane| lane.header.rung),
        full: per_second(|lane| lane.header.full),
        unread: is.lines.unread,
        note: note.into(),
    }
}
