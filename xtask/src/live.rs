// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shows the progress of a run of the machine while the machine runs.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::record::{Mode, Progress, Record};

/// Shows the progress on stderr: as bars if stderr is a terminal, otherwise as lines.
pub struct Live {
    mode: Mode,
    /// The bars; `None` if stderr is not a terminal.
    bars: Option<MultiProgress>,
    /// For each kernel: its bar, and how many tenths of its messages it had received when it wrote its last progress record.
    kernels: BTreeMap<u32, (ProgressBar, u64)>,
}

impl Live {
    /// Begins the output for a run in this mode.
    pub fn new(mode: Mode) -> Self {
        let bars = io::stderr().is_terminal().then(MultiProgress::new);
        Self { mode, bars, kernels: BTreeMap::new() }
    }

    /// Shows a record, if users need to see it.
    pub fn saw(&mut self, record: &Record) {
        match record {
            Record::Kernel(k) => {
                let life = if k.life > 1 { format!(", life {}", k.life) } else { String::new() };
                self.say(&format!("{}: kernel {} runs on CPU {}{life}", self.mode, k.id, k.cpu))
            }
            Record::Error { kernel, text } => self.say(&format!("{}: kernel {kernel}: {text}", self.mode)),
            Record::Progress(p) => self.progress(p),
            Record::Moving { done, of } => self.say(&format!("{}: {done} of {of} moves", self.mode)),
            Record::Step(step) => self.say(&format!("{}: {step}", self.mode)),
            _ => {}
        }
    }

    fn say(&self, text: &str) {
        match &self.bars {
            // If the terminal cannot show the line, this does not end the run.
            Some(bars) => drop(bars.println(text)),
            None => eprintln!("{text}"),
        }
    }

    fn progress(&mut self, p: &Progress) {
        let tenths = p.done.saturating_mul(10).checked_div(p.total).unwrap_or(0);
        let (bar, told) =
            self.kernels.entry(p.kernel).or_insert_with(|| (new_bar(self.bars.as_ref(), self.mode, p), 0));
        bar.set_position(p.done);
        let news = tenths > *told;
        *told = tenths;
        if news && self.bars.is_none() {
            eprintln!("{}: kernel {}: {} of {} messages", self.mode, p.kernel, p.done, p.total);
        }
    }

    /// Ends the output, after the run has ended.
    pub fn end(self) {
        for (bar, _) in self.kernels.values() {
            bar.abandon();
        }
    }
}

fn new_bar(bars: Option<&MultiProgress>, mode: Mode, p: &Progress) -> ProgressBar {
    let Some(bars) = bars else { return ProgressBar::hidden() };
    let bar = bars.add(ProgressBar::new(p.total).with_message(format!("{mode}: kernel {}", p.kernel)));
    let style = ProgressStyle::with_template("{msg:18} [{bar:40}] {pos}/{len}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
