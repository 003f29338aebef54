// SPDX-License-Identifier: MIT OR Apache-2.0
//! Compares mk-ipi's links with the queues that Rust programs use: `cargo xtask bench`. `docs/book/src/performance.md` says how
//! it measures.

mod floor;
mod lineup;
mod link;
mod machine;
mod message;
mod ours;
mod pair;
mod peers;
mod report;
mod rounds;
mod stats;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{ensure, Context, Result};
use clap::Parser;

use link::{Contender, Job, Kind};
use machine::{Cpus, Topology};
use message::Handler;
use pair::{Pause, Setting};
use report::{Report, Workload};

/// Compares mk-ipi's links with the queues that Rust programs use. Times are multiples of the time that moving the cache lines
/// takes
#[derive(Parser, Debug)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Options {
    /// How many rounds count for each workload
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// The CPUs of the two threads [default: the first two that this process may use]
    #[arg(long, value_name = "A,B", value_parser = Cpus::parse)]
    cpus: Option<Cpus>,
    /// Measure only contenders whose name contains this (may be given several times)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Measure only this kind (may be given several times)
    #[arg(long)]
    kind: Vec<Kind>,
    /// Measure only messages of this size (may be given several times)
    #[arg(long, value_name = "N")]
    bytes: Vec<usize>,
    /// How much of each received message is read: its number (light), or every word (heavy)
    #[arg(long, default_value = "heavy")]
    handler: Handler,
    /// Run with ordinary priority. Without this option the threads have priority over all ordinary threads, which do not run
    /// meanwhile on these CPUs
    #[arg(long)]
    ordinary: bool,
    /// Do one short round, only to check that each contender delivers its messages. One CPU is enough
    #[arg(long, conflicts_with = "rounds")]
    quick: bool,
    /// Print the figures as one JSON object, on the last line
    #[arg(long)]
    json: bool,
    /// Write the figures to a CSV file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write drawings (SVG) to a folder
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

/// The numbers of spin-loop hints between two checks for a message. Each number is tried, and the best one counts.
const PAUSES: &[Pause] = &[0, 1, 4, 16];
/// The same, with `--quick`.
const QUICK_PAUSES: &[Pause] = &[1];

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let cpus = options.cpus.map_or_else(|| Cpus::allowed(options.quick), Ok)?;
    // If both threads share a CPU, a thread with this priority would prevent the other thread from running.
    let realtime = !options.ordinary && !options.quick && cpus.differ() && machine::run_first();
    let setting = Setting { cpus, pauses: if options.quick { QUICK_PAUSES } else { PAUSES } };
    machine::pin(cpus.0[0])?;
    let workloads = workloads(options, setting)?;
    ensure!(
        !workloads.is_empty(),
        "no contender has a name that contains this text, or no workload has this size"
    );
    let wake_up = ours::wake_up(if options.quick { 10 } else { 1000 })?;
    let report =
        Report { topology: Topology::of(cpus), realtime, handler: options.handler, workloads, wake_up };
    print!("{report}");
    if let Some(file) = &options.csv {
        fs::write(file, report.csv()).with_context(|| file.display().to_string())?;
    }
    if let Some(folder) = &options.plots {
        report.plot(folder)?;
    }
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(())
}

fn workloads(options: &Options, setting: Setting) -> Result<Vec<Workload>> {
    let mut workloads = Vec::new();
    for kind in wanted(&options.kind, [Kind::RoundTrip, Kind::Stream]) {
        for bytes in wanted(&options.bytes, lineup::SIZES) {
            let contenders = lineup::contenders(kind, bytes).into_iter();
            let contenders: Vec<_> = contenders.filter(|contender| takes_part(options, contender)).collect();
            if contenders.is_empty() {
                continue;
            }
            eprintln!("{bytes} B {kind}: {} contenders", contenders.len());
            let counts = lineup::counts(kind, bytes, options.quick);
            let job = Job { setting, kind, counts, handler: options.handler };
            let rounds = if options.quick { 1 } else { options.rounds.into() };
            let measured = rounds::measure(&contenders, bytes, &job, rounds)
                .with_context(|| format!("{bytes} B {kind}"))?;
            workloads.extend(Workload::new(kind, bytes, &contenders, &measured));
        }
    }
    Ok(workloads)
}

fn takes_part(options: &Options, contender: &Contender) -> bool {
    options.only.is_empty() || options.only.iter().any(|only| contender.label.name.contains(only))
}

/// The values of `all` that are in `named`; all of them if `named` is empty.
fn wanted<T: PartialEq, const N: usize>(named: &[T], all: [T; N]) -> impl Iterator<Item = T> + '_ {
    all.into_iter().filter(|one| named.is_empty() || named.contains(one))
}
