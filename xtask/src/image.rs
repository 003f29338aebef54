// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds the images of the kernels. Each kernel is linked at an address of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};
use serde::Deserialize;

use crate::arch::Arch;
use crate::capi;
use crate::cmd::{self, shown, Places, BARE_TARGET};
use crate::kernels::{Kernels, Lang};

/// The folder of the kernels in Rust.
pub const BARE_METAL: &str = "examples/bare-metal";
/// The address at which kernel 0 is linked, relative to the start of memory. The memory map is in
/// examples/bare-metal/src/layout.rs.
const BASE: u64 = 0x0100_0000;
/// The distance in bytes from one kernel's address to the next one's.
const WINDOW: u64 = 0x0100_0000;
/// The emulator puts the ELF files of the spawned kernels into memory, at `STAGING + k * WINDOW` for kernel `k`, relative to the
/// start of memory. The host loads the kernels from there.
const STAGING: u64 = 0x2000_0000;

/// The ELF file of one kernel.
pub struct Image {
    /// The path of the file.
    pub file: PathBuf,
    /// The length of the file in bytes.
    pub len: u64,
    /// The physical address at which the emulator puts the file. It is not used for the host, which the emulator loads itself.
    pub staged_at: u64,
}

/// The folder of the kernel in C. Its start code and its linker script are in [`BARE_METAL`].
const C_KERNEL: &str = "examples/c-kernel";
/// The source files of the kernel in C.
const C_SOURCES: [&str; 10] = [
    "main.c",
    "platform.c",
    "machine.c",
    "console.c",
    "payload.c",
    "traffic.c",
    "stream.c",
    "demo.c",
    "serve.c",
    "../bare-metal/src/arch/x86_64/boot.s",
];

/// The number of CPUs for which the spawned kernels in Rust are built. The host is always built for one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// One CPU.
    OneCpu,
    /// Two CPUs. The kernel gets and loses the second one while it runs.
    SecondCpu,
}

/// Builds the images of all kernels. The first one is the host.
pub fn build(places: &Places, arch: Arch, kernels: &Kernels, flavour: Flavour) -> Result<Vec<Image>> {
    // The address is a setting of the build, so each kernel has its own target folder. With one folder for all kernels, cargo
    // would build everything again for each of them.
    let (images, target) = match arch {
        Arch::X86 => ("images".into(), "bare-metal".into()),
        arch => (format!("images-{arch}"), format!("bare-metal-{arch}")),
    };
    let folder = places.own_target(&images);
    fs::create_dir_all(&folder)?;
    let library = kernels
        .has_c()
        .then(|| capi::library(places, Some(BARE_TARGET), capi::Limits::default()))
        .transpose()?;
    let build = |(k, lang): (u32, &Lang)| {
        let flavour = if k == 0 { Flavour::OneCpu } else { flavour };
        let file =
            folder.join(if flavour == Flavour::OneCpu { format!("k{k}.elf") } else { format!("k{k}-2.elf") });
        match (lang, &library) {
            (Lang::C, Some(library)) => compile_c(places, "cc", base(k), library, &file)?,
            _ => linked(places, (arch, arch.ram() + base(k)), flavour, &format!("{target}-{k}"), &file)?,
        }
        let len = fs::metadata(&file).with_context(|| file.display().to_string())?.len();
        if len > WINDOW {
            bail!("{} has {len} bytes, but the memory map has only {WINDOW} bytes for it", file.display());
        }
        Ok(Image { file, len, staged_at: arch.ram() + STAGING + u64::from(k) * WINDOW })
    };
    (0..).zip(kernels.langs()).map(build).collect()
}

/// The address at which kernel `k` is linked, relative to the start of memory.
fn base(k: u32) -> u64 {
    BASE + u64::from(k) * WINDOW
}

/// Builds [`BARE_METAL`] for x86-64, linked at the address `base`, and writes the executable to `file`. If the target folder
/// `target` was used with another address before, cargo builds everything again.
pub fn linked_at(places: &Places, base: u64, target: &str, file: &Path) -> Result<()> {
    linked(places, (Arch::X86, base), Flavour::OneCpu, target, file)
}

fn linked(
    places: &Places,
    (arch, base): (Arch, u64),
    flavour: Flavour,
    target: &str,
    file: &Path,
) -> Result<()> {
    let mut cargo = places.cargo_in(Path::new(BARE_METAL));
    cargo.args(["build", "--release", "--target", arch.target()]);
    if flavour == Flavour::SecondCpu {
        cargo.args(["--features", "second-cpu"]);
    }
    cargo.env("CARGO_TARGET_DIR", places.own_target(target));
    cargo.env("MK_IPI_IMAGE_BASE", format!("{base:#x}"));
    let built = executables(&mut cargo)?;
    let [elf] = built.as_slice() else { bail!("{BARE_METAL} must have one executable, not {}", built.len()) };
    fs::copy(elf, file).with_context(|| elf.display().to_string())?;
    Ok(())
}

/// Builds the kernel in C, linked at the address `base`, and writes the executable to `file`.
pub fn c_linked_at(places: &Places, base: u64, file: &Path) -> Result<()> {
    let library = capi::library(places, Some(BARE_TARGET), capi::Limits::default())?;
    compile_c(places, "cc", base, &library, file)
}

/// As [`c_linked_at`], with the compiler `cc`, and with a library that was built before.
pub fn compile_c(places: &Places, cc: &str, base: u64, library: &Path, file: &Path) -> Result<()> {
    let template = places.root.join(BARE_METAL).join("kernel.ld");
    let script = file.with_extension("ld");
    let text = fs::read_to_string(&template).with_context(|| template.display().to_string())?;
    fs::write(&script, text.replace("@BASE@", &format!("{base:#x}")))?;
    let mut cc = Command::new(cc);
    cc.current_dir(places.root.join(C_KERNEL)).args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]);
    cc.args(["-ffreestanding", "-fno-pic", "-fno-pie", "-mno-red-zone", "-mgeneral-regs-only"]);
    cc.args(["-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables"]);
    cc.arg("-I").arg(places.root.join(capi::PACKAGE).join("include")).args(C_SOURCES).arg(library);
    cc.args(["-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,--gc-sections"]);
    cc.args(["-Wl,-z,noexecstack"]).arg(format!("-Wl,-T,{}", script.display())).arg("-o").arg(file);
    cmd::run(&mut cc)
}

/// A message of cargo about a crate that it has built, in this run or in an earlier one.
#[derive(Deserialize)]
pub struct Artifact {
    /// The crate.
    pub target: Target,
    /// The files that the compiler made of the crate.
    pub filenames: Vec<PathBuf>,
    executable: Option<PathBuf>,
}

/// A crate of a package.
#[derive(Deserialize)]
pub struct Target {
    /// The name of the crate for the compiler.
    pub name: String,
    kind: Vec<String>,
}

impl Target {
    /// Whether it is a procedural macro, which the compiler loads.
    pub fn is_proc_macro(&self) -> bool {
        self.kind.iter().any(|kind| kind == "proc-macro")
    }
}

/// Runs a `cargo build`, and returns the paths of the executables.
pub fn executables(cargo: &mut Command) -> Result<Vec<PathBuf>> {
    Ok(artifacts(cargo)?.into_iter().filter_map(|artifact| artifact.executable).collect())
}

/// Runs a `cargo build`, and returns the messages about all crates. Crates that an earlier run has built are included.
pub fn artifacts(cargo: &mut Command) -> Result<Vec<Artifact>> {
    eprintln!("$ {}", shown(cargo));
    // RUSTFLAGS from the environment would replace the flags of the target.
    cargo.env_remove("RUSTFLAGS").arg("--message-format=json-render-diagnostics");
    let out = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !out.status.success() {
        bail!("`{}` ended with {}", shown(cargo), out.status);
    }
    let text = String::from_utf8(out.stdout)?;
    let of_artifacts =
        text.lines().filter(|l| l.starts_with('{') && l.contains(r#""reason":"compiler-artifact""#));
    of_artifacts.map(|line| Ok(serde_json::from_str(line)?)).collect()
}
