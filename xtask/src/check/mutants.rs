// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask mutants`: cargo-mutants changes each function of mk-ipi-abi and mk-ipi-core. For each change at least one test
//! must fail.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context as _, Result};
use clap::Args;
use serde::Deserialize;

use crate::check::campaigns::LITMUS;
use crate::cmd::{self, Places};
use crate::provision::{self, Need, Provision};

/// The crates that are changed.
const CRATES: [&str; 2] = ["mk-ipi-abi", "mk-ipi-core"];
/// The rounds of tests, the fastest first. If no test of a round notices a change, the change is tried in the next round.
const ROUNDS: [Round; 4] = [
    Round { packages: "mk-ipi-abi", targets: &["--lib", "--tests"], seconds: "60" },
    Round { packages: "mk-ipi-core", targets: &["--lib", "--test=errors"], seconds: "30" },
    Round { packages: "mk-ipi-mock", targets: &["--test=machine"], seconds: "120" },
    Round { packages: "mk-ipi-mock", targets: &["--test=conformance", "--test=services"], seconds: "180" },
];
/// The round with which a change of mk-ipi-core begins. Round 0 is left out, because the tests of mk-ipi-abi do not link
/// mk-ipi-core.
const FIRST_OF_CORE: usize = 1;
/// Files that no kernel contains, so they are not changed: tests, and code that only loom models use.
const TESTS: [&str; 5] =
    ["**/*tests.rs", "**/loom_tests/**", "**/litmus.rs", "**/sync/weak.rs", "**/sync/line.rs"];
/// Functions whose path contains this text are not changed: they are tests in a file that also has other code.
const TEST_FUNCTIONS: &str = "tests::";
/// Changes that no test can notice, each with the reason.
const EXPLAINED: &str = "tests/mutants.toml";

/// The options of `cargo xtask mutants`.
#[derive(Args, Clone, Debug)]
pub struct MutantsArgs {
    /// Try only one part of the changes: `0/4` is the first of four parts
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
    /// Change only this crate
    #[arg(long = "crate", value_name = "NAME", value_parser = CRATES)]
    name: Option<String>,
    /// How many changes are tried at the same time
    #[arg(long, default_value_t = 1)]
    jobs: u32,
    /// Install missing tools without asking
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
    /// The names that cargo-mutants gives the changes, without line and column.
    mutants: Vec<String>,
}

/// The command `cargo xtask mutants`. It is an error if there is a change that no test notices and that is not explained.
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

/// The tests of one round.
struct Round {
    packages: &'static str,
    /// The arguments of cargo that choose the tests. Without them each change would build all tests of the packages.
    targets: &'static [&'static str],
    /// The time limit in seconds. If the tests take longer, they count as hung. Then the change counts as noticed.
    seconds: &'static str,
}

/// The result of one call of cargo-mutants.
struct Tried {
    noticed: usize,
    missed: Vec<String>,
}

/// Tries the rounds one after the other. From the second round on, only those changes are tried that no earlier round noticed and
/// that are not explained.
fn campaign(
    places: &Places,
    name: &str,
    args: &MutantsArgs,
    explained: &BTreeMap<String, String>,
) -> Result<Found> {
    let first = if name == "mk-ipi-core" { FIRST_OF_CORE } else { 0 };
    let mut found = Found { noticed: 0, missed: 0, unknown: Vec::new() };
    for round in ROUNDS.iter().skip(first) {
        let left = std::mem::take(&mut found.unknown);
        let tried = try_changes(places, name, args, round, &left)?;
        found.noticed += tried.noticed;
        let is_explained = |mutant: &String| explained.contains_key(&without_place(mutant));
        let (known, unknown): (Vec<String>, Vec<String>) = tried.missed.into_iter().partition(is_explained);
        found.missed += known.len();
        found.unknown = unknown;
        if found.unknown.is_empty() {
            break;
        }
    }
    found.missed += found.unknown.len();
    Ok(found)
}

/// Tries changes of the crate with the tests of this round. If `changes` is empty, all changes of the shard are tried, otherwise
/// only these.
fn try_changes(
    places: &Places,
    name: &str,
    args: &MutantsArgs,
    round: &Round,
    changes: &[String],
) -> Result<Tried> {
    let out = places.own_target("mutants").join(name);
    fs::create_dir_all(&out)?;
    let program = provision::tool("cargo-mutants").unwrap_or_else(|| PathBuf::from("cargo-mutants"));
    let mut cmd = Command::new(program);
    cmd.current_dir(&places.root).env_remove("CARGO_TARGET_DIR");
    cmd.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_TEST_DEBUG", "0");
    cmd.args(["mutants", "--package", name, "--no-times"]);
    cmd.arg("--jobs").arg(args.jobs.to_string()).arg("--output").arg(&out);
    cmd.args(TESTS.iter().flat_map(|files| ["--exclude", files])).args(["--exclude-re", TEST_FUNCTIONS]);
    if changes.is_empty() {
        cmd.args(args.shard.iter().flat_map(|shard| ["--sharding", "round-robin", "--shard", shard]));
    } else {
        let escaped: Vec<String> = changes.iter().map(|change| escaped(change)).collect();
        cmd.arg("--re").arg(format!("^({})$", escaped.join("|")));
    }
    // Without these options, cargo-mutants measures how long the tests of the crate itself take without a change, and computes
    // the time limit from that. But other tests are run here, so the time limit is given.
    cmd.args(["--baseline", "skip", "--timeout", round.seconds, "--test-package", round.packages]);
    cmd.args(round.targets.iter().map(|target| format!("--cargo-arg={target}")));
    // Without Miri the litmus tests take long, and seldom show a missing ordering.
    cmd.args(["--", "--", "--skip", LITMUS]);
    eprintln!("$ {}", cmd::shown(&cmd));
    let status = cmd.status().with_context(|| cmd::shown(&cmd))?;
    // 0: all changes were noticed; 2: some were not; 3: some tests hung.
    match status.code() {
        Some(0 | 2 | 3) => Ok(only(read(&out)?, changes)),
        _ => bail!("`{}` ended with {status}", cmd::shown(&cmd)),
    }
}

fn read(out: &Path) -> Result<Tried> {
    let list = |what: &str| -> Result<Vec<String>> {
        let file = out.join("mutants.out").join(what);
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let noticed = list("caught.txt")?.len() + list("timeout.txt")?.len();
    Ok(Tried { noticed, missed: list("missed.txt")? })
}

/// The result for `changes` only, if there are any. Cargo-mutants tries each deletion of a field, whatever `--re` says.
fn only(mut tried: Tried, changes: &[String]) -> Tried {
    if !changes.is_empty() {
        tried.missed.retain(|mutant| changes.contains(mutant));
        tried.noticed = changes.len() - tried.missed.len();
    }
    tried
}

/// A regular expression that matches only this text.
fn escaped(text: &str) -> String {
    let special = |c: char| r"\.+*?()|[]{}^$#&-~".contains(c);
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

/// Returns the name of a change, such as `src/a.rs:3:7: replace + with -`, without line and column, which change with every edit.
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
    fn in_a_later_round_only_what_was_left_counts() {
        let tried = || Tried { noticed: 5, missed: vec!["a".to_owned(), "field".to_owned()] };
        let first = only(tried(), &[]);
        assert_eq!((first.noticed, first.missed.len()), (5, 2));
        let later = only(tried(), &["a".to_owned(), "b".to_owned()]);
        assert_eq!((later.noticed, later.missed), (1, vec!["a".to_owned()]));
    }

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
