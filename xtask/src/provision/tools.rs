// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs from crates.io.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{cache, Plan};
use crate::cmd::{self, which};

/// The version of bindgen that we install.
const BINDGEN: &str = "0.72.1";
/// The oldest version of bindgen that every Linux here accepts.
const OLDEST_BINDGEN: (u32, u32, u32) = (0, 71, 1);
/// The options to install mdBook, without its web server.
const MDBOOK: [&str; 5] = ["--version", "0.4.52", "--no-default-features", "--features", "search"];

/// The folder of our own tools. It may not exist.
fn tools() -> Result<PathBuf> {
    Ok(cache()?.join("tools"))
}

/// The path of one of our own tools, if it exists.
fn ours(name: &str) -> Option<PathBuf> {
    tools().ok().map(|dir| dir.join("bin").join(name)).filter(|p| p.is_file())
}

/// The path of a cargo command. The system's is preferred.
pub fn tool(name: &str) -> Option<PathBuf> {
    which(name).or_else(|| ours(name))
}

/// The plan to get a cargo command.
pub(super) fn plan(name: &'static str) -> Result<Option<Plan>> {
    if tool(name).is_some() {
        return Ok(None);
    }
    let options = if name == "mdbook" { &MDBOOK[..] } else { &[] };
    let words: Vec<String> = [name].iter().chain(options).map(ToString::to_string).collect();
    install(name, &words).map(Some)
}

/// The path of a bindgen that is new enough. The system's is preferred.
pub fn bindgen() -> Option<PathBuf> {
    [which("bindgen"), ours("bindgen")].into_iter().flatten().find(|program| {
        let said = cmd::output(Command::new(program).arg("--version")).unwrap_or_default();
        version(&said).is_some_and(|found| found >= OLDEST_BINDGEN)
    })
}

/// The plan to get such a bindgen.
pub(super) fn plan_bindgen() -> Result<Option<Plan>> {
    if bindgen().is_some() {
        return Ok(None);
    }
    install("bindgen", &["bindgen-cli".into(), "--version".into(), BINDGEN.into(), "--force".into()])
        .map(Some)
}

/// From what `--version` prints: `bindgen 0.72.1`.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.split_whitespace().nth(1)?.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn install(name: &str, words: &[String]) -> Result<Plan> {
    let root = tools()?;
    let what = format!("build {name} from crates.io, into {} (takes some minutes)", root.display());
    let words = words.to_vec();
    let act = move || {
        let mut cargo = Command::new("cargo");
        // The build's files must not go to a target folder of the caller.
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
