// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask linux`: boots a Linux with our module. This Linux is the host: it starts bare-metal kernels and another Linux on
//! the same emulated machine.

mod board;
mod boot;
mod fragments;
mod initramfs;
pub mod kernel;
mod log;
mod make;
mod modules;
mod parts;
mod programs;
mod stage;
mod trace;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{bail, ensure, Context, Result};
use clap::{Args, Parser, ValueEnum};
use serde::Serialize;

use crate::arch::Arch;
use crate::cmd::{self, Places, BARE_TARGET};
use crate::demo::{self, Modes};
use crate::provision::qemu::Qemu;
use crate::provision::{Need, Provision, Toolchain};
use crate::record::{Generation, Mode, Step};
use crate::summary::{self, Summary};
use board::Board;
use boot::{Job, Scenario};
use kernel::{Built, Series, Source, Wanted};

pub use stage::{MODULE, VENDOR};

/// The options of `cargo xtask linux`.
#[derive(Args, Clone, Debug)]
pub struct LinuxArgs {
    /// The Linux to build. Its source is downloaded from Debian
    #[arg(long, value_enum, default_value_t = Series::V7_3)]
    pub kernel: Series,
    /// Use a Linux source tree of your own instead. Nothing is written to it
    #[arg(long, value_name = "DIR", conflicts_with = "kernel")]
    pub source: Option<PathBuf>,
    /// Build Linux with debug checks: lockdep, KASAN, kmemleak and others. This Linux is slow
    #[arg(long)]
    pub debug: bool,
    /// The mode of the local APIC. The machine is booted once for each mode
    #[arg(long, value_enum, default_value_t = Modes::Both)]
    pub mode: Modes,
    /// The layout of the links
    #[arg(long, value_enum, default_value_t = Generations::Both)]
    pub generation: Generations,
    /// Messages that each kernel sends to each other kernel
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub messages: u64,
    /// How often Linux loads the module, starts and ends the bare-metal kernels, and unloads the module
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub cycles: u64,
    /// What is spawned in addition to the bare-metal kernels: the same Linux as the host, or nothing. Linux is spawned only while
    /// the links are native
    #[arg(long, value_enum, default_value_t = Spawn::Linux)]
    pub spawn: Spawn,
    /// How often the spawned Linux is killed in mid-stream, and started again
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub lives: u64,
    /// The ways in which the spawned Linux ends itself. It is started again for each of them [default: all]
    #[arg(long, value_delimiter = ',', hide_default_value = true, default_values = boot::ENDS)]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(boot::ENDS))]
    pub ends: Vec<String>,
    /// Number of bytes to send over each network interface, in each direction. It is rounded down to a multiple of 64 KiB
    #[arg(long, default_value_t = 8 << 20, value_parser = clap::value_parser!(u64).range(1 << 16..=1 << 30))]
    pub bytes: u64,
    /// Measure the network between the two Linuxes with iperf3, and also a pair of veth interfaces, for comparison
    #[arg(long)]
    pub iperf: bool,
    /// Instead of the scenario, start and stop a spawned Linux once, and trace its device accesses
    #[arg(long, conflicts_with_all = ["shell", "export"])]
    pub trace_devices: bool,
    /// Instead of the scenario, pass damaged images to the module's command `start` for this many seconds. With --debug, Linux
    /// finds more faults
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["shell", "export", "trace_devices"])]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub fuzz_start: Option<u64>,
    /// Instead of the scenario, test only the consoles, and the devices by which programs talk
    #[arg(long, conflicts_with_all = ["shell", "export", "trace_devices", "fuzz_start"])]
    pub programs: bool,
    /// Instead of the scenario, open a shell in Linux on this terminal. The machine is booted once, in the first of the modes.
    /// The spawned Linux has a shell too
    #[arg(long, conflicts_with_all = ["json", "export"])]
    pub shell: bool,
    /// Number of CPUs of the machine. Two of them are given to bare-metal kernels, and two more to a spawned Linux. With more
    /// than 255, use --mode x2apic [default: 6, or 4 with --spawn none]
    #[arg(long, value_parser = clap::value_parser!(u32).range(4..=512))]
    pub cpus: Option<u32>,
    /// Number of hardware threads of each core. With 2, CPUs 0 and 1 are one core, CPUs 2 and 3 are the next one, and so on
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=2))]
    pub threads: u32,
    /// Do not build and boot Linux. Write the sources of the module, and all that they need, to DIR. There you can build the
    /// module for a Linux of your own
    #[arg(long, value_name = "DIR")]
    pub export: Option<PathBuf>,
    /// Print the result as one JSON object on the last line of stdout; all other output goes to stderr
    #[arg(long)]
    pub json: bool,
    /// Install missing tools without asking
    #[arg(long)]
    pub yes: bool,
}

/// The layouts of the links that are tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Generations {
    Native,
    #[value(name = "rfc-v2")]
    RfcV2,
    Both,
}

impl Generations {
    /// The layouts, in the order in which they are tested.
    fn list(self) -> &'static [Generation] {
        match self {
            Generations::Native => &[Generation::Native],
            Generations::RfcV2 => &[Generation::RfcV2],
            Generations::Both => &[Generation::Native, Generation::RfcV2],
        }
    }
}

/// What is spawned in addition to the bare-metal kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Spawn {
    Linux,
    None,
}

/// The least number of CPUs that Linux keeps.
const OWN_CPUS: u32 = 2;

/// The toolchain that builds the module, the bare-metal kernels, and the Rust code of Linux.
const RUST: Need = Need::Rust(Toolchain::Active, &["rust-src"], &[BARE_TARGET]);

/// What must be installed for this command, without the options `--iperf` and `--export`.
pub fn needs(wanted: Wanted, x2apic: bool) -> Vec<Need> {
    let tools = Need::LinuxTools { debug: wanted.debug };
    let qemu = Need::Qemu { arch: Arch::X86, x2apic };
    vec![RUST, Need::Cc, tools, qemu, Need::Busybox, Need::Programs, Need::Linux(wanted)]
}

/// The Linux that `cargo xtask test` uses.
pub fn tested() -> Wanted {
    Wanted { source: Source::Debian(Series::V7_3), debug: false }
}

/// Parses the options from a list of words, to get their defaults.
#[derive(Parser)]
struct Defaults {
    #[command(flatten)]
    args: LinuxArgs,
}

impl LinuxArgs {
    /// The Linux that these options ask for. It is an error if the tree of the user cannot be used.
    fn wanted(&self) -> Result<Wanted> {
        let source = match &self.source {
            Some(folder) => {
                let folder = fs::canonicalize(folder).with_context(|| folder.display().to_string())?;
                kernel::check_tree(&folder)?;
                Source::Own(folder)
            }
            None => Source::Debian(self.kernel),
        };
        Ok(Wanted { source, debug: self.debug })
    }

    /// The task of Linux that these options ask for.
    fn scenario(&self) -> Scenario {
        match self.fuzz_start {
            Some(seconds) => Scenario::Fuzz(seconds),
            None if self.trace_devices => Scenario::Trace,
            None if self.programs => Scenario::Programs,
            None if self.shell => Scenario::Shell,
            None => Scenario::All,
        }
    }

    /// The machine that these options ask for. It is an error if the options do not fit together.
    fn board(&self, mode: Mode) -> Result<Board> {
        let spawn = self.spawn == Spawn::Linux;
        let fewest = OWN_CPUS + Board::given(spawn);
        let cpus = self.cpus.unwrap_or(fewest);
        ensure!(
            cpus >= fewest,
            "--cpus must be at least {fewest}, or with --spawn none at least {}",
            OWN_CPUS + Board::given(false)
        );
        let threads = self.threads;
        ensure!(
            cpus.is_multiple_of(threads),
            "{cpus} CPUs cannot be divided into cores with {threads} threads each"
        );
        let special = matches!(self.scenario(), Scenario::Trace | Scenario::Fuzz(_) | Scenario::Programs);
        ensure!(
            spawn || !special,
            "--trace-devices, --fuzz-start and --programs spawn a Linux, so --spawn none cannot be used with them"
        );
        let native = self.generation.list().contains(&Generation::Native);
        ensure!(
            native || !special,
            "--trace-devices, --fuzz-start and --programs need the native link, so --generation rfc-v2 cannot be used with them"
        );
        Ok(Board { mode, cpus, threads, spawn, debug: self.debug })
    }
}

/// A step of the scenario, and the mode of the boot in which it ran.
#[derive(Debug, Serialize)]
struct StepOf {
    mode: Mode,
    #[serde(flatten)]
    step: Step,
}

/// The number of cycles in the boot in this mode. In a cycle Linux loads the module, starts and ends the bare-metal kernels, and
/// unloads the module.
#[derive(Debug, Serialize)]
struct CyclesOf {
    mode: Mode,
    done: u64,
}

/// A kind of device access of a spawned Linux, and the mode of the boot in which the accesses were made.
#[derive(Debug, Serialize)]
struct TouchedIn {
    mode: Mode,
    what: String,
}

/// How long a part of the command took.
#[derive(Debug, Serialize)]
struct Timing {
    what: String,
    seconds: f64,
}

/// The whole result, as `--json` prints it.
#[derive(Debug, Default, Serialize)]
struct LinuxSummary {
    #[serde(flatten)]
    kernels: Summary,
    steps: Vec<StepOf>,
    cycles: Vec<CyclesOf>,
    kernel_version: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    touched: Vec<TouchedIn>,
    timings: Vec<Timing>,
}

impl LinuxSummary {
    /// Calls `act`, and records how long it took, under the name `what`.
    fn timed<T>(&mut self, what: impl Into<String>, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let done = act()?;
        self.timings.push(Timing { what: what.into(), seconds: start.elapsed().as_secs_f64() });
        Ok(done)
    }

    /// The result as lines of text.
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("Linux {}: {}", self.kernel_version, self.counts())];
        if self.kernels.has_pairs() {
            lines.push(self.kernels.table());
        }
        lines.extend(self.touched.iter().map(|touched| format!("{}: {}", touched.mode, touched.what)));
        let times: Vec<String> =
            self.timings.iter().map(|t| format!("{} {:.1} s", t.what, t.seconds)).collect();
        lines.push(times.join(", "));
        lines
    }

    /// The numbers of steps and cycles, as text.
    fn counts(&self) -> String {
        let failed = self.steps.iter().filter(|s| !s.step.ok).count();
        let steps = format!("{} steps, {failed} of them failed", self.steps.len());
        match self.cycles.iter().map(|c| c.done).sum() {
            0u64 => steps,
            cycles => format!("{steps}; {cycles} cycles of loading and unloading the module"),
        }
    }
}

/// The result of a run.
struct Outcome {
    summary: LinuxSummary,
    /// A note about a mode that could not run, if there is one.
    not_run: Option<String>,
    /// All problems. The run passed if there are none.
    problems: Vec<String>,
}

/// The command `cargo xtask linux`. It is an error if the run has a problem.
pub fn linux(places: &Places, provision: &Provision, args: &LinuxArgs) -> Result<()> {
    if let Some(dir) = &args.export {
        return export(places, provision, dir);
    }
    let mut needs = needs(args.wanted()?, args.mode.x2apic());
    if args.iperf {
        needs.push(Need::Iperf);
    }
    provision.announce(&needs)?;
    provision.ensure(&needs)?;
    if args.shell {
        return shell(places, provision, args);
    }
    let outcome = play(places, provision, args)?;
    let lines: Vec<String> = outcome.summary.lines().into_iter().chain(outcome.not_run).collect();
    summary::show(&lines, args.json.then_some(&outcome.summary))?;
    if outcome.problems.is_empty() {
        return Ok(());
    }
    bail!("the run failed:\n  {}", demo::first_of(&outcome.problems).join("\n  "))
}

/// The step `linux` of `cargo xtask test`. First it runs the scenario with the default options, but with this number of cycles,
/// and it kills the spawned Linux in mid-stream only once. In x2APIC mode the spawned Linux ends itself in only two ways: one
/// orderly and one sudden. Then it traces the device accesses of a spawned Linux. Returns a note about the result of each run.
pub fn check(places: &Places, provision: &Provision, cycles: u64) -> Result<Vec<String>> {
    let Defaults { args } = Defaults::try_parse_from(["linux"])?;
    let trace = LinuxArgs { mode: Modes::Xapic, trace_devices: true, ..args.clone() };
    let xapic = LinuxArgs { mode: Modes::Xapic, cycles, lives: 1, ..args };
    let ends = ["reboot", "sysrq-b"].map(String::from).to_vec();
    let x2apic = LinuxArgs { mode: Modes::X2apic, ends, ..xapic.clone() };
    let mut notes = Vec::new();
    for args in [xapic, x2apic, trace] {
        let outcome = play(places, provision, &args)?;
        eprintln!("{}", outcome.summary.lines().join("\n"));
        if !outcome.problems.is_empty() {
            bail!("{}", demo::first_of(&outcome.problems).join("\n"));
        }
        notes.push(format!("Linux {}: {}", outcome.summary.kernel_version, outcome.summary.counts()));
        notes.extend(outcome.not_run);
    }
    Ok(notes)
}

/// Writes the sources of the module to a folder, and says how to build them.
fn export(places: &Places, provision: &Provision, dir: &Path) -> Result<()> {
    let needs = [Need::Rust(Toolchain::Active, &[], &[]), Need::Cc];
    provision.announce(&needs)?;
    provision.ensure(&needs)?;
    let dir = std::env::current_dir()?.join(dir);
    stage::lay(places, &dir)?;
    println!(
        "The sources of the module, and all that they need, are in {dir}.\n\
         You need a Linux that was built with CONFIG_RUST=y and with this compiler: {compiler}\n\
         $ make -C FOLDER_OF_THE_BUILD_OF_LINUX M={dir}/{module} modules\n\
         Only this compiler can use the libraries in macros/. To use another compiler, run this command again with it.\n\
         The options of Linux that the module needs are in {dir}/{module}/config/base.config.",
        dir = dir.display(),
        compiler = stage::compiler()?,
        module = stage::MODULE,
    );
    Ok(())
}

/// Gets the built Linux ([`kernel::ready`]), builds all other files that a boot needs, and boots the machine once in each mode.
fn play(places: &Places, provision: &Provision, args: &LinuxArgs) -> Result<Outcome> {
    let _lock = cmd::lock(&places.own_target("linux"))?;
    let qemu = provision.qemu(Arch::X86)?;
    let (modes, not_run) = demo::runnable(qemu, args.mode, places.ci)?;
    let mut summary = LinuxSummary::default();
    let linux = summary.timed("kernel", || kernel::ready(&args.wanted()?))?;
    summary.kernel_version.clone_from(&linux.release);
    let initramfs = summary.timed("modules and images", || {
        parts::build(places, &linux, args.spawn == Spawn::Linux, args.iperf)
    })?;
    let mut outcome = Outcome { summary, not_run, problems: Vec::new() };
    for mode in modes {
        boot(qemu, &job(places, &linux, &initramfs, mode, args)?, &mut outcome)?;
    }
    Ok(outcome)
}

/// Boots the machine once, and adds the result to `outcome`.
fn boot(qemu: &Qemu, job: &Job, outcome: &mut Outcome) -> Result<()> {
    let Outcome { summary, problems, .. } = outcome;
    let mode = job.board.mode;
    let came = summary.timed(format!("run in {mode}"), || job.run(qemu))?;
    problems.extend(came.problems);
    summary.kernels.add(&came.report, job.kernels());
    summary.cycles.push(CyclesOf { mode, done: came.report.cycles });
    summary.steps.extend(came.report.steps.into_iter().map(|step| StepOf { mode, step }));
    summary.touched.extend(came.touched.into_iter().map(|what| TouchedIn { mode, what }));
    Ok(())
}

/// Gets the built Linux ([`kernel::ready`]), builds all other files that a boot needs, and boots the machine to a shell.
fn shell(places: &Places, provision: &Provision, args: &LinuxArgs) -> Result<()> {
    let _lock = cmd::lock(&places.own_target("linux"))?;
    let qemu = provision.qemu(Arch::X86)?;
    let (modes, _) = demo::runnable(qemu, args.mode, places.ci)?;
    let mode = modes.first().context("QEMU cannot run any of the modes")?;
    let linux = kernel::ready(&args.wanted()?)?;
    let initramfs = parts::build(places, &linux, args.spawn == Spawn::Linux, args.iperf)?;
    job(places, &linux, &initramfs, *mode, args)?.shell(qemu)
}

/// The task of a boot in this mode.
fn job<'a>(
    places: &Places,
    linux: &Built,
    initramfs: &'a Path,
    mode: Mode,
    args: &LinuxArgs,
) -> Result<Job<'a>> {
    let scenario = args.scenario();
    let name = format!("{}-{mode}", scenario.name()).to_lowercase();
    Ok(Job {
        image: linux.image(),
        initramfs,
        folder: places.own_target(&format!("linux/run-{}-{name}", linux.key)),
        board: args.board(mode)?,
        scenario,
        generations: args.generation.list(),
        messages: args.messages,
        cycles: args.cycles,
        lives: args.lives,
        ends: args.ends.clone(),
        bytes: args.bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_the_json() {
        let step = |ok| Step { name: "load".into(), ok, detail: "as it must be".into() };
        let summary = LinuxSummary {
            steps: vec![
                StepOf { mode: Mode::Xapic, step: step(true) },
                StepOf { mode: Mode::Xapic, step: step(false) },
            ],
            cycles: vec![CyclesOf { mode: Mode::Xapic, done: 3 }],
            kernel_version: "7.3.4".into(),
            timings: vec![Timing { what: "kernel".into(), seconds: 1.5 }],
            ..LinuxSummary::default()
        };
        let expected = r#"{"kernels":[],"pairs":[],"drains":[],"killed":[],"steps":[{"mode":"xapic","name":"load","ok":true,"detail":"as it must be"},{"mode":"xapic","name":"load","ok":false,"detail":"as it must be"}],"cycles":[{"mode":"xapic","done":3}],"kernel_version":"7.3.4","timings":[{"what":"kernel","seconds":1.5}]}"#;
        assert_eq!(serde_json::to_string(&summary).ok().as_deref(), Some(expected));
        let counts = "2 steps, 1 of them failed; 3 cycles of loading and unloading the module";
        assert_eq!(summary.counts(), counts);
    }

    #[test]
    fn what_the_options_ask_for() {
        let args = |words: &[&str]| {
            Defaults::try_parse_from([&["linux"], words].concat()).map(|defaults| defaults.args)
        };
        let board = |words: &[&str]| args(words).ok().and_then(|args| args.board(Mode::Xapic).ok());
        let sizes = |words: &[&str]| board(words).map(|board| (board.cpus, board.spawn));
        assert_eq!(sizes(&[]), Some((6, true)));
        assert_eq!(sizes(&["--spawn", "none"]), Some((4, false)));
        assert_eq!(sizes(&["--cpus", "7"]), Some((7, true)));
        assert_eq!(sizes(&["--cpus", "5"]), None);
        assert_eq!(sizes(&["--cpus", "7", "--threads", "2"]), None);
        assert_eq!(board(&["--threads", "2"]).map(|board| board.threads), Some(2));
        assert_eq!(sizes(&["--cpus", "5", "--spawn", "none"]), Some((5, false)));
        for special in [&["--trace-devices"][..], &["--fuzz-start", "9"]] {
            assert!(sizes(special).is_some());
            assert_eq!(sizes(&[special, &["--spawn", "none"]].concat()), None);
            assert_eq!(sizes(&[special, &["--generation", "rfc-v2"]].concat()), None);
            assert!(args(&[special, &["--shell"]].concat()).is_err());
        }
        let scenario = |words: &[&str]| args(words).map(|args| args.scenario()).ok();
        assert_eq!(scenario(&[]), Some(Scenario::All));
        assert_eq!(scenario(&["--shell"]), Some(Scenario::Shell));
        assert_eq!(scenario(&["--trace-devices"]), Some(Scenario::Trace));
        assert_eq!(scenario(&["--programs"]), Some(Scenario::Programs));
        assert_eq!(scenario(&["--fuzz-start", "9"]), Some(Scenario::Fuzz(9)));
    }

    #[test]
    fn what_is_tested_is_what_runs_without_an_option() {
        let Defaults { args } = Defaults::try_parse_from(["linux"]).expect("no option is needed");
        assert_eq!(args.wanted().ok(), Some(tested()));
        assert_eq!(args.generation.list().len(), 2);
        assert!(args.mode.x2apic());
    }
}
