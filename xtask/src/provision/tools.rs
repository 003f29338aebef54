// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds tools that come from crates.io, and installs them into our cache folder.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{cache, Plan};
use crate::cmd::{self, which};

/// The version of bindgen that we install.
const BINDGEN: &str = "0.72.1";
/// The oldest version of bindgen that can be used for each Linux that `cargo xtask linux` builds.
const OLDEST_BINDGEN: (u32, u32, u32) = (0, 71, 1);
/// The options for `cargo install` to install mdBook without its web server.
const MDBOOK: [&str; 5] = ["--version", "0.4.52", "--no-default-features", "--features", "search"];

/// The folder of the tools that we have installed. It may not exist yet.
fn tools() -> Result<PathBuf> {
    Ok(cache()?.join("tools"))
}

/// The path of a tool that we have installed.
fn ours(name: &str) -> Option<PathBuf> {
    tools().ok().map(|dir| dir.join("bin").join(name)).filter(|p| p.is_file())
}

/// The path of a tool from crates.io, if it is installed. A tool in the search path is preferred to our own.
pub fn tool(name: &str) -> Option<PathBuf> {
    which(name).or_else(|| ours(name))
}

/// The plan to install a tool from crates.io; `None` if it is installed.
pub(super) fn plan(name: &'static str) -> Result<Option<Plan>> {
    if tool(name).is_some() {
        return Ok(None);
    }
    let options = if name == "mdbook" { &MDBOOK[..] } else { &[] };
    let words: Vec<String> = [name].iter().chain(options).map(ToString::to_string).collect();
    install(name, &words).map(Some)
}

/// The path of a bindgen that is new enough, if one is installed. One in the search path is preferred to our own.
pub fn bindgen() -> Option<PathBuf> {
    [which("bindgen"), ours("bindgen")].into_iter().flatten().find(|program| {
        let said = cmd::output(Command::new(program).arg("--version")).unwrap_or_default();
        version(&said).is_some_and(|found| found >= OLDEST_BINDGEN)
    })
}

/// The plan to install a bindgen; `None` if one that is new enough is installed.
pub(super) fn plan_bindgen() -> Result<Option<Plan>> {
    if bindgen().is_some() {
        return Ok(None);
    }
    install("bindgen", &["bindgen-cli".into(), "--version".into(), BINDGEN.into(), "--force".into()])
        .map(Some)
}

/// The version in the output of `bindgen --version`, such as `bindgen 0.72.1`.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.split_whitespace().nth(1)?.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The plan to run `cargo install` with these words.
fn install(name: &str, words: &[String]) -> Result<Plan> {
    let root = tools()?;
    let what =
        format!("build {name} from crates.io, and put it into {} (takes some minutes)", root.display());
    let words = words.to_vec();
    let act = move || {
        let mut cargo = Command::new("cargo");
        // The files of this build must not go to the target folder that the user has chosen for this repository.
        cargo.args(["install", "--locked"]).args(words).arg("--root").arg(&root);
        cargo.env_remove("CARGO_TARGET_DIR");
        // The tool runs only for a short time, so a fast build matters more than a fast tool.
        for (name, value) in [("LTO", "off"), ("OPT_LEVEL", "1"), ("CODEGEN_UNITS", "16"), ("DEBUG", "0")] {
            cargo.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
        }
        cmd::run(&mut cargo)
    };
    Ok(Plan { what, act: Box::new(act) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_bindgen() {
        assert_eq!(version("bindgen 0.72.1\n"), Some((0, 72, 1)));
        assert_eq!(version("bindgen 0.72.0-rc.1\n"), Some((0, 72, 0)));
        assert_eq!(version("bindgen 0.9.1"), Some((0, 9, 1)));
        assert!(version("bindgen 0.9.1") < Some(OLDEST_BINDGEN));
        assert_eq!(version("bindgen"), None);
        assert_eq!(version(""), None);
    }
}
