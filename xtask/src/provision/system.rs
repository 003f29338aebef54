// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds tools that come from the package manager of the system, and installs them: compilers, the tools to build a Linux,
//! busybox, and others.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use object::elf;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};

use super::apt::Apt;
use super::{cache, Plan};
use crate::cmd::{self, which};

/// The plan to install a C compiler, if there is none.
pub(super) fn plan_cc() -> Result<Vec<Plan>> {
    plan_program("cc", "C compiler (`cc`)", &["gcc", "libc6-dev"])
}

/// The plan to install valgrind, if it is missing.
pub(super) fn plan_valgrind() -> Result<Vec<Plan>> {
    plan_program("valgrind", "`valgrind`", &["valgrind"])
}

/// The plan to install iperf3, if it is missing.
pub(super) fn plan_iperf() -> Result<Vec<Plan>> {
    plan_program("iperf3", "`iperf3`", &["iperf3"])
}

/// The plan to install a program from packages of the system, if it is missing. It is an error if it cannot be installed.
fn plan_program(program: &str, what: &str, packages: &[&'static str]) -> Result<Vec<Plan>> {
    if which(program).is_some() {
        return Ok(Vec::new());
    }
    if which("apt-get").is_none() {
        bail!("{what} was not found: install it with your package manager");
    }
    if !is_root() {
        let packages = packages.join(" ");
        bail!("{what} was not found, and only root can install it: sudo apt-get install {packages}");
    }
    Ok(vec![by_apt(packages)])
}

/// The plan to install the compilers that are missing, if it is possible.
pub(super) fn plan_compilers() -> Option<Plan> {
    plan_what_can_be(&[("gcc", "gcc"), ("g++", "g++"), ("clang", "clang"), ("ld", "binutils")])
}

/// The plan to install the programs for the Linux scenario that are missing, if it is possible.
pub(super) fn plan_programs() -> Option<Plan> {
    plan_what_can_be(&[("python3", "python3"), ("socat", "socat"), ("dropbear", "dropbear-bin")])
}

/// The plan to install those of these programs that are missing. Each has the name of its package. Returns `None` if nothing is
/// missing, or if we cannot install packages.
fn plan_what_can_be(wanted: &[(&str, &'static str)]) -> Option<Plan> {
    let missing = wanted.iter().filter(|(program, _)| which(program).is_none());
    let packages: Vec<_> = missing.map(|(_, package)| *package).collect();
    (!packages.is_empty() && which("apt-get").is_some() && is_root()).then(|| by_apt(&packages))
}

/// The plan to install packages of the system.
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

/// The programs that are needed to build Linux, each with its package.
const LINUX_PROGRAMS: [(&str, &str); 7] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("xz", "xz-utils"),
    ("ld", "binutils"),
];
/// The oldest libclang that bindgen can use.
const OLDEST_LIBCLANG: u32 = 15;

/// Names of versions of clang that can build a Linux with KASAN, the preferred one first. If Linux has Rust code, gcc cannot be
/// used for KASAN.
const CLANGS: [&str; 6] = ["clang-19", "clang-20", "clang-21", "clang-18", "clang-17", "clang"];
/// The oldest version of clang that can build such a Linux.
const OLDEST_CLANG: u32 = 17;

/// The name of a clang on this machine that can build a Linux with KASAN.
pub fn clang() -> Option<&'static str> {
    CLANGS.into_iter().find(|name| {
        let said = cmd::output(Command::new(name).arg("--version")).unwrap_or_default();
        clang_version(&said).is_some_and(|version| version >= OLDEST_CLANG)
    })
}

/// The version in the output of `clang --version`, such as `Debian clang version 19.1.7 (3~deb12u1)`.
fn clang_version(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("clang version ")?;
    rest.split('.').next()?.parse().ok()
}

/// The plan to install the missing packages that are needed to build a Linux with Rust; with `debug` also those for KASAN.
pub(super) fn plan_linux(debug: bool) -> Result<Option<Plan>> {
    let programs = LINUX_PROGRAMS.into_iter().filter(|(program, _)| which(program).is_none());
    let mut missing: Vec<&'static str> = programs.map(|(_, package)| package).collect();
    if !Path::new("/usr/include/gelf.h").is_file() {
        missing.push("libelf-dev");
    }
    if !has_libclang() {
        missing.extend(["libclang1-19", "libclang-common-19-dev"]);
    }
    if debug && clang().is_none() {
        missing.push("clang-19");
    }
    if missing.is_empty() {
        return Ok(None);
    }
    let named = missing.join(" ");
    if which("apt-get").is_none() {
        bail!("to build Linux, install these packages (Debian's names) with your package manager: {named}");
    }
    if !is_root() {
        bail!("packages for the build of Linux are missing, and only root can install them: sudo apt-get install {named}");
    }
    Ok(Some(by_apt(&missing)))
}

/// Returns whether there is a libclang that is new enough, and the header files that belong to it.
fn has_libclang() -> bool {
    let names = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let mut dirs: Vec<PathBuf> = std::env::var_os("LIBCLANG_PATH").map(PathBuf::from).into_iter().collect();
    let llvm = names(Path::new("/usr/lib")).into_iter().filter(|n| n.starts_with("llvm-"));
    dirs.extend(llvm.map(|n| Path::new("/usr/lib").join(n).join("lib")));
    dirs.extend(["/usr/lib64", "/usr/lib", "/usr/lib/x86_64-linux-gnu"].map(PathBuf::from));
    let found = dirs.iter().flat_map(|dir| names(dir)).filter_map(|name| libclang_version(&name));
    let new_enough = found.filter(|version| *version >= OLDEST_LIBCLANG);
    new_enough.into_iter().any(|v| {
        let homes =
            [format!("/usr/lib/llvm-{v}/lib/clang"), "/usr/lib/clang".into(), "/usr/lib64/clang".into()];
        homes.iter().any(|home| Path::new(home).join(v.to_string()).join("include").is_dir())
    })
}

/// The version in a file name such as `libclang-19.so.1` or `libclang.so.18.1`.
fn libclang_version(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("libclang")?;
    let number = rest.strip_prefix('-').or_else(|| rest.strip_prefix(".so."))?;
    number.split('.').next()?.parse().ok()
}

/// The path of a busybox that is linked statically: that of the system, or one that we have downloaded.
pub fn busybox() -> Option<PathBuf> {
    let ours = cache().ok().map(|dir| dir.join("busybox/bin/busybox"));
    let ours_elsewhere = cache().ok().map(|dir| dir.join("busybox/usr/bin/busybox"));
    [which("busybox"), ours, ours_elsewhere].into_iter().flatten().find(|program| is_static(program))
}

/// Returns whether a file is an x86-64 program that is linked statically: it does not name a loader.
fn is_static(program: &Path) -> bool {
    let Ok(bytes) = fs::read(program) else { return false };
    let Ok(file) = ElfFile64::<object::Endianness>::parse(bytes.as_slice()) else { return false };
    let x86 = file.elf_header().e_machine(file.endian()) == elf::EM_X86_64;
    x86 && !file.elf_program_headers().iter().any(|h| h.p_type(file.endian()) == elf::PT_INTERP)
}

/// The plan to download a busybox that is linked statically, if there is none.
pub(super) fn plan_busybox() -> Result<Option<Plan>> {
    if busybox().is_some() {
        return Ok(None);
    }
    ensure!(
        which("apt-get").is_some() && which("dpkg").is_some(),
        "a static busybox was not found: install one with your package manager (Debian's package is busybox-static)"
    );
    let root = cache()?.join("busybox");
    let what = format!(
        "download busybox-static from this machine's apt sources (1 MB), and unpack it into {}",
        root.display()
    );
    let act = move || {
        unpack_package("busybox-static", None, &root)?;
        busybox().map(|_| ()).context("the package busybox-static has no static busybox")
    };
    Ok(Some(Plan { what, act: Box::new(act) }))
}

/// Downloads one package, and unpacks it into the folder `root`. If a suite of Debian is named, the package is from this suite.
/// Returns the version of the package.
pub fn unpack_package(package: &str, suite: Option<&str>, root: &Path) -> Result<String> {
    let dir = cache()?.join(format!("apt-{package}"));
    let apt = match suite {
        Some(suite) => Apt::of_suite(dir.clone(), suite)?,
        None => Apt::new(dir.clone())?,
    };
    let version = apt.unpack_one(package, root)?;
    fs::remove_dir_all(dir)?;
    Ok(version)
}

fn is_root() -> bool {
    cmd::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_libclang() {
        for (name, version) in [
            ("libclang-19.so.1", Some(19)),
            ("libclang-14.so.14.0.6", Some(14)),
            ("libclang.so.18.1", Some(18)),
            ("libclang.so", None),
            ("libclang-cpp.so.14", None),
            ("libclangAST.so.14", None),
        ] {
            assert_eq!(libclang_version(name), version, "{name}");
        }
    }

    #[test]
    fn versions_of_clang() {
        assert_eq!(clang_version("Debian clang version 19.1.7 (3~deb12u1)\nTarget: x"), Some(19));
        assert_eq!(clang_version("clang version 20.1.0\n"), Some(20));
        assert_eq!(clang_version("gcc (Debian) 12.2.0"), None);
    }

    #[test]
    fn our_own_tests_are_no_static_program() {
        assert!(!is_static(&std::env::current_exe().expect("this program")));
        assert!(!is_static(Path::new("/etc/os-release")));
    }
}
