// SPDX-License-Identifier: MIT OR Apache-2.0
//! The step `instructions`: counts the instructions that a send and a poll on the native link execute. Such a count does not
//! depend on the machine and its load. So a change that makes the code slower is noticed on any machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{bail, ensure, Context as _, Result};
use serde::Deserialize;

use super::{Context, Notes};
use crate::cmd::{self, shown};
use crate::image;

/// The program whose instructions are counted. It is a workspace of its own.
pub const FOLDER: &str = "tests/instructions";
/// The file with the recorded counts.
const RECORDED: &str = "counts.toml";
/// How often the program repeats an operation. Some work is not done in each operation, but once in every N operations. This
/// number is a multiple of each such N.
const TIMES: u64 = 1024;
/// A count can be higher than the recorded one by at most this, because the code around the operation can change.
const TOLERANCE: f64 = 2.0;

/// The operations, and the largest number of instructions that each can execute.
const LIMITS: [(&str, f64); 4] =
    [("send", 80.0), ("send_of_4_cpus", 80.0), ("empty_poll", 40.0), ("poll_of_one", 200.0)];

/// The content of the file with the recorded counts.
#[derive(Deserialize)]
struct Recorded {
    /// The version of the compiler with which the program was built.
    rustc: String,
    /// The number of instructions of each operation.
    instructions: BTreeMap<String, f64>,
}

/// Runs the step. It is an error if a count is above its limit. If the compiler is the recorded one, it is also an error if a
/// count is more than [`TOLERANCE`] above the recorded count. Returns notes with the counts.
pub fn run(context: &Context) -> Result<Notes> {
    let folder = context.places.root.join(FOLDER);
    let file = folder.join(RECORDED);
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let recorded: Recorded = toml::from_str(&text).with_context(|| file.display().to_string())?;
    let counts = counts(&program(context)?)?;
    let rustc = rustc()?;
    let mut notes: Notes = counts.iter().map(|(what, count)| format!("{what}: {count:.1}")).collect();
    let mut wrong = above(&counts, &LIMITS.map(|(what, limit)| (what.to_owned(), limit)).into(), 0.0);
    if recorded.rustc == rustc {
        wrong.extend(above(&counts, &recorded.instructions, TOLERANCE));
    } else {
        notes.push(format!(
            "compared with the limits only: the recorded counts are for rustc {}, this is rustc {rustc}",
            recorded.rustc
        ));
    }
    ensure!(
        wrong.is_empty(),
        "{}\nIf this change is intended, write these counts to {FOLDER}/{RECORDED}:\nrustc = \"{rustc}\"\n\n[instructions]\n{}",
        wrong.join("\n"),
        counts.iter().map(|(what, count)| format!("{what} = {count:.1}\n")).collect::<String>(),
    );
    Ok(notes)
}

/// Builds the program, and returns its path.
fn program(context: &Context) -> Result<std::path::PathBuf> {
    let mut cargo = context.places.cargo_in(Path::new(FOLDER));
    cargo.env("CARGO_TARGET_DIR", context.places.own_target("instructions"));
    let built = image::executables(cargo.args(["build", "--release"]))?;
    let [program] = built.as_slice() else { bail!("{FOLDER} must have one executable") };
    Ok(program.clone())
}

/// The version of the compiler, such as `1.90.0`.
fn rustc() -> Result<String> {
    let said = cmd::output(Command::new("rustc").arg("--version"))?;
    said.split_whitespace().nth(1).map(ToOwned::to_owned).context("rustc does not print its version")
}

/// Returns the number of instructions of each operation.
fn counts(program: &Path) -> Result<BTreeMap<String, f64>> {
    // The program is run with TIMES and with 2 * TIMES repetitions. The difference is the instructions of TIMES operations,
    // without the start and the end of the program.
    let each = |what: &str| -> Result<f64> {
        let (once, twice) = (collected(program, what, TIMES)?, collected(program, what, 2 * TIMES)?);
        Ok((twice as f64 - once as f64) / TIMES as f64)
    };
    let send = each("send")?;
    Ok(BTreeMap::from([
        ("send".into(), send),
        ("send_of_4_cpus".into(), each("send_of_4_cpus")?),
        ("empty_poll".into(), each("empty_poll")?),
        ("poll_of_one".into(), each("send_and_poll")? - send),
    ]))
}

/// Returns the number of all instructions of a run of the program.
fn collected(program: &Path, what: &str, times: u64) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    valgrind.arg(what).arg(times.to_string());
    eprintln!("$ {}", shown(&valgrind));
    let out = valgrind.stdin(Stdio::null()).output().with_context(|| shown(&valgrind))?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "`{}` ended with {}:\n{text}", shown(&valgrind), out.status);
    instructions(&text).with_context(|| format!("callgrind printed no count:\n{text}"))
}

/// Returns the number of instructions in the output of callgrind, from the line `==123== Collected : 456`.
fn instructions(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

/// Returns a problem for each count that is above its limit by more than `tolerance`, or that has no limit.
fn above(counts: &BTreeMap<String, f64>, limits: &BTreeMap<String, f64>, tolerance: f64) -> Vec<String> {
    let judge = |(what, count): (&String, &f64)| match limits.get(what) {
        Some(limit) if *count <= limit + tolerance => None,
        Some(limit) => Some(format!("{what} executes {count:.1} instructions, but only {limit} are allowed")),
        None => Some(format!("{what} executes {count:.1} instructions, and has no limit")),
    };
    counts.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callgrind_says() {
        let text = "==7== \n==7== Events    : Ir\n==7== Collected : 2879907\n==7== \n";
        assert_eq!(instructions(text), Some(2_879_907));
        assert_eq!(instructions("==7== Collected : \n"), None);
        assert_eq!(instructions(""), None);
    }

    #[test]
    fn a_rise_is_noticed_and_what_is_unknown_too() {
        let of = |counts: &[(&str, f64)]| counts.iter().map(|(what, n)| ((*what).to_owned(), *n)).collect();
        let limits = of(&[("send", 59.0), ("poll", 30.0)]);
        let wrong = |counts: &[(&str, f64)]| above(&of(counts), &limits, TOLERANCE).len();
        assert_eq!(wrong(&[("send", 61.0), ("poll", 12.0)]), 0);
        assert_eq!(wrong(&[("send", 61.1), ("poll", 32.5)]), 2);
        assert_eq!(wrong(&[("other", 1.0)]), 1);
    }

    #[test]
    fn everything_has_a_limit() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/instructions/counts.toml");
        let recorded: Recorded =
            toml::from_str(&fs::read_to_string(file).expect("the counts")).expect("as it is read");
        let names: Vec<&str> = recorded.instructions.keys().map(String::as_str).collect();
        let mut limited = LIMITS.map(|(what, _)| what);
        limited.sort_unstable();
        assert_eq!(names, limited);
    }
}
