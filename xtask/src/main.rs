// SPDX-License-Identifier: MIT OR Apache-2.0
//! The project's commands: `cargo xtask demo` and `cargo xtask test`.

mod arch;
mod bench;
mod book;
mod capi;
mod check;
mod cmd;
mod cpus;
mod demo;
mod guest;
mod image;
mod inspect;
mod kernels;
mod linux;
mod live;
mod machine;
mod proofs;
mod provision;
mod qmp;
mod record;
mod soak;
mod summary;
mod watch;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use cmd::Places;
use provision::Provision;

/// The project's commands
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Several kernels in one QEMU machine send each other messages by shared memory and APIC interrupts
    Demo(demo::DemoArgs),
    /// A Linux with our module, and bare-metal kernels beside it, send each other messages in one QEMU machine
    Linux(linux::LinuxArgs),
    /// Every check, step by step, as CI runs them
    Test(check::TestArgs),
    /// The loom models, as deep as you like
    Loom(check::LoomArgs),
    /// The litmus tests on Miri's weak memory, with as many seeds as you like
    Litmus(check::LitmusArgs),
    /// A kernel stopped after each of its stores, in as many schedules as you like
    Scenarios(check::ScenariosArgs),
    /// Processes as kernels, stopped and killed at random moments, each message accounted for
    Kills(check::KillsArgs),
    /// The demo boot after boot for as long as you like, each message accounted for
    Soak(soak::SoakArgs),
    /// Each fuzz target for as long as you like
    Fuzz(check::FuzzArgs),
    /// mk-ipi's links beside the queues that Rust programs use, as multiples of a cache line's round trip
    Bench(bench::BenchArgs),
    /// The demo, stopped in mid-stream, its memory dumped and explained by mk-ipi-inspect
    Inspect(inspect::InspectArgs),
    /// The book of docs/book, as a folder of HTML, and its drawings
    Book(book::BookArgs),
    /// The C header, the static libraries, a pkg-config file and a test program, in one folder
    Capi(capi::CapiArgs),
    /// Whether the public interface has changed more than the version number says; nothing is published yet, so it is
    /// compared with a commit
    Semver(check::SemverArgs),
    /// Changes each function of the crates that everybody links, by cargo-mutants: some test must fail; takes hours
    Mutants(check::MutantsArgs),
    /// Breaks the code in each way that a test must notice, and sees that test fail
    Proofs(proofs::ProofsArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("error: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let places = Places::find()?;
    let provision = |yes| Provision::new(&places, yes);
    match cli.command {
        Command::Demo(args) => demo::demo(&places, &provision(args.yes), &args)?,
        Command::Linux(args) => linux::linux(&places, &provision(args.yes), &args)?,
        Command::Test(args) => return check::test(&places, &provision(args.yes), &args),
        Command::Loom(args) => check::loom(&places, &args)?,
        Command::Litmus(args) => check::litmus(&places, &provision(args.yes), &args)?,
        Command::Scenarios(args) => check::scenarios(&places, &args)?,
        Command::Kills(args) => check::kills(&places, &args)?,
        Command::Soak(args) => soak::soak(&places, &provision(args.yes), &args)?,
        Command::Fuzz(args) => check::fuzz(&places, &provision(args.yes), &args)?,
        Command::Bench(args) => bench::bench(&places, &args)?,
        Command::Inspect(args) => inspect::inspect(&places, &provision(args.yes), &args)?,
        Command::Book(args) => book::book(&places, &provision(args.yes), &args)?,
        Command::Capi(args) => capi::capi(&places, &provision(args.yes), &args)?,
        Command::Semver(args) => check::semver(&places, &provision(args.yes), &args)?,
        Command::Mutants(args) => check::mutants(&places, &provision(args.yes), &args)?,
        Command::Proofs(args) => return proofs::proofs(&places, &provision(args.yes), &args),
    }
    Ok(ExitCode::SUCCESS)
}
