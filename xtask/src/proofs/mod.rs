// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask proofs`: changes the code as each row of `tests/proofs.toml` says, and checks that the test of the row fails.

mod evidence;
mod list;
mod tree;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use clap::Args;
use comfy_table::{presets, Table};

use crate::cmd::Places;
use crate::provision::Provision;
use list::{Break, InXtask, List, Row};
use tree::{End, Tree};

/// The options of `cargo xtask proofs`.
#[derive(Args, Debug, Clone)]
pub struct ProofsArgs {
    /// Run no test. Only check that each clause has a row, that each break can be applied, and that docs/evidence.md is up to
    /// date
    #[arg(long, conflicts_with = "only")]
    check: bool,
    /// Write docs/evidence.md, and do the checks of --check
    #[arg(long, conflicts_with_all = ["check", "only"])]
    write: bool,
    /// Try only the rows of this clause, call or suite (can be given several times)
    #[arg(long, value_name = "CLAUSE")]
    only: Vec<String>,
    /// Also try the rows whose test boots QEMU
    #[arg(long)]
    qemu: bool,
    /// Install missing tools without asking
    #[arg(long)]
    pub yes: bool,
}

/// The command `cargo xtask proofs`. The exit status is 1 if a test gave a wrong result.
pub fn proofs(places: &Places, provision: &Provision, args: &ProofsArgs) -> Result<ExitCode> {
    if args.write {
        List::read(&places.root)?.write(&places.root)?;
    }
    if args.check || args.write {
        println!("{}", check(&places.root)?);
        return Ok(ExitCode::SUCCESS);
    }
    try_all(places, provision, args)
}

/// Checks that tests/proofs.toml, SPEC.md, the code and docs/evidence.md agree with each other. No test is run. Returns a note
/// with the numbers of rows and breaks.
pub fn check(root: &Path) -> Result<String> {
    let list = List::read(root)?;
    let problems = list.problems(root)?;
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    let breaks: usize = list.rows.iter().map(|row| row.breaks.len()).sum();
    Ok(format!("{} rows, {breaks} breaks", list.rows.len()))
}

/// One run of the test of a row.
struct Try<'a> {
    row: &'a Row,
    /// The break that is applied to the code, or `None` if the code is not changed.
    broken: Option<&'a Break>,
}

fn try_all(places: &Places, provision: &Provision, args: &ProofsArgs) -> Result<ExitCode> {
    let list = List::read(&places.root)?;
    let is_wanted = |row: &&Row| {
        let named =
            |name: &String| row.clauses.contains(name) || row.calls.contains(name) || row.suite == *name;
        row.cannot.is_none() && (args.only.is_empty() || args.only.iter().any(named))
    };
    let (mut rows, mut not_run): (Vec<&Row>, Vec<&Row>) =
        (list.rows.iter().filter(is_wanted).collect(), Vec::new());
    ensure!(!rows.is_empty(), "no row has a clause, call or suite that --only names");
    if !args.qemu {
        let boots = |row: &&Row| list.suites.get(&row.suite).and_then(|s| s.in_xtask) == Some(InXtask::Qemu);
        (not_run, rows) = rows.into_iter().partition(boots);
    }
    let whole = rows.iter().map(|row| Try { row, broken: None });
    let broken = rows.iter().flat_map(|row| row.breaks.iter().map(|b| Try { row, broken: Some(b) }));
    let tries: Vec<Try> = whole.chain(broken).collect();
    let tree = Tree::copy(places)?;
    let (mut bad, mut table, start) = (0, Table::new(), Instant::now());
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["test", "code", "result"]);
    for (number, one) in tries.iter().enumerate() {
        let suite = list
            .suites
            .get(&one.row.suite)
            .with_context(|| format!("there is no suite {}", one.row.suite))?;
        let run = || tree.run(suite, one.row, provision);
        let end = one.broken.map_or_else(run, |b| tree.broken(b, run)?)?;
        let code = one.broken.map_or("as it is", |b| b.what.as_str());
        let (good, result) = judge(&end, one.broken.is_some(), suite.kind == "compile");
        eprintln!("{}/{} {}: {code}: {result}", number + 1, tries.len(), one.row.test);
        if !good {
            bad += 1;
            table.add_row([&one.row.test, code, &result]);
        }
    }
    if bad != 0 {
        println!("{table}");
    }
    for row in not_run {
        println!("{}: not run, because it boots QEMU: use --qemu", row.test);
    }
    println!("{} runs in {} s, {bad} with a wrong result", tries.len(), start.elapsed().as_secs());
    Ok(ExitCode::from(u8::from(bad != 0)))
}

/// Returns whether a run had the right result, and the result in words. A test must pass if the code is not broken, and must fail
/// if the code is broken. In a suite that only compiles, a break must cause an error of the compiler.
fn judge(end: &End, is_broken: bool, compiles_only: bool) -> (bool, String) {
    match (end, is_broken) {
        (End::Passed, false) => (true, "passes".into()),
        (End::Passed, true) => (false, "NOT NOTICED".into()),
        (End::Failed, true) => (true, "noticed".into()),
        (End::TimedOut, true) => (true, "noticed: the test hangs".into()),
        (End::NotCompiled(_), true) if compiles_only => (true, "noticed".into()),
        (End::NotCompiled(why), _) => (false, format!("DOES NOT COMPILE: {why}")),
        (End::Ran(n), _) => (false, format!("RAN {n} TESTS, NOT ONE")),
        (End::Failed | End::TimedOut, false) => (false, "FAILS, ALTHOUGH THE CODE IS NOT BROKEN".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_break_must_be_noticed_by_the_test_and_not_by_the_compiler() {
        let good = |end: &End, is_broken, compiles_only| judge(end, is_broken, compiles_only).0;
        let compiler = End::NotCompiled(String::new());
        assert!(good(&End::Passed, false, false) && !good(&End::Passed, true, false));
        assert!(good(&End::Failed, true, false) && !good(&End::Failed, false, false));
        assert!(good(&End::TimedOut, true, false) && !good(&End::TimedOut, false, false));
        assert!(
            !good(&compiler, true, false) && good(&compiler, true, true) && !good(&compiler, false, true)
        );
        assert!(!good(&End::Ran(0), true, false) && !good(&End::Ran(2), false, false));
    }
}
