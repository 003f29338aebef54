// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands for the build of Linux, in an environment that does not change this build.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use crate::provision;

/// Environment variables that would change the build of Linux. If cargo, rustup or make runs xtask, it sets some of them.
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

/// Returns a command that runs `program` without the variables in [`NOT_ITS`] and without cargo's. `RUSTUP_TOOLCHAIN` is kept, so
/// rustup uses the same toolchain.
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

/// Returns the command `make -s` for a source tree or a build folder of Linux, with the C compiler `cc`, and with a bindgen that
/// is new enough if there is one.
pub fn make(folder: &Path, cc: &str) -> Command {
    let mut cmd = clean("make");
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    cmd.arg("-s").arg("-C").arg(folder).arg(format!("-j{jobs}")).arg(format!("CC={cc}"));
    if let Some(bindgen) = provision::bindgen() {
        cmd.arg(format!("BINDGEN={}", bindgen.display()));
    }
    cmd
}
