// SPDX-License-Identifier: MIT OR Apache-2.0
//! A copy of the work tree. The code in the copy is broken, and the tests are run there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};

use super::list::{Break, InXtask, Row, Suite};
use crate::check;
use crate::cmd::{self, Places};
use crate::provision::Provision;

/// Time limit in seconds for the build and the run of one test. A break can make a test wait for ever.
const PATIENCE: &str = "180";
/// The exit statuses of `timeout` if the time limit was reached.
const TIMED_OUT: [i32; 2] = [124, 137];

/// The result of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Passed,
    Failed,
    TimedOut,
    /// The code does not compile, so the test could not run. This is the first error of the compiler.
    NotCompiled(String),
    /// The number of tests that ran is not one, but this number.
    Ran(usize),
}

/// The copy of the work tree.
pub struct Tree {
    places: Places,
    log: PathBuf,
}

impl Tree {
    /// Copies the files that git tracks, with their present content in the work tree.
    pub fn copy(places: &Places) -> Result<Self> {
        let folder = places.own_target("proofs");
        let root = folder.join("tree");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let mut git = Command::new("git");
        let listed = cmd::output(git.current_dir(&places.root).args(["ls-files", "-z"]))?;
        for name in listed.split('\0').filter(|name| !name.is_empty()) {
            let (from, to) = (places.root.join(name), root.join(name));
            // If a file was deleted, git lists it until the deletion is staged.
            if from.exists() {
                fs::create_dir_all(to.parent().context("a file is not in a folder")?)?;
                fs::copy(&from, &to).with_context(|| name.to_owned())?;
            }
        }
        let places = Places { root, target: folder.join("target"), ci: false };
        Ok(Self { places, log: folder.join("log") })
    }

    /// Applies the break to the copy, runs `f`, and restores the code.
    pub fn broken<R>(&self, b: &Break, f: impl FnOnce() -> R) -> Result<R> {
        let file = self.places.root.join(&b.file);
        let whole = fs::read_to_string(&file)?;
        let places = whole.matches(&b.find).count();
        ensure!(places == 1, "{}: {places} places read {:?}, not one", b.file, b.find);
        fs::write(&file, whole.replacen(&b.find, &b.replace, 1))?;
        let result = f();
        fs::write(&file, whole)?;
        Ok(result)
    }

    /// Runs the test of `row` in the copy.
    pub fn run(&self, suite: &Suite, row: &Row, provision: &Provision) -> Result<End> {
        let end = match suite.in_xtask {
            None => return self.cargo(suite, &row.test),
            Some(InXtask::Disassembly) => check::disassembly(&self.places).map(drop),
            Some(InXtask::Qemu) => check::conformance_in_qemu(&self.places, provision).map(drop),
        };
        Ok(match end {
            Ok(()) => End::Passed,
            Err(err) if is_build(&format!("{err:#}")) => End::NotCompiled(format!("{err:#}")),
            Err(_) => End::Failed,
        })
    }

    /// Runs a test by the cargo command of its suite.
    fn cargo(&self, suite: &Suite, test: &str) -> Result<End> {
        let mut cargo = Command::new("timeout");
        cargo.args(["--kill-after=1", PATIENCE, "cargo"]).args(&suite.command).current_dir(&self.places.root);
        cargo.env("CARGO_TARGET_DIR", self.places.target.join(&suite.target));
        cargo.env_remove("RUSTFLAGS").env("CARGO_PROFILE_DEV_DEBUG", "0").envs(&suite.env);
        let is_test = suite.command.iter().any(|word| word == "test");
        if suite.case {
            cargo.env("MK_IPI_CASE", test).args(["--", "--exact", "stepped"]);
        } else if is_test {
            cargo.args(["--", "--exact", test]);
        }
        let (out, err) = (self.log.with_extension("out"), self.log.with_extension("err"));
        cargo.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
        let status = cargo.status().context("`timeout` could not be started")?;
        let (out, err) = (read(&out)?, read(&err)?);
        let ran = out
            .lines()
            .filter_map(|line| line.strip_prefix("running ")?.split(' ').next()?.parse::<usize>().ok());
        // Each executable prints how many tests it runs. Miri runs the same executable once for each seed, so these numbers are
        // not added.
        let by_seed = suite.command.iter().any(|word| word == "miri");
        let ran: usize = if by_seed { ran.max().unwrap_or(0) } else { ran.sum() };
        Ok(match status.code() {
            Some(code) if TIMED_OUT.contains(&code) => End::TimedOut,
            _ if err.contains("error: could not compile") => {
                End::NotCompiled(err.lines().find(|l| l.starts_with("error")).unwrap_or_default().to_owned())
            }
            _ if is_test && ran != 1 => End::Ran(ran),
            Some(0) => End::Passed,
            _ => End::Failed,
        })
    }
}

/// Returns whether the error of a check in xtask came from a build.
fn is_build(error: &str) -> bool {
    error.contains("`cargo build") || error.contains("could not compile")
}

/// Reads the output of a test. Bytes that are not UTF-8 are replaced.
fn read(file: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned())
}
