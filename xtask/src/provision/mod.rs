// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the tools that a command needs, and installs the missing ones. Before it installs anything, it lists what it will
//! install, and asks the user.
//!
//! Tools of the system are preferred. Downloaded tools go to rustup's own folder, or to a folder in the user's cache. Packages of
//! the system are installed only if the command runs as root. The command never asks for the password of root.

pub mod apt;
pub mod qemu;
mod rust;
mod system;
mod tools;

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{bail, ensure, Context, Result};

use crate::arch::Arch;
use crate::cmd::Places;
use crate::linux::kernel::{self, Wanted};
use qemu::Qemu;

pub use system::{busybox, clang, unpack_package};
pub use tools::{bindgen, tool};

/// Something that must be installed for a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A toolchain with these components and targets.
    Rust(Toolchain, &'static [&'static str], &'static [&'static str]),
    /// A C compiler named `cc`.
    Cc,
    /// `gcc`, `g++`, `clang`, `clang++` and `ld`, if they can be installed. A step that needs them uses those that are installed.
    Compilers,
    /// QEMU. For x2APIC mode it must be version 9.0 or newer, if such a version can be installed.
    Qemu {
        /// The architecture of the emulated machine.
        arch: Arch,
        /// Whether x2APIC mode is needed.
        x2apic: bool,
    },
    /// A tool from crates.io, such as `cargo-deny`.
    CargoTool(&'static str),
    /// The tools that are needed to build a Linux, without the Rust toolchain.
    LinuxTools {
        /// Whether this Linux has debug checks (KASAN and others).
        debug: bool,
    },
    /// A busybox that is linked statically.
    Busybox,
    /// Programs that the scenario with a spawned Linux uses, if they can be installed.
    Programs,
    /// `iperf3`, which measures networks.
    Iperf,
    /// `valgrind`, which counts instructions.
    Valgrind,
    /// A Linux that is built.
    Linux(Wanted),
}

/// A toolchain of Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The active toolchain.
    Active,
    /// The oldest toolchain that the kernel crates support.
    Msrv,
    /// A nightly toolchain of any day.
    Nightly,
}

/// The version of the oldest toolchain that the kernel crates support. It is `rust-version` of the workspace.
pub const MSRV: &str = "1.85.0";

/// Something that can be installed.
pub struct Plan {
    /// A description for the user, such as "install gcc".
    pub what: String,
    /// Does the installation.
    pub act: Box<dyn FnOnce() -> Result<()>>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Asks the user, and installs missing tools.
pub struct Provision {
    /// If true, the user is not asked.
    yes: bool,
    /// The answer of the user, after the user was asked. The user is asked only once in a command.
    answer: Cell<Option<bool>>,
    /// The QEMU for each architecture, after it was found.
    qemus: [OnceCell<Qemu>; 3],
}

impl Provision {
    /// With `yes` (the option `--yes`), and in CI, the user is not asked, and everything is installed.
    pub fn new(places: &Places, yes: bool) -> Self {
        Self { yes: yes || places.ci, answer: Cell::new(None), qemus: Default::default() }
    }

    /// Lists what is missing, and asks the user whether to install it. Something that cannot be installed is not an error here.
    /// It is an error in [`Provision::ensure`].
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

    /// Installs those of `needs` that are missing. It is an error if one of them cannot be installed, or if the user has not
    /// allowed it. But it is no error if there is a QEMU that is not good enough, because it can still run a part of the work.
    pub fn ensure(&self, needs: &[Need]) -> Result<()> {
        for need in needs {
            let plans = plan(need)?;
            if plans.is_empty() {
                continue;
            }
            // The command that uses this QEMU reports what cannot run.
            let spare = matches!(need, Need::Qemu { arch, .. } if qemu::best(*arch).is_some());
            let told: Vec<String> = plans.iter().map(ToString::to_string).collect();
            if !self.ask(&told)? {
                ensure!(
                    spare,
                    "a tool is missing, and you did not allow this command to {}",
                    told.join("; ")
                );
                continue;
            }
            for plan in plans {
                eprintln!("== {}", plan.what);
                match (plan.act)() {
                    Err(err) if spare => eprintln!("this failed: {err:#}"),
                    done => done.context(plan.what)?,
                }
            }
        }
        Ok(())
    }

    /// The QEMU for this architecture. [`Provision::ensure`] must have been called with [`Need::Qemu`] before.
    pub fn qemu(&self, arch: Arch) -> Result<&Qemu> {
        let [x86, arm64, riscv64] = &self.qemus;
        let kept = match arch {
            Arch::X86 => x86,
            Arch::Arm64 => arm64,
            Arch::Riscv64 => riscv64,
        };
        if let Some(found) = kept.get() {
            return Ok(found);
        }
        let found = qemu::best(arch).with_context(|| format!("no QEMU for {arch} was found"))?;
        Ok(kept.get_or_init(|| found))
    }

    /// Lists the plans, and returns whether the user allows them. After the first call the same answer is returned.
    fn ask(&self, plans: &[String]) -> Result<bool> {
        if let Some(answer) = self.answer.get() {
            return Ok(answer);
        }
        eprintln!("Some tools are missing. To get them, this command will:");
        for plan in plans {
            eprintln!("  - {plan}");
        }
        let answer = if self.yes {
            true
        } else if io::stdin().is_terminal() {
            eprint!("Continue? [Y/n] ");
            io::stderr().flush()?;
            let mut line = String::new();
            let read = io::stdin().lock().read_line(&mut line)?;
            read > 0 && matches!(line.trim().to_lowercase().as_str(), "" | "y" | "yes")
        } else {
            bail!("tools are missing (see above), and you cannot be asked, because stdin is no terminal: use --yes");
        };
        self.answer.set(Some(answer));
        Ok(answer)
    }
}

/// The plans to install `need`. There are none if it is installed.
fn plan(need: &Need) -> Result<Vec<Plan>> {
    match need {
        Need::Rust(toolchain, components, targets) => rust::plan(*toolchain, components, targets),
        Need::Cc => system::plan_cc(),
        Need::Compilers => Ok(system::plan_compilers().into_iter().collect()),
        Need::Qemu { arch, x2apic } => qemu::plan(*arch, *x2apic),
        Need::CargoTool(name) => Ok(tools::plan(name)?.into_iter().collect()),
        Need::LinuxTools { debug } => {
            Ok(system::plan_linux(*debug)?.into_iter().chain(tools::plan_bindgen()?).collect())
        }
        Need::Busybox => Ok(system::plan_busybox()?.into_iter().collect()),
        Need::Programs => Ok(system::plan_programs().into_iter().collect()),
        Need::Iperf => system::plan_iperf(),
        Need::Valgrind => system::plan_valgrind(),
        Need::Linux(wanted) => kernel::plan(wanted),
    }
}

/// The name of a toolchain for `cargo +NAME`.
pub fn toolchain_name(toolchain: Toolchain) -> Result<String> {
    rust::name(toolchain)
}

/// The folder of this project in the user's cache.
pub fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute()) {
        Some(dir) => dir,
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("mk-ipi"))
}
