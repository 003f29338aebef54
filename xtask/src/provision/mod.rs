// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds what a command needs, and installs what is missing, after it has said so and was allowed to.
//!
//! What the system has comes first. What is fetched goes to rustup's own folder or to the user's cache folder;
//! nothing here asks for root, except where it runs as root anyhow.

pub mod apt;
pub mod qemu;
mod rust;

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

use crate::cmd::{self, which, Places};
use qemu::Qemu;

/// Something that a command cannot do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A toolchain with these components and targets.
    Rust(Toolchain, &'static [&'static str], &'static [&'static str]),
    /// A C compiler named `cc`.
    Cc,
    /// `gcc`, `g++`, `clang` and `clang++`, where they can be had: who needs them does with those that are there.
    Compilers,
    /// QEMU for x86-64; newer than the system's if x2APIC is wanted.
    Qemu {
        /// Whether the local APIC must be emulated in x2APIC mode too.
        x2apic: bool,
    },
    /// A cargo command that crates.io has, such as `cargo-deny`.
    CargoTool(&'static str),
}

/// Which Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The one that runs us.
    Active,
    /// The oldest that the kernel crates support.
    Msrv,
    /// Any nightly.
    Nightly,
}

/// The oldest toolchain that the kernel crates support: `rust-version` of the workspace.
pub const MSRV: &str = "1.85.0";

/// Something to install: what is told before, and what does it.
struct Plan {
    what: String,
    act: Box<dyn FnOnce() -> Result<()>>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Installs, within what the user has allowed.
pub struct Provision {
    yes: bool,
    /// The answer, once given: it counts for the whole command.
    answer: Cell<Option<bool>>,
    qemu: OnceCell<Qemu>,
}

impl Provision {
    /// `--yes`, and `CI=true`, answer every question with yes.
    pub fn new(places: &Places, yes: bool) -> Self {
        Self { yes: yes || places.ci, answer: Cell::new(None), qemu: OnceCell::new() }
    }

    /// Says at once all that is missing, and asks once. What cannot be had is found when it is needed.
    pub fn announce(&self, needs: &[Need]) -> Result<()> {
        let mut plans: Vec<String> = Vec::new();
        for need in needs {
            for plan in plan(need).unwrap_or_default() {
                if !plans.contains(&plan.what) {
                    plans.push(plan.what);
                }
            }
        }
        if !plans.is_empty() {
            self.ask(&plans)?;
        }
        Ok(())
    }

    /// Makes sure that all of `needs` are there.
    pub fn ensure(&self, needs: &[Need]) -> Result<()> {
        for need in needs {
            let plans = plan(need)?;
            if plans.is_empty() {
                continue;
            }
            // An old QEMU is still good for half the work; its user says so.
            let spare = matches!(need, Need::Qemu { .. }) && qemu::best().is_some();
            let told: Vec<String> = plans.iter().map(ToString::to_string).collect();
            if !self.ask(&told)? {
                ensure!(spare, "missing, and not to be installed: {}", told.join("; "));
                continue;
            }
            for plan in plans {
                eprintln!("== {}", plan.what);
                match (plan.act)() {
                    Err(err) if spare => eprintln!("That failed: {err:#}"),
                    done => done.context(plan.what)?,
                }
            }
        }
        Ok(())
    }

    /// The QEMU to use, once [`Need::Qemu`] is met.
    pub fn qemu(&self) -> Result<&Qemu> {
        if let Some(found) = self.qemu.get() {
            return Ok(found);
        }
        let found = qemu::best().context("no qemu-system-x86_64 was found")?;
        Ok(self.qemu.get_or_init(|| found))
    }

    fn ask(&self, plans: &[String]) -> Result<bool> {
        if let Some(answer) = self.answer.get() {
            return Ok(answer);
        }
        eprintln!("Missing here:");
        for plan in plans {
            eprintln!("  - {plan}");
        }
        let answer = if self.yes {
            true
        } else if io::stdin().is_terminal() {
            eprint!("Do that? [Y/n] ");
            io::stderr().flush()?;
            let mut line = String::new();
            let read = io::stdin().lock().read_line(&mut line)?;
            read > 0 && matches!(line.trim().to_lowercase().as_str(), "" | "y" | "yes")
        } else {
            bail!("something must be installed (see above), and there is no terminal to ask on: say --yes, or CI=true");
        };
        self.answer.set(Some(answer));
        Ok(answer)
    }
}

/// What must be done to have `need`; nothing if it is there.
fn plan(need: &Need) -> Result<Vec<Plan>> {
    match need {
        Need::Rust(toolchain, components, targets) => rust::plan(*toolchain, components, targets),
        Need::Cc => plan_cc(),
        Need::Compilers => Ok(plan_compilers().into_iter().collect()),
        Need::Qemu { x2apic } => qemu::plan(*x2apic),
        Need::CargoTool(name) => Ok(plan_tool(name)?.into_iter().collect()),
    }
}

fn plan_cc() -> Result<Vec<Plan>> {
    if which("cc").is_some() {
        return Ok(Vec::new());
    }
    if which("apt-get").is_none() {
        bail!("no C compiler (`cc`): install one with your package manager");
    }
    if !is_root() {
        bail!("no C compiler (`cc`), and it takes root to install one: sudo apt-get install gcc libc6-dev");
    }
    Ok(vec![by_apt(&["gcc", "libc6-dev"])])
}

/// All but those that are there; nothing where we cannot install.
fn plan_compilers() -> Option<Plan> {
    let wanted = [("gcc", "gcc"), ("g++", "g++"), ("clang", "clang"), ("ld", "binutils")];
    let missing: Vec<_> = wanted.into_iter().filter(|(program, _)| which(program).is_none()).collect();
    let packages: Vec<_> = missing.into_iter().map(|(_, package)| package).collect();
    (!packages.is_empty() && which("apt-get").is_some() && is_root()).then(|| by_apt(&packages))
}

/// Installs packages of the system's.
fn by_apt(packages: &[&'static str]) -> Plan {
    let what = format!("install {} on this system with apt-get", packages.join(", "));
    let packages = packages.to_vec();
    let act = move || {
        cmd::run(Command::new("apt-get").arg("update"))?;
        let words = ["-y", "--no-install-recommends", "install"];
        cmd::run(Command::new("apt-get").args(words).args(&packages).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    Plan { what, act: Box::new(act) }
}

/// Where our own tools are, whether they exist or not.
fn tools() -> Result<PathBuf> {
    Ok(cache()?.join("tools"))
}

/// The path of a cargo command, the system's first.
pub fn tool(name: &str) -> Option<PathBuf> {
    which(name).or_else(|| tools().ok().map(|dir| dir.join("bin").join(name)).filter(|p| p.is_file()))
}

fn plan_tool(name: &'static str) -> Result<Option<Plan>> {
    if tool(name).is_some() {
        return Ok(None);
    }
    let root = tools()?;
    let what = format!("build {name} from crates.io, into {} (takes some minutes)", root.display());
    let act = move || {
        let words = ["install", "--locked", name, "--root"];
        let mut cargo = Command::new("cargo");
        // A target folder of the caller's would keep the build's rubbish.
        cargo.args(words).arg(&root).env_remove("CARGO_TARGET_DIR");
        // It runs for a second: a quick build beats a quick tool.
        for (name, value) in [("LTO", "off"), ("OPT_LEVEL", "1"), ("CODEGEN_UNITS", "16"), ("DEBUG", "0")] {
            cargo.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
        }
        cmd::run(&mut cargo)
    };
    Ok(Some(Plan { what, act: Box::new(act) }))
}

/// The name of a toolchain, as `cargo +NAME` takes it.
pub fn toolchain_name(toolchain: Toolchain) -> Result<String> {
    rust::name(toolchain)
}

/// The user's cache folder for this project.
pub fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute()) {
        Some(dir) => dir,
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("mk-ipi"))
}

fn is_root() -> bool {
    cmd::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
