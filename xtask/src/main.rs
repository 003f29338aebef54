// SPDX-License-Identifier: MIT OR Apache-2.0
//! The project's commands, such as `cargo xtask demo` and `cargo xtask test`.

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
    /// Boots several kernels in one QEMU machine. They send each other messages through shared memory, with interrupts as
    /// doorbells
    Demo(demo::DemoArgs),
    /// Boots a Linux with our module, and bare-metal kernels beside it, in one QEMU machine. All of them send each other
    /// messages
    Linux(linux::LinuxArgs),
    /// Runs every check that CI runs, step by step
    Test(check::TestArgs),
    /// Runs the loom models. Options set how many preemptions loom tries
    Loom(check::LoomArgs),
    /// Runs the litmus tests on Miri's weak memory. An option sets the number of seeds
    Litmus(check::LitmusArgs),
    /// Runs scenarios on a simulated machine, in which a kernel is stopped after each of its stores. An option sets the number
    /// of schedules
    Scenarios(check::ScenariosArgs),
    /// Runs kernels as processes, stops and kills them at random moments, and checks what became of each message
    Kills(check::KillsArgs),
    /// Boots the demo again and again, for the given time, and checks what became of each message
    Soak(soak::SoakArgs),
    /// Runs each fuzz target for the given time
    Fuzz(check::FuzzArgs),
    /// Measures mk-ipi's links, and the queues that Rust programs use. Times are multiples of the round trip of a cache line
    Bench(bench::BenchArgs),
    /// Stops the demo in mid-stream, dumps its memory, and prints how mk-ipi-inspect explains the dump
    Inspect(inspect::InspectArgs),
    /// Checks the book in docs/book, and builds it as a folder of HTML. An option makes its drawings again
    Book(book::BookArgs),
    /// Builds the C header, the static libraries, a pkg-config file and a test program, into one folder
    Capi(capi::CapiArgs),
    /// Checks whether the public interface has changed more than the version number allows. No version is published yet, so
    /// the interface is compared with that of a commit
    Semver(check::SemverArgs),
    /// Changes each function of mk-ipi-abi and mk-ipi-core, with cargo-mutants. For each change a test must fail, or
    /// tests/mutants.toml must explain the change. Takes hours
    Mutants(check::MutantsArgs),
    /// Breaks the code in each way that tests/proofs.toml lists, and checks that the test that is named there fails
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
