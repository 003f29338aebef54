// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shows a machine as text, with tables.

use crate::directory::Directory;
use crate::finding::Severity;
use crate::machine::{Machine, Owned, Region};
use crate::native::{self, Lane, State};
use crate::rates::Rates;
use crate::rfc_v2::{self, Content};
use comfy_table::{presets, Table};
use std::fmt::Write;

/// Makes an empty table with these column titles.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}

/// The numbers, separated by commas.
fn numbers(list: &[u64]) -> String {
    list.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

/// The state of the link, in words.
pub const fn state(state: State) -> &'static str {
    match state {
        State::Silent => "no hello",
        State::Open => "open",
        State::NeverAnswered => "open, not answered yet",
        State::WaitsForReceiver => "waits for the receiver",
        State::WaitsForSender => "waits for the sender",
        State::Disowned => "disowned",
        State::Quarantined => "quarantine",
        State::Nonsense => "invalid hello",
    }
}

/// Returns all that was found, as text.
pub fn machine(machine: &Machine) -> String {
    let mut out = String::new();
    for directory in &machine.directories {
        out.push_str(&self::directory(directory));
    }
    for owned in &machine.regions {
        out.push_str(&region(owned));
    }
    if machine.directories.is_empty() && machine.regions.is_empty() {
        out.push_str(
            "Nothing of mk-ipi was found. Slots (RFC v2) have no stamp: give their address by --at, and their number by --slots.\n",
        );
    }
    let findings = machine.findings();
    if !findings.is_empty() {
        out.push('\n');
    }
    for finding in findings {
        let severity = match finding.severity {
            Severity::Broken => "BROKEN",
            Severity::Suspect => "look again",
            Severity::Note => "note",
        };
        let _ = writeln!(out, "{severity}: {}: {}.\n    {}", finding.place, finding.what, finding.meaning);
    }
    out
}

fn directory(directory: &Directory) -> String {
    let mut out = format!("directory {:#x}", directory.at);
    if let Some(generation) = directory.generation {
        let _ = write!(out, ": generation {generation}, room for {} instances", directory.room);
    }
    if let Some(cpu) = directory.boot_cpu {
        let _ = write!(out, ", boot CPU {cpu}");
    }
    let mut table = table(&["instance", "life", "state", "layout", "region", "doorbell", "CPUs"]);
    for i in &directory.instances {
        let region = i.region.map_or("-".into(), |(at, len)| format!("{at:#x}+{len:#x}"));
        let layout = format!("{}{}", i.layout, if i.exclusive { ", exclusive" } else { "" });
        let only = if i.one_doorbell { ", only there" } else { "" };
        let doorbell = format!("CPU {} vector {:#x}{only}", i.doorbell_cpu, i.vector);
        table.add_row([
            i.id.to_string(),
            i.incarnation.to_string(),
            i.state.into(),
            layout,
            region,
            doorbell,
            numbers(&i.cpus),
        ]);
    }
    let _ = writeln!(out, "\n{table}");
    out
}

fn region(owned: &Owned) -> String {
    let whose = owned.instance.map_or("of no known instance".into(), |id| format!("of instance {id}"));
    match &owned.region {
        Region::Native(region) => native(region, &whose),
        Region::RfcV2(region) => slots(region, &whose),
    }
}

/// The first line about a native region.
pub fn title(region: &native::Region, whose: &str) -> String {
    let mut out = format!("region {:#x} {whose}: native", region.at);
    if let Some(shape) = &region.shape {
        let _ = write!(
            out,
            ", {} lanes of {} lines, messages of up to {} bytes",
            shape.lanes, shape.lines, shape.max_len
        );
    }
    out
}

/// The receiver's words that do not belong to a lane, in one line.
pub fn receiver(receiver: &native::Receiver) -> String {
    let life = match receiver.life {
        None => format!("LIFE is {:#x}", receiver.life_word),
        Some(life) if receiver.over => format!("life {life} has said goodbye"),
        Some(life) => format!("life {life}"),
    };
    let bell = receiver.bell.map_or("at the doorbell in the directory".into(), |(cpu, vector)| {
        format!("at CPU {cpu}, vector {vector:#x}")
    });
    let rung = if receiver.armed { "wants to be rung" } else { "needs no doorbell now" };
    format!("receiver: {life}, heartbeat {}, {rung}, {bell}", receiver.heartbeat)
}

fn native(region: &native::Region, whose: &str) -> String {
    let mut out = title(region, whose) + "\n";
    let Some(of) = &region.receiver else { return out };
    let _ = writeln!(out, "{}", receiver(of));
    let header = [
        "from",
        "life",
        "link",
        "CREDIT",
        "in handler",
        "unread",
        "waits for CREDIT",
        "received",
        "doorbells",
        "found full",
    ];
    let mut table = table(&header);
    table.add_rows(region.lanes.iter().map(row));
    if !region.lanes.is_empty() {
        let _ = writeln!(out, "{table}");
    }
    if region.unused_lanes != 0 {
        let _ = writeln!(out, "{} lanes were never used", region.unused_lanes);
    }
    for lane in &region.lanes {
        for m in &lane.lines.messages {
            let _ = writeln!(
                out,
                "  unread from {}: number {}, type {:#x}, {} bytes: {}",
                lane.instance, m.number, m.msg_type, m.len, m.begins
            );
        }
        let more = lane.lines.unread - lane.lines.messages.len() as u64;
        if more != 0 && !lane.lines.messages.is_empty() {
            let _ = writeln!(out, "  and {more} more from {}", lane.instance);
        }
    }
    out
}

/// The row of a lane.
fn row(lane: &Lane) -> [String; 10] {
    let handing =
        if lane.control.handed > lane.control.credit { lane.control.handed.to_string() } else { "-".into() };
    let wants =
        if lane.header.want > lane.control.credit { lane.header.want.to_string() } else { "-".into() };
    let gap = if lane.lines.behind_gap == 0 {
        String::new()
    } else {
        format!(" +{} after a gap", lane.lines.behind_gap)
    };
    [
        lane.instance.to_string(),
        lane.header.hello.map_or("-".into(), |hello| hello.incarnation.to_string()),
        state(lane.state).into(),
        lane.control.credit.to_string(),
        handing,
        format!("{}{gap}", lane.lines.unread),
        wants,
        lane.control.received.to_string(),
        lane.header.rung.to_string(),
        lane.header.full.to_string(),
    ]
}

fn slots(region: &rfc_v2::Region, whose: &str) -> String {
    let mut out = format!("region {:#x} {whose}: RFC v2, {} slots\n", region.at, region.slots);
    let mut table = table(&["CPU", "holds"]);
    for slot in &region.used {
        let holds = match &slot.content {
            Content::Message { sender_cpu, msg_type, len, begins } => {
                format!("a message from CPU {sender_cpu}, type {msg_type:#x}, {len} bytes: {begins}")
            }
            Content::Claimed { instance, incarnation } => {
                format!("a claim of instance {instance}, life {incarnation}")
            }
            Content::BadSize { size } => format!("the size {size:#x}"),
        };
        table.add_row([slot.cpu.to_string(), holds]);
    }
    if region.used.is_empty() {
        out.push_str("all slots are empty\n");
    } else {
        let _ = writeln!(out, "{table}");
    }
    out
}

/// Returns a table of what changed between two readings, with the heartbeats above it.
pub fn rates(rates: &Rates) -> String {
    let header = ["region", "from", "lines/s", "messages/s", "doorbells/s", "found full/s", "unread", "note"];
    let mut table = table(&header);
    for lane in &rates.lanes {
        let per_second = |n: f64| if n == 0.0 { "0".into() } else { format!("{n:.1}") };
        table.add_row([
            format!("{:#x}", lane.region),
            lane.from.to_string(),
            per_second(lane.lines),
            per_second(lane.messages),
            per_second(lane.doorbells),
            per_second(lane.full),
            lane.unread.to_string(),
            lane.note.clone(),
        ]);
    }
    let beats: Vec<String> =
        rates.receivers.iter().map(|r| format!("{:#x}: {:.1}/s{}", r.region, r.beats, r.note)).collect();
    format!("heartbeats  {}\n{table}\n", beats.join("  "))
}
