// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests that can be made longer by options: loom models, litmus tests, scenarios, killed processes, and fuzz targets. Each has a
//! command of its own with these options. `cargo xtask test` runs a short form of each.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{ensure, Result};
use clap::{Args, ValueEnum};

use super::Notes;
use crate::cmd::{self, Places};
use crate::provision::{self, Need, Provision, Toolchain};

/// The folder of the fuzz targets, a workspace of its own.
pub const FUZZ: &str = "fuzz";
/// The toolchain that Miri and the fuzzer need.
pub const NIGHTLY: Need = Need::Rust(Toolchain::Nightly, &["miri", "rust-src"], &[]);

/// Runs tests. Returns a note that says how many passed.
pub fn tests(mut cmd: Command) -> Result<Notes> {
    Ok(vec![format!("{} tests", cmd::run_tests(&mut cmd)?)])
}

/// The names of the litmus tests begin with this.
pub const LITMUS: &str = "litmus::";
/// The number of schedules of each litmus test in `cargo xtask test`.
pub const SHORT_LITMUS_SEEDS: u64 = 4;

/// The options of `cargo xtask litmus`.
#[derive(Args, Clone, Debug)]
pub struct LitmusArgs {
    /// How many schedules of each test to try
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Install missing tools without asking
    #[arg(long)]
    pub yes: bool,
}

/// The command `cargo xtask litmus`.
pub fn litmus(places: &Places, provision: &Provision, args: &LitmusArgs) -> Result<()> {
    provision.announce(&[NIGHTLY])?;
    provision.ensure(&[NIGHTLY])?;
    println!("{}", litmus_tests(places, args.seeds)?.join("\n"));
    Ok(())
}

/// Runs the litmus tests on Miri's weak memory. Each seed gives another schedule: Miri switches threads at other places, and lets
/// other loads return old values.
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

/// The probability that Miri switches to another thread after a step. It is high, because a litmus test has only few steps.
const PREEMPTION: &str = "0.05";

/// The largest number of preemptions in one execution that loom tries in `cargo xtask test`. Two preemptions find nearly all
/// mistakes.
pub const SHORT_PREEMPTIONS: u32 = 2;

/// The options of `cargo xtask loom`.
#[derive(Args, Clone, Debug)]
pub struct LoomArgs {
    /// Try up to three preemptions in each execution instead of two. Takes long
    #[arg(long)]
    deep: bool,
    /// The largest number of preemptions in each execution. 0 means no bound: then the run may never end
    #[arg(long)]
    preemptions: Option<u32>,
}

/// The command `cargo xtask loom`.
pub fn loom(places: &Places, args: &LoomArgs) -> Result<()> {
    let bound = if args.deep { SHORT_PREEMPTIONS + 1 } else { SHORT_PREEMPTIONS };
    let notes = loom_models(places, args.preemptions.unwrap_or(bound))?;
    println!("{}", notes.join("\n"));
    Ok(())
}

/// The options of `cargo xtask scenarios`.
#[derive(Args, Clone, Debug)]
pub struct ScenariosArgs {
    /// How many schedules to try
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// In the runs with two stops, try only every Nth store as the place of a stop. 1 tries all stores
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    stride: u64,
}

/// The command `cargo xtask scenarios`.
pub fn scenarios(places: &Places, args: &ScenariosArgs) -> Result<()> {
    let mut cmd = places.cargo();
    cmd.args(["test", "--release", "-p", "mk-ipi-mock", "--test", "scenarios", "--", "--nocapture"]);
    cmd.env("MK_IPI_SCENARIO_SEEDS", args.seeds.to_string());
    cmd.env("MK_IPI_SCENARIO_STRIDE", args.stride.to_string());
    println!("{}", tests(cmd)?.join("\n"));
    Ok(())
}

/// The options of `cargo xtask kills`.
#[derive(Args, Clone, Debug)]
pub struct KillsArgs {
    /// How often a process is killed
    #[arg(default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    kills: u64,
    /// The seed that chooses the random moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The command `cargo xtask kills`.
pub fn kills(places: &Places, args: &KillsArgs) -> Result<()> {
    let mut cmd = places.cargo();
    cmd.args(["test", "--release", "-p", "mk-ipi-process", "--test", "kills"]);
    cmd.env("MK_IPI_KILLS", args.kills.to_string()).env("MK_IPI_SEED", args.seed.to_string());
    println!("{}", tests(cmd)?.join("\n"));
    Ok(())
}

/// Runs the loom models of all crates, with at most this number of preemptions in each execution. 0 means no bound.
pub fn loom_models(places: &Places, preemptions: u32) -> Result<Notes> {
    let mut cmd = places.cargo();
    cmd.args(["test", "--profile", "loom", "--lib"]);
    cmd.args(["-p", "mk-ipi", "-p", "mk-ipi-core", "-p", "mk-ipi-arm64", "-p", "mk-ipi-riscv", "loom"]);
    cmd.env("CARGO_TARGET_DIR", places.own_target("loom")).env("RUSTFLAGS", "--cfg loom");
    // Some models must panic, and the stack of a model is too small to print a backtrace.
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

/// How many seconds each fuzz target runs in `cargo xtask test`.
pub const SHORT_FUZZ_SECONDS: u64 = 10;

/// The options of `cargo xtask fuzz`.
#[derive(Args, Clone, Debug)]
pub struct FuzzArgs {
    /// How many seconds each target runs
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// The sanitizer, which finds wrong accesses to memory. With `none` there are about three times as many executions
    #[arg(long, value_enum, default_value_t = Sanitizer::Address)]
    sanitizer: Sanitizer,
    /// Run only this target (can be given several times)
    #[arg(long, value_name = "TARGET")]
    only: Vec<String>,
    /// Install missing tools without asking
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

/// The command `cargo xtask fuzz`.
pub fn fuzz(places: &Places, provision: &Provision, args: &FuzzArgs) -> Result<()> {
    let needs = [NIGHTLY, Need::CargoTool("cargo-fuzz")];
    provision.announce(&needs)?;
    provision.ensure(&needs)?;
    println!("{}", fuzz_targets(places, args.seconds, args.sanitizer, &args.only)?.join("\n"));
    Ok(())
}

/// Runs each fuzz target for this number of seconds. If `only` has names, only these targets are run. Returns a note with the
/// number of executions.
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
    ensure!(!all.is_empty(), "{FUZZ} has no fuzz target");
    for name in only {
        ensure!(
            all.contains(&name.as_str()),
            "there is no fuzz target {name}; the targets are: {}",
            all.join(", ")
        );
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
        // The fuzzer reads the inputs in both folders. It writes new inputs to the first one only. The second one is in git.
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
