// SPDX-License-Identifier: MIT OR Apache-2.0
//! mk-ipi's links beside the queues that Rust programs use: `cargo xtask bench`.
//!
//! Machines differ, and one machine from second to second: so each round measures first the floor, one cache line
//! there and back, then each contender in turn, and what counts is the median of the ratios to the round's floor.

mod harness;
mod native;
mod platform;
mod queues;
mod report;
mod rfc_v2;

use std::process::ExitCode;

use anyhow::{ensure, Context, Result};
use clap::Parser;
use core_affinity::CoreId;

use harness::{Broken, Contender, Cpus};
use report::{Pattern, Report, Section, Workload};

/// mk-ipi's links beside the queues that Rust programs use, as multiples of a cache line's round trip
#[derive(Parser, Debug)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Options {
    /// Rounds per workload; the median of them counts
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Messages, or round trips, per measurement
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    messages: u64,
    /// The CPUs of the two threads [default: the first two allowed]
    #[arg(long, value_name = "A,B", value_parser = two_cpus)]
    cpus: Option<Cpus>,
    /// Only contenders whose name has this in it (may be given several times)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// One short round, only to see that each contender delivers; on one CPU if there is no other
    #[arg(long, conflicts_with_all = ["rounds", "messages"])]
    quick: bool,
    /// JSON instead of the table
    #[arg(long)]
    json: bool,
}

/// Rounds and messages of `--quick`.
const QUICK: (usize, u64) = (1, 2_000);

type Measure = fn(Cpus, Workload, u64) -> Result<f64, Broken>;

/// A name, cells, and what measures it.
type Entry = (&'static str, usize, Measure);

/// Those that are measured, in the table's order.
const CONTENDERS: [Entry; 7] = [
    contender::<native::Native<64>>(),
    contender::<native::Native<16>>(),
    contender::<rfc_v2::RfcV2>(),
    contender::<queues::Rtrb>(),
    contender::<queues::Ringbuf>(),
    contender::<queues::Heapless>(),
    contender::<queues::Crossbeam>(),
];

const fn contender<C: Contender>() -> Entry {
    (C::NAME, C::CELLS, measure::<C>)
}

/// 48 bytes fit beside a header into one cache line; 256 are the most that a message has.
const SIZES: [usize; 2] = [48, 256];

fn measure<C: Contender>(cpus: Cpus, workload: Workload, messages: u64) -> Result<f64, Broken> {
    const SMALL: usize = SIZES[0] / 8;
    const LARGE: usize = SIZES[1] / 8;
    match (workload.pattern, workload.bytes == SIZES[0]) {
        (Pattern::RoundTrip, true) => harness::round_trip::<C, SMALL>(cpus, messages),
        (Pattern::RoundTrip, false) => harness::round_trip::<C, LARGE>(cpus, messages),
        (Pattern::Stream, true) => harness::stream::<C, SMALL>(cpus, messages),
        (Pattern::Stream, false) => harness::stream::<C, LARGE>(cpus, messages),
    }
}

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
    let cpus = cpus(options)?;
    let (rounds, messages) = if options.quick { QUICK } else { (options.rounds.into(), options.messages) };
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| name.contains(only));
    let contenders: Vec<_> = CONTENDERS.into_iter().filter(|(name, ..)| wanted(name)).collect();
    ensure!(!contenders.is_empty(), "no contender has such a name");
    let mut workloads = Vec::new();
    for bytes in SIZES {
        for pattern in [Pattern::RoundTrip, Pattern::Stream] {
            workloads.push(section(&contenders, cpus, Workload { pattern, bytes }, rounds, messages)?);
        }
    }
    let report = Report { cpus: cpus.0.map(|cpu| cpu.id), rounds, messages, workloads };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// The rounds of one workload.
fn section(
    contenders: &[Entry],
    cpus: Cpus,
    workload: Workload,
    rounds: usize,
    messages: u64,
) -> Result<Section> {
    let round = || {
        let floor = harness::floor(cpus, messages).context("the floor")?;
        let times = contenders.iter().map(|&(name, _, measure)| {
            measure(cpus, workload, messages).with_context(|| format!("{name}, {workload}"))
        });
        Ok((floor, times.collect::<Result<Vec<_>>>()?))
    };
    let rounds: Vec<_> = (0..rounds).map(|_| round()).collect::<Result<_>>()?;
    let names: Vec<_> = contenders.iter().map(|&(name, cells, _)| (name, cells)).collect();
    Ok(Section::new(workload, &names, &rounds))
}

fn cpus(options: &Options) -> Result<Cpus> {
    if let Some(chosen) = options.cpus {
        return Ok(chosen);
    }
    let allowed = core_affinity::get_core_ids().context("nobody says which CPUs are allowed")?;
    let first = *allowed.first().context("no CPU is allowed")?;
    let second = allowed.get(1).copied().or(options.quick.then_some(first));
    let second = second.with_context(|| format!("two CPUs are needed, and only {} is allowed", first.id))?;
    Ok(Cpus([first, second]))
}

/// Two different numbers.
fn two_cpus(text: &str) -> Result<Cpus> {
    let (a, b) = text.split_once(',').context("two numbers, such as 0,1")?;
    ensure!(a != b, "two different CPUs");
    Ok(Cpus([CoreId { id: a.parse()? }, CoreId { id: b.parse()? }]))
}
