// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds and installs toolchains, components and targets, by commands of rustup. rustup can also install a toolchain
//! automatically, but this is not used.

use std::process::Command;

use anyhow::{bail, Context, Result};

use super::{Plan, Toolchain, MSRV};
use crate::cmd::{self, which};

/// The plans to install `toolchain` with these components and targets, or those parts of it that are missing.
pub fn plan(
    toolchain: Toolchain,
    components: &[&'static str],
    targets: &[&'static str],
) -> Result<Vec<Plan>> {
    if which("rustup").is_none() {
        bail!("rustup was not found: https://rustup.rs says how to get it");
    }
    let name = name(toolchain)?;
    let mut plans = Vec::new();
    let mut rustup = |what: String, words: Vec<String>| {
        let act = move || cmd::run(Command::new("rustup").args(words));
        plans.push(Plan { what: format!("{what}, by rustup"), act: Box::new(act) });
    };
    let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let Some(full) = full_name(&name, &toolchains()?) else {
        let mut all = words(&["toolchain", "install", &name, "--profile", "minimal", "--no-self-update"]);
        for component in components {
            all.extend(words(&["--component", component]));
        }
        for target in targets {
            all.extend(words(&["--target", target]));
        }
        rustup(format!("install the toolchain {name}"), all);
        return Ok(plans);
    };
    let has = listed(&name, "component")?;
    for component in components.iter().filter(|c| !has.iter().any(|h| is_component(h, c, &full))) {
        let all = words(&["component", "add", "--toolchain", &name, component]);
        rustup(format!("add the component {component} to the toolchain {name}"), all);
    }
    let has = listed(&name, "target")?;
    for target in targets.iter().filter(|t| !has.iter().any(|h| h == *t)) {
        let all = words(&["target", "add", "--toolchain", &name, target]);
        rustup(format!("add the target {target} to the toolchain {name}"), all);
    }
    Ok(plans)
}

/// The name of the toolchain. If several nightly toolchains are installed, it is the one without a date, or else the newest.
pub fn name(toolchain: Toolchain) -> Result<String> {
    match toolchain {
        Toolchain::Msrv => Ok(MSRV.into()),
        Toolchain::Active => {
            let line = cmd::output(Command::new("rustup").args(["show", "active-toolchain"]))?;
            line.split_whitespace().next().map(ToOwned::to_owned).context("rustup has no active toolchain")
        }
        Toolchain::Nightly => Ok(nightly(&toolchains()?)),
    }
}

/// The name of the nightly toolchain to use; `nightly` if none is installed.
fn nightly(toolchains: &[String]) -> String {
    let all = || toolchains.iter().filter(|name| name.starts_with("nightly"));
    let plain =
        all().find(|name| !name.trim_start_matches("nightly-").starts_with(|c: char| c.is_ascii_digit()));
    plain.or_else(|| all().max()).cloned().unwrap_or_else(|| "nightly".into())
}

/// The names of the installed toolchains.
fn toolchains() -> Result<Vec<String>> {
    let list = cmd::output(Command::new("rustup").args(["toolchain", "list"]))?;
    Ok(list.lines().filter_map(|l| l.split_whitespace().next()).map(ToOwned::to_owned).collect())
}

/// The full name of an installed toolchain, with the target triple of this machine. `name` can be without this triple. Returns
/// `None` if the toolchain is not installed.
fn full_name(name: &str, toolchains: &[String]) -> Option<String> {
    let fits = |t: &&String| *t == name || t.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    toolchains.iter().find(fits).cloned()
}

/// The installed components or targets of a toolchain. `kind` is `component` or `target`.
fn listed(toolchain: &str, kind: &str) -> Result<Vec<String>> {
    let list =
        cmd::output(Command::new("rustup").args([kind, "list", "--installed", "--toolchain", toolchain]))?;
    Ok(list.lines().map(|l| l.trim().to_owned()).collect())
}

/// Returns whether an entry of rustup's list of components is this component. Most entries have a target triple after the name of
/// the component. It is the triple at the end of the toolchain's name.
fn is_component(listed: &str, component: &str, toolchain: &str) -> bool {
    let rest = listed.strip_prefix(component);
    rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with('-') && toolchain.ends_with(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_nightly() {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let plain = "nightly-x86_64-unknown-linux-gnu";
        assert_eq!(nightly(&list(&["stable-x86_64-unknown-linux-gnu"])), "nightly");
        assert_eq!(nightly(&list(&["nightly-2026-01-02-x86_64-unknown-linux-gnu", plain])), plain);
        let dated = list(&["nightly-2026-01-02-x", "nightly-2026-03-01-x"]);
        assert_eq!(nightly(&dated), "nightly-2026-03-01-x");
    }

    #[test]
    fn component_names() {
        let full = "nightly-x86_64-unknown-linux-gnu";
        assert!(is_component("miri-x86_64-unknown-linux-gnu", "miri", full));
        assert!(is_component("rust-src", "rust-src", full));
        assert!(!is_component("rust-docs-x86_64-unknown-linux-gnu", "rust", full));
        assert!(!is_component("rustfmt-x86_64-unknown-linux-gnu", "rust", full));
    }

    #[test]
    fn full_names() {
        let list = ["1.85.0-x86_64-unknown-linux-gnu".to_owned(), "stable".to_owned()];
        assert_eq!(full_name("1.85.0", &list), Some(list[0].clone()));
        assert_eq!(full_name("stable", &list), Some("stable".into()));
        assert_eq!(full_name("1.85", &list), None);
    }

    #[test]
    fn the_oldest_toolchain_is_the_one_promised() {
        let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
            .expect("the root's");
        let promised =
            manifest.lines().find_map(|l| l.strip_prefix("rust-version = ")).expect("a rust-version");
        assert_eq!(MSRV, format!("{}.0", promised.trim_matches('"')));
    }
}
