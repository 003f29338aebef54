// SPDX-License-Identifier: MIT OR Apache-2.0
//! What changed in a machine between two readings of its memory.

use crate::machine::{Machine, Region};
use crate::native::{self, Lane};
use serde::Serialize;
use std::time::Duration;

/// What changed in a lane between two readings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaneRates {
    /// The physical address of the region.
    pub region: u64,
    /// The instance that sends.
    pub from: u32,
    /// Lines that the receiver has released, per second: by how much CREDIT has grown.
    pub lines: f64,
    /// Messages that were handed to handlers, per second, as the receiver counts them.
    pub messages: f64,
    /// Doorbells for this lane, per second, as the sender counts them.
    pub doorbells: f64,
    /// Sends that found the lane full, per second.
    pub full: f64,
    /// Number of messages that are unread at the second reading.
    pub unread: u64,
    /// A remark, or empty.
    pub note: String,
}

/// What changed in the receiver's words of a region between two readings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReceiverRates {
    /// The physical address of the region.
    pub region: u64,
    /// By how much HEARTBEAT has grown, per second.
    pub beats: f64,
    /// A remark, or empty.
    pub note: &'static str,
}

/// What changed in a machine between two readings.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Seconds between the two readings.
    pub seconds: f64,
    /// The receivers of the native regions that were there at both readings.
    pub receivers: Vec<ReceiverRates>,
    /// The lanes that were used at both readings.
    pub lanes: Vec<LaneRates>,
}

impl Rates {
    /// Computes the rates from `before` to `now`. `time` is the time between the two readings.
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

/// The native regions of a machine.
fn natives(machine: &Machine) -> impl Iterator<Item = &native::Region> {
    machine.regions.iter().filter_map(|owned| match &owned.region {
        Region::Native(region) => Some(region),
        Region::RfcV2(_) => None,
    })
}

/// By how much a counter has grown, per second. 0 if it is smaller than before.
fn grown(was: u64, is: u64, seconds: f64) -> f64 {
    is.saturating_sub(was) as f64 / seconds
}

fn lane_rates(region: u64, was: &Lane, is: &Lane, seconds: f64) -> LaneRates {
    let per_second = |of: fn(&Lane) -> u64| grown(of(was), of(is), seconds);
    let lines = per_second(|lane| lane.control.credit);
    let stuck = lines == 0.0 && is.lines.unread != 0 && was.lines.unread != 0;
    let another = was.header.hello_word != is.header.hello_word;
    let note = match () {
        () if another => "the sender has written another hello",
        () if stuck => "the receiver takes no messages",
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
