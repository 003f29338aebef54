// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds the modules for a Linux that was built before.

use std::path::{Path, PathBuf};

use anyhow::{ensure, Result};

use super::kernel::Built;
use super::make::make;
use super::stage::MODULE;
use crate::cmd;

/// The files of the modules.
pub struct Modules {
    /// Our module.
    pub mk_ipi: PathBuf,
    /// A module in C that tests our module.
    pub test: PathBuf,
}

/// Builds both modules in `stage`, the copy of the sources.
pub fn build(linux: &Built, stage: &Path) -> Result<Modules> {
    let ours = stage.join(MODULE);
    let test = ours.join("test");
    cmd::run(make(&linux.out, linux.cc).arg(format!("M={}", ours.display())).arg("modules"))?;
    let mut make_test = make(&linux.out, linux.cc);
    make_test.arg(format!("M={}", test.display()));
    make_test.arg(format!("KBUILD_EXTRA_SYMBOLS={}", ours.join("Module.symvers").display()));
    cmd::run(make_test.arg("modules"))?;
    let modules = Modules { mk_ipi: ours.join("mk_ipi.ko"), test: test.join("mk_ipi_test_c.ko") };
    for file in [&modules.mk_ipi, &modules.test] {
        ensure!(file.is_file(), "the build made no {}", file.display());
    }
    Ok(modules)
}
