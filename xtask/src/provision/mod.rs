// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds what a command needs, and installs what is missing. Before it installs anything it says what, and asks.
//!
//! Tools of the system come first. Fetched tools go to rustup's own folder or to the user's cache folder. Nothing here asks for
//! root. System packages are installed only if the command runs as root.

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

/// Something that a command needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A toolchain with these components and targets.
    Rust(Toolchain, &'static [&'static str], &'static [&'static str]),
    /// A C compiler named `cc`.
    Cc,
    /// `gcc`, `g++`, `clang` and `clang++`, if they can be installed. A step that needs them uses those that exist.
    Compilers,
    /// QEMU. For x86-64 with x2APIC, a newer one than the system's may be needed.
    Qemu {
        /// The machine's architecture.
        arch: Arch,
        /// Whether the local APIC must be emulated in x2APIC mode too.
        x2apic: bool,
    },
    /// A cargo command from crates.io, such as `cargo-deny`.
    CargoTool(&'static str),
    /// The tools that build a Linux, without the Rust toolchain.
    LinuxTools {
        /// Whether it has debug checks (KASAN and others).
        debug: bool,
    },
    /// A busybox that needs no library.
    Busybox,
    /// Programs that the scenario with a spawned Linux uses, if they can be installed.
    Programs,
    /// `iperf3`, which measures networks.
    Iperf,
    /// `valgrind`, which counts instructions.
    Valgrind,
    /// A Linux, built.
    Linux(Wanted),
}

/// Which Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The active toolchain.
    Active,
    /// The oldest that the kernel crates support.
    Msrv,
    /// Any nightly.
    Nightly,
}

/// The oldest toolchain that the kernel crates support: `rust-version` of the workspace.
pub const MSRV: &str = "1.85.0";

/// Something to install.
pub struct Plan {
    /// The description for the user: an instruction, such as "install gcc".
    pub what: String,
    /// Installs it.
    pub act: Box<dyn FnOnce() -> Result<()>>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Installs what the user has allowed.
pub struct Provision {
    yes: bool,
    /// The user's answer, if it was given. It is valid for the whole command.
    answer: Cell<Option<bool>>,
    qemus: [OnceCell<Qemu>; 3],
}

impl Provision {
    /// `--yes`, and `CI=true`, answer every question with yes.
    pub fn new(places: &Places, yes: bool) -> Self {
        Self { yes: yes || places.ci, answer: Cell::new(None), qemus: Default::default() }
    }

    /// Lists all that is missing, and asks once. Something that cannot be installed is reported when it is needed.
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

    /// Makes sure that all of `needs` exist.
    pub fn ensure(&self, needs: &[Need]) -> Result<()> {
        for need in needs {
            let plans = plan(need)?;
            if plans.is_empty() {
                continue;
            }
            // An old QEMU can still run a part. The command that uses it says what it cannot run.
            let spare = matches!(need, Need::Qemu { arch, .. } if qemu::best(*arch).is_some());
            let told: Vec<String> = plans.iter().map(ToString::to_string).collect();
            if !self.ask(&told)? {
                ensure!(spare, "missing, and you did not allow to install it: {}", told.join("; "));
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

    /// The QEMU to use, after [`Need::Qemu`] was ensured.
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
            bail!("something must be installed (see above), and there is no terminal to ask on: use --yes, or CI=true");
        };
        self.answer.set(Some(answer));
        Ok(answer)
    }
}

/// The plans to install `need`; empty if it exists.
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
