// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two kernels that others wrote, and to which mk-ipi was added: examples/guest-axplat and examples/guest-bootloader. Each of
//! them can be the host, which starts our own kernels.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::cmd::{self, Places, BARE_TARGET};
use crate::image;
use crate::provision::{self, Need, Toolchain};

/// The kernel that the machine boots, and that starts the other kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Host {
    /// Our own kernel: examples/bare-metal
    BareMetal,
    /// A kernel that is built on ArceOS's axplat: examples/guest-axplat
    Axplat,
    /// A kernel that is built on the crates bootloader and x86_64, as in many tutorials: examples/guest-bootloader
    Bootloader,
}

/// The folder of the kernel on axplat.
pub const AXPLAT: &str = "examples/guest-axplat";
/// The folder of the kernel on bootloader and x86_64.
pub const BOOTLOADER: &str = "examples/guest-bootloader";
/// The folder of the program that makes the disk for [`BOOTLOADER`].
pub const DISK: &str = "examples/guest-bootloader/disk";
/// The folder of source files that are part of both kernels. It is not a crate.
pub const COMMON: &str = "examples/guest";

/// The address at which examples/guest-bootloader expects its command line.
pub const COMMAND_LINE: u64 = 0x1fff_0000;

impl Host {
    /// What must be installed to build this kernel, in addition to what our own kernels need.
    pub fn needs(self) -> Vec<Need> {
        match self {
            Self::BareMetal | Self::Axplat => Vec::new(),
            Self::Bootloader => {
                vec![Need::Rust(Toolchain::Nightly, &["rust-src", "llvm-tools"], &[])]
            }
        }
    }

    /// Builds this kernel, and returns the file that the emulator boots. Returns `None` for our own kernel, which is not built
    /// here.
    pub fn build(self, places: &Places) -> Result<Option<PathBuf>> {
        Ok(match self {
            Self::BareMetal => None,
            Self::Axplat => Some(kernel(places, AXPLAT, "guest-axplat")?),
            Self::Bootloader => Some(disk(places, &kernel(places, BOOTLOADER, "guest-bootloader")?)?),
        })
    }
}

fn kernel(places: &Places, folder: &str, name: &str) -> Result<PathBuf> {
    let mut cargo = places.cargo_in(Path::new(folder));
    cargo
        .args(["build", "--release", "--locked", "--target", BARE_TARGET])
        .env("CARGO_TARGET_DIR", places.own_target(name));
    let built = image::executables(&mut cargo)?;
    let elf = built.iter().find(|elf| elf.ends_with(name));
    Ok(elf.with_context(|| format!("{folder} has no executable {name}"))?.clone())
}

/// Makes the image of a disk that boots `kernel`, and returns its path.
fn disk(places: &Places, kernel: &Path) -> Result<PathBuf> {
    let file = places.own_target("guest-bootloader.img");
    let mut cargo = places.cargo_in(Path::new(DISK));
    cargo.arg(format!("+{}", provision::toolchain_name(Toolchain::Nightly)?));
    cargo.env_remove("RUSTUP_TOOLCHAIN").env("CARGO_TARGET_DIR", places.own_target("guest-bootloader-disk"));
    cmd::run(cargo.args(["run", "--release", "--locked", "--"]).arg(kernel).arg(&file))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Returns the lines that are neither blank nor comments, without their indentation.
    fn code(text: &str) -> Vec<&str> {
        let lines = text.lines().map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with("//")).collect()
    }

    /// Returns how many lines were added to `before` to get `after`: the lines of `after` that are not in the longest common
    /// subsequence of both. These are the lines that `diff` shows with a plus.
    fn added(before: &[&str], after: &[&str]) -> usize {
        let mut row = vec![0usize; before.len() + 1];
        for line in after {
            let mut diagonal = 0;
            for (at, old) in before.iter().enumerate() {
                let above = row[at + 1];
                row[at + 1] = if line == old { diagonal + 1 } else { above.max(row[at]) };
                diagonal = above;
            }
        }
        after.len() - row[before.len()]
    }

    /// Returns the numbers of lines that were added to a kernel for mk-ipi: in the new file `src/mk_ipi.rs`, in `src/main.rs`,
    /// and in the dependencies of `Cargo.toml`.
    fn lines(folder: &str) -> [usize; 3] {
        let root = Places::find().expect("the repository").root.join(folder);
        let read = |name: &str| fs::read_to_string(root.join(name)).expect(name);
        let (main, before) = (read("src/main.rs"), read("before/main.rs"));
        let manifest = read("Cargo.toml");
        let ours = |line: &&str| {
            ["mk-ipi-abi =", "mk-ipi-core =", "mk-ipi-x86 ="].iter().any(|n| line.starts_with(n))
        };
        let dependencies = manifest.lines().filter(ours).count();
        [code(&read("src/mk_ipi.rs")).len(), added(&code(&before), &code(&main)), dependencies]
    }

    #[test]
    fn lines_that_are_added() {
        let text = "// no\n\na\n  b // yes\nc\n";
        assert_eq!(code(text), ["a", "b // yes", "c"]);
        assert_eq!(added(&["a", "b", "c"], &["a", "x", "c", "y"]), 2);
        assert_eq!(added(&["a"], &["a"]), 0);
        assert_eq!(added(&[], &["a", "a"]), 2);
        assert_eq!(added(&["a"], &[]), 0);
    }

    #[test]
    fn the_guides_say_how_many_lines_it_takes() {
        for folder in [AXPLAT, BOOTLOADER] {
            let [supplies, main, dependencies] = lines(folder);
            let total = supplies + main + dependencies;
            let root = Places::find().expect("the repository").root;
            let text = fs::read_to_string(root.join(folder).join("README.md")).expect("a README");
            for says in [
                format!("## Add it to your kernel in {total} lines"),
                format!("| `src/mk_ipi.rs` | {supplies} |"),
                format!("| `src/main.rs`, more than `before/main.rs` | {main} |"),
                format!("| `Cargo.toml` | {dependencies} |"),
            ] {
                assert!(text.contains(&says), "{folder}/README.md does not say: {says}");
            }
        }
    }
}
