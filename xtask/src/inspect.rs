// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask inspect`: stops the demo in mid-stream, and dumps the machine's memory in two ways: as a raw file, and as an ELF
//! vmcore. `mk-ipi-inspect` must give the same explanation for both. After the dump the demo continues, and must pass.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};
use clap::Args;
use serde_json::{json, Value};

use crate::arch::Arch;
use crate::cmd::{self, Places};
use crate::demo::{first_of, Stage};
use crate::guest::Host;
use crate::image::Flavour;
use crate::kernels::Kernels;
use crate::machine::{self, Job};
use crate::provision::Provision;
use crate::qmp::Socket;
use crate::record::{Generation, Mode, Order, Record};

/// The physical address of the memory that has the demo's directory and regions (examples/bare-metal/src/layout.rs).
const FROM: u64 = 0x1800_0000;
/// The length of this memory in bytes.
const BYTES: u64 = 0x0200_0000;

/// The options of `cargo xtask inspect`.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// How many kernels, or the language of each, such as `rust,c,rust`. The first one is the host, which is in Rust
    #[arg(long, default_value = "3", value_name = "N|LIST")]
    kernels: Kernels,
    /// Messages that each kernel sends to each other kernel
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1_000..=1 << 20))]
    messages: u64,
    /// The layout of the links
    #[arg(long, value_enum, default_value_t = Generation::Native)]
    generation: Generation,
    /// Dump all of the machine's memory, 1 GiB, instead of the part that has the directory and the regions
    #[arg(long)]
    whole: bool,
    /// Install missing tools without asking
    #[arg(long)]
    pub yes: bool,
}

/// The two dumps of a machine.
struct Dumps {
    /// The raw file.
    raw: PathBuf,
    /// The ELF vmcore.
    elf: PathBuf,
    /// The physical address of the first dumped byte.
    from: u64,
}

/// The command `cargo xtask inspect`.
pub fn inspect(places: &Places, provision: &Provision, args: &InspectArgs) -> Result<()> {
    let stage = Stage::build(places, provision, (Arch::X86, &args.kernels), Flavour::OneCpu, false)?;
    let dumps = dump(&stage, args)?;
    compare(places, &dumps, args.kernels.count(), args.generation)?;
    let mut cmd = inspector(places, &dumps.elf);
    cmd.arg("--messages").arg("1");
    // The exit status is not used. It only says whether the inspector found something broken. `compare` has already checked this.
    println!("{}", String::from_utf8_lossy(&cmd.output()?.stdout));
    println!("vmcore: {}", dumps.elf.display());
    println!("raw dump of the memory from {:#x} on: {}", dumps.from, dumps.raw.display());
    Ok(())
}

/// A part of the step `demo-qemu` of `cargo xtask test`. It does the same as [`inspect()`] with kernels that were built before,
/// but prints no explanation. Returns a note.
pub fn check(stage: &Stage, kernels: &Kernels) -> Result<String> {
    let (kernels, messages, generation) = (kernels.clone(), 20_000, Generation::Native);
    let args = InspectArgs { kernels, messages, generation, whole: false, yes: false };
    let dumps = dump(stage, &args)?;
    let unread = compare(stage.places, &dumps, args.kernels.count(), generation)?;
    Ok(format!(
        "a demo was stopped in mid-stream with {unread} unread messages: a raw dump and a vmcore got the same explanation"
    ))
}

/// Runs the demo, and dumps the machine's memory when a kernel reports that it has received more than a third of its messages,
/// but not all. The demo must pass.
fn dump(stage: &Stage, args: &InspectArgs) -> Result<Dumps> {
    let places = stage.places;
    let place = |end: &str| places.own_target(&format!("inspect.{end}"));
    let from = if args.whole { 0 } else { FROM };
    let dumps = Dumps { raw: place("raw"), elf: place("vmcore"), from };
    let (messages, generation, mode) = (args.messages, args.generation, Mode::Xapic);
    let job = Job {
        arch: Arch::X86,
        host: Host::BareMetal,
        run: "demo",
        mode,
        generation,
        messages,
        kills: 0,
        host_cpus: 1,
        moves: 0,
        fault: None,
        images: &stage.images,
    };
    // QEMU makes the files read-only, and cannot write to such a file again. So files of an earlier run are removed.
    for old in [&dumps.raw, &dumps.elf].into_iter().filter(|old| old.exists()) {
        std::fs::remove_file(old)?;
    }
    let mut watched = machine::watched(places, stage.qemu, &job)?;
    let socket = Socket::of(&mut watched.cmd);
    let mut done = None;
    let run = watched.run(&mut |record| {
        let half =
            matches!(record, Record::Progress(p) if p.done < p.total && p.done.saturating_mul(3) > p.total);
        if half && done.is_none() {
            done = Some(dump_now(&socket, &dumps, args.whole));
        }
    })?;
    done.context("the demo ended before it could be stopped")??;
    let kernels = args.kernels.count();
    let order = Order { kernels, messages, mode, generation, kills: 0, host_cpus: 1, moves: 0 };
    let problems = [run.problems.clone(), run.report.demo_problems(&order)].concat();
    ensure!(
        problems.is_empty(),
        "the demo failed after it was stopped and continued: {}",
        first_of(&problems).join("; ")
    );
    Ok(dumps)
}

/// Stops the machine, writes both dumps, and lets the machine continue. With `whole` all memory is dumped.
fn dump_now(socket: &Socket, dumps: &Dumps, whole: bool) -> Result<()> {
    let mut monitor = socket.connect()?;
    monitor.run("stop", json!({}))?;
    let bytes = if whole { 1 << 30 } else { BYTES };
    monitor.run("pmemsave", json!({ "val": dumps.from, "size": bytes, "filename": dumps.raw }))?;
    let protocol = format!("file:{}", dumps.elf.display());
    let part = if whole { json!({}) } else { json!({ "begin": dumps.from, "length": bytes }) };
    let mut arguments = json!({ "paging": false, "protocol": protocol });
    if let (Some(to), Some(part)) = (arguments.as_object_mut(), part.as_object()) {
        to.extend(part.clone());
    }
    monitor.run("dump-guest-memory", arguments)?;
    monitor.run("cont", json!({}))?;
    Ok(())
}

/// Returns the command that runs `mk-ipi-inspect` on a dump.
fn inspector(places: &Places, file: &Path) -> Command {
    let mut cmd = places.cargo();
    cmd.args(["run", "--quiet", "-p", "mk-ipi-inspect", "--"]).arg(file);
    cmd
}

/// Runs `mk-ipi-inspect`, and returns its explanation.
fn explained(cmd: &mut Command) -> Result<Value> {
    let out = cmd.arg("--json").output()?;
    // Status 1 means that the inspector found something broken. The caller checks that.
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(matches!(out.status.code(), Some(0 | 1)), "{}: {}: {said}", cmd::shown(cmd), out.status);
    serde_json::from_slice(&out.stdout).context("the inspector printed invalid JSON")
}

/// Checks that both dumps get the same explanation, and that it is right. Returns how many messages are unread.
fn compare(places: &Places, dumps: &Dumps, kernels: u32, generation: Generation) -> Result<u64> {
    let found = explained(&mut inspector(places, &dumps.elf))?;
    let base = format!("{:#x}", dumps.from);
    let raw = explained(inspector(places, &dumps.raw).args(["--base", &base]))?;
    ensure!(found == raw, "the raw dump and the vmcore get different explanations");
    judge(&found, kernels, generation)
}

/// Checks the explanation of a demo that was stopped in mid-stream: all kernels and regions are found, nothing is broken, and
/// messages were received. Returns how many messages are unread.
fn judge(found: &Value, kernels: u32, generation: Generation) -> Result<u64> {
    let list = |of: &Value, name: &str| of[name].as_array().cloned().unwrap_or_default();
    let directories = list(found, "directories");
    ensure!(directories.len() == 1, "the inspector found {} directories, not 1", directories.len());
    let instances = list(&directories[0], "instances").len();
    ensure!(instances == kernels as usize, "the inspector found {instances} instances, not {kernels}");
    let regions = list(found, "regions");
    ensure!(
        regions.len() == kernels as usize,
        "the inspector found {} regions, not {kernels}",
        regions.len()
    );
    let own = [found, &directories[0]].into_iter().chain(&regions);
    let findings: Vec<Value> = own.flat_map(|of| list(of, "findings")).collect();
    let broken: Vec<_> = findings.iter().filter(|finding| finding["severity"] == "broken").collect();
    ensure!(broken.is_empty(), "the inspector calls a good machine broken: {broken:?}");
    if generation != Generation::Native {
        return Ok(0);
    }
    let (mut unread, mut received) = (0, 0);
    for region in &regions {
        let lanes = list(region, "lanes");
        let open = lanes.iter().filter(|lane| lane["state"] == "open").count();
        let wanted = kernels as usize - 1;
        ensure!(open >= wanted, "the inspector found {open} open lanes, not {wanted}, in {region}");
        for lane in &lanes {
            unread += lane["lines"]["unread"].as_u64().context("unread")?;
            received += lane["control"]["received"].as_u64().context("received")?;
        }
    }
    ensure!(received != 0, "according to the inspector no message was received");
    Ok(unread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_judged() {
        let lane = json!({ "state": "open", "lines": { "unread": 3 }, "control": { "received": 7 } });
        let region = json!({ "lanes": [lane], "findings": [] });
        let machine = |severity: &str, instances: Value| {
            json!({
                "directories": [{ "instances": instances, "findings": [] }],
                "regions": [region, region],
                "findings": [{ "severity": severity }],
            })
        };
        let judge = |found| judge(&found, 2, Generation::Native).map_err(|e| e.to_string());
        assert_eq!(judge(machine("note", json!([1, 2]))), Ok(6));
        assert!(judge(machine("broken", json!([1, 2]))).is_err_and(|e| e.contains("good machine broken")));
        assert!(judge(machine("note", json!([1]))).is_err_and(|e| e.contains("1 instances")));
    }
}
