// SPDX-License-Identifier: MIT OR Apache-2.0
//! The places of files and folders, and how child processes are run.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{bail, ensure, Context, Result};

use crate::arch::Arch;

/// The bare-metal target of everything that a kernel links on x86-64.
pub const BARE_TARGET: &str = Arch::X86.target();
/// The crates that a kernel links, on any architecture.
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
/// One more crate, which only our Linux module links.
pub const SPAWN: &str = "mk-ipi-spawn";
/// The folder of [`SPAWN`].
pub const SPAWN_FOLDER: &str = "examples/linux/spawn";

/// The places that every command needs.
pub struct Places {
    /// The repository.
    pub root: PathBuf,
    /// Cargo's target folder of the root workspace.
    pub target: PathBuf,
    /// True if `CI=true`. Then a missing tool is an error, also one that a developer can do without.
    pub ci: bool,
}

impl Places {
    /// Finds the repository from cargo's environment.
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

    /// A target folder of its own, for builds that share nothing with the workspace's.
    pub fn own_target(&self, name: &str) -> PathBuf {
        self.target.join("xtask").join(name)
    }

    /// `cargo`, in the repository.
    pub fn cargo(&self) -> Command {
        self.cargo_in(Path::new(""))
    }

    /// `cargo` in a folder of the repository.
    pub fn cargo_in(&self, folder: &Path) -> Command {
        let mut cmd = Command::new("cargo");
        cmd.current_dir(self.root.join(folder)).env("CARGO_TARGET_DIR", &self.target);
        if io::stderr().is_terminal() {
            cmd.env("CARGO_TERM_COLOR", "always");
        }
        cmd
    }
}

/// The command as a person would type it, without the environment.
pub fn shown(cmd: &Command) -> String {
    let words = std::iter::once(cmd.get_program()).chain(cmd.get_args()).map(OsStr::to_string_lossy);
    let quoted = words.map(|w| if w.contains([' ', '"', '$']) { format!("'{w}'") } else { w.into_owned() });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Runs the command to its end; a status other than 0 is an error. The child's stdout goes to our stderr, because our stdout is
/// only for the result.
pub fn run(cmd: &mut Command) -> Result<()> {
    eprintln!("$ {}", shown(cmd));
    let status = cmd.stdin(Stdio::null()).stdout(io::stderr()).status().with_context(|| shown(cmd))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(cmd));
    }
    Ok(())
}

/// Runs the command to its end, and returns its stdout. The child's stderr is dropped.
pub fn output(cmd: &mut Command) -> Result<String> {
    let out = cmd.stdin(Stdio::null()).stderr(Stdio::null()).output().with_context(|| shown(cmd))?;
    if !out.status.success() {
        bail!("`{}` ended with {}", shown(cmd), out.status);
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs `cargo test` to its end, and returns the number of tests that passed. It is an error if no test ran: a
/// filter that matches nothing proves nothing.
pub fn run_tests(cmd: &mut Command) -> Result<u64> {
    let passed = run_and_add(cmd.stdout(Stdio::piped()), passed_in)?;
    ensure!(passed != 0, "`{}` ran no test", shown(cmd));
    Ok(passed)
}

/// Runs a fuzz target to its end, and returns the number of its executions. It is an error if there are none.
pub fn run_fuzzer(cmd: &mut Command) -> Result<u64> {
    let executed = run_and_add(cmd.stdout(io::stderr()).stderr(Stdio::piped()), executed_in)?;
    ensure!(executed != 0, "`{}` executed nothing", shown(cmd));
    Ok(executed)
}

/// Runs the command to its end, and adds up what `figure` finds in the lines of the piped stream. The lines go to our stderr.
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

/// The figure in libtest's closing line, 0 for any other line.
fn passed_in(line: &str) -> u64 {
    let Some((before, _)) = line.split_once(" passed;").filter(|_| line.contains("test result: ")) else {
        return 0;
    };
    before.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The figure in libFuzzer's final statistics, 0 for any other line.
fn executed_in(line: &str) -> u64 {
    let figure = line.strip_prefix("stat::number_of_executed_units:");
    figure.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Waits until no other command holds the lock of `folder`. The folder is made if it does not exist.
pub fn lock(folder: &Path) -> Result<File> {
    fs::create_dir_all(folder)?;
    let file = File::create(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("== another command works in {}: waiting for it", folder.display());
            file.lock()?;
        }
        Err(TryLockError::Error(err)) => return Err(err).with_context(|| folder.display().to_string()),
    }
    Ok(file)
}

/// The program's path, if `PATH` has it.
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
