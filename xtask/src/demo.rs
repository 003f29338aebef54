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

/// The largest number of CPUs that the host can have. With 15 other kernels, which have one CPU each, the machine still has
/// fewer CPUs than the kernels support (512).
const MAX_HOST_CPUS: i64 = 480;
/// The largest number of CPUs of a machine that is not a PC. On arm64 it is the number of redistributors that fit into the
/// first region that QEMU lists.
const MAX_ELSEWHERE: u32 = 123;
/// The largest number of CPUs of a machine in xAPIC mode: APIC ids are 0 to 254, because 255 means all CPUs.
const MAX_XAPIC_CPUS: u32 = 255;

/// The options of `cargo xtask demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// The machine: an x86 PC, or QEMU's `virt` for arm64 (with a GICv3) or riscv64 (run twice: with SBI, and with IMSICs)
    #[arg(long, value_enum, default_value_t = Arch::X86)]
    pub arch: Arch,
    /// The kernel that the machine boots, and that starts the other kernels: our own, or one that others wrote
    #[arg(long, value_enum, default_value_t = Host::BareMetal)]
    pub host: Host,
    /// How many kernels, or the language of each, such as `rust,c,rust`. The first one is the host, which is in Rust
    #[arg(long, default_value = "3", value_name = "N|LIST")]
    pub kernels: Kernels,
    /// Messages that each kernel sends to each other kernel. With --kill or --move it can send more
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub messages: u64,
    /// The layout of the links
    #[arg(long, value_enum, default_value_t = Generation::Native)]
    pub generation: Generation,
    /// Stop kernel 1 in mid-stream, and start it again, this many times (5 times if no number is given). On x86, INIT stops
    /// its CPU at any instruction. On other machines a CPU can only stop itself: there a doorbell tells the kernel to stop
    #[arg(long, value_name = "TIMES", num_args = 0..=1, default_missing_value = "5")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=50))]
    pub kill: Option<u32>,
    /// Move a CPU this many times from one running kernel to another, while messages are sent. The host never gets this CPU
    #[arg(long = "move", value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub moves: Option<u32>,
    /// How many CPUs the directory lists for the host, which runs on only one of them. Each other kernel has one CPU
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_HOST_CPUS))]
    pub host_cpus: u32,
    /// The mode of the local APIC (x86)
    #[arg(long, value_enum, default_value_t = Modes::Both)]
    pub mode: Modes,
    /// Print the result as one JSON object on the last line of stdout; all other output goes to stderr
    #[arg(long)]
    pub json: bool,
    /// Install missing tools without asking
    #[arg(long)]
    pub yes: bool,
    /// Make a kernel fail. FAULT:K, where K is the kernel's number, and FAULT is hang, panic, exception, lose, tear or double;
    /// with --move it can also be keep or stale (examples/bare-metal/src/options.rs)
    #[arg(long, hide = true)]
    pub fault: Option<String>,
}

impl DemoArgs {
    /// The default options, but with these kernels.
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

/// The modes of the local APIC in which the demo is run, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Modes {
    Xapic,
    X2apic,
    Both,
}

impl Modes {
    /// Whether the demo is run in x2APIC mode.
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

/// What must be installed to build the kernels in Rust and to boot them.
pub fn needs(arch: Arch, x2apic: bool) -> Vec<Need> {
    vec![Need::Rust(Toolchain::Active, &[], arch.targets()), Need::Qemu { arch, x2apic }]
}

/// Returns those of `modes` that `qemu` can run, and a note about the others. In CI it is an error if a mode cannot run.
/// Elsewhere it is an error if none of them can run.
pub fn runnable(qemu: &Qemu, modes: Modes, ci: bool) -> Result<(Vec<Mode>, Option<String>)> {
    let (list, not_run): (Vec<Mode>, Vec<Mode>) =
        modes.list().iter().partition(|mode| **mode == Mode::Xapic || qemu.has_x2apic());
    if not_run.is_empty() {
        return Ok((list, None));
    }
    let note = format!("x2APIC: not run: QEMU {} cannot emulate it, QEMU 9.0 or newer can", qemu.version);
    if ci || list.is_empty() {
        bail!("{note}");
    }
    eprintln!("{note}");
    Ok((list, Some(note)))
}

/// The result of a demo.
pub struct Outcome {
    /// The counts of the senders and receivers, and the other results.
    pub summary: Summary,
    /// A note about a mode that could not run, if there is one.
    pub not_run: Option<String>,
    /// All problems. The demo passed if there are none.
    pub problems: Vec<String>,
    /// How long the machines ran, in all modes together.
    pub took: Duration,
}

/// The command `cargo xtask demo`. It is an error if the demo finds a problem.
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
            "--move needs kernels with an entry point for a second CPU, and with a vector of their own, by which a stray \
             doorbell is recognized. Only our kernels for x86-64 have these"
        }
        () if args.host != Host::BareMetal => "--host: the kernels that others wrote are for x86-64 only",
        () if args.kernels.has_c() => "the kernel in C is for x86-64 only",
        () if args.host_cpus.saturating_add(args.kernels.count()) > MAX_ELSEWHERE + 1 => {
            "the machine can have at most 123 CPUs"
        }
        () => return Ok(()),
    };
    bail!("this cannot run on {arch}: {why}")
}

/// The emulator and the kernels of a demo.
pub struct Stage<'a> {
    /// The repository and the target folder.
    pub places: &'a Places,
    /// The emulator.
    pub qemu: &'a Qemu,
    /// The kernels, the host first.
    pub images: Vec<Image>,
}

impl<'a> Stage<'a> {
    /// Builds the kernels, and finds an emulator. With `x2apic` it looks for an emulator with x2APIC mode. If there is none, it
    /// accepts an emulator without x2APIC mode.
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
    /// Builds `host`, and makes it the kernel that the machine boots. If `host` is our own host, nothing changes.
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

/// Runs the demo in each mode, and collects the results.
pub fn play(stage: &Stage, args: &DemoArgs) -> Result<Outcome> {
    let &Stage { places, qemu, ref images } = stage;
    if args.kill.is_some() && (args.generation != Generation::Native || args.kernels.count() < 3) {
        bail!("--kill needs the native link, and 3 kernels or more: two kernels continue while one is dead");
    }
    if args.kill.is_some() && args.kernels.has_c() {
        bail!("--kill needs kernels in Rust: the kernel in C does not record what it has sent");
    }
    if args.moves.is_some() && (args.generation != Generation::Native || args.kernels.count() < 3) {
        bail!("--move needs the native link, and 3 kernels or more: the CPU moves between kernels other than the host");
    }
    if args.moves.is_some() && (args.kernels.has_c() || args.kill.is_some()) {
        bail!("--move needs kernels in Rust, and cannot be combined with --kill");
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
            bail!(
                "xAPIC mode has ids for {MAX_XAPIC_CPUS} CPUs, but {} are needed: use --mode x2apic",
                job.cpus()
            );
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

/// Returns the first 10 problems, and a line with the number of the others. A cause is reported before its consequences, so the
/// first problems matter most.
pub fn first_of(problems: &[String]) -> Vec<String> {
    const ENOUGH: usize = 10;
    let mut shown: Vec<String> = problems.iter().take(ENOUGH).cloned().collect();
    if problems.len() > ENOUGH {
        shown.push(format!("and {} more", problems.len() - ENOUGH));
    }
    shown
}

/// Prints the last lines of the serial line, to help find the cause of a failure.
pub fn show_tail(run: &Run, mode: Mode) {
    eprintln!(
        "--- the last {} lines of the serial line ({mode}; all lines are in {}) ---",
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
