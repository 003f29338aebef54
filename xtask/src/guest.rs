// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels that are not ours and speak mk-ipi, each as the host of ours: examples/guest-axplat and examples/guest-bootloader.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::cmd::{self, Places, BARE_TARGET};
use crate::image;
use crate::provision::{self, Need, Toolchain};

/// The kernel that boots the machine and starts the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Host {
    /// Our own, examples/bare-metal
    BareMetal,
    /// On ArceOS's axplat, examples/guest-axplat
    Axplat,
    /// As the tutorials have it, on bootloader and x86_64, examples/guest-bootloader
    Bootloader,
}

/// The folders of those that are not ours, and of what makes their disks.
pub const AXPLAT: &str = "examples/guest-axplat";
/// See there.
pub const BOOTLOADER: &str = "examples/guest-bootloader";
/// See there.
pub const DISK: &str = "examples/guest-bootloader/disk";
/// What both are made of, beside their own; no crate.
pub const COMMON: &str = "examples/guest";

/// Where examples/guest-bootloader looks for its command line.
pub const COMMAND_LINE: u64 = 0x1fff_0000;

impl Host {
    /// What its build needs, beside the stable compiler.
    pub fn needs(self) -> Vec<Need> {
        match self {
            Self::BareMetal | Self::Axplat => Vec::new(),
            Self::Bootloader => {
                vec![Need::Rust(Toolchain::Nightly, &["rust-src", "llvm-tools"], &[])]
            }
        }
    }

    /// Builds it, if it is not ours; gives the file that the emulator boots.
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

/// The disk that boots `kernel`.
fn disk(places: &Places, kernel: &Path) -> Result<PathBuf> {
    let file = places.own_target("guest-bootloader.img");
    let mut cargo = places.cargo_in(Path::new(DISK));
    cargo.arg(format!("+{}", provision::toolchain_name(Toolchain::Nightly)?));
    cargo.env_remove("RUSTUP_TOOLCHAIN").env("CARGO_TARGET_DIR", places.own_target("guest-bootloader-disk"));
    cmd::run(cargo.args(["run", "--release", "--locked", "--"]).arg(kernel).arg(&file))?;
    Ok(file)
}
