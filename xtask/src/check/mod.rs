// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: runs every check, step by step. CI runs this command.

mod campaigns;
mod capi;
mod disassembly;
mod instructions;
mod mutants;
mod no_panic;
mod public;
mod publish;
mod source;
mod steps;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use clap::Args;
use comfy_table::{presets, Table};

pub use campaigns::{
    fuzz, kills, litmus, loom, scenarios, FuzzArgs, KillsArgs, LitmusArgs, LoomArgs, ScenariosArgs,
};
pub use disassembly::in_image as disassembly;
pub use mutants::{mutants, MutantsArgs};
pub use publish::{semver, SemverArgs};
pub use steps::conformance_in_qemu;

use crate::cmd::Places;
use crate::provision::{Need, Provision};

/// The options of `cargo xtask test`.
#[derive(Args, Clone, Debug)]
pub struct TestArgs {
    /// Run only this step (can be given several times)
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// List the steps, and run none of them
    #[arg(long)]
    list: bool,
    /// Run the other steps even if a step fails
    #[arg(long)]
    keep_going: bool,
    /// Install missing tools without asking
    #[arg(long)]
    pub yes: bool,
}

/// What each step can use.
pub struct Context<'a> {
    /// The repository and the target folder.
    places: &'a Places,
    /// Installs missing tools.
    provision: &'a Provision,
}

/// Notes of a step that passed: what it counted, or what it could not run.
type Notes = Vec<String>;

/// One check.
struct Step {
    name: &'static str,
    /// A description for `--list`.
    what: &'static str,
    /// What must be installed for this step.
    needs: Vec<Need>,
    /// Whether the step takes too long for CI. Such a step runs only if `--only` names it.
    long: bool,
    /// Runs the check.
    run: fn(&Context) -> Result<Notes>,
}

/// The result of a step.
enum End {
    Passed(Notes),
    Failed(String),
    NotRun,
}

/// The command `cargo xtask test`. Its last line on stdout is `N passed, N failed`. The exit status is 1 if a step failed.
pub fn test(places: &Places, provision: &Provision, args: &TestArgs) -> Result<ExitCode> {
    let mut steps = steps::all();
    if let Some(unknown) = args.only.iter().find(|name| !steps.iter().any(|s| s.name == **name)) {
        let names: Vec<_> = steps.iter().map(|s| s.name).collect();
        bail!("there is no step {unknown}; the steps are: {}", names.join(", "));
    }
    if args.list {
        for step in &steps {
            let when = if step.long { " (runs only if --only names it)" } else { "" };
            println!("{:18} {}{when}", step.name, step.what);
        }
        return Ok(ExitCode::SUCCESS);
    }
    steps.retain(|step| wanted(step, &args.only));
    let needs: Vec<Need> = steps.iter().flat_map(|step| step.needs.clone()).collect();
    provision.announce(&needs)?;
    let ends = run_all(&Context { places, provision }, &steps, args.keep_going);
    Ok(conclude(&steps, &ends))
}

/// Returns whether the step must run. If `only` names no step, all steps run that do not take too long for CI.
fn wanted(step: &Step, only: &[String]) -> bool {
    if only.is_empty() {
        !step.long
    } else {
        only.iter().any(|name| name == step.name)
    }
}

/// Runs the steps, and returns their results and how long they took. After a failed step no step runs, except with `keep_going`.
fn run_all(context: &Context, steps: &[Step], keep_going: bool) -> Vec<(End, Duration)> {
    let mut ends: Vec<(End, Duration)> = Vec::new();
    for step in steps {
        let failed = ends.iter().any(|(end, _)| matches!(end, End::Failed(_)));
        if failed && !keep_going {
            ends.push((End::NotRun, Duration::ZERO));
            continue;
        }
        eprintln!("\n== {}: {}", step.name, step.what);
        let start = Instant::now();
        let end = match context.provision.ensure(&step.needs).and_then(|()| (step.run)(context)) {
            Ok(notes) => End::Passed(notes),
            Err(err) => End::Failed(format!("{err:#}")),
        };
        let took = start.elapsed();
        match &end {
            End::Failed(why) => eprintln!("== {}: FAILED after {} s: {why}", step.name, took.as_secs()),
            _ => eprintln!("== {}: passed in {} s", step.name, took.as_secs()),
        }
        ends.push((end, took));
    }
    ends
}

/// Prints the table of the results, and the last line. Returns the exit status.
fn conclude(steps: &[Step], ends: &[(End, Duration)]) -> ExitCode {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["step", "result", "seconds", "notes"]);
    for (step, (end, took)) in steps.iter().zip(ends) {
        let (result, notes) = match end {
            End::Passed(notes) => ("passed", notes.join("\n")),
            End::Failed(why) => ("FAILED", why.clone()),
            End::NotRun => ("not run", String::new()),
        };
        table.add_row([step.name, result, &format!("{:.1}", took.as_secs_f64()), &notes]);
    }
    let count = |wanted: fn(&End) -> bool| ends.iter().filter(|(end, _)| wanted(end)).count();
    let failed = count(|end| matches!(end, End::Failed(_)));
    println!("\n{table}");
    println!("{}", closing_line(count(|end| matches!(end, End::Passed(_))), failed));
    ExitCode::from(u8::from(failed > 0))
}

/// The last line, which CI reads.
fn closing_line(passed: usize, failed: usize) -> String {
    format!("{passed} passed, {failed} failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &'static str, run: fn(&Context) -> Result<Notes>) -> Step {
        Step { name, what: "", needs: Vec::new(), long: false, run }
    }

    fn ends(keep_going: bool) -> Vec<&'static str> {
        let steps =
            [step("a", |_| Ok(Vec::new())), step("b", |_| bail!("no")), step("c", |_| Ok(Vec::new()))];
        let places = Places::find().expect("the repository");
        let provision = Provision::new(&places, false);
        let ends = run_all(&Context { places: &places, provision: &provision }, &steps, keep_going);
        let word = |end: &End| match end {
            End::Passed(_) => "passed",
            End::Failed(_) => "failed",
            End::NotRun => "not run",
        };
        ends.iter().map(|(end, _)| word(end)).collect()
    }

    #[test]
    fn the_first_failure_stops_unless_told_otherwise() {
        assert_eq!(ends(false), ["passed", "failed", "not run"]);
        assert_eq!(ends(true), ["passed", "failed", "passed"]);
    }

    #[test]
    fn a_long_step_runs_when_it_is_named() {
        let quick = step("quick", |_| Ok(Vec::new()));
        let long = Step { long: true, ..step("long", |_| Ok(Vec::new())) };
        assert!(wanted(&quick, &[]) && !wanted(&long, &[]));
        assert!(wanted(&long, &["long".into()]) && !wanted(&quick, &["long".into()]));
    }

    #[test]
    fn the_names_are_unique() {
        let mut names: Vec<_> = steps::all().iter().map(|s| s.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_ci_reads() {
        assert_eq!(closing_line(18, 2), "18 passed, 2 failed");
    }
}
