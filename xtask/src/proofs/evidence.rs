// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes the text of `docs/evidence.md`: first the figures, then the table of proofs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use serde::Deserialize;

use super::list::Counts;

/// The generated page.
pub const PAGE: &str = "docs/evidence.md";
/// The file with the figures that were measured by a run. A developer writes them there by hand.
pub const FIGURES: &str = "docs/evidence.toml";

const HEAD: &str = "\
<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->
# Evidence

How much is tested, and which test proves which clause of the specification, SPEC.md. This page is generated from `tests/proofs.toml` and
`docs/evidence.toml` by `cargo xtask proofs --write`; `cargo xtask proofs --check` fails if it is out of date.

## Figures

These are counted in the tree. No run is needed for them.

";
const RUNS: &str = "
These were measured by a run. Each has the command that makes it again, the day, and the commit that was run. A figure that
nobody has measured is not in the table.

| what | figure | command | day | commit |
| --- | --- | --- | --- | --- |
";
const PROOFS: &str = "
## Proofs

A row says which clauses of SPEC.md and which calls a test proves. Its last column names changes of the code that break what the test
proves. `cargo xtask proofs` makes each change in a copy of the tree, and fails if the test still passes.

";

/// The content of docs/evidence.toml.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    #[serde(default, rename = "figure")]
    figures: Vec<Figure>,
}

/// A figure, and the run that measured it.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Figure {
    /// What was counted or measured.
    what: String,
    /// The result.
    figure: String,
    /// The command that measures it again.
    command: String,
    /// The day of the run, as 2026-11-29.
    day: String,
    /// The commit that was run.
    commit: String,
}

impl Figures {
    /// Reads docs/evidence.toml. It is an error if a figure has no value, command, day or commit.
    pub fn read(root: &Path) -> Result<Self> {
        let text = fs::read_to_string(root.join(FIGURES)).context(FIGURES)?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let all: Self = toml::from_str(text).context(FIGURES)?;
        for one in &all.figures {
            let is_hex = one.commit.chars().all(|c| c.is_ascii_hexdigit());
            ensure!(is_hex && one.commit.len() >= 7, "{FIGURES}: {}: `commit` is not a commit", one.what);
            let parts: Vec<_> = one.day.split('-').map(|n| (n.len(), n.parse::<u16>().is_ok())).collect();
            let is_day = parts == [(4, true), (2, true), (2, true)];
            ensure!(is_day, "{FIGURES}: {}: `day` must have the form 2026-11-29", one.what);
            ensure!(
                one.command.starts_with("cargo "),
                "{FIGURES}: {}: `command` must begin with cargo",
                one.what
            );
            ensure!(!one.figure.is_empty(), "{FIGURES}: {}: `figure` is empty", one.what);
        }
        Ok(all)
    }
}

/// Returns the text of the page.
pub fn page(counts: &Counts, runs: &Figures, table: &str) -> String {
    let mut out = String::from(HEAD);
    out.push_str("| what | figure |\n| --- | --- |\n");
    let counted = [
        ("clauses of SPEC.md", counts.clauses),
        ("of these, clauses that no test can observe; the table says why", counts.not_observed),
        ("calls that must have a test each", counts.calls),
        ("tests that prove a clause or a call", counts.tests),
        ("changes of the code that such a test must notice", counts.breaks),
    ];
    for (what, figure) in counted {
        let _ = writeln!(out, "| {what} | {figure} |");
    }
    if !runs.figures.is_empty() {
        out.push_str(RUNS);
    }
    for Figure { what, figure, command, day, commit } in &runs.figures {
        let _ = writeln!(out, "| {what} | {figure} | `{command}` | {day} | {commit} |");
    }
    out.push_str(PROOFS);
    out.push_str(table);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[figure]]\nwhat = \"w\"\nfigure = \"7\"\ncommand = \"cargo xtask loom\"\n\
        day = \"2026-11-29\"\ncommit = \"4d03e16\"\n";

    #[test]
    fn a_figure_has_a_command_a_day_and_a_commit() {
        assert!(Figures::parse(GOOD).is_ok());
        for bad in ["4d03e1\"", "no commit\""] {
            assert!(Figures::parse(&GOOD.replace("4d03e16\"", bad)).is_err(), "{bad}");
        }
        for bad in ["yesterday", "2026-1-29", "2026-11"] {
            assert!(Figures::parse(&GOOD.replace("2026-11-29", bad)).is_err(), "{bad}");
        }
        assert!(Figures::parse(&GOOD.replace("cargo xtask loom", "")).is_err());
        assert!(Figures::parse(&GOOD.replace("what", "what_else")).is_err());
    }

    #[test]
    fn the_page_has_both_kinds_of_figures() {
        let counts = Counts { clauses: 3, not_observed: 1, calls: 2, tests: 5, breaks: 8 };
        let page = page(&counts, &Figures::parse(GOOD).expect("good"), "the table\n");
        assert!(page.contains("| clauses of SPEC.md | 3 |\n"), "{page}");
        assert!(page.contains("| w | 7 | `cargo xtask loom` | 2026-11-29 | 4d03e16 |\n"), "{page}");
        assert!(page.ends_with("the table\n"), "{page}");
    }

    #[test]
    fn without_a_run_there_is_no_table_of_runs() {
        let counts = Counts { clauses: 3, not_observed: 1, calls: 2, tests: 5, breaks: 8 };
        let page = page(&counts, &Figures { figures: Vec::new() }, "");
        assert!(!page.contains("measured by a run"), "{page}");
    }
}
