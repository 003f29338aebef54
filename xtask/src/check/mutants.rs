// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask mutants`: cargo-mutants changes each function of the crates that every kernel links, and some test must fail.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context as _, Result};
use clap::Args;
use serde::Deserialize;

use crate::cmd::{self, Places};
use crate::provision::{self, Need, Provision};

/// The crates that are changed.
const CRATES: [&str; 2] = ["mk-ipi-abi", "mk-ipi-core"];
/// The crates whose tests are tried on changes that a crate's own tests do not notice.
const WITNESSES: &str = "mk-ipi-core,mk-ipi-mock";
/// The tests of mk-ipi-mock. Those that take minutes are left out.
const WITNESS_TESTS: &str = "mk-ipi-mock/tests";
const TOO_SLOW: [&str; 2] = ["scenarios", "conformance"];
/// A crate's own tests count as hung, and have then noticed the change, if they take five times as long as without the change, and at
/// least this many seconds.
const PATIENCE: [&str; 2] = ["--minimum-test-timeout", "10"];
/// The tests of the witnesses count as hung after this many seconds. Cargo-mutants cannot measure them: without a change it tests
/// only the crate itself.
const WITNESS_PATIENCE: [&str; 4] = ["--baseline", "skip", "--timeout", "180"];
/// Files that no kernel contains: tests, and the words of the loom models.
const TESTS: [&str; 4] = ["**/*tests.rs", "**/loom_tests/**", "**/litmus.rs", "**/sync/weak.rs"];
/// Changes that no test can notice, each with the reason.
const EXPLAINED: &str = "tests/mutants.toml";

/// What `mutants` takes.
#[derive(Args, Clone, Debug)]
pub struct MutantsArgs {
    /// Only one part of the changes: `0/4` is the first of four
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
    /// Only this crate
    #[arg(long = "crate", value_name = "NAME", value_parser = CRATES)]
    name: Option<String>,
    /// How many changes are tried at the same time
    #[arg(long, default_value_t = 1)]
    jobs: u32,
    /// Install what is missing without asking
    #[arg(long)]
    pub yes: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Explained {
    survivor: Vec<Survivor>,
}

/// Changes that no test can notice, and why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Survivor {
    why: String,
    /// The name that cargo-mutants gives the change, without line and column.
    mutants: Vec<String>,
}

/// `cargo xtask mutants`: fails if no test notices a change, and the change is not explained.
pub fn mutants(places: &Places, provision: &Provision, args: &MutantsArgs) -> Result<()> {
    let needs = [Need::CargoTool("cargo-mutants")];
    provision.announce(&needs)?;
    provision.ensure(&needs)?;
    let explained = explained(&places.root)?;
    let mut open: Vec<String> = Vec::new();
    for name in CRATES.into_iter().filter(|name| args.name.as_deref().is_none_or(|only| only == *name)) {
        let Found { noticed, missed, unknown } = campaign(places, name, args, &explained)?;
        let percent = noticed * 1000 / (noticed + missed).max(1);
        println!(
            "{name}: {noticed} of {} changes are noticed, {}.{} %; {} of the others are explained in {EXPLAINED}",
            noticed + missed,
            percent / 10,
            percent % 10,
            missed - unknown.len(),
        );
        open.extend(unknown);
    }
    ensure!(
        open.is_empty(),
        "no test notices these changes, and they are not explained:\n  {}",
        open.join("\n  ")
    );
    Ok(())
}

fn explained(root: &Path) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(root.join(EXPLAINED)).context(EXPLAINED)?;
    let Explained { survivor } = toml::from_str(&text).context(EXPLAINED)?;
    let rows = survivor.into_iter().flat_map(|s| s.mutants.into_iter().map(move |m| (m, s.why.clone())));
    Ok(rows.collect())
}

/// The result for a crate.
struct Found {
    noticed: usize,
    missed: usize,
    /// The missed changes that are not explained.
    unknown: Vec<String>,
}

/// The result of one call of cargo-mutants.
struct Round {
    noticed: usize,
    missed: Vec<String>,
}

/// Runs first the crate's own tests, and then the tests of [`WITNESSES`] on the changes that are left.
fn campaign(
    places: &Places,
    name: &str,
    args: &MutantsArgs,
    explained: &BTreeMap<String, String>,
) -> Result<Found> {
    let own = round(places, name, args, |cmd| {
        cmd.args(args.shard.iter().flat_map(|shard| ["--sharding", "round-robin", "--shard", shard]));
        cmd.args(PATIENCE).args(["--test-package", name]);
    })?;
    let is_explained = |mutant: &String| explained.contains_key(&without_place(mutant));
    let (known, unknown): (Vec<String>, Vec<String>) = own.missed.into_iter().partition(is_explained);
    if unknown.is_empty() {
        return Ok(Found { noticed: own.noticed, missed: known.len(), unknown });
    }
    let tests = witness_tests(&places.root)?;
    let left: Vec<String> = unknown.iter().map(|mutant| escaped(mutant)).collect();
    let others = round(places, name, args, |cmd| {
        cmd.arg("--re").arg(format!("^({})$", left.join("|")));
        cmd.args(WITNESS_PATIENCE).args(["--test-package", WITNESSES, "--", "--lib"]);
        cmd.args(tests.iter().flat_map(|test| ["--test", test]));
    })?;
    let tried = unknown.len();
    let unknown: Vec<String> = unknown.into_iter().filter(|mutant| others.missed.contains(mutant)).collect();
    let noticed = own.noticed + tried - unknown.len();
    Ok(Found { noticed, missed: known.len() + unknown.len(), unknown })
}

fn round(places: &Places, name: &str, args: &MutantsArgs, which: impl FnOnce(&mut Command)) -> Result<Round> {
    let out = places.own_target("mutants").join(name);
    fs::create_dir_all(&out)?;
    let program = provision::tool("cargo-mutants").unwrap_or_else(|| PathBuf::from("cargo-mutants"));
    let mut cmd = Command::new(program);
    cmd.current_dir(&places.root).env_remove("CARGO_TARGET_DIR");
    cmd.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_TEST_DEBUG", "0");
    cmd.args(["mutants", "--package", name, "--no-times"]);
    cmd.arg("--jobs").arg(args.jobs.to_string()).arg("--output").arg(&out);
    cmd.args(TESTS.iter().flat_map(|files| ["--exclude", files]));
    which(&mut cmd);
    eprintln!("$ {}", cmd::shown(&cmd));
    let status = cmd.status().with_context(|| cmd::shown(&cmd))?;
    // 0: all changes were noticed; 2: some were not; 3: some tests hung.
    match status.code() {
        Some(0 | 2 | 3) => read(&out),
        _ => bail!("`{}` ended with {status}", cmd::shown(&cmd)),
    }
}

fn read(out: &Path) -> Result<Round> {
    let list = |what: &str| -> Result<Vec<String>> {
        let file = out.join("mutants.out").join(what);
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let noticed = list("caught.txt")?.len() + list("timeout.txt")?.len();
    Ok(Round { noticed, missed: list("missed.txt")? })
}

fn witness_tests(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join(WITNESS_TESTS))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ext| ext == "rs") {
            let name = path.file_stem().context("a file without a name")?.to_string_lossy().into_owned();
            names.extend((!TOO_SLOW.contains(&name.as_str())).then_some(name));
        }
    }
    names.sort();
    Ok(names)
}

/// A regular expression that matches only this text.
fn escaped(text: &str) -> String {
    let special = |c: char| r"\.+*?()|[]{}^$#&-~".contains(c);
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

/// `src/a.rs:3:7: replace + with -` without its line and column, which change with every edit.
fn without_place(mutant: &str) -> String {
    let Some((place, what)) = mutant.split_once(": ") else { return mutant.to_owned() };
    let file = place.split(':').next().unwrap_or(place);
    format!("{file}: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::Places;

    #[test]
    fn a_mutant_is_known_without_its_place() {
        let named = "mk-ipi-abi/src/ids.rs:100:29: replace < with == in Incarnation::is_before";
        assert_eq!(
            without_place(named),
            "mk-ipi-abi/src/ids.rs: replace < with == in Incarnation::is_before"
        );
    }

    #[test]
    fn what_is_special_in_an_expression_is_escaped() {
        assert_eq!(
            escaped("a.rs:1: replace < with <= in S<'a>::f"),
            r"a\.rs:1: replace < with <= in S<'a>::f"
        );
        assert_eq!(escaped("replace | with ^"), r"replace \| with \^");
    }

    #[test]
    fn each_survivor_has_a_reason_and_a_file() {
        let root = Places::find().unwrap().root;
        for (mutant, why) in explained(&root).unwrap() {
            let file = mutant.split(": ").next().unwrap_or_default();
            assert!(root.join(file).is_file() && !why.is_empty(), "{mutant}");
        }
    }
}
