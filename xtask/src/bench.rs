// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: builds the benchmarks in `benches`, which is a workspace of its own, and runs them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};
use clap::Args;

use crate::cmd::{shown, Places};

/// The folder of the benchmarks.
pub const FOLDER: &str = "benches";

/// The options of `cargo xtask bench`. They are passed to the benchmarks.
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub struct BenchArgs {
    /// Options of the benchmarks; --help names them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// The command `cargo xtask bench`. The benchmarks write to our stdout, so that `--json` can be used.
pub fn bench(places: &Places, args: &BenchArgs) -> Result<()> {
    let mut cmd = command(places, args.options.iter().map(String::as_str));
    let status = cmd.stdin(Stdio::null()).status().with_context(|| shown(&cmd))?;
    ensure!(status.success(), "`{}` ended with {status}", shown(&cmd));
    Ok(())
}

/// The command that builds and runs the benchmarks.
pub fn command<'a>(places: &Places, options: impl IntoIterator<Item = &'a str>) -> Command {
    let mut cmd = places.cargo_in(Path::new(FOLDER));
    cmd.env("CARGO_TARGET_DIR", places.own_target("benches"));
    cmd.args(["run", "--release", "--"]).args(options);
    cmd
}
