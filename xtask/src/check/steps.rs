// SPDX-License-Identifier: MIT OR Apache-2.0
//! The steps of `cargo xtask test`, in their order: quick steps that often fail come first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, ensure, Result};

use super::campaigns::{
    fuzz_targets, litmus_tests, loom_models, tests, Sanitizer, FUZZ, LITMUS, NIGHTLY, SHORT_FUZZ_SECONDS,
    SHORT_LITMUS_SEEDS, SHORT_PREEMPTIONS,
};
use super::{capi, disassembly, instructions, no_panic, publish, source, Context, Notes, Step};
use crate::arch::{self, Arch};
use crate::bench;
use crate::book;
use crate::cmd::{self, Places, SPAWN};
use crate::demo::{self, DemoArgs, Modes, Stage};
use crate::guest::{self, Host};
use crate::image::{self, Flavour, Image, BARE_METAL};
use crate::inspect;
use crate::kernels::Kernels;
use crate::linux;
use crate::machine::{self, Job};
use crate::proofs;
use crate::provision::qemu::Qemu;
use crate::provision::{self, Need, Provision, Toolchain};
use crate::record::{Generation, Mode};

/// The workspaces other than the root's.
const OTHER_WORKSPACES: [&str; 9] = [
    BARE_METAL,
    guest::AXPLAT,
    guest::BOOTLOADER,
    guest::DISK,
    no_panic::FOLDER,
    instructions::FOLDER,
    FUZZ,
    bench::FOLDER,
    linux::VENDOR,
];
const BARE: Need = Need::Rust(Toolchain::Active, &[], &arch::TARGETS);
/// The kernels in the boots of a step.
const KERNELS: u32 = 3;
/// The kernels in boots with a kernel in C.
const WITH_C: &str = "rust,c,rust";
/// Messages per pair in the boots of a step.
const MESSAGES: u64 = 500;
/// The same on the native link, whose senders do not wait for answers.
const STREAM: u64 = 10_000;
/// How often a kernel dies in mid-stream.
const KILLS: u32 = 5;
/// The same on slower emulators.
const FEW_KILLS: u32 = 2;
/// How often a CPU is moved from one running kernel to another.
const MOVES: u32 = 10;

/// How often the Linux module, and all that it starts, is started and ended.
const LINUX_CYCLES: u64 = 2;

/// A hung kernel must be noticed within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// All steps.
pub fn all() -> Vec<Step> {
    let step = |name, what, needs: &[Need], run| Step { name, what, needs: needs.to_vec(), long: false, run };
    let long = |name, what, needs: &[Need], run| Step { long: true, ..step(name, what, needs, run) };
    let fmt = Need::Rust(Toolchain::Active, &["rustfmt"], &[]);
    let clippy = Need::Rust(Toolchain::Active, &["clippy"], &arch::TARGETS);
    let msrv = Need::Rust(Toolchain::Msrv, &[], &arch::TARGETS);
    let boot = demo::needs(Arch::X86, true);
    let boot_with_c = [&boot[..], &[Need::Cc]].concat();
    vec![
        step("spdx", "each source file begins with its licence", &[], source::spdx),
        step("locked", "the committed lock files fit the manifests", &[], locked),
        step("fmt", "rustfmt, every workspace", &[fmt], fmt_all),
        step("clippy", "no warning, every workspace and target", &[clippy], clippy_all),
        step("unit", "the tests of every crate", &[], unit),
        step("c-layout", "a C compiler has the same layout and bytes", &[Need::Cc], c_layout),
        step("loom", "the models, with bounded preemptions", &[], |c| {
            loom_models(c.places, SHORT_PREEMPTIONS)
        }),
        step(
            "miri",
            "no undefined behaviour in the unit tests; litmus tests on weak memory",
            &[NIGHTLY],
            miri,
        ),
        step("conformance-mock", "the conformance suite on the mock", &[], conformance_mock),
        step("no-std", "the kernel crates build for bare metal", &[BARE], no_std),
        step("no-panic", "no panic path in what a kernel links", &[BARE], no_panic::run),
        step(
            "capi",
            "the library for C: header, C tests, symbols",
            &[Need::Cc, Need::Compilers, BARE, msrv.clone()],
            capi::run,
        ),
        step(
            "disassembly",
            "each doorbell has its fence, and each entry begins with endbr64, in the instructions",
            &[BARE],
            disassembly::run,
        ),
        step(
            "instructions",
            "the native link's quick paths do not take more instructions than before",
            &[Need::Valgrind],
            instructions::run,
        ),
        step(
            "msrv",
            "the kernel crates build with the oldest toolchain",
            std::slice::from_ref(&msrv),
            msrv_builds,
        ),
        step(
            "conformance-qemu",
            "the conformance suite on the emulated APIC, both modes",
            &boot,
            conformance_qemu,
        ),
        step("demo-qemu", "the demo passes, on both links, with deaths and moves", &boot_with_c, demo_qemu),
        step(
            "guest-axplat",
            "conformance suite and demo with a kernel on axplat as the host",
            &[&boot[..], &Host::Axplat.needs()].concat(),
            |c| guest_qemu(c, Host::Axplat),
        ),
        long(
            "guest-bootloader",
            "conformance suite and demo with a kernel on bootloader_api as the host",
            &[&boot[..], &Host::Bootloader.needs()].concat(),
            |c| guest_qemu(c, Host::Bootloader),
        ),
        step("arm64", "conformance suite and demo on a GICv3", &demo::needs(Arch::Arm64, false), |c| {
            elsewhere(c, Arch::Arm64)
        }),
        step(
            "riscv64",
            "conformance suite and demo on SBI and on IMSICs",
            &demo::needs(Arch::Riscv64, false),
            |c| elsewhere(c, Arch::Riscv64),
        ),
        step(
            "linux",
            "a Linux with our module and kernels beside it, both links",
            &linux::needs(linux::tested(), true),
            |c| linux::check(c.places, c.provision, LINUX_CYCLES),
        ),
        step(
            "fuzz-short",
            "each fuzz target for a short time",
            &[NIGHTLY, Need::CargoTool("cargo-fuzz")],
            |c| fuzz_targets(c.places, SHORT_FUZZ_SECONDS, Sanitizer::Address, &[]),
        ),
        step("bench-smoke", "each contender of the benchmarks delivers all messages", &[], bench_smoke),
        step("docs", "the documentation builds without a warning", &[BARE], docs),
        step(
            "package",
            "the crates that would be published build from their packages",
            &[],
            publish::package,
        ),
        step(
            "minimal-versions",
            "the crates build with the oldest allowed versions of their dependencies",
            &[Need::Rust(Toolchain::Nightly, &[], &[]), msrv.clone()],
            publish::minimal_versions,
        ),
        step(
            "outer-workspace",
            "the crates build inside another workspace, by path",
            &[BARE],
            publish::outer_workspace,
        ),
        step("proofs", "each clause has a test, and each break of the code can be applied", &[], |c| {
            Ok(vec![proofs::check(&c.places.root)?])
        }),
        step("book", "the book's links, listings and drawings are good", &[], |c| {
            Ok(vec![book::checked(&c.places.root)?])
        }),
        step("readme", "links and commands in the pages are good", &[], source::pages),
        step(
            "deny",
            "licences, sources, bans and advisories of the dependencies",
            &[Need::CargoTool("cargo-deny")],
            deny,
        ),
    ]
}

fn cargo(context: &Context, words: &[&str]) -> Command {
    cargo_in(context, "", words)
}

fn cargo_in(context: &Context, folder: &str, words: &[&str]) -> Command {
    let mut cmd = context.places.cargo_in(Path::new(folder));
    if !folder.is_empty() {
        cmd.env("CARGO_TARGET_DIR", context.places.own_target(&folder_name(folder)));
    }
    cmd.args(words);
    cmd
}

fn folder_name(folder: &str) -> String {
    Path::new(folder).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The folders of all workspaces, the root's first.
fn workspaces(context: &Context) -> Result<Vec<&'static str>> {
    let all: Vec<_> = [""].into_iter().chain(OTHER_WORKSPACES).collect();
    let missing = all.iter().find(|folder| !context.places.root.join(folder).join("Cargo.toml").is_file());
    ensure!(missing.is_none(), "there is no {}", missing.unwrap_or(&""));
    Ok(all)
}

/// `-p` for each crate that a kernel links.
fn kernel_crates(arch: Arch) -> Vec<&'static str> {
    arch.crates().iter().chain([&SPAWN]).flat_map(|name| ["-p", *name]).collect()
}

fn locked(context: &Context) -> Result<Notes> {
    for folder in workspaces(context)? {
        cmd::run(&mut cargo_in(context, folder, &["fetch", "--locked"]))?;
    }
    Ok(Vec::new())
}

fn fmt_all(context: &Context) -> Result<Notes> {
    for folder in workspaces(context)? {
        // Without --all, because in a separate workspace --all would also format the crates that it depends on.
        cmd::run(&mut cargo_in(context, folder, &["fmt", "--check"]))?;
    }
    // These files are not a crate, but are part of two crates.
    let common = context.places.root.join(guest::COMMON);
    let parts = fs::read_dir(&common)?.flatten().map(|entry| entry.path());
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.current_dir(&context.places.root).args([
        "--check",
        "--edition",
        "2021",
        "--config",
        "skip_children=true",
    ]);
    cmd::run(rustfmt.args(parts.filter(|path| path.extension().is_some_and(|end| end == "rs"))))?;
    // The Linux module is built without cargo.
    let module = context.places.root.join(linux::MODULE).join("main.rs");
    cmd::run(Command::new("rustfmt").args(["--check", "--edition", "2021"]).arg(module))?;
    Ok(Vec::new())
}

fn clippy_all(context: &Context) -> Result<Notes> {
    let deny = ["--", "-D", "warnings"];
    cmd::run(cargo(context, &["clippy", "--workspace", "--all-targets"]).args(deny))?;
    for arch in Arch::ALL {
        let bare = ["clippy", "--target", arch.target()];
        cmd::run(cargo(context, &bare).args(kernel_crates(arch)).args(deny))?;
        for folder in [BARE_METAL, no_panic::FOLDER] {
            cmd::run(cargo_in(context, folder, &bare).arg("--release").args(deny))?;
        }
    }
    for folder in [guest::AXPLAT, guest::BOOTLOADER] {
        let words = ["clippy", "--release", "--target", Arch::X86.target()];
        cmd::run(cargo_in(context, folder, &words).args(deny))?;
    }
    for folder in [instructions::FOLDER, bench::FOLDER] {
        cmd::run(cargo_in(context, folder, &["clippy", "--all-targets"]).args(deny))?;
    }
    Ok(Vec::new())
}

fn unit(context: &Context) -> Result<Notes> {
    tests(cargo(context, &["test", "--workspace"]))
}

fn c_layout(context: &Context) -> Result<Notes> {
    let mut notes = Notes::new();
    for (package, test) in [("mk-ipi-abi", "c_layout"), ("mk-ipi-mock", "c_peer")] {
        notes.extend(tests(cargo(context, &["test", "-p", package, "--test", test]))?);
    }
    Ok(notes)
}

fn conformance_mock(context: &Context) -> Result<Notes> {
    tests(cargo(context, &["test", "--release", "-p", "mk-ipi-mock"]))
}

fn miri(context: &Context) -> Result<Notes> {
    let nightly = format!("+{}", provision::toolchain_name(Toolchain::Nightly)?);
    let words =
        [&nightly, "miri", "test", "-p", "mk-ipi-abi", "-p", "mk-ipi-core", "-p", "mk-ipi", "--lib", "--"];
    let mut cmd = cargo(context, &words);
    cmd.env("CARGO_TARGET_DIR", context.places.own_target("miri")).args(["--skip", LITMUS]);
    let mut notes = tests(cmd)?;
    notes.extend(litmus_tests(context.places, SHORT_LITMUS_SEEDS)?);
    Ok(notes)
}

fn no_std(context: &Context) -> Result<Notes> {
    for arch in Arch::ALL {
        let words = ["build", "--release", "--target", arch.target()];
        cmd::run(cargo(context, &words).args(kernel_crates(arch)))?;
    }
    Ok(Vec::new())
}

fn msrv_builds(context: &Context) -> Result<Notes> {
    let toolchain = format!("+{}", provision::MSRV);
    let targets = Arch::ALL.map(|arch| (arch, vec!["--target", arch.target()]));
    for (arch, target) in Arch::ALL.map(|arch| (arch, Vec::new())).into_iter().chain(targets) {
        let mut cmd = cargo(context, &[&toolchain, "check"]);
        cmd.env("CARGO_TARGET_DIR", context.places.own_target("msrv"));
        // The toolchain that cargo has set for us must not override the one that is named.
        cmd::run(cmd.args(kernel_crates(arch)).args(target).env_remove("RUSTUP_TOOLCHAIN"))?;
    }
    Ok(Vec::new())
}

/// Times are not checked, only that all messages arrive, whole and in order.
fn bench_smoke(context: &Context) -> Result<Notes> {
    let notes = tests(cargo_in(context, bench::FOLDER, &["test"]))?;
    cmd::run(&mut bench::command(context.places, ["--quick"]))?;
    Ok(notes)
}

fn docs(context: &Context) -> Result<Notes> {
    let mut cmd = cargo(context, &["doc", "--workspace", "--no-deps"]);
    cmd::run(cmd.env("RUSTDOCFLAGS", "-D warnings"))?;
    // As on docs.rs, for the crates' own targets.
    for arch in Arch::ALL {
        let mut cmd = cargo(context, &["doc", "--no-deps", "--target", arch.target()]);
        cmd.args(arch.crates().into_iter().flat_map(|name| ["-p", name]));
        cmd::run(cmd.env("RUSTDOCFLAGS", "-D warnings"))?;
    }
    Ok(Vec::new())
}

fn deny(context: &Context) -> Result<Notes> {
    let program = provision::tool("cargo-deny").unwrap_or_else(|| PathBuf::from("cargo-deny"));
    let mut notes = Notes::new();
    // It finds deny.toml in a folder above each manifest.
    let check = |folder: &str, words: &[&str]| {
        let root = &context.places.root;
        let mut cmd = Command::new(&program);
        cmd.current_dir(root).arg("--manifest-path").arg(root.join(folder).join("Cargo.toml"));
        cmd::run(cmd.arg("check").args(words))
    };
    let fetched = cmd::run(Command::new(&program).current_dir(&context.places.root).args(["fetch", "db"]));
    for folder in workspaces(context)? {
        check(folder, &["bans", "licenses", "sources"])?;
        if fetched.is_ok() {
            check(folder, &["advisories"])?;
        }
    }
    if fetched.is_err() {
        notes.push("advisories: not run: their database cannot be fetched".into());
    }
    Ok(notes)
}

fn conformance_qemu(context: &Context) -> Result<Notes> {
    conformance_in_qemu(context.places, context.provision)
}

/// Runs the conformance suite on the emulated APIC, in each mode that can run.
pub fn conformance_in_qemu(places: &Places, provision: &Provision) -> Result<Notes> {
    let qemu = provision.qemu(Arch::X86)?;
    let (modes, not_run) = demo::runnable(qemu, Modes::Both, places.ci)?;
    let images = image::build(places, Arch::X86, &Kernels::rust(KERNELS as usize), Flavour::OneCpu)?;
    let mut notes = Notes::new();
    for mode in modes {
        notes.push(conformance_of(places, qemu, (Arch::X86, Host::BareMetal, mode), &images)?);
    }
    notes.extend(not_run);
    Ok(notes)
}

/// Runs the conformance suite on one machine.
fn conformance_of(
    places: &Places,
    qemu: &Qemu,
    (arch, host, mode): (Arch, Host, Mode),
    images: &[Image],
) -> Result<String> {
    let job = Job {
        arch,
        host,
        run: "conformance",
        mode,
        generation: Generation::RfcV2,
        messages: MESSAGES,
        kills: 0,
        host_cpus: 1,
        moves: 0,
        fault: None,
        images,
    };
    let run = machine::boot(places, qemu, &job, &mut |_| ())?;
    let mut problems = run.problems.clone();
    problems.extend(run.report.conformance_problems(KERNELS));
    if !problems.is_empty() {
        demo::show_tail(&run, mode);
        bail!("{mode}: {}", problems.join("; "));
    }
    Ok(format!("{mode}: {}", run.report.case_counts()))
}

/// Runs the conformance suite and the demo on an architecture that is not x86-64, in each mode.
fn elsewhere(context: &Context, arch: Arch) -> Result<Notes> {
    let (places, kernels) = (context.places, Kernels::rust(KERNELS as usize));
    let images = image::build(places, arch, &kernels, Flavour::OneCpu)?;
    let qemu = context.provision.qemu(arch)?;
    let conformance = |mode: &Mode| conformance_of(places, qemu, (arch, Host::BareMetal, *mode), &images);
    let mut notes = arch.modes().iter().map(conformance).collect::<Result<Notes>>()?;
    notes.extend(demos(context, (arch, &kernels), &[(Generation::Native, STREAM, Some(FEW_KILLS))])?);
    Ok(notes)
}

/// Runs the conformance suite and the demo with a host that others wrote, in each mode, on both links and with deaths.
fn guest_qemu(context: &Context, host: Host) -> Result<Notes> {
    let (places, kernels) = (context.places, Kernels::rust(KERNELS as usize));
    let mut notes = Notes::new();
    let stage = Stage::build(places, context.provision, (Arch::X86, &kernels), Flavour::OneCpu, true)?;
    let stage = stage.with_host(context.provision, host)?;
    let qemu = context.provision.qemu(Arch::X86)?;
    for mode in demo::runnable(qemu, Modes::Both, places.ci)?.0 {
        let found = conformance_of(places, qemu, (Arch::X86, host, mode), stage.images())?;
        notes.push(format!("{host:?}, {found}"));
    }
    let all = [
        (Generation::RfcV2, MESSAGES, None),
        (Generation::Native, STREAM, None),
        (Generation::Native, STREAM, Some(KILLS)),
    ];
    for (generation, messages, kill) in all {
        let plain = DemoArgs::plain(kernels.clone());
        let good = demo::play(&stage, &DemoArgs { host, messages, generation, kill, ..plain })?;
        ensure!(good.problems.is_empty(), "{host:?}: {}", demo::first_of(&good.problems).join("\n"));
        notes.extend(good.not_run);
    }
    let plain = DemoArgs::plain(kernels.clone());
    let torn =
        DemoArgs { host, messages: MESSAGES, mode: Modes::Xapic, fault: Some("tear:0".into()), ..plain };
    let torn = demo::play(&stage, &torn)?;
    let seen = torn.problems.iter().any(|problem| problem.contains("torn"));
    ensure!(seen, "{host:?}: it tore a message, and the demo did not notice");
    eprintln!("This failure was injected: the demo notices a message that the host tears.");
    notes.dedup();
    Ok(notes)
}

fn demo_qemu(context: &Context) -> Result<Notes> {
    let mut notes = demos(
        context,
        (Arch::X86, &Kernels::rust(KERNELS as usize)),
        &[(Generation::Native, STREAM, Some(KILLS))],
    )?;
    notes.extend(demos(context, (Arch::X86, &WITH_C.parse()?), &[])?);
    notes.extend(moves(context)?);
    let kernels = Kernels::rust(KERNELS as usize);
    let stage =
        Stage::build(context.places, context.provision, (Arch::X86, &kernels), Flavour::OneCpu, true)?;
    notes.push(inspect::check(&stage, &kernels)?);
    notes.dedup();
    Ok(notes)
}

/// Runs the demo that moves a CPU between running kernels, and one in which a kernel leaves its doorbell at the moved CPU.
fn moves(context: &Context) -> Result<Notes> {
    let kernels = Kernels::rust(KERNELS as usize);
    let stage =
        Stage::build(context.places, context.provision, (Arch::X86, &kernels), Flavour::SecondCpu, true)?;
    let play = |mode, moves, fault| {
        let plain = DemoArgs::plain(kernels.clone());
        demo::play(&stage, &DemoArgs { messages: MESSAGES, moves: Some(moves), mode, fault, ..plain })
    };
    let good = play(Modes::Both, MOVES, None)?;
    ensure!(good.problems.is_empty(), "{}", demo::first_of(&good.problems).join("\n"));
    let stale = play(Modes::Xapic, MOVES, Some("stale:1".into()))?;
    let strays = stale.problems.iter().any(|problem| problem.contains("stray doorbells"));
    ensure!(
        strays,
        "a kernel left its doorbell at a CPU that was given away, and no stray doorbell was noticed"
    );
    eprintln!(
        "This failure was injected: the demo notices a doorbell at a CPU that belongs to another kernel."
    );
    Ok(good.not_run.into_iter().chain([format!("{MOVES} moves of a CPU, no stray doorbell")]).collect())
}

/// Runs the demo with these kernels on both links, and with the options of `more`; and one in which kernel 1 hangs.
fn demos(
    context: &Context,
    (arch, kernels): (Arch, &Kernels),
    more: &[(Generation, u64, Option<u32>)],
) -> Result<Notes> {
    let stage = Stage::build(context.places, context.provision, (arch, kernels), Flavour::OneCpu, true)?;
    let play = |mode, generation, messages, kill, fault| {
        let plain = DemoArgs::plain(kernels.clone());
        demo::play(&stage, &DemoArgs { arch, messages, generation, kill, mode, fault, ..plain })
    };
    let mut notes = Notes::new();
    let both = [(Generation::RfcV2, MESSAGES, None), (Generation::Native, STREAM, None)];
    for &(generation, messages, kill) in both.iter().chain(more) {
        let good = play(Modes::Both, generation, messages, kill, None)?;
        ensure!(good.problems.is_empty(), "{}", demo::first_of(&good.problems).join("\n"));
        notes.extend(good.not_run);
    }
    let hung = play(Modes::Xapic, Generation::Native, MESSAGES, None, Some("hang:1".into()))?;
    ensure!(!hung.problems.is_empty(), "a kernel hung, and the demo passed");
    ensure!(hung.took < PATIENCE, "a kernel hung, and the demo took {} s to notice", hung.took.as_secs());
    eprintln!("This failure was injected: the demo notices a hung kernel.");
    notes.push(format!("{kernels}: a hung kernel was noticed after {} s", hung.took.as_secs()));
    Ok(notes)
}
