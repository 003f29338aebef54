// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the repository and cargo's target folder, and runs child processes.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{bail, ensure, Context, Result};

use crate::arch::Arch;

/// The bare-metal target of everything that a kernel links on x86-64.
pub const BARE_TARGET: &str = Arch::X86.target();
/// The crates that kernels link. Three of them are for one architecture each.
pub const KERNEL_CRATES: [&str; 8] = [
    "mk-ipi",
    "mk-ipi-abi",
    "mk-ipi-arm64",
    "mk-ipi-core",
    "mk-ipi-net",
    "mk-ipi-riscv",
    "mk-ipi-services",
    "mk-ipi-x86",
];
/// The crate that only our Linux module links, in addition.
pub const SPAWN: &str = "mk-ipi-spawn";
/// The folder of [`SPAWN`].
pub const SPAWN_FOLDER: &str = "examples/linux/spawn";

/// The folders that every command needs, and whether it runs in CI.
pub struct Places {
    /// The root folder of the repository.
    pub root: PathBuf,
    /// Cargo's target folder for the root workspace.
    pub target: PathBuf,
    /// True if the environment has `CI=true`. Then every missing tool is an error. Without it, some tools can be missing.
    pub ci: bool,
}

impl Places {
    /// Finds the repository by the environment variables that cargo sets.
    pub fn find() -> Result<Self> {
        let manifest =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest).parent().context("xtask has no parent folder")?.to_path_buf();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => std::env::current_dir()?.join(dir),
            None => root.join("target"),
        };
        let ci = std::env::var("CI").is_ok_and(|v| v == "true");
        Ok(Self { root, target, ci })
    }

    /// Returns the target folder with this name, for a build that must not share files with the build of the workspace.
    pub fn own_target(&self, name: &str) -> PathBuf {
        self.target.join("xtask").join(name)
    }

    /// Returns the command `cargo`, which will run in the root of the repository.
    pub fn cargo(&self) -> Command {
        self.cargo_in(Path::new(""))
    }

    /// Returns the command `cargo`, which will run in this folder of the repository.
    pub fn cargo_in(&self, folder: &Path) -> Command {
        let mut cmd = Command::new("cargo");
        cmd.current_dir(self.root.join(folder)).env("CARGO_TARGET_DIR", &self.target);
        if io::stderr().is_terminal() {
            cmd.env("CARGO_TERM_COLOR", "always");
        }
        cmd
    }
}

/// Returns the command line as a user would type it, without environment variables.
pub fn shown(cmd: &Command) -> String {
    let words = std::iter::once(cmd.get_program()).chain(cmd.get_args()).map(OsStr::to_string_lossy);
    let quoted = words.map(|w| if w.contains([' ', '"', '$']) { format!("'{w}'") } else { w.into_owned() });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Runs the command, and waits until it ends. A status other than 0 is an error. The command's stdout goes to our stderr,
/// because our stdout carries only the result of `cargo xtask`.
pub fn run(cmd: &mut Command) -> Result<()> {
    eprintln!("$ {}", shown(cmd));
    let status = cmd.stdin(Stdio::null()).stdout(io::stderr()).status().with_context(|| shown(cmd))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(cmd));
    }
    Ok(())
}

/// Runs the command, waits until it ends, and returns its stdout. A status other than 0 is an error. The command's stderr is
/// not kept.
pub fn output(cmd: &mut Command) -> Result<String> {
    let out = cmd.stdin(Stdio::null()).stderr(Stdio::null()).output().with_context(|| shown(cmd))?;
    if !out.status.success() {
        bail!("`{}` ended with {}", shown(cmd), out.status);
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs `cargo test`, waits until it ends, and returns the number of tests that passed. It is an error if this number is 0,
/// because then the name of the test is probably wrong.
pub fn run_tests(cmd: &mut Command) -> Result<u64> {
    let passed = run_and_add(cmd.stdout(Stdio::piped()), passed_in)?;
    ensure!(passed != 0, "`{}` ran no test", shown(cmd));
    Ok(passed)
}

/// Runs a fuzz target, waits until it ends, and returns the number of its executions. It is an error if this number is 0.
pub fn run_fuzzer(cmd: &mut Command) -> Result<u64> {
    let executed = run_and_add(cmd.stdout(io::stderr()).stderr(Stdio::piped()), executed_in)?;
    ensure!(executed != 0, "`{}` executed nothing", shown(cmd));
    Ok(executed)
}

/// Runs the command, and waits until it ends. Either its stdout or its stderr must be a pipe. Calls `figure` for each line from
/// this pipe, and returns the sum of the results. The lines also go to our stderr.
fn run_and_add(cmd: &mut Command, figure: impl Fn(&str) -> u64) -> Result<u64> {
    eprintln!("$ {}", shown(cmd));
    let mut child = cmd.stdin(Stdio::null()).spawn().with_context(|| shown(cmd))?;
    let stdout = child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read>);
    let piped = stdout.or_else(|| Some(Box::new(child.stderr.take()?))).context("no stream is piped")?;
    let mut sum = 0;
    for line in BufReader::new(piped).split(b'\n') {
        let line = line?;
        let text = String::from_utf8_lossy(&line);
        sum += figure(&text);
        writeln!(io::stderr(), "{text}")?;
    }
    let status = child.wait()?;
    ensure!(status.success(), "`{}` ended with {status}", shown(cmd));
    Ok(sum)
}

/// Returns the number of passed tests if the line is the last one of libtest (the test harness), and 0 for any other line.
fn passed_in(line: &str) -> u64 {
    let Some((before, _)) = line.split_once(" passed;").filter(|_| line.contains("test result: ")) else {
        return 0;
    };
    before.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Returns the number of executions if the line has it (one line of libFuzzer's final statistics), and 0 for any other line.
fn executed_in(line: &str) -> u64 {
    let figure = line.strip_prefix("stat::number_of_executed_units:");
    figure.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Takes the lock of `folder`, and waits while another command holds it. The lock is held until the returned file is dropped.
/// The folder is made if it does not exist.
pub fn lock(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder)?;
    let file = File::create(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("== another command uses {}: waiting until it ends", folder.display());
            file.lock()?;
        }
        Err(TryLockError::Error(err)) => return Err(err).with_context(|| folder.display().to_string()),
    }
    Ok(file)
}

/// Returns the path of the program, if a folder of the environment variable `PATH` has it.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_closing_line() {
        assert_eq!(passed_in("test result: ok. 12 passed; 0 failed; 1 ignored"), 12);
        assert_eq!(passed_in("test result: \u{1b}[32mok\u{1b}[m. 3 passed; 0 failed"), 3);
        assert_eq!(passed_in("test a ... ok"), 0);
    }

    #[test]
    fn libfuzzers_final_statistics() {
        assert_eq!(executed_in("stat::number_of_executed_units: 529846"), 529_846);
        assert_eq!(executed_in("stat::average_exec_per_sec:     40757"), 0);
    }

    #[test]
    fn commands_can_be_typed_again() {
        assert_eq!(shown(Command::new("a").args(["b c", "d"])), "a 'b c' d");
    }

    #[test]
    fn a_failed_child_is_an_error() {
        assert!(run(&mut Command::new("false")).is_err());
        assert!(run(&mut Command::new("true")).is_ok());
        assert!(output(&mut Command::new("no-such-program-here")).is_err());
    }

    #[test]
    fn a_lock_is_held_once_at_a_time() {
        let dir = std::env::temp_dir().join(format!("mk-ipi-lock-{}", std::process::id()));
        let held = lock(&dir).expect("the lock");
        let other = || File::open(dir.join("lock")).expect("its file");
        assert!(other().try_lock().is_err());
        drop(held);
        assert!(other().try_lock().is_ok());
        fs::remove_dir_all(&dir).expect("gone");
    }

    #[test]
    fn no_test_is_an_error() {
        let said = |text: &str| run_tests(Command::new("printf").arg(text));
        assert_eq!(
            said("test result: ok. 2 passed; 0 failed\ntest result: ok. 3 passed; 0 failed\n").ok(),
            Some(5)
        );
        assert!(said("test result: ok. 0 passed; 0 failed\n").is_err());
    }
}
