// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the image with kernel.ld.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo::rustc-link-arg-bins=-T{folder}/kernel.ld");
    println!("cargo::rustc-link-arg-bins=--no-pie");
    println!("cargo::rustc-link-arg-bins=-znostart-stop-gc");
    println!("cargo::rustc-link-arg-bins=--build-id=none");
    println!("cargo::rerun-if-changed=kernel.ld");
}
