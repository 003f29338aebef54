// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads `tests/proofs.toml`, compares it with SPEC.md and the code, and writes it as a table to docs/evidence.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::evidence::{self, Figures};

const LIST: &str = "tests/proofs.toml";
const SPEC: &str = "SPEC.md";

/// The content of tests/proofs.toml. The comment at the top of that file explains the fields that have no comment here.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The calls that must have a proof each: from the Rust name to the C name in the Linux patches. The C name is empty if the
    /// patches have no such call.
    pub calls: BTreeMap<String, String>,
    #[serde(rename = "suite")]
    pub suites: BTreeMap<String, Suite>,
    #[serde(rename = "row")]
    pub rows: Vec<Row>,
}

/// How the tests of a suite are run.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The kind of these tests, for the table in docs/evidence.md. In a suite of the kind `compile`, the compiler is the test.
    pub kind: String,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    /// Environment variables for the command.
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub target: String,
    #[serde(default)]
    pub case: bool,
    pub in_xtask: Option<InXtask>,
}

/// Checks of xtask itself that are used as the test of a row.
#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum InXtask {
    Disassembly,
    Qemu,
}

/// A test that proves clauses or calls; or the reason (`cannot`) why no test can prove them.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub clauses: Vec<String>,
    #[serde(default)]
    pub calls: Vec<String>,
    #[serde(default)]
    pub suite: String,
    #[serde(default)]
    pub test: String,
    /// The kind of this test, if it is not that of the suite.
    pub kind: Option<String>,
    pub cannot: Option<String>,
    #[serde(default, rename = "break")]
    pub breaks: Vec<Break>,
}

/// A change of the code that the test must notice.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Break {
    pub what: String,
    pub file: String,
    pub find: String,
    pub replace: String,
}

impl List {
    pub fn read(root: &Path) -> Result<Self> {
        let text = fs::read_to_string(root.join(LIST)).context(LIST)?;
        toml::from_str(&text).context(LIST)
    }

    /// Returns the problems of tests/proofs.toml and of docs/evidence.md.
    pub fn problems(&self, root: &Path) -> Result<Vec<String>> {
        let spec = fs::read_to_string(root.join(SPEC)).context(SPEC)?;
        let mut found = self.gaps(&spec);
        for b in self.rows.iter().flat_map(|row| &row.breaks) {
            let text = fs::read_to_string(root.join(&b.file)).with_context(|| b.file.clone())?;
            match text.matches(&b.find).count() {
                1 => {}
                n => found.push(format!("{}: {n} places read {:?}, not one ({})", b.file, b.find, b.what)),
            }
        }
        let page = fs::read_to_string(root.join(evidence::PAGE)).context(evidence::PAGE)?;
        if self.page(root, &spec)? != page {
            found.push(format!(
                "{} is not the page that {LIST} and {} give: run `cargo xtask proofs --write`",
                evidence::PAGE,
                evidence::FIGURES
            ));
        }
        Ok(found)
    }

    /// Returns a problem for each clause and call without a row, and for each name that SPEC.md or `[calls]` does not have. A row
    /// must have a suite, a test and breaks, or only `cannot`. Also returns a problem for each row that does not.
    fn gaps(&self, spec: &str) -> Vec<String> {
        let mut found = Vec::new();
        let (clauses, listed) =
            (clauses_of(spec), self.rows.iter().flat_map(|row| row.clauses.clone()).collect());
        found.extend(clauses.difference(&listed).map(|c| format!("{c} has no row")));
        found.extend(listed.difference(&clauses).map(|c| format!("{c} is not a clause of {SPEC}")));
        let (calls, called): (BTreeSet<_>, BTreeSet<_>) =
            (self.calls.keys().collect(), self.rows.iter().flat_map(|row| &row.calls).collect());
        found.extend(
            calls
                .symmetric_difference(&called)
                .map(|c| format!("the call {c} has no row, or is not listed in [calls]")),
        );
        for row in &self.rows {
            let name = format!("{} {}", row.clauses.join(" "), row.test);
            let tried =
                !row.test.is_empty() && !row.breaks.is_empty() && self.suites.contains_key(&row.suite);
            if row.cannot.is_some() == tried || (row.cannot.is_some() && !row.breaks.is_empty()) {
                found.push(format!("{name}: the row must have a suite, a test and breaks; or only `cannot`"));
            }
        }
        found
    }

    /// Writes docs/evidence.md.
    pub fn write(&self, root: &Path) -> Result<()> {
        let spec = fs::read_to_string(root.join(SPEC)).context(SPEC)?;
        Ok(fs::write(root.join(evidence::PAGE), self.page(root, &spec)?)?)
    }

    /// Returns the text that docs/evidence.md must have.
    fn page(&self, root: &Path, spec: &str) -> Result<String> {
        Ok(evidence::page(&self.counts(spec), &Figures::read(root)?, &self.markdown()?))
    }

    /// Counts clauses, calls, tests and breaks. No test is run.
    fn counts(&self, spec: &str) -> Counts {
        let unobserved = self.rows.iter().filter(|row| row.cannot.is_some());
        let tests: BTreeSet<_> =
            self.rows.iter().filter(|row| row.cannot.is_none()).map(|row| (&row.suite, &row.test)).collect();
        let proved: BTreeSet<_> =
            self.rows.iter().filter(|row| row.cannot.is_none()).flat_map(|row| &row.clauses).collect();
        let not_proved: BTreeSet<_> =
            unobserved.flat_map(|row| &row.clauses).filter(|clause| !proved.contains(clause)).collect();
        Counts {
            clauses: clauses_of(spec).len(),
            not_observed: not_proved.len(),
            calls: self.calls.len(),
            tests: tests.len(),
            breaks: self.rows.iter().map(|row| row.breaks.len()).sum(),
        }
    }

    /// Returns the table of proofs for docs/evidence.md, and the lists of suites and calls after it.
    fn markdown(&self) -> Result<String> {
        let mut out = String::from("| clauses, calls | test | kind | breaks of the code that it notices |\n");
        out.push_str("| --- | --- | --- | --- |\n");
        for row in &self.rows {
            let mut names = row.clauses.clone();
            names.extend(row.calls.iter().map(|call| format!("`{call}`")));
            let names = names.join(", ");
            if let Some(why) = &row.cannot {
                writeln!(out, "| {names} | cannot be observed | | {why} |")?;
                continue;
            }
            let test = if row.test.contains(' ') { row.test.clone() } else { format!("`{}`", row.test) };
            let breaks: Vec<_> = row.breaks.iter().map(|b| b.what.as_str()).collect();
            let kind = row
                .kind
                .as_ref()
                .or(self.suites.get(&row.suite).map(|s| &s.kind))
                .context("a row has a suite that is not defined")?;
            writeln!(out, "| {names} | {}: {test} | {kind} | {} |", row.suite, breaks.join("; "))?;
        }
        let run = |(name, s): (&String, &Suite)| match s.in_xtask {
            Some(_) => format!("*{name}*: `cargo xtask proofs`"),
            None => format!("*{name}*: `cargo {}`", s.command.join(" ")),
        };
        let suites: Vec<_> = self.suites.iter().map(run).collect();
        let named = self.calls.iter().filter(|(_, c)| !c.is_empty());
        let calls: Vec<_> = named.map(|(rust, c)| format!("`{rust}` is `{c}`")).collect();
        writeln!(out, "\nSuites: {}.\n\nCalls by their C names: {}.", suites.join("; "), calls.join(", "))?;
        Ok(out)
    }
}

/// Numbers that are counted in tests/proofs.toml and in SPEC.md.
#[derive(Debug, PartialEq, Eq)]
pub struct Counts {
    /// Number of clauses of SPEC.md.
    pub clauses: usize,
    /// Number of clauses that no test can observe.
    pub not_observed: usize,
    /// Number of calls that must have a proof each.
    pub calls: usize,
    /// Number of tests that prove a clause or a call.
    pub tests: usize,
    /// Number of changes of the code that a test must notice.
    pub breaks: usize,
}

/// Returns the names of the clauses in the text of SPEC.md. A clause begins with its name in bold, such as `**X-1**` or
/// `**AR-1**`: one or two letters for the chapter, and a number.
fn clauses_of(spec: &str) -> BTreeSet<String> {
    let is_clause = |s: &&str| {
        s.split_once('-').is_some_and(|(chapter, n)| {
            (1..=2).contains(&chapter.len())
                && chapter.chars().all(|c| c.is_ascii_uppercase())
                && n.parse::<u32>().is_ok()
        })
    };
    spec.split("**").skip(1).step_by(2).filter(is_clause).map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC_TEXT: &str = "- **X-1** a **bold** word\n| **H-2** |\n";

    fn list(rows: &str) -> List {
        let head = "[calls]\nsend = \"c_send\"\n[suite.core]\nkind = \"unit\"\ncommand = [\"test\"]\n";
        toml::from_str(&format!("{head}{rows}")).expect("a list")
    }

    const ROW: &str = "[[row]]\nclauses = [\"X-1\"]\ncalls = [\"send\"]\nsuite = \"core\"\ntest = \"a::b\"\n\
        [[row.break]]\nwhat = \"w\"\nfile = \"f\"\nfind = \"a\"\nreplace = \"b\"\n";
    const CANNOT: &str = "[[row]]\nclauses = [\"H-2\"]\ncannot = \"why\"\n";

    #[test]
    fn clauses_and_calls_need_rows_and_rows_need_clauses() {
        assert_eq!(list(&format!("{ROW}{CANNOT}")).gaps(SPEC_TEXT), [""; 0]);
        assert_eq!(list(ROW).gaps(SPEC_TEXT), ["H-2 has no row"]);
        assert_eq!(list(&format!("{ROW}{CANNOT}")).gaps("**X-1**"), ["H-2 is not a clause of SPEC.md"]);
        assert_eq!(
            list(&format!("{ROW}{CANNOT}").replace("calls = [\"send\"]\n", "")).gaps(SPEC_TEXT).len(),
            1
        );
        for bad in ["suite = \"core\"\n", "test = \"a::b\"\n"] {
            assert_eq!(list(&format!("{CANNOT}{}", ROW.replace(bad, ""))).gaps(SPEC_TEXT).len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_clause_is_of_a_chapter_with_one_or_two_letters() {
        let spec = "**A-1** **AR-12** **SDM-3** **A-** **-1** **a-1** **A-x** **-** A-2 **bold**";
        assert_eq!(clauses_of(spec).into_iter().collect::<Vec<_>>(), ["A-1", "AR-12"]);
    }

    #[test]
    fn each_row_is_in_the_table() {
        let table = list(&format!("{ROW}{CANNOT}")).markdown().expect("a table");
        assert!(table.contains("| X-1, `send` | core: `a::b` | unit | w |"), "{table}");
        assert!(
            table.contains("| H-2 | cannot be observed | | why |") && table.contains("`send` is `c_send`")
        );
    }

    #[test]
    fn clauses_tests_and_breaks_are_counted_once() {
        let twice = format!("{ROW}{ROW}{CANNOT}");
        let counts = Counts { clauses: 2, not_observed: 1, calls: 1, tests: 1, breaks: 2 };
        assert_eq!(list(&twice).counts(SPEC_TEXT), counts);
    }
}
