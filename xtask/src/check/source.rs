// SPDX-License-Identifier: MIT OR Apache-2.0
//! The steps `spdx` and `readme`. `spdx` checks the licence line of each source file. `readme` checks the links, commands and
//! names of tests in each page.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{bail, ensure, Context as _, Result};
use clap::Parser;

use super::{Context, Notes};
use crate::cmd;
use crate::Cli;

const SPDX: &str = "SPDX-License-Identifier: MIT OR Apache-2.0";
/// The ends of the paths of source files: extensions, and names of files without an extension.
const SOURCE: [&str; 15] = [
    ".rs", ".c", ".h", ".s", ".S", ".ld", ".lds", ".sh", ".py", ".toml", ".config", "Kbuild", "Kconfig",
    "/init", ".ci/run",
];

/// The files that git tracks and that match one of the patterns. Without patterns these are all files.
fn tracked(context: &Context, patterns: &[&str]) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(&context.places.root).args(["ls-files", "-z", "--"]).args(patterns);
    Ok(cmd::output(&mut git)?.split('\0').filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect())
}

/// Checks that the first line of each tracked source file names the licence. A line with `#!` may come before it.
pub fn spdx(context: &Context) -> Result<Notes> {
    let files = tracked(context, &[])?;
    let sources: Vec<_> = files.iter().filter(|name| SOURCE.iter().any(|end| name.ends_with(end))).collect();
    ensure!(!sources.is_empty(), "git lists no source file");
    let mut bad = Vec::new();
    for name in &sources {
        // If a file was deleted, git lists it until the deletion is staged.
        let Ok(text) = fs::read_to_string(context.places.root.join(name)) else { continue };
        if !has_spdx(&text) {
            bad.push(name.as_str());
        }
    }
    ensure!(bad.is_empty(), "these files do not begin with `{SPDX}`: {}", bad.join(", "));
    Ok(vec![format!("{} files", sources.len())])
}

fn has_spdx(text: &str) -> bool {
    text.lines().find(|line| !line.starts_with("#!")).is_some_and(|line| line.contains(SPDX))
}

/// Checks each page: each relative link must lead to a file, each `cargo xtask` command must be valid, and each loom model and
/// litmus test that the page names must exist.
pub fn pages(context: &Context) -> Result<Notes> {
    let root = &context.places.root;
    ensure!(root.join("README.md").is_file(), "there is no README.md");
    let (mut links, mut commands, mut models, mut bad) = (0, 0, 0, Vec::new());
    let sources = tracked(context, &["*.rs"])?;
    let code: String = sources.iter().filter_map(|name| fs::read_to_string(root.join(name)).ok()).collect();
    for name in tracked(context, &["*.md"])? {
        let Ok(text) = fs::read_to_string(root.join(&name)) else { continue };
        let folder = Path::new(&name).parent().unwrap_or(Path::new(""));
        for link in relative_links(&text) {
            links += 1;
            if !root.join(folder).join(&link).exists() {
                bad.push(format!("{name}: there is no file {link}"));
            }
        }
        for model in models_in(&text) {
            models += 1;
            if !is_test(&code, model) {
                bad.push(format!("{name}: there is no test {model}"));
            }
        }
        for command in xtask_commands(&text) {
            commands += 1;
            if let Err(err) = parses(&command) {
                bad.push(format!("{name}: `{command}`: {err:#}"));
            }
        }
    }
    if !bad.is_empty() {
        bail!("{}", bad.join("\n"));
    }
    Ok(vec![format!("{links} links, {commands} commands, {models} models and litmus tests")])
}

/// The loom models (`loom_...`) and litmus tests (`litmus::...`) that a page names between backquotes.
fn models_in(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter_map(|code| {
        let name = code.strip_prefix("litmus::").or_else(|| code.starts_with("loom_").then_some(code))?;
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then_some(name)
    })
}

/// Returns whether `code` has a test with this name: a function, or a test that a macro makes from `name: ...`.
fn is_test(code: &str, name: &str) -> bool {
    [format!("fn {name}("), format!(" {name}: ")].iter().any(|declared| code.contains(declared))
}

/// The targets of all links `[text](target)` that are paths, not URLs. Anchors are removed.
fn relative_links(text: &str) -> Vec<String> {
    let ends = text.match_indices("](").map(|(at, mark)| &text[at + mark.len()..]);
    let targets = ends.filter_map(|rest| rest.split([')', ' ', '\n']).next());
    let files = targets
        .filter(|t| !t.contains("://") && !t.starts_with("mailto:"))
        .filter_map(|t| t.split('#').next());
    files.filter(|t| !t.is_empty()).map(ToOwned::to_owned).collect()
}

/// The `cargo xtask` commands in a page. A command is a line of its own, or is between backquotes.
fn xtask_commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        for (part, code) in line.split('`').enumerate().map(|(i, c)| (i, c.trim().trim_start_matches("$ "))) {
            let whole_line = part == 0 && !line.contains('`');
            if (whole_line || part % 2 == 1) && code.starts_with("cargo xtask ") {
                found.push(code.split(" #").next().unwrap_or(code).trim().to_owned());
            }
        }
    }
    found
}

/// It is an error if the parser of our command line does not accept the command. Words such as `N` or `[--flag]` are
/// placeholders. A command is checked only up to the first placeholder.
fn parses(command: &str) -> Result<()> {
    let words: Vec<&str> = command.split_whitespace().skip(1).collect();
    let example =
        |w: &&str| w.starts_with('[') || w.starts_with('<') || w.contains('|') || *w == "N" || *w == "...";
    let fixed = words.iter().position(example).map_or(words.as_slice(), |at| {
        let at = if words.get(at.wrapping_sub(1)).is_some_and(|w| w.starts_with("--")) { at - 1 } else { at };
        &words[..at]
    });
    match Cli::try_parse_from(fixed) {
        Ok(_) => Ok(()),
        Err(err) if !err.use_stderr() => Ok(()), // The parser returns an "error" for --help, too.
        Err(err) => Err(err).context("this is not a valid command"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_lines() {
        assert!(has_spdx("// SPDX-License-Identifier: MIT OR Apache-2.0\nfn x() {}"));
        assert!(has_spdx("#!/bin/sh\n# SPDX-License-Identifier: MIT OR Apache-2.0\n"));
        assert!(!has_spdx("fn x() {}\n// SPDX-License-Identifier: MIT OR Apache-2.0"));
        assert!(!has_spdx("// SPDX-License-Identifier: GPL-2.0-only\n"));
        assert!(!has_spdx(""));
    }

    #[test]
    fn links() {
        let text =
            "[a](SPEC.md#l-2) [b](https://x.example/y) [c](#here) ![d](docs/p.png \"title\") [e](mailto:a@b)";
        assert_eq!(relative_links(text), ["SPEC.md", "docs/p.png"]);
    }

    #[test]
    fn models() {
        let text = "`loom_a`, `litmus::b` and `c`; loom_d, `loom_native_e` is `x`.";
        assert_eq!(models_in(text).collect::<Vec<_>>(), ["loom_a", "b", "loom_native_e"]);
        assert!(is_test("fn loom_a() {", "loom_a") && is_test("    loom_a: model without", "loom_a"));
        assert!(!is_test("fn loom_ab() {", "loom_a") && !is_test("", "loom_a"));
    }

    #[test]
    fn commands() {
        let text = "```sh\n$ cargo xtask demo --kernels 3 # three\n```\nSay `cargo xtask test` or cargo xtask nothing.\n";
        assert_eq!(xtask_commands(text), ["cargo xtask demo --kernels 3", "cargo xtask test"]);
        for good in [
            "cargo xtask demo --kernels N",
            "cargo xtask test --only fmt",
            "cargo xtask demo [--json]",
            "cargo xtask demo --mode xapic|x2apic|both",
        ] {
            assert!(parses(good).is_ok(), "{good}");
        }
        for bad in ["cargo xtask demonstrate", "cargo xtask demo --kernels 99", "cargo xtask test --fast"] {
            assert!(parses(bad).is_err(), "{bad}");
        }
    }
}
