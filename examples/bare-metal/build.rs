// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the image at the base address in the environment variable `MK_IPI_IMAGE_BASE`: hexadecimal with `0x`, or decimal.
//! Without the variable it is the host kernel's address.

use std::path::PathBuf;
use std::{env, fs};

/// Base of the host kernel's image, counted from the start of memory (src/layout.rs).
const DEFAULT_BASE: u32 = 0x100_0000;

/// The address at which memory begins (src/arch), and the symbol at which the image is entered. The symbol is `None` on x86-64,
/// where kernel.ld names the PVH entry.
fn of_arch(arch: &str) -> (u32, Option<&'static str>) {
    match arch {
        "x86_64" => (0, None),
        "aarch64" => (0x4000_0000, Some("kernel_entry")),
        "riscv64" => (0x8000_0000, Some("kernel_entry")),
        _ => panic!("no kernel for {arch}"),
    }
}

fn main() {
    let (ram, entry) = of_arch(&env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH"));
    let base = env::var("MK_IPI_IMAGE_BASE").unwrap_or_else(|_| (ram + DEFAULT_BASE).to_string());
    let number = match base.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => base.parse(),
    };
    let base = number.unwrap_or_else(|e| panic!("MK_IPI_IMAGE_BASE={base}: {e}"));
    assert!(base % 4096 == 0 && base >= 0x10_0000, "MK_IPI_IMAGE_BASE={base:#x}: not a page above 1 MiB");

    let script = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("kernel.ld");
    let template = fs::read_to_string("kernel.ld").expect("kernel.ld is next to build.rs");
    fs::write(&script, template.replace("@BASE@", &format!("{base:#x}"))).expect("OUT_DIR is writable");
    println!("cargo::rustc-link-arg-bins=-T{}", script.display());
    println!("cargo::rustc-link-arg-bins=--build-id=none");
    if let Some(entry) = entry {
        println!("cargo::rustc-link-arg-bins=--entry={entry}");
    }
    println!("cargo::rerun-if-changed=kernel.ld");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MK_IPI_IMAGE_BASE");
}
