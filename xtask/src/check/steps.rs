// SPDX-License-Identifier: MIT OR Apache-2.0
//! The steps of `cargo xtask test`, in the order in which they run. Quick steps, and steps that often fail, come first.

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

/// The folders of the workspaces other than the root workspace.
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
/// The active toolchain with the bare-metal targets of all architectures.
const BARE: Need = Need::Rust(Toolchain::Active, &[], &arch::TARGETS);
/// The number of kernels in the machines of the steps.
const KERNELS: u32 = 3;
/// The kernels in the demos that have a kernel in C.
const WITH_C: &str = "rust,c,rust";
/// Messages that each kernel sends to each other kernel in a demo.
const MESSAGES: u64 = 500;
/// Messages in a demo on the native link. It is faster than RFC v2, so it sends more messages.
const STREAM: u64 = 10_000;
/// How often kernel 1 is killed in mid-stream.
const KILLS: u32 = 5;
/// How often kernel 1 is killed on arm64 and riscv64, whose emulators are slower.
const FEW_KILLS: u32 = 2;
/// How often a CPU is moved from one running kernel to another.
const MOVES: u32 = 10;

/// How often Linux loads the module, starts and ends the bare-metal kernels, and unloads the module.
const LINUX_CYCLES: u64 = 2;

/// The demo must notice a hung kernel within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// All steps, in the order in which they run.
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
        step("clippy", "clippy has no warning, every workspace and target", &[clippy], clippy_all),
        step("unit", "the tests of every crate", &[], unit),
        step("c-layout", "a C compiler gives structures the same layout and bytes", &[Need::Cc], c_layout),
        step("loom", "the loom models, with at most two preemptions", &[], |c| {
            loom_models(c.places, SHORT_PREEMPTIONS)
        }),
        step(
            "miri",
            "Miri finds no undefined behaviour in the unit tests; the litmus tests on weak memory",
            &[NIGHTLY],
            miri,
        ),
        step("conformance-mock", "the conformance suite on the mock", &[], conformance_mock),
        step("no-std", "the kernel crates build for bare metal", &[BARE], no_std),
        step("no-panic", "the crates that a kernel links have no panic path", &[BARE], no_panic::run),
        step(
            "capi",
            "the library for C: header, C tests, symbols",
            &[Need::Cc, Need::Compilers, BARE, msrv.clone()],
            capi::run,
        ),
        step(
            "disassembly",
            "in the compiled code each doorbell has its fence, and each interrupt entry begins with endbr64",
            &[BARE],
            disassembly::run,
        ),
        step(
            "instructions",
            "send and poll on the native link do not execute more instructions than before",
            &[Need::Valgrind],
            instructions::run,
        ),
        step(
            "msrv",
            "the kernel crates build with the oldest Rust that they support",
            std::slice::from_ref(&msrv),
            msrv_builds,
        ),
        step(
            "conformance-qemu",
            "the conformance suite on the emulated APIC, both modes",
            &boot,
            conformance_qemu,
        ),
        step(
            "demo-qemu",
            "the demo passes on both links, also with killed kernels and with moves of a CPU",
            &boot_with_c,
            demo_qemu,
        ),
        step(
            "guest-axplat",
            "the conformance suite and the demo, with a kernel on axplat as the host",
            &[&boot[..], &Host::Axplat.needs()].concat(),
            |c| guest_qemu(c, Host::Axplat),
        ),
        long(
            "guest-bootloader",
            "the conformance suite and the demo, with a kernel on bootloader_api as the host",
            &[&boot[..], &Host::Bootloader.needs()].concat(),
            |c| guest_qemu(c, Host::Bootloader),
        ),
        step(
            "arm64",
            "the conformance suite and the demo on arm64, with a GICv3",
            &demo::needs(Arch::Arm64, false),
            |c| elsewhere(c, Arch::Arm64),
        ),
        step(
            "riscv64",
            "the conformance suite and the demo on riscv64, with SBI and with IMSICs",
            &demo::needs(Arch::Riscv64, false),
            |c| elsewhere(c, Arch::Riscv64),
        ),
        step(
            "linux",
            "a Linux with our module, and the kernels that it starts, on both links",
            &linux::needs(linux::tested(), true),
            |c| linux::check(c.places, c.provision, LINUX_CYCLES),
        ),
        step(
            "fuzz-short",
            "each fuzz target for a short time",
            &[NIGHTLY, Need::CargoTool("cargo-fuzz")],
            |c| fuzz_targets(c.places, SHORT_FUZZ_SECONDS, Sanitizer::Address, &[]),
        ),
        step("bench-smoke", "each link and queue of the benchmarks delivers all messages", &[], bench_smoke),
        step("docs", "the documentation builds without a warning", &[BARE], docs),
        step("package", "the crates that will be published build from their packages", &[], publish::package),
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
        step("book", "the links, listings and drawings of the book are right", &[], |c| {
            Ok(vec![book::checked(&c.places.root)?])
        }),
        step("readme", "the links and commands in all pages are right", &[], source::pages),
        step(
            "deny",
            "licences, sources, bans and advisories of the dependencies",
            &[Need::CargoTool("cargo-deny")],
            deny,
        ),
    ]
}

/// The command `cargo` with these words, in the root workspace.
fn cargo(context: &Context, words: &[&str]) -> Command {
    cargo_in(context, "", words)
}

/// The command `cargo` with these words, in the workspace `folder`, which has its own target folder.
fn cargo_in(context: &Context, folder: &str, words: &[&str]) -> Command {
    let mut cmd = context.places.cargo_in(Path::new(folder));
    if !folder.is_empty() {
        cmd.env("CARGO_TARGET_DIR", context.places.own_target(&folder_name(folder)));
    }
    cmd.args(words);
    cmd
}

/// The last part of a path.
fn folder_name(folder: &str) -> String {
    Path::new(folder).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The folders of all workspaces. The first one is the root.
fn workspaces(context: &Context) -> Result<Vec<&'static str>> {
    let all: Vec<_> = [""].into_iter().chain(OTHER_WORKSPACES).collect();
    let missing = all.iter().find(|folder| !context.places.root.join(folder).join("Cargo.toml").is_file());
    ensure!(missing.is_none(), "there is no {}/Cargo.toml", missing.unwrap_or(&""));
    Ok(all)
}

/// The words `-p NAME` for each crate that a kernel on this architecture links, and for [`SPAWN`].
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
        // The option --all is not used. In a separate workspace it would also check the crates on which the workspace depends.
        cmd::run(&mut cargo_in(context, folder, &["fmt", "--check"]))?;
    }
    // These files are part of two crates, but are not a crate.
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
    // The Linux module is not built by cargo.
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
        // RUSTUP_TOOLCHAIN names the toolchain with which xtask runs. Without it, only the toolchain in the command counts.
        cmd::run(cmd.args(kernel_crates(arch)).args(target).env_remove("RUSTUP_TOOLCHAIN"))?;
    }
    Ok(Vec::new())
}

/// Checks that all links and queues of the benchmarks deliver all messages, unchanged and in order. Times are not checked.
fn bench_smoke(context: &Context) -> Result<Notes> {
    let notes = tests(cargo_in(context, bench::FOLDER, &["test"]))?;
    cmd::run(&mut bench::command(context.places, ["--quick"]))?;
    Ok(notes)
}

fn docs(context: &Context) -> Result<Notes> {
    let mut cmd = cargo(context, &["doc", "--workspace", "--no-deps"]);
    cmd::run(cmd.env("RUSTDOCFLAGS", "-D warnings"))?;
    // docs.rs builds the documentation for the bare-metal targets, so this is checked too.
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
    // cargo-deny uses the file deny.toml in the root, because it searches all folders above the manifest.
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
        notes.push("advisories: not run: the database of advisories cannot be downloaded".into());
    }
    Ok(notes)
}

fn conformance_qemu(context: &Context) -> Result<Notes> {
    conformance_in_qemu(context.places, context.provision)
}

/// Runs the conformance suite on the emulated APIC, in each mode that QEMU can run. Returns notes.
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

/// Runs the conformance suite on one machine. Returns a note with the numbers of cases.
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

/// Runs the conformance suite and the demo with a host that others wrote, in each mode. The demo is run on both links, and on the
/// native link also with kills. In one more demo the host changes a byte of a message on purpose. The demo must notice this.
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
    ensure!(seen, "{host:?}: the host changed a byte of a message, and the demo did not notice it");
    eprintln!(
        "This failure was caused on purpose: the demo noticed that the host changed a byte of a message."
    );
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

/// Runs a demo in which a CPU is moved between running kernels. This demo must pass. Then runs a second demo, in which kernel 1
/// also leaves its doorbell at that CPU after it has given the CPU up. The second demo must report stray doorbells.
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
        "a kernel left its doorbell at a CPU that it had given up, and the demo reported no stray doorbell"
    );
    eprintln!(
        "This failure was caused on purpose: the demo noticed a doorbell at a CPU that belongs to another kernel."
    );
    Ok(good.not_run.into_iter().chain([format!("{MOVES} moves of a CPU, no stray doorbell")]).collect())
}

/// Runs the demo with these kernels: on both links, and for each entry of `more` with this layout, number of messages, and number
/// of kills. All of them must pass. Then runs a demo in which kernel 1 hangs, which must fail.
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
    ensure!(!hung.problems.is_empty(), "a kernel hung, but the demo passed");
    let took = hung.took.as_secs();
    ensure!(hung.took < PATIENCE, "a kernel hung, and the demo noticed it only after {took} s");
    eprintln!("This failure was caused on purpose: the demo noticed a hung kernel.");
    notes.push(format!("{kernels}: a hung kernel was noticed after {} s", hung.took.as_secs()));
    Ok(notes)
}
