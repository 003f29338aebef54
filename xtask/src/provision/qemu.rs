// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds a QEMU for each architecture: the one of the system, or one that we have unpacked into our cache folder. Downloads one
//! if none is good enough.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};

use super::apt::{Apt, Release};
use super::{cache, Plan};
use crate::arch::Arch;
use crate::cmd::{self, which};

/// Debian's packages of QEMU for one architecture.
struct Source {
    /// The name of the program.
    program: &'static str,
    /// Names that the package of the emulator has in different releases. The first one that exists is used.
    packages: &'static [&'static str],
    /// The packages of the firmware that the emulator loads.
    firmware: &'static [&'static str],
    /// The beginning of the name of our folder in the cache. The version follows.
    folder: &'static str,
    /// The approximate size of the download.
    size: &'static str,
}

impl Source {
    const fn of(arch: Arch) -> Self {
        match arch {
            Arch::X86 => Self {
                program: "qemu-system-x86_64",
                packages: &["qemu-system-x86"],
                firmware: &["seabios"],
                folder: "qemu-",
                size: "30 MB",
            },
            Arch::Arm64 => Self {
                program: "qemu-system-aarch64",
                packages: &["qemu-system-arm"],
                firmware: &[],
                folder: "qemu-arm64-",
                size: "40 MB",
            },
            Arch::Riscv64 => Self {
                program: "qemu-system-riscv64",
                packages: &["qemu-system-riscv", "qemu-system-misc"],
                firmware: &["opensbi"],
                folder: "qemu-riscv64-",
                size: "60 MB",
            },
        }
    }
}

/// The major and the minor version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// The first version that emulates x2APIC without KVM.
    pub const X2APIC: Version = Version(9, 0);

    /// The version in the output of `qemu-system-... --version`.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.lines().next()?.split_once("version ")?;
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Version(numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A QEMU on this machine.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// The path of the program.
    program: PathBuf,
    /// The folder into which we have unpacked it. `None` if it is the QEMU of the system.
    root: Option<PathBuf>,
    /// The version that the program prints.
    pub version: Version,
}

impl Qemu {
    /// Runs `program` to get its version. Returns `None` if it does not run, or prints no version.
    fn probe(program: PathBuf, root: Option<PathBuf>) -> Option<Self> {
        let mut found = Self { program, root, version: Version(0, 0) };
        let text = cmd::output(found.command().arg("--version")).ok()?;
        found.version = Version::parse(&text)?;
        Some(found)
    }

    /// Whether this QEMU emulates x2APIC.
    pub fn has_x2apic(&self) -> bool {
        self.version >= Version::X2APIC
    }

    /// Returns a command that runs this QEMU. If we have unpacked it, the command has the paths of its libraries and data.
    pub fn command(&self) -> Command {
        let mut cmd = Command::new(&self.program);
        // Cargo and rustup set this variable for other programs. QEMU must not use it.
        cmd.env_remove("LD_LIBRARY_PATH");
        if let Some(root) = &self.root {
            cmd.env("LD_LIBRARY_PATH", library_path(root));
            // QEMU searches these folders in this order. Some files in them are symbolic links to files of the system that do not
            // exist. QEMU ignores such links.
            for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/riscv64-linux-gnu/opensbi/generic"] {
                cmd.arg("-L").arg(root.join(data));
            }
        }
        cmd
    }
}

/// All folders with shared libraries in `root`, as a value of `LD_LIBRARY_PATH`.
fn library_path(root: &Path) -> OsString {
    let mut dirs = Vec::new();
    for top in ["lib", "usr/lib"] {
        library_dirs(&root.join(top), &mut dirs);
    }
    std::env::join_paths(dirs).unwrap_or_default()
}

/// Searches `dir` and its subfolders for shared libraries. Adds each folder that contains one to `found`.
fn library_dirs(dir: &Path, found: &mut Vec<PathBuf>) {
    let entries: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    let is_library = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().contains(".so"));
    if entries.iter().any(is_library) {
        found.push(dir.to_path_buf());
    }
    // The folder `qemu` is left out, because QEMU finds its own modules there.
    for sub in entries.iter().filter(|p| p.is_dir() && !p.is_symlink() && !p.ends_with("qemu")) {
        library_dirs(sub, found);
    }
}

/// The best QEMU on this machine, if there is one: that of the system if it is good enough, otherwise the newest one.
pub fn best(arch: Arch) -> Option<Qemu> {
    let source = Source::of(arch);
    let system = which(source.program).and_then(|path| Qemu::probe(path, None));
    if system.as_ref().is_some_and(|q| is_enough(q, arch, true)) {
        return system;
    }
    let folders = cache().ok().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let ours =
        folders.filter(|e| e.file_name().to_string_lossy().starts_with(source.folder)).filter_map(|e| {
            let root = e.path().join("root");
            Qemu::probe(root.join("usr/bin").join(source.program), Some(root))
        });
    ours.chain(system).max_by_key(|q| q.version)
}

/// Returns whether a QEMU is good enough. If x2APIC mode is needed on x86, QEMU must emulate it.
fn is_enough(qemu: &Qemu, arch: Arch, x2apic: bool) -> bool {
    arch != Arch::X86 || !x2apic || qemu.has_x2apic()
}

/// The plan to install a QEMU, if the best one on this machine is not good enough and a better one can be downloaded.
pub(super) fn plan(arch: Arch, x2apic: bool) -> Result<Vec<Plan>> {
    let (found, source) = (best(arch), Source::of(arch));
    if found.as_ref().is_some_and(|q| is_enough(q, arch, x2apic)) {
        return Ok(Vec::new());
    }
    let apt = which("apt-get").is_some() && which("dpkg").is_some();
    let backports = if apt { Release::of_machine()?.backports() } else { None };
    // If there is a QEMU, and apt has no newer one, nothing is installed. The command that uses this QEMU reports what cannot
    // run.
    if found.is_some() && backports.is_none() {
        return Ok(Vec::new());
    }
    if !apt {
        bail!(
            "{} was not found: install QEMU 9.0 or newer for {arch} with your package manager",
            source.program
        );
    }
    let dir = cache()?;
    let suite = backports.map(|s| format!(", suite {s}")).unwrap_or_default();
    let what = format!(
        "download QEMU for {arch} from this machine's apt sources{suite} (about {}), and unpack it into {}; \
         nothing is installed on the system itself",
        source.size,
        dir.display()
    );
    Ok(vec![Plan { what, act: Box::new(move || install(&dir, &source)) }])
}

/// Downloads QEMU, and unpacks it into our cache folder `dir`.
fn install(dir: &Path, source: &Source) -> Result<()> {
    fs::create_dir_all(dir)?;
    let parts = dir.join(format!("{}unpacking", source.folder));
    if parts.exists() {
        fs::remove_dir_all(&parts)?;
    }
    let root = parts.join("root");
    fs::create_dir_all(&root)?;
    let place = dir.join(format!("apt-{}", source.program));
    Apt::new(place.clone())?.unpack(source.packages, source.firmware, &root)?;
    let program = root.join("usr/bin").join(source.program);
    let fresh = Qemu::probe(program, Some(root)).context("the downloaded QEMU does not run")?;
    let home = dir.join(format!("{}{}", source.folder, fresh.version));
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    fs::rename(parts, home)?;
    fs::remove_dir_all(place)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let parse = Version::parse;
        assert_eq!(
            parse("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)\nCopyright"),
            Some(Version(10, 0))
        );
        assert_eq!(parse("QEMU emulator version 7.2.15 (Debian 1:7.2+dfsg-7+deb12u12)"), Some(Version(7, 2)));
        assert_eq!(parse("QEMU emulator version 9.2"), Some(Version(9, 2)));
        assert_eq!(parse("QEMU emulator version nine"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(Version(10, 0) > Version::X2APIC);
        assert!(Version(9, 0) >= Version::X2APIC);
        assert!(Version(8, 2) < Version::X2APIC);
        assert!(Version(10, 0) > Version(9, 2));
    }
}
