// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel images: one crate, linked once per kernel at a base of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};
use serde::Deserialize;

use crate::cmd::{shown, Places, BARE_TARGET};

/// Where the crate of the kernels lies.
pub const BARE_METAL: &str = "examples/bare-metal";
/// First image's base, and the distance to the next: the memory map is examples/bare-metal/src/layout.rs.
const BASE: u64 = 0x0100_0000;
const WINDOW: u64 = 0x0100_0000;
/// Where the emulator puts the ELF file of kernel 1, and the distance to the next.
const STAGING: u64 = 0x2000_0000;

/// The ELF file of one kernel.
pub struct Image {
    /// The file.
    pub file: PathBuf,
    /// Its length in bytes.
    pub len: u64,
    /// Physical address at which the emulator puts the file; the host is loaded by the emulator itself.
    pub staged_at: u64,
}

/// Builds the images of `kernels` kernels, the host's first.
pub fn build(places: &Places, kernels: u32) -> Result<Vec<Image>> {
    let folder = places.own_target("images");
    fs::create_dir_all(&folder)?;
    (0..kernels).map(|k| build_one(places, &folder, k)).collect()
}

fn build_one(places: &Places, folder: &Path, k: u32) -> Result<Image> {
    let offset = u64::from(k) * WINDOW;
    let mut cargo = places.cargo_in(Path::new(BARE_METAL));
    cargo.args(["build", "--release", "--target", BARE_TARGET]);
    cargo.env("CARGO_TARGET_DIR", places.own_target("bare-metal"));
    cargo.env("MK_IPI_IMAGE_BASE", format!("{:#x}", BASE + offset));
    let built = executables(&mut cargo)?;
    let [elf] = built.as_slice() else { bail!("{BARE_METAL} must have one executable, not {}", built.len()) };
    let file = folder.join(format!("k{k}.elf"));
    let len = fs::copy(elf, &file).with_context(|| elf.display().to_string())?;
    if len > WINDOW {
        bail!("{} has {len} bytes; the memory map has room for {WINDOW}", file.display());
    }
    Ok(Image { file, len, staged_at: STAGING + offset })
}

/// Runs a `cargo build` and gives the executables that it made.
pub fn executables(cargo: &mut Command) -> Result<Vec<PathBuf>> {
    eprintln!("$ {}", shown(cargo));
    // Flags for the host's programs would take the place of those of the target.
    cargo.env_remove("RUSTFLAGS").arg("--message-format=json-render-diagnostics");
    let out = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !out.status.success() {
        bail!("`{}` ended with {}", shown(cargo), out.status);
    }
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    let text = String::from_utf8(out.stdout)?;
    let mut found = Vec::new();
    for line in text.lines().filter(|l| l.starts_with('{')) {
        found.extend(serde_json::from_str::<Message>(line)?.executable);
    }
    Ok(found)
}
