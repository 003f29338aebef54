// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shows a machine as a picture. For each lane there is a bar, which shows the lines of the lane from position CREDIT on.

use crate::finding::Severity;
use crate::machine::{Machine, Region};
use crate::native::{self, Lane, State};
use crate::text;
use std::fmt::Write;

/// Width of the picture.
const WIDTH: u32 = 960;
/// Where the bars begin.
const LEFT: u32 = 250;
/// Length of a bar.
const BAR: u32 = 480;
/// Height of a row.
const ROW: u32 = 22;
/// The largest number of lanes that are drawn for each region. Also the largest number of findings that are drawn.
const MAX_ROWS: usize = 64;

/// What each part of a bar means, and its colour.
const LEGEND: [(&str, &str); 5] = [
    ("being handled", "#e69f00"),
    ("unread", "#0072b2"),
    ("after a gap", "#f0e442"),
    ("breaks the protocol", "#d55e00"),
    ("free", "#eeeeee"),
];

/// The picture while it is drawn.
struct Canvas {
    body: String,
    /// The base line of the row that is drawn.
    y: u32,
}

impl Canvas {
    /// Writes `text` into the present row, from `x` on.
    fn text(&mut self, x: u32, class: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(self.body, "<text x=\"{x}\" y=\"{}\" class=\"{class}\">{text}</text>", self.y);
    }

    /// Begins the next row with `text`.
    fn line(&mut self, class: &str, text: &str) {
        self.y += ROW;
        self.text(16, class, text);
    }

    /// Draws a part of the bar in the present row. `from` and `to` are 0 at the beginning of the bar and 1 at its end.
    fn bar(&mut self, from: f64, to: f64, colour: &str) {
        let (x, width) = (f64::from(LEFT) + from * f64::from(BAR), (to - from).max(0.0) * f64::from(BAR));
        let y = self.y - 13;
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"16\" fill=\"{colour}\"/>"
        );
    }
}

/// Returns the picture, as SVG.
pub fn machine(machine: &Machine) -> String {
    let mut canvas = Canvas { body: String::new(), y: 8 };
    for directory in &machine.directories {
        let generation = directory.generation.map_or("none".into(), |n| n.to_string());
        canvas.line("title", &format!("directory {:#x}, generation {generation}", directory.at));
        for i in &directory.instances {
            let cpus: Vec<String> = i.cpus.iter().take(16).map(u64::to_string).collect();
            let about =
                format!("instance {}: life {}, {}, CPUs {}", i.id, i.incarnation, i.state, cpus.join(","));
            canvas.line("plain", &about);
        }
    }
    for owned in &machine.regions {
        canvas.y += ROW / 2;
        let whose = owned.instance.map_or("of no known instance".into(), |id| format!("of instance {id}"));
        match &owned.region {
            Region::Native(region) => native(&mut canvas, region, &whose),
            Region::RfcV2(region) => {
                canvas.line("title", &format!("region {:#x} {whose}: RFC v2", region.at));
                canvas
                    .line("plain", &format!("{} of {} slots are not empty", region.used.len(), region.slots));
            }
        }
    }
    canvas.y += ROW / 2;
    for finding in machine.findings().into_iter().take(MAX_ROWS) {
        let class = match finding.severity {
            Severity::Broken => "broken",
            Severity::Suspect => "suspect",
            Severity::Note => "plain",
        };
        canvas.line(class, &format!("{}: {}", finding.place, finding.what));
    }
    legend(&mut canvas);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <style>.title{{font-weight:bold}} .broken{{fill:#b00000;font-weight:bold}} .suspect{{fill:#a05a00}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{}</svg>\n",
        canvas.y + ROW,
        canvas.body
    )
}

fn native(canvas: &mut Canvas, region: &native::Region, whose: &str) {
    canvas.line("title", &text::title(region, whose));
    let (Some(receiver), Some(shape)) = (&region.receiver, &region.shape) else {
        return canvas.line("broken", "the stamp is not valid");
    };
    canvas.line("plain", &text::receiver(receiver));
    for lane in region.lanes.iter().take(MAX_ROWS) {
        self::lane(canvas, lane, f64::from(shape.lines));
    }
    if region.lanes.len() > MAX_ROWS {
        canvas.line("plain", &format!("and {} more lanes", region.lanes.len() - MAX_ROWS));
    }
}

fn lane(canvas: &mut Canvas, lane: &Lane, lines: f64) {
    let class = match lane.state {
        State::Open | State::NeverAnswered | State::Silent => "plain",
        State::WaitsForReceiver | State::WaitsForSender => "suspect",
        State::Quarantined | State::Disowned | State::Nonsense => "broken",
    };
    canvas.line(class, &format!("from {}: {}", lane.instance, text::state(lane.state)));
    let [handing, unread, gap, breach, free] = LEGEND.map(|(_, colour)| colour);
    canvas.bar(0.0, 1.0, free);
    let base = lane.control.credit;
    let at = |position: u64| (position.saturating_sub(base) as f64 / lines).clamp(0.0, 1.0);
    if let Some(next) = lane.next {
        let first_gap = next.saturating_add(lane.lines.unread_lines);
        canvas.bar(0.0, at(next), handing);
        canvas.bar(at(next), at(first_gap), unread);
        if lane.lines.behind_gap != 0 {
            canvas.bar(at(first_gap), at(lane.lines.end), gap);
        }
        if lane.lines.breach_to_come.is_some() {
            canvas.bar(at(lane.lines.end), at(lane.lines.end.saturating_add(1)), breach);
        }
    }
    let about = format!("{} unread, {} received", lane.lines.unread, lane.control.received);
    canvas.text(LEFT + BAR + 12, "plain", &about);
}

fn legend(canvas: &mut Canvas) {
    canvas.y += ROW + ROW / 2;
    for ((name, colour), x) in LEGEND.iter().zip((16..).step_by(180)) {
        let _ = writeln!(
            canvas.body,
            "<rect x=\"{x}\" y=\"{}\" width=\"14\" height=\"14\" fill=\"{colour}\" stroke=\"#888888\"/>",
            canvas.y - 12
        );
        canvas.text(x + 20, "plain", name);
    }
}
