// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linux's make.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::provision;

/// Environment variables that cargo, rustup or an outer make set for their own children, and others that would change Linux's
/// build.
const NOT_ITS: [&str; 12] = [
    "LD_LIBRARY_PATH",
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "MAKEOVERRIDES",
    "ARCH",
    "CROSS_COMPILE",
    "LLVM",
    "KBUILD_OUTPUT",
    "INSTALL_MOD_STRIP",
];

/// `program` without these variables. The choice of rustup's toolchain is kept.
pub fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut cmd = Command::new(program);
    let cargos = std::env::vars_os().map(|(name, _)| name);
    for name in cargos.filter(|name| name.to_string_lossy().starts_with("CARGO")) {
        cmd.env_remove(name);
    }
    for name in NOT_ITS {
        cmd.env_remove(name);
    }
    cmd.env("LC_ALL", "C");
    cmd
}

/// `make -s` in a source tree or a build folder, with this C compiler.
pub fn make(folder: &Path, cc: &str) -> Command {
    let mut cmd = clean("make");
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    cmd.arg("-s").arg("-C").arg(folder).arg(format!("-j{jobs}")).arg(format!("CC={cc}"));
    if let Some(bindgen) = provision::bindgen() {
        cmd.arg(format!("BINDGEN={}", bindgen.display()));
    }
    cmd
}
