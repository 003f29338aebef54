// SPDX-License-Identifier: MIT OR Apache-2.0
//! The project's commands: `cargo xtask demo` and `cargo xtask test`.

mod cmd;
mod demo;
mod image;
mod machine;
mod provision;
mod record;
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
    match cli.command {
        Command::Demo(args) => demo::demo(&places, &Provision::new(&places, args.yes), &args)?,
    }
    Ok(ExitCode::SUCCESS)
}
