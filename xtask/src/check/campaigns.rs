// SPDX-License-Identifier: MIT OR Apache-2.0
//! Campaigns: they run for a short time in `cargo xtask test`, and for any time by a command of their own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{ensure, Result};
use clap::{Args, ValueEnum};

use super::Notes;
use crate::cmd::{self, Places};
use crate::provision::{self, Need, Provision, Toolchain};

/// The workspace of the fuzz targets.
pub const FUZZ: &str = "fuzz";
/// The toolchain that Miri and the fuzzer need.
pub const NIGHTLY: Need = Need::Rust(Toolchain::Nightly, &["miri", "rust-src"], &[]);

/// Runs tests. Returns a note that says how many passed.
pub fn tests(mut cmd: Command) -> Result<Notes> {
    Ok(vec![format!("{} tests", cmd::run_tests(&mut cmd)?)])
}

/// The names of the litmus tests begin with this.
pub const LITMUS: &str = "litmus::";
/// Schedules of each litmus test in `test`.
pub const SHORT_LITMUS_SEEDS: u64 = 4;

/// What `litmus` takes.
#[derive(Args, Clone, Debug)]
pub struct LitmusArgs {
    /// How many schedules of each test to try
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Install what is missing without asking
    #[arg(long)]
    pub yes: bool,
}

/// `cargo xtask litmus`.
pub fn litmus(places: &Places, provision: &Provision, args: &LitmusArgs) -> Result<()> {
    provision.announce(&[NIGHTLY])?;
    provision.ensure(&[NIGHTLY])?;
    println!("{}", litmus_tests(places, args.seeds)?.join("\n"));
    Ok(())
}

/// Runs the litmus tests on Miri's weak memory. Each seed is another schedule, in which other loads return old values.
pub fn litmus_tests(places: &Places, seeds: u64) -> Result<Notes> {
    let nightly = format!("+{}", provision::toolchain_name(Toolchain::Nightly)?);
    let mut cmd = places.cargo();
    cmd.args([&nightly, "miri", "test", "-p", "mk-ipi-core", "--lib", LITMUS]);
    cmd.env("CARGO_TARGET_DIR", places.own_target("miri"));
    cmd.env("MIRIFLAGS", format!("-Zmiri-many-seeds=0..{seeds} -Zmiri-preemption-rate={PREEMPTION}"));
    // Several seeds print at the same time, so the number of tests cannot be read from the output.
    cmd::run_tests(&mut cmd)?;
    Ok(vec![format!("litmus tests with {seeds} seeds")])
}

/// The probability that another thread runs after a step. It is high, because a litmus test is short.
const PREEMPTION: &str = "0.05";

/// The number of preemptions per execution that loom tries in `test`. Two find nearly all mistakes.
pub const SHORT_PREEMPTIONS: u32 = 2;

/// What `loom` takes.
#[derive(Args, Clone, Debug)]
pub struct LoomArgs {
    /// Three preemptions per execution instead of two; takes long
    #[arg(long)]
    deep: bool,
    /// Most preemptions per execution; 0 means no bound, which may never end
    #[arg(long)]
    preemptions: Option<u32>,
}

/// `cargo xtask loom`.
pub fn loom(places: &Places, args: &LoomArgs) -> Result<()> {
    let bound = if args.deep { SHORT_PREEMPTIONS + 1 } else { SHORT_PREEMPTIONS };
    let notes = loom_models(places, args.preemptions.unwrap_or(bound))?;
    println!("{}", notes.join("\n"));
    Ok(())
}

/// What `scenarios` takes.
#[derive(Args, Clone, Debug)]
pub struct ScenariosArgs {
    /// How many schedules to try
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// Of the points of a second death, try every Nth; 1 tries all
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    stride: u64,
}

/// `cargo xtask scenarios`.
pub fn scenarios(places: &Places, args: &ScenariosArgs) -> Result<()> {
    let mut cmd = places.cargo();
    cmd.args(["test", "--release", "-p", "mk-ipi-mock", "--test", "scenarios", "--", "--nocapture"]);
    cmd.env("MK_IPI_SCENARIO_SEEDS", args.seeds.to_string());
    cmd.env("MK_IPI_SCENARIO_STRIDE", args.stride.to_string());
    println!("{}", tests(cmd)?.join("\n"));
    Ok(())
}

/// What `kills` takes.
#[derive(Args, Clone, Debug)]
pub struct KillsArgs {
    /// How many processes to kill
    #[arg(default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    kills: u64,
    /// The seed of the random moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// `cargo xtask kills`.
pub fn kills(places: &Places, args: &KillsArgs) -> Result<()> {
    let mut cmd = places.cargo();
    cmd.args(["test", "--release", "-p", "mk-ipi-process", "--test", "kills"]);
    cmd.env("MK_IPI_KILLS", args.kills.to_string()).env("MK_IPI_SEED", args.seed.to_string());
    println!("{}", tests(cmd)?.join("\n"));
    Ok(())
}

/// Runs the loom models of all crates, with this number of preemptions per execution.
pub fn loom_models(places: &Places, preemptions: u32) -> Result<Notes> {
    let mut cmd = places.cargo();
    cmd.args(["test", "--profile", "loom", "--lib"]);
    cmd.args(["-p", "mk-ipi", "-p", "mk-ipi-core", "-p", "mk-ipi-arm64", "-p", "mk-ipi-riscv", "loom"]);
    cmd.env("CARGO_TARGET_DIR", places.own_target("loom")).env("RUSTFLAGS", "--cfg loom");
    // A model that must fail has a small stack, too small to print a backtrace.
    cmd.env("RUST_BACKTRACE", "0");
    match preemptions {
        0 => cmd.env_remove("LOOM_MAX_PREEMPTIONS"),
        bound => cmd.env("LOOM_MAX_PREEMPTIONS", bound.to_string()),
    };
    let mut notes = tests(cmd)?;
    notes.push(format!(
        "preemptions: {}",
        if preemptions == 0 { "no bound".into() } else { preemptions.to_string() }
    ));
    Ok(notes)
}

/// Seconds per fuzz target in `test`.
pub const SHORT_FUZZ_SECONDS: u64 = 10;

/// What `fuzz` takes.
#[derive(Args, Clone, Debug)]
pub struct FuzzArgs {
    /// Seconds per target
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// The checker for wrong memory accesses; with `none` there are about three times as many executions
    #[arg(long, value_enum, default_value_t = Sanitizer::Address)]
    sanitizer: Sanitizer,
    /// Only this target; may be given several times
    #[arg(long, value_name = "TARGET")]
    only: Vec<String>,
    /// Install what is missing without asking
    #[arg(long)]
    pub yes: bool,
}

/// The sanitizer with which a fuzz target is built.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[allow(missing_docs)]
pub enum Sanitizer {
    Address,
    None,
}

/// `cargo xtask fuzz`.
pub fn fuzz(places: &Places, provision: &Provision, args: &FuzzArgs) -> Result<()> {
    let needs = [NIGHTLY, Need::CargoTool("cargo-fuzz")];
    provision.announce(&needs)?;
    provision.ensure(&needs)?;
    println!("{}", fuzz_targets(places, args.seconds, args.sanitizer, &args.only)?.join("\n"));
    Ok(())
}

/// Runs each fuzz target, or only the named ones, for this time.
pub fn fuzz_targets(places: &Places, seconds: u64, sanitizer: Sanitizer, only: &[String]) -> Result<Notes> {
    let nightly = provision::toolchain_name(Toolchain::Nightly)?;
    let program = provision::tool("cargo-fuzz").unwrap_or_else(|| PathBuf::from("cargo-fuzz"));
    let cargo_fuzz = || {
        let mut cmd = Command::new(&program);
        cmd.current_dir(places.root.join(FUZZ))
            .env("RUSTUP_TOOLCHAIN", &nightly)
            .env_remove("CARGO")
            .arg("fuzz");
        cmd
    };
    let listed = cmd::output(cargo_fuzz().arg("list"))?;
    let all: Vec<&str> = listed.split_whitespace().collect();
    ensure!(!all.is_empty(), "{FUZZ} has no target");
    for name in only {
        ensure!(all.contains(&name.as_str()), "no target {name}; there are {}", all.join(", "));
    }
    let wanted = |name: &&str| only.is_empty() || only.iter().any(|one| one == name);
    let targets: Vec<&str> = all.into_iter().filter(wanted).collect();
    // Each sanitizer has a target folder of its own, so that a change of the option does not build everything again.
    let (sanitizer, built) = match sanitizer {
        Sanitizer::Address => ("address", "fuzz"),
        Sanitizer::None => ("none", "fuzz-none"),
    };
    let mut executions = 0;
    for target in &targets {
        let mut cmd = cargo_fuzz();
        cmd.args(["run", target, "--sanitizer", sanitizer, "--target-dir"]).arg(places.own_target(built));
        // New inputs go to the first folder; the second is in git and stays as it is.
        let found = places.own_target("corpus").join(target);
        fs::create_dir_all(&found)?;
        cmd.arg(found);
        let seeds = places.root.join(FUZZ).join("seeds").join(target);
        cmd.args(seeds.is_dir().then_some(seeds));
        cmd.arg("--")
            .arg(format!("-max_total_time={seconds}"))
            .args(["-print_final_stats=1", "-verbosity=0"]);
        executions += cmd::run_fuzzer(&mut cmd)?;
    }
    Ok(vec![format!("{} targets, {seconds} s each, {executions} executions", targets.len())])
}
