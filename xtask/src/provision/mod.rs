// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds what a command needs, and installs what is missing, after it has said so and was allowed to.
//!
//! What the system has comes first. What is fetched goes to rustup's own folder or to the user's cache folder;
//! nothing here asks for root, except where it runs as root anyhow.

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

/// Something that a command cannot do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A toolchain with these components and targets.
    Rust(Toolchain, &'static [&'static str], &'static [&'static str]),
    /// A C compiler named `cc`.
    Cc,
    /// `gcc`, `g++`, `clang` and `clang++`, where they can be had: who needs them does with those that are there.
    Compilers,
    /// QEMU; for x86-64 one newer than the system's if x2APIC is wanted.
    Qemu {
        /// Of which machine.
        arch: Arch,
        /// Whether the local APIC must be emulated in x2APIC mode too.
        x2apic: bool,
    },
    /// A cargo command that crates.io has, such as `cargo-deny`.
    CargoTool(&'static str),
    /// What builds a Linux, beside a Rust toolchain.
    LinuxTools {
        /// Whether it is to look for mistakes.
        debug: bool,
    },
    /// A busybox that needs no library.
    Busybox,
    /// Programs that the scenario with a spawned Linux uses, where they can be had.
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
pub struct Plan {
    /// Told before; an order, such as "install gcc".
    pub what: String,
    /// Does it.
    pub act: Box<dyn FnOnce() -> Result<()>>,
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
    qemus: [OnceCell<Qemu>; 3],
}

impl Provision {
    /// `--yes`, and `CI=true`, answer every question with yes.
    pub fn new(places: &Places, yes: bool) -> Self {
        Self { yes: yes || places.ci, answer: Cell::new(None), qemus: Default::default() }
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
            let spare = matches!(need, Need::Qemu { arch, .. } if qemu::best(*arch).is_some());
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
