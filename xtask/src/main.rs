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
    /// Boots several kernels in one QEMU machine, which send each other messages through shared memory and interrupts
    Demo(demo::DemoArgs),
    /// Boots a Linux with our module, and bare-metal kernels beside it, in one QEMU machine; they send each other messages
    Linux(linux::LinuxArgs),
    /// Runs every check, step by step, as in CI
    Test(check::TestArgs),
    /// Runs the loom models, also with deeper bounds
    Loom(check::LoomArgs),
    /// Runs the litmus tests on Miri's weak memory, with any number of seeds
    Litmus(check::LitmusArgs),
    /// Stops a kernel after each of its stores, in any number of schedules
    Scenarios(check::ScenariosArgs),
    /// Stops and kills processes that are kernels, at random moments, and accounts for each message
    Kills(check::KillsArgs),
    /// Boots the demo again and again for any time, and accounts for each message
    Soak(soak::SoakArgs),
    /// Runs each fuzz target for any time
    Fuzz(check::FuzzArgs),
    /// Measures mk-ipi's links and the queues that Rust programs use, as multiples of a cache line's round trip
    Bench(bench::BenchArgs),
    /// Stops the demo in mid-stream, dumps its memory, and lets mk-ipi-inspect explain it
    Inspect(inspect::InspectArgs),
    /// Builds the book of docs/book as a folder of HTML, and its drawings
    Book(book::BookArgs),
    /// Builds the C header, the static libraries, a pkg-config file and a test program, into one folder
    Capi(capi::CapiArgs),
    /// Checks whether the public interface has changed more than the version number allows. Nothing is published yet, so it
    /// is compared with a commit
    Semver(check::SemverArgs),
    /// Changes each function of the crates that every kernel links, with cargo-mutants. Some test must fail for each change.
    /// Takes hours
    Mutants(check::MutantsArgs),
    /// Breaks the code in each way that a test must notice, and checks that the test fails
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
