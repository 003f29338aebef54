// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask capi`: writes the C header, the static libraries, and the files that belong to them, into one folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};
use clap::Args;

use crate::cmd::{self, Places, BARE_TARGET};
use crate::provision::{Need, Provision, Toolchain};

/// The crate with the C interface.
pub const PACKAGE: &str = "mk-ipi-capi";
/// The folder of its C tests.
pub const C_TESTS: &str = "mk-ipi-capi/tests/c";
/// The host in C that the book shows.
pub const FIRST_KERNEL: &str = "examples/first_kernel.c";
/// The minimal kernel with the RFC v2 layout, with which this host exchanges messages.
pub const RFC_V2_KERNEL: &str = "examples/rfc_v2_kernel.c";
/// The source files of the test program `mk_ipi_test`.
pub const TEST_SOURCES: [&str; 15] = [
    "main.c",
    "machine.c",
    "peer.c",
    "peer_ours.c",
    "bad.c",
    "instances.c",
    "compat.c",
    "native.c",
    "lives.c",
    "poller.c",
    "directory.c",
    "join.c",
    "follow.c",
    "cases.c",
    "threads.c",
];
/// The compiler flags for the C tests, and for the host in C.
pub const C_FLAGS: [&str; 6] =
    ["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// The options of `cargo xtask capi`.
#[derive(Args, Clone, Debug)]
pub struct CapiArgs {
    /// The folder for all files; it is made if it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    limits: Limits,
    /// Install missing tools without asking
    #[arg(long)]
    pub yes: bool,
}

/// The limits with which the library is built. `None` is the default.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Limits {
    /// The largest number of CPUs that the kernel can have, 1 to 4096. CPUs of other kernels do not count [default: 64]
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// The largest number of handlers that can be registered at a time, 1 to 128 [default: 64]
    #[arg(long, value_name = "N")]
    pub handlers: Option<u32>,
    /// The largest number of messages that can wait on a CPU for their handlers: a power of two, 1 to 1024 [default: 16]
    #[arg(long, value_name = "N")]
    pub queue: Option<u32>,
    /// Instance ids must be below this number, 1 to 256 [default: 256]
    #[arg(long, value_name = "N")]
    pub instances: Option<u32>,
}

impl Limits {
    /// The limits with their names. These are names of environment variables for the crate's build, and of macros in the header.
    pub const fn named(self) -> [(&'static str, Option<u32>); 4] {
        [
            ("MK_IPI_MAX_CPUS", self.cpus),
            ("MK_IPI_MAX_HANDLERS", self.handlers),
            ("MK_IPI_QUEUE", self.queue),
            ("MK_IPI_MAX_INSTANCES", self.instances),
        ]
    }

    /// Sets the environment variables with which `cargo` builds the crate for these limits. Such variables in our own
    /// environment have no effect.
    fn set(self, cargo: &mut Command) {
        for (name, limit) in self.named() {
            match limit {
                Some(limit) => cargo.env(name, limit.to_string()),
                None => cargo.env_remove(name),
            };
        }
    }

    /// Returns the text of the header with these limits in place of the default ones.
    fn put_into(self, header: &str) -> Result<String> {
        let mut text = header.to_owned();
        for (name, limit) in self.named() {
            let at = format!("\n#define {name} ");
            let (before, rest) =
                text.split_once(&at).with_context(|| format!("the header does not define {name}"))?;
            let (usual, after) = rest.split_once('\n').with_context(|| format!("no line follows {name}"))?;
            let limit = limit.map_or_else(|| usual.to_owned(), |limit| limit.to_string());
            text = format!("{before}{at}{limit}\n{after}");
        }
        Ok(text)
    }
}

/// What must be installed to build the libraries and the test program.
pub const NEEDS: [Need; 2] = [Need::Cc, Need::Rust(Toolchain::Active, &[], &[BARE_TARGET])];

/// The command `cargo xtask capi`: writes the header, builds the libraries, and prints a list of the files.
pub fn capi(places: &Places, provision: &Provision, args: &CapiArgs) -> Result<()> {
    provision.announce(&NEEDS)?;
    provision.ensure(&NEEDS)?;
    header_test(places, true)?;
    let out = std::env::current_dir()?.join(&args.out);
    for (file, what) in install(places, &out, args.limits)? {
        let len = fs::metadata(&file).with_context(|| file.display().to_string())?.len();
        println!("{len:>9} bytes  {}  {what}", file.display());
    }
    let header = fs::read_to_string(out.join("include/mk_ipi.h"))?;
    for (name, _) in args.limits.named() {
        let value = header.lines().find_map(|line| line.strip_prefix(&format!("#define {name} ")));
        println!("{name} is {} in the libraries and in the header", value.unwrap_or("?"));
    }
    Ok(())
}

/// Runs the test that compares the header in the repository with the header that is generated from the crate. If `write` is
/// true, the test writes the generated header instead.
pub fn header_test(places: &Places, write: bool) -> Result<u64> {
    let mut cargo = places.cargo();
    cargo.args(["test", "-p", PACKAGE, "--test", "header"]);
    if write {
        cargo.env("MK_IPI_HEADER", "write");
    }
    cmd::run_tests(&mut cargo)
}

/// Builds the library for `target`, or for this machine if there is none. Returns the path of the archive that cargo has made.
pub fn library(places: &Places, target: Option<&str>, limits: Limits) -> Result<PathBuf> {
    let folder = places.own_target("capi");
    let mut cargo = places.cargo();
    cargo.env("CARGO_TARGET_DIR", &folder).env_remove("RUSTFLAGS");
    limits.set(&mut cargo);
    // Only a static library is built. If an rlib is built too, cargo does not optimise across crates.
    cargo.args(["rustc", "-p", PACKAGE, "--lib", "--profile", "capi", "--crate-type", "staticlib"]);
    cargo.args(target.iter().flat_map(|target| ["--target", target]));
    cmd::run(&mut cargo)?;
    Ok(folder.join(target.unwrap_or("")).join("capi").join("libmk_ipi_capi.a"))
}

fn folder(out: &Path, name: &str) -> Result<PathBuf> {
    let path = out.join(name);
    fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn copy(from: &Path, to: PathBuf) -> Result<PathBuf> {
    fs::copy(from, &to).with_context(|| from.display().to_string())?;
    Ok(to)
}

/// Writes the headers and the library for this machine to `out`. Returns the paths of the header and the library.
pub fn install_host(places: &Places, out: &Path, limits: Limits) -> Result<(PathBuf, PathBuf)> {
    let (include, lib) = (folder(out, "include")?, folder(out, "lib")?);
    let text = fs::read_to_string(places.root.join(PACKAGE).join("include/mk_ipi.h"))?;
    let header = include.join("mk_ipi.h");
    fs::write(&header, limits.put_into(&text)?)?;
    copy(&places.root.join(C_TESTS).join("mk_ipi_peer.h"), include.join("mk_ipi_peer.h"))?;
    let host = packed(&library(places, None, limits)?, &text, &lib.join("libmk_ipi.a"))?;
    Ok((header, host))
}

/// Writes all files to `out`. Returns the path of each file, and a short description of it.
pub fn install(places: &Places, out: &Path, limits: Limits) -> Result<Vec<(PathBuf, &'static str)>> {
    let (header, host) = install_host(places, out, limits)?;
    let (include, bare) = (folder(out, "include")?, folder(out, "lib/x86_64-unknown-none")?);
    let (config, bin) = (folder(out, "lib/pkgconfig")?, folder(out, "bin")?);
    let crate_folder = places.root.join(PACKAGE);
    let text = fs::read_to_string(&header)?;
    let none = library(places, Some(BARE_TARGET), limits)?;
    let none = packed(&none, &text, &bare.join("libmk_ipi.a"))?;
    let pc = config.join("mk-ipi.pc");
    fs::write(&pc, PC.replace("VERSION", &version(&crate_folder)?))?;
    let readme = copy(&crate_folder.join("README.md"), out.join("README.md"))?;
    let test = bin.join("mk_ipi_test");
    compile_test(places, "cc", &[], &include, &host, &test)?;
    let stdio = out.join("lib/mk_ipi_peer_stdio.so");
    let mut cc = compiler(places, "cc", &include);
    cmd::run(cc.args(["-fPIC", "-shared", "peer_stdio.c", "-o"]).arg(&stdio))?;
    let python = copy(&crate_folder.join("tests/peer.py"), folder(out, "share")?.join("peer.py"))?;
    Ok(vec![
        (header, "the header"),
        (host, "the library for programs on this machine"),
        (none, "the library for x86_64-unknown-none"),
        (pc, "for pkg-config"),
        (test, "the program that tests the library, or a peer that you wrote (a shared object)"),
        (include.join("mk_ipi_peer.h"), "the functions that a peer must export"),
        (stdio, "a peer that passes each call to a program that you wrote, in any language"),
        (python, "an example of such a program, in Python"),
        (readme, "how to use these files"),
    ])
}

/// Returns the version of the workspace.
fn version(crate_folder: &Path) -> Result<String> {
    let manifest = fs::read_to_string(crate_folder.join("../Cargo.toml"))?;
    let manifest: toml::Table = manifest.parse()?;
    let version = manifest.get("workspace").and_then(|w| w.get("package")?.get("version")?.as_str());
    Ok(version.context("the workspace has no version")?.to_owned())
}

/// Makes a library that has one object file: the functions that the header declares, and all that they need. The archive that
/// cargo has made also contains all of the compiler's library, with debug information and bitcode.
fn packed(archive: &Path, header: &str, to: &Path) -> Result<PathBuf> {
    let object = to.with_extension("o");
    let mut link = Command::new("ld");
    link.args(["-r", "--gc-sections"]).args(declared(header).iter().flat_map(|name| ["-u", name]));
    cmd::run(link.arg("-o").arg(&object).arg(archive))?;
    let mut clean = Command::new("objcopy");
    cmd::run(clean.args(["--strip-debug", "-R", ".llvmbc", "-R", ".llvmcmd"]).arg(&object))?;
    if to.exists() {
        fs::remove_file(to)?;
    }
    cmd::run(Command::new("ar").arg("rcs").arg(to).arg(&object))?;
    fs::remove_file(&object)?;
    Ok(to.to_path_buf())
}

/// Returns the names of the functions that the header declares.
pub fn declared(header: &str) -> BTreeSet<String> {
    let words = header.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '('));
    let called = words.filter_map(|word| word.split_once('(')).map(|(name, _)| name);
    called
        .filter(|name| {
            ["mk_ipi_", "mk_send_", "mk_receive_", "multikernel_", "generic_"]
                .iter()
                .any(|p| name.starts_with(p))
        })
        .map(ToOwned::to_owned)
        .collect()
}

/// Compiles the C test program.
pub fn compile_test(
    places: &Places,
    cc: &str,
    flags: &[&str],
    include: &Path,
    library: &Path,
    program: &Path,
) -> Result<()> {
    let mut cmd = compiler(places, cc, include);
    cmd.args(flags).args(TEST_SOURCES).arg(library).args(["-pthread", "-ldl", "-o"]).arg(program);
    cmd::run(&mut cmd)
}

/// Returns the command that runs the C compiler `cc` in the folder of the C tests, with the flags for them.
pub fn compiler(places: &Places, cc: &str, include: &Path) -> Command {
    let mut cmd = Command::new(cc);
    cmd.current_dir(places.root.join(C_TESTS)).args(C_FLAGS).arg("-g").arg("-I").arg(include).arg("-I.");
    cmd
}

/// Runs the test program, with this peer if there is one. Returns the last line that it prints, which has the number of checks.
pub fn run_test(program: &Path, peer: Option<&Path>) -> Result<String> {
    let mut cmd = Command::new(program);
    if let Some(peer) = peer {
        cmd.arg("--peer").arg(peer);
    }
    run_test_as(&mut cmd, program)
}

/// As [`run_test`], with the peer `stdio`, which passes each call to a program. `words` is the shell command that runs this
/// program. If `speaks` is not empty, the peer implements only these parts of the protocol.
pub fn run_test_of_program(program: &Path, stdio: &Path, words: &str, speaks: &[&str]) -> Result<String> {
    let mut cmd = Command::new(program);
    cmd.arg("--peer").arg(stdio).env("MK_IPI_PEER_PROGRAM", words);
    if !speaks.is_empty() {
        cmd.arg("--speaks").arg(speaks.join(","));
    }
    run_test_as(&mut cmd, program)
}

fn run_test_as(cmd: &mut Command, program: &Path) -> Result<String> {
    eprintln!("$ {}", cmd::shown(cmd));
    let out = cmd.stdin(Stdio::null()).output().with_context(|| program.display().to_string())?;
    let said = String::from_utf8_lossy(&out.stdout);
    let complaints = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{}: {}\n{said}{complaints}", program.display(), out.status);
    let last = said.lines().last().unwrap_or_default();
    ensure!(
        last.ends_with(" checks, 0 failed") && !last.starts_with("0 "),
        "the last line of {} must say how many checks passed: {last}",
        program.display()
    );
    Ok(last.into())
}

/// The text of `mk-ipi.pc`.
const PC: &str = "prefix=${pcfiledir}/../..
includedir=${prefix}/include
libdir=${prefix}/lib

Name: mk-ipi
Description: How kernels on one machine talk, by shared memory and an interrupt
Version: VERSION
Cflags: -I${includedir}
Libs: -L${libdir} -lmk_ipi
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_in_a_header() {
        let header = "\n#define MK_IPI_MAX_CPUS 64\n#define MK_IPI_MAX_HANDLERS 64\n#define MK_IPI_QUEUE 16\n#define MK_IPI_MAX_INSTANCES 256\n";
        let limits = Limits { cpus: Some(1), ..Limits::default() };
        let text = limits.put_into(header).expect("all are there");
        assert_eq!(text, header.replace("CPUS 64", "CPUS 1"));
        assert!(limits.put_into("\n#define MK_IPI_MAX_CPUS 64\n").is_err());
    }

    #[test]
    fn functions_of_a_header() {
        let header = "/* as mk_ipi_send */ int mk_ipi_send(struct mk_ipi *mk);\nvoid *mk_receive_map_page(int a);\nint (*map)(void *ctx);";
        let names: Vec<_> = declared(header).into_iter().collect();
        assert_eq!(names, ["mk_ipi_send", "mk_receive_map_page"]);
    }
}
