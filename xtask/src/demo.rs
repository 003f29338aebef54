// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask demo`: kernels of their own, each on a CPU of its own, send each other messages.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use clap::{Args, ValueEnum};
use comfy_table::{presets, CellAlignment, Table};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cmd::{Places, BARE_TARGET};
use crate::image::{self, Image};
use crate::kernels::Kernels;
use crate::machine::{self, Job, Run};
use crate::provision::qemu::Qemu;
use crate::provision::{Need, Provision, Toolchain};
use crate::record::{
    pairs, Cycles, Drains, Generation, Kernel, Killed, Mode, Order, Progress, Record, Report,
};

/// What `demo` takes.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// How many kernels, or what each is written in: `rust,c,rust`, the host first, which is in Rust
    #[arg(long, default_value = "3", value_name = "N|LIST")]
    pub kernels: Kernels,
    /// Messages each way per pair of kernels; with --kill at least so many
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub messages: u64,
    /// What the links speak
    #[arg(long, value_enum, default_value_t = Generation::Native)]
    pub generation: Generation,
    /// Stop kernel 1 by INIT in mid-stream, wherever it is, and start it anew: this often, or 5 times
    #[arg(long, value_name = "TIMES", num_args = 0..=1, default_missing_value = "5")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=50))]
    pub kill: Option<u32>,
    /// How the local APIC is driven
    #[arg(long, value_enum, default_value_t = Modes::Both)]
    pub mode: Modes,
    /// The result as one JSON object on the last line of stdout; all else goes to stderr
    #[arg(long)]
    pub json: bool,
    /// Install what is missing without asking
    #[arg(long)]
    pub yes: bool,
    /// Let a kernel fail on order: hang, panic or exception, then `:` and its number
    #[arg(long, hide = true)]
    pub fault: Option<String>,
}

/// The modes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Modes {
    Xapic,
    X2apic,
    Both,
}

impl Modes {
    /// Whether x2APIC is among them.
    pub fn x2apic(self) -> bool {
        self != Modes::Xapic
    }

    fn list(self) -> &'static [Mode] {
        match self {
            Modes::Xapic => &[Mode::Xapic],
            Modes::X2apic => &[Mode::X2apic],
            Modes::Both => &[Mode::Xapic, Mode::X2apic],
        }
    }
}

/// What a boot needs.
pub fn needs(x2apic: bool) -> Vec<Need> {
    vec![Need::Rust(Toolchain::Active, &[], &[BARE_TARGET]), Need::Qemu { x2apic }]
}

/// The modes that `qemu` can run, and what must be said of the rest. In CI, and where nothing is left, what
/// cannot run is an error.
pub fn runnable(qemu: &Qemu, modes: Modes, ci: bool) -> Result<(Vec<Mode>, Option<String>)> {
    let (list, not_run): (Vec<Mode>, Vec<Mode>) =
        modes.list().iter().partition(|mode| **mode == Mode::Xapic || qemu.has_x2apic());
    if not_run.is_empty() {
        return Ok((list, None));
    }
    let note = format!("x2APIC: not run: QEMU {} cannot emulate it (9.0 or newer can)", qemu.version);
    if ci || list.is_empty() {
        bail!("{note}");
    }
    eprintln!("{note}");
    Ok((list, Some(note)))
}

/// One row of the result.
#[derive(Debug, Serialize)]
struct Pair {
    from: u32,
    to: u32,
    mode: Mode,
    generation: Generation,
    sent: u64,
    received: u64,
    lost: u64,
    torn: u64,
    doubled: u64,
    disordered: u64,
    reported: u64,
    interrupted: u64,
    doorbells: u64,
    rtt_cycles: Cycles,
}

impl Pair {
    /// Doorbells for each message, in thousandths.
    fn per_message(&self) -> u64 {
        self.doorbells.saturating_mul(1000).checked_div(self.sent).unwrap_or(0)
    }
}

/// The whole result, as `--json` prints it.
#[derive(Debug, Default, Serialize)]
struct Summary {
    kernels: Vec<Kernel>,
    pairs: Vec<Pair>,
    drains: Vec<Drains>,
    killed: Vec<Killed>,
}

impl Summary {
    /// Adds what a run reported, as far as both sides did.
    fn add(&mut self, report: &Report, kernels: u32) {
        for kernel in report.kernels.values() {
            if !self.kernels.contains(kernel) {
                self.kernels.push(kernel.clone());
            }
        }
        self.drains.extend(report.drains.values());
        self.killed.extend(report.killed);
        for pair @ (from, to) in pairs(kernels) {
            if let (Some(s), Some(r)) = (report.sent.get(&pair), report.received.get(&pair)) {
                self.pairs.push(Pair {
                    from,
                    to,
                    mode: s.mode,
                    generation: s.generation,
                    sent: s.sent,
                    received: r.received,
                    lost: r.lost,
                    torn: r.torn,
                    doubled: r.doubled,
                    disordered: r.disordered,
                    reported: s.reported,
                    interrupted: s.interrupted,
                    doorbells: s.doorbells,
                    rtt_cycles: s.rtt_cycles,
                });
            }
        }
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        let (ends, faults) = (["mode", "link", "from", "to"], ["lost", "torn", "doubled", "disordered"]);
        let deaths: &[&str] = if self.killed.is_empty() { &[] } else { &["reported", "interrupted"] };
        let rest = ["doorbells", "per message", "rtt min", "median", "p99"];
        let counts = ["sent", "received"];
        table.set_header(ends.iter().chain(&counts).chain(&faults).chain(deaths).chain(&rest));
        for p in &self.pairs {
            let head = [p.mode.to_string(), p.generation.to_string(), p.from.to_string(), p.to.to_string()];
            let mut numbers = vec![p.sent, p.received, p.lost, p.torn, p.doubled, p.disordered];
            if !deaths.is_empty() {
                numbers.extend([p.reported, p.interrupted]);
            }
            numbers.push(p.doorbells);
            let share = format!("{}.{:03}", p.per_message() / 1000, p.per_message() % 1000);
            let rtt = [p.rtt_cycles.min, p.rtt_cycles.median, p.rtt_cycles.p99];
            let text = |n: u64| n.to_string();
            let numbers = numbers.into_iter().map(text).chain([share]).chain(rtt.into_iter().map(text));
            table.add_row(head.into_iter().chain(numbers));
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let kernels: Vec<String> =
            self.kernels.iter().map(|k| format!("kernel {} ({}, CPU {})", k.id, k.lang, k.cpu)).collect();
        let mut lines = vec![kernels.join(", "), table.to_string()];
        lines.push("rtt: round trip in cycles of the emulator; they say nothing about hardware".into());
        lines.extend(self.notes());
        lines.join("\n")
    }

    /// What the table has no column for.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(worst) = self.drains.iter().max_by_key(|d| d.longest) {
            notes.push(format!(
                "drains: {} calls; at most {} in a row gave a stream nothing of what waited, {} are allowed",
                self.drains.iter().map(|d| d.calls).sum::<u64>(),
                worst.longest,
                worst.allowed
            ));
        }
        for k in &self.killed {
            notes.push(format!(
                "kernel {} was killed {} times in mid-stream; the host took {} messages of others while it was dead\n\
                 reported: lost with it, as its senders were told; interrupted: it died while it sent them",
                k.kernel, k.times, k.meanwhile
            ));
        }
        notes
    }
}

/// What came of a demo.
pub struct Outcome {
    summary: Summary,
    /// What could not run here, and why.
    pub not_run: Option<String>,
    /// All that went wrong.
    pub problems: Vec<String>,
    /// How long the machines ran.
    pub took: Duration,
}

/// `cargo xtask demo`: an error if anything went wrong.
pub fn demo(places: &Places, provision: &Provision, args: &DemoArgs) -> Result<()> {
    let stage = Stage::build(places, provision, &args.kernels, args.mode.x2apic())?;
    let outcome = play(&stage, args)?;
    show(&outcome, args.json)?;
    if outcome.problems.is_empty() {
        return Ok(());
    }
    bail!("the demo failed:\n  {}", first_of(&outcome.problems).join("\n  "))
}

/// What demos run on.
pub struct Stage<'a> {
    places: &'a Places,
    qemu: &'a Qemu,
    /// The kernels, the host first.
    images: Vec<Image>,
}

impl<'a> Stage<'a> {
    /// Builds the kernels, and finds an emulator, if possible one with x2APIC.
    pub fn build(
        places: &'a Places,
        provision: &'a Provision,
        kernels: &Kernels,
        x2apic: bool,
    ) -> Result<Self> {
        let mut needs = needs(x2apic);
        if kernels.has_c() {
            needs.push(Need::Cc);
        }
        provision.announce(&needs)?;
        provision.ensure(&needs)?;
        Ok(Self { places, qemu: provision.qemu()?, images: image::build(places, kernels)? })
    }
}

/// Runs the demo in each mode.
pub fn play(stage: &Stage, args: &DemoArgs) -> Result<Outcome> {
    let &Stage { places, qemu, ref images } = stage;
    if args.kill.is_some() && (args.generation != Generation::Native || args.kernels.count() < 3) {
        bail!(
            "--kill needs the native link, and 3 kernels or more: two that live on beside the one that dies"
        );
    }
    if args.kill.is_some() && args.kernels.has_c() {
        bail!("--kill is for kernels in Rust: one in C does not write down what it has sent");
    }
    let (modes, not_run) = runnable(qemu, args.mode, places.ci)?;
    let (generation, kills) = (args.generation, args.kill.unwrap_or(0));
    let mut outcome =
        Outcome { summary: Summary::default(), not_run, problems: Vec::new(), took: Duration::ZERO };
    for mode in modes {
        let fault = args.fault.as_deref();
        let job = Job { run: "demo", mode, generation, messages: args.messages, kills, fault, images };
        let mut live = Live::new(mode);
        let start = Instant::now();
        let run = machine::boot(places, qemu, &job, &mut |record| live.saw(record))?;
        outcome.took += start.elapsed();
        live.end();
        outcome.summary.add(&run.report, args.kernels.count());
        let mut found = run.problems.clone();
        let order = Order { kernels: args.kernels.count(), messages: args.messages, mode, generation, kills };
        found.extend(run.report.demo_problems(&order));
        if !found.is_empty() {
            show_tail(&run, mode);
        }
        outcome.problems.extend(found);
    }
    Ok(outcome)
}

/// Enough of a long list: the causes stand before what follows from them.
pub fn first_of(problems: &[String]) -> Vec<String> {
    const ENOUGH: usize = 10;
    let mut shown: Vec<String> = problems.iter().take(ENOUGH).cloned().collect();
    if problems.len() > ENOUGH {
        shown.push(format!("and {} more", problems.len() - ENOUGH));
    }
    shown
}

fn show(outcome: &Outcome, json: bool) -> Result<()> {
    let lines: Vec<String> = [outcome.summary.table()].into_iter().chain(outcome.not_run.clone()).collect();
    if json {
        eprintln!("{}", lines.join("\n"));
        println!("{}", serde_json::to_string(&outcome.summary)?);
    } else {
        println!("{}", lines.join("\n"));
    }
    Ok(())
}

/// The serial line's end, for whoever must find out.
pub fn show_tail(run: &Run, mode: Mode) {
    eprintln!(
        "--- the last {} lines of the serial line ({mode}; all of it: {}) ---",
        run.tail.len(),
        run.log.display()
    );
    for line in &run.tail {
        eprintln!("{line}");
    }
    eprintln!("---");
}

/// Live progress: bars on a terminal, else a line now and then.
struct Live {
    mode: Mode,
    bars: Option<MultiProgress>,
    kernels: BTreeMap<u32, (ProgressBar, u64)>,
}

impl Live {
    fn new(mode: Mode) -> Self {
        let bars = io::stderr().is_terminal().then(MultiProgress::new);
        Self { mode, bars, kernels: BTreeMap::new() }
    }

    fn saw(&mut self, record: &Record) {
        match record {
            Record::Kernel(k) => {
                let life = if k.life > 1 { format!(", life {}", k.life) } else { String::new() };
                self.say(&format!("{}: kernel {} runs on CPU {}{life}", self.mode, k.id, k.cpu))
            }
            Record::Error { kernel, text } => self.say(&format!("{}: kernel {kernel}: {text}", self.mode)),
            Record::Progress(p) => self.progress(p),
            _ => {}
        }
    }

    fn say(&self, text: &str) {
        match &self.bars {
            // A line that cannot be drawn is no reason to stop the demo.
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

    fn end(self) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let mut report = Report::default();
        for line in [
            r#"@{"kernel":{"id":0,"lang":"rust","cpu":0,"life":1}}"#,
            r#"@{"kernel":{"id":1,"lang":"rust","cpu":4,"life":1}}"#,
            r#"@{"sent":{"from":0,"to":1,"mode":"x2apic","generation":"rfc-v2","sent":9,"doorbells":8,"busy":7,"rtt_cycles":{"min":1,"median":2,"p99":3}}}"#,
            r#"@{"received":{"from":0,"to":1,"mode":"x2apic","generation":"rfc-v2","received":6,"lost":3,"torn":5,"doubled":4,"disordered":2}}"#,
            r#"@{"drains":{"kernel":0,"calls":9,"longest":0,"allowed":1}}"#,
            r#"@{"killed":{"kernel":1,"times":3,"in_stream":3,"meanwhile":8}}"#,
            r#"@{"received":{"from":1,"to":0,"mode":"x2apic","generation":"rfc-v2","received":6,"lost":3,"torn":5,"doubled":4}}"#,
        ] {
            assert!(report.take(line).is_some());
        }
        let mut summary = Summary::default();
        summary.add(&report, 2);
        summary
    }

    #[test]
    fn the_shape_of_the_json() {
        let expected = r#"{"kernels":[{"id":0,"lang":"rust","cpu":0,"life":1},{"id":1,"lang":"rust","cpu":4,"life":1}],"pairs":[{"from":0,"to":1,"mode":"x2apic","generation":"rfc-v2","sent":9,"received":6,"lost":3,"torn":5,"doubled":4,"disordered":2,"reported":0,"interrupted":0,"doorbells":8,"rtt_cycles":{"min":1,"median":2,"p99":3}}],"drains":[{"kernel":0,"calls":9,"longest":0,"allowed":1}],"killed":[{"kernel":1,"times":3,"in_stream":3,"meanwhile":8}]}"#;
        assert_eq!(serde_json::to_string(&summary()).ok().as_deref(), Some(expected));
    }

    #[test]
    fn the_table_says_whose_cycles_they_are() {
        let text = summary().table();
        assert!(text.contains("kernel 1 (rust, CPU 4)"));
        assert!(text.contains("cycles of the emulator; they say nothing about hardware"));
        assert!(text.contains("0.888"), "doorbells per message");
        assert!(text.contains("killed 3 times"));
    }

    #[test]
    fn long_lists_are_cut() {
        let list: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(first_of(&list).len(), 11);
        assert_eq!(first_of(&list).last().map(String::as_str), Some("and 2 more"));
        assert_eq!(first_of(&list[..10]), list[..10]);
    }
}
