// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask demo`: several kernels, each on a CPU of its own, send each other messages.

use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use clap::{Args, ValueEnum};

use crate::arch::Arch;
use crate::cmd::Places;
use crate::guest::Host;
use crate::image::{self, Flavour, Image};
use crate::kernels::Kernels;
use crate::live::Live;
use crate::machine::{self, Job, Run};
use crate::provision::qemu::Qemu;
use crate::provision::{Need, Provision, Toolchain};
use crate::record::{Generation, Mode, Order};
use crate::summary::{self, Summary};

/// Most CPUs of the host. Together with the CPUs of 15 other kernels, these are not more than the kernels support.
const MAX_HOST_CPUS: i64 = 480;
/// Most CPUs of a machine that is not a PC: on arm64 QEMU lists so many in one region of redistributors.
const MAX_ELSEWHERE: u32 = 123;
/// Most CPUs of a machine whose APICs are in xAPIC mode: ids are below 255.
const MAX_XAPIC_CPUS: u32 = 255;

/// What `demo` takes.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// The machine: an x86 PC, or QEMU's `virt` for arm64 (GICv3) or riscv64 (SBI, and then IMSICs)
    #[arg(long, value_enum, default_value_t = Arch::X86)]
    pub arch: Arch,
    /// The kernel that boots and starts the others: our own, or one that is built from crates of others
    #[arg(long, value_enum, default_value_t = Host::BareMetal)]
    pub host: Host,
    /// How many kernels, or the language of each, such as `rust,c,rust`. The first one is the host, which is in Rust
    #[arg(long, default_value = "3", value_name = "N|LIST")]
    pub kernels: Kernels,
    /// Messages each way per pair of kernels; with --kill this is the least number
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub messages: u64,
    /// The layout of the links
    #[arg(long, value_enum, default_value_t = Generation::Native)]
    pub generation: Generation,
    /// Stop kernel 1 in mid-stream, and start it again, this many times (5 without a number). On x86 it is stopped by INIT,
    /// whatever it executes. On other machines a CPU can only stop itself, so the kernel is told to by a doorbell
    #[arg(long, value_name = "TIMES", num_args = 0..=1, default_missing_value = "5")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=50))]
    pub kill: Option<u32>,
    /// Move a CPU between the running kernels other than the host, under traffic, this many times
    #[arg(long = "move", value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub moves: Option<u32>,
    /// How many CPUs the directory lists for the host; it runs on one of them. Each other kernel has one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_HOST_CPUS))]
    pub host_cpus: u32,
    /// The mode of the local APIC (x86)
    #[arg(long, value_enum, default_value_t = Modes::Both)]
    pub mode: Modes,
    /// Print the result as one JSON object on the last line of stdout; all other output goes to stderr
    #[arg(long)]
    pub json: bool,
    /// Install what is missing without asking
    #[arg(long)]
    pub yes: bool,
    /// Make a kernel fail: hang, panic, exception, or with --move keep or stale, then `:` and the kernel's number
    #[arg(long, hide = true)]
    pub fault: Option<String>,
}

impl DemoArgs {
    /// The default options, with these kernels.
    pub fn plain(kernels: Kernels) -> Self {
        Self {
            arch: Arch::X86,
            host: Host::BareMetal,
            kernels,
            messages: 10_000,
            generation: Generation::Native,
            kill: None,
            moves: None,
            host_cpus: 1,
            mode: Modes::Both,
            json: false,
            yes: false,
            fault: None,
        }
    }
}

/// The modes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Modes {
    Xapic,
    X2apic,
    Both,
}

impl Modes {
    /// Whether x2APIC mode is one of them.
    pub fn x2apic(self) -> bool {
        self != Modes::Xapic
    }

    fn list(self) -> &'static [Mode] {
        match self {
            Modes::Xapic => &[Mode::Xapic],
            Modes::X2apic => &[Mode::X2apic],
            Modes::Both => Arch::X86.modes(),
        }
    }
}

/// What a boot needs.
pub fn needs(arch: Arch, x2apic: bool) -> Vec<Need> {
    vec![Need::Rust(Toolchain::Active, &[], arch.targets()), Need::Qemu { arch, x2apic }]
}

/// The modes that `qemu` can run, and a note about those that it cannot run. In CI, or if no mode is left, a mode that cannot
/// run is an error.
pub fn runnable(qemu: &Qemu, modes: Modes, ci: bool) -> Result<(Vec<Mode>, Option<String>)> {
    let (list, not_run): (Vec<Mode>, Vec<Mode>) =
        modes.list().iter().partition(|mode| **mode == Mode::Xapic || qemu.has_x2apic());
    if not_run.is_empty() {
        return Ok((list, None));
    }
    let note = format!("x2APIC: not run: QEMU {} cannot emulate it (9.0 or newer can)", qemu.version);
    if ci || list.is_empty() {
        bail!("{note}");
    }
    eprintln!("{note}");
    Ok((list, Some(note)))
}

/// The result of a demo.
pub struct Outcome {
    /// What both ends of each pair counted.
    pub summary: Summary,
    /// What could not run here, and why.
    pub not_run: Option<String>,
    /// All problems.
    pub problems: Vec<String>,
    /// How long the machines ran.
    pub took: Duration,
}

/// `cargo xtask demo`: an error if anything went wrong.
pub fn demo(places: &Places, provision: &Provision, args: &DemoArgs) -> Result<()> {
    let flavour = if args.moves.is_some() { Flavour::SecondCpu } else { Flavour::OneCpu };
    refuse_elsewhere(args)?;
    let stage = Stage::build(places, provision, (args.arch, &args.kernels), flavour, args.mode.x2apic())?;
    let stage = stage.with_host(provision, args.host)?;
    let outcome = play(&stage, args)?;
    let lines: Vec<String> = [outcome.summary.table()].into_iter().chain(outcome.not_run.clone()).collect();
    summary::show(&lines, args.json.then_some(&outcome.summary))?;
    if outcome.problems.is_empty() {
        return Ok(());
    }
    bail!("the demo failed:\n  {}", first_of(&outcome.problems).join("\n  "))
}

/// Refuses options that only x86-64 supports, and says why.
fn refuse_elsewhere(args: &DemoArgs) -> Result<()> {
    let arch = args.arch;
    let why = match () {
        () if arch == Arch::X86 => return Ok(()),
        () if args.moves.is_some() => {
            "--move: a kernel there has one CPU, no entry point for a second one, and no vector of its own, which is needed to recognize a stray doorbell"
        }
        () if args.host != Host::BareMetal => "--host: the other hosts are for x86-64",
        () if args.kernels.has_c() => "the kernel in C is for x86-64 only",
        () if args.host_cpus.saturating_add(args.kernels.count()) > MAX_ELSEWHERE + 1 => "at most 123 CPUs",
        () => return Ok(()),
    };
    bail!("not on {arch}: {why}")
}

/// The emulator and the kernels of a demo.
pub struct Stage<'a> {
    /// Where things are.
    pub places: &'a Places,
    /// The emulator.
    pub qemu: &'a Qemu,
    /// The kernels, the host first.
    pub images: Vec<Image>,
}

impl<'a> Stage<'a> {
    /// Builds the kernels, and finds an emulator, if possible one with x2APIC.
    pub fn build(
        places: &'a Places,
        provision: &'a Provision,
        (arch, kernels): (Arch, &Kernels),
        flavour: Flavour,
        x2apic: bool,
    ) -> Result<Self> {
        let mut needs = needs(arch, x2apic);
        if kernels.has_c() {
            needs.push(Need::Cc);
        }
        provision.announce(&needs)?;
        provision.ensure(&needs)?;
        let images = image::build(places, arch, kernels, flavour)?;
        Ok(Self { places, qemu: provision.qemu(arch)?, images })
    }
}

impl Stage<'_> {
    /// The same, booted by `host`.
    pub fn with_host(mut self, provision: &Provision, host: Host) -> Result<Self> {
        let needs = host.needs();
        provision.announce(&needs)?;
        provision.ensure(&needs)?;
        if let (Some(file), Some(first)) = (host.build(self.places)?, self.images.first_mut()) {
            first.file = file;
        }
        Ok(self)
    }

    /// The kernels, the host first.
    pub fn images(&self) -> &[Image] {
        &self.images
    }
}

/// Runs the demo in each mode.
pub fn play(stage: &Stage, args: &DemoArgs) -> Result<Outcome> {
    let &Stage { places, qemu, ref images } = stage;
    if args.kill.is_some() && (args.generation != Generation::Native || args.kernels.count() < 3) {
        bail!("--kill needs the native link, and 3 kernels or more: two must survive the one that dies");
    }
    if args.kill.is_some() && args.kernels.has_c() {
        bail!("--kill is for kernels in Rust: the kernel in C does not record what it has sent");
    }
    if args.moves.is_some() && (args.generation != Generation::Native || args.kernels.count() < 3) {
        bail!("--move needs the native link, and 3 kernels or more: a CPU moves between two kernels other than the host");
    }
    if args.moves.is_some() && (args.kernels.has_c() || args.kill.is_some()) {
        bail!("--move is for kernels in Rust, and cannot be combined with --kill");
    }
    if args.moves.is_some() && args.host != Host::BareMetal {
        bail!("--move works only with our own host");
    }
    let arch = args.arch;
    let (modes, not_run) = match arch {
        Arch::X86 => runnable(qemu, args.mode, places.ci)?,
        arch => (arch.modes().to_vec(), None),
    };
    let (generation, kills) = (args.generation, args.kill.unwrap_or(0));
    let mut outcome =
        Outcome { summary: Summary::default(), not_run, problems: Vec::new(), took: Duration::ZERO };
    for mode in modes {
        let fault = args.fault.as_deref();
        let host = args.host;
        let (messages, host_cpus, moves) = (args.messages, args.host_cpus, args.moves.unwrap_or(0));
        let job = Job {
            arch,
            host,
            run: "demo",
            mode,
            generation,
            messages,
            kills,
            host_cpus,
            moves,
            fault,
            images,
        };
        if mode == Mode::Xapic && job.cpus() > MAX_XAPIC_CPUS {
            bail!("xAPIC has ids for {MAX_XAPIC_CPUS} CPUs, not for {}: --mode x2apic", job.cpus());
        }
        let mut live = Live::new(mode);
        let start = Instant::now();
        let run = machine::boot(places, qemu, &job, &mut |record| live.saw(record))?;
        outcome.took += start.elapsed();
        live.end();
        outcome.summary.add(&run.report, args.kernels.count());
        let mut found = run.problems.clone();
        let order =
            Order { kernels: args.kernels.count(), messages, mode, generation, kills, host_cpus, moves };
        found.extend(run.report.demo_problems(&order));
        if !found.is_empty() {
            show_tail(&run, mode);
        }
        outcome.problems.extend(found);
    }
    Ok(outcome)
}

/// The first entries of a long list. Causes come before their consequences, so the first ones matter most.
pub fn first_of(problems: &[String]) -> Vec<String> {
    const ENOUGH: usize = 10;
    let mut shown: Vec<String> = problems.iter().take(ENOUGH).cloned().collect();
    if problems.len() > ENOUGH {
        shown.push(format!("and {} more", problems.len() - ENOUGH));
    }
    shown
}

/// Prints the end of the serial line, to help find the cause of a failure.
pub fn show_tail(run: &Run, mode: Mode) {
    eprintln!(
        "--- the last {} lines of the serial line ({mode}; all of it: {}) ---",
        run.tail.len(),
        run.log.display()
    );
    for line in &run.tail {
        eprintln!("{line}");
    }
    eprintln!("---");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let list: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(first_of(&list).len(), 11);
        assert_eq!(first_of(&list).last().map(String::as_str), Some("and 2 more"));
        assert_eq!(first_of(&list[..10]), list[..10]);
    }
}
