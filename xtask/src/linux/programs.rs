// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs of this machine that are put into an initramfs if this machine has them: Python, socat, and an SSH server and client.
//! All files that they load are put into the initramfs, too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::initramfs::Entry;
use crate::cmd;

/// Python.
const PYTHON: &str = "/usr/bin/python3";
/// The other programs.
const PROGRAMS: [&str; 3] = ["/usr/bin/socat", "/usr/sbin/dropbear", "/usr/bin/dbclient"];
/// A program in Python. It imports the Python modules that the scenario's programs use, and prints the files of all loaded
/// modules.
const MODULES: &str = "import fcntl, os, select, struct, sys\n\
    for m in list(sys.modules.values()):\n  f = getattr(m, '__file__', None)\n  if f: print(f)";

/// The entries for those programs that this machine has.
pub fn entries() -> Result<Vec<Entry>> {
    let mut files = BTreeSet::new();
    if Path::new(PYTHON).exists() {
        let modules = cmd::output(Command::new(PYTHON).args(["-I", "-S", "-c", MODULES]))?;
        files.extend(modules.lines().map(PathBuf::from));
        files.insert(PYTHON.into());
    }
    files.extend(PROGRAMS.map(PathBuf::from).into_iter().filter(|file| file.exists()));
    for file in files.clone() {
        files.extend(libraries(&file)?);
    }
    Ok(files.into_iter().map(|file| Entry { to: file.display().to_string(), from: file }).collect())
}

/// The libraries that a program or a library loads, and its loader.
fn libraries(file: &Path) -> Result<Vec<PathBuf>> {
    let is_python = file.extension().is_some_and(|end| end == "py");
    if is_python {
        return Ok(Vec::new());
    }
    let said = cmd::output(Command::new("ldd").arg(file)).with_context(|| file.display().to_string())?;
    Ok(listed(&said))
}

/// The paths in the output of `ldd`.
fn listed(said: &str) -> Vec<PathBuf> {
    said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x7ffd)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x7f8f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f8f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(listed(said), expected.map(PathBuf::from));
    }
}
