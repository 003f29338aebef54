// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that a kernel links no panic path. An rlib does not contain generic and inlined functions, so it proves nothing.
//! Therefore an image that calls every public function is linked, and its symbols are searched.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{bail, ensure, Context as _, Result};
use object::{Object, ObjectSymbol};

use super::{public, Context, Notes};
use crate::arch::Arch;
use crate::cmd::shown;
use crate::image;

/// The image's crate, a workspace of its own.
pub const FOLDER: &str = "tests/no-panic";
/// Its profiles: optimised for speed and for size. One level can remove a panic path that another keeps.
const PROFILES: [&str; 2] = ["release", "small"];

/// The step: checks that the image names every public function, that it has no panic symbol, and that a planted panic is noticed.
pub fn run(context: &Context) -> Result<Notes> {
    let root = &context.places.root;
    ensure!(root.join(FOLDER).join("Cargo.toml").is_file(), "there is no {FOLDER}");
    let functions = public::functions(root)?;
    let missing = public::not_named(&functions, &root.join(FOLDER).join("src"))?;
    ensure!(
        missing.is_empty(),
        "{FOLDER}/src calls none of these public functions:\n  {}",
        missing.join("\n  ")
    );

    let mut notes = vec![format!("{} public functions", functions.len())];
    for (arch, profile) in Arch::ALL.iter().flat_map(|arch| PROFILES.map(|profile| (*arch, profile))) {
        let target = arch.target();
        let built = image::executables(&mut build(context, arch, profile, &[]))?;
        ensure!(!built.is_empty(), "{FOLDER} has no executable");
        for elf in &built {
            let found = panic_symbols(&fs::read(elf)?).with_context(|| elf.display().to_string())?;
            ensure!(
                found.is_empty(),
                "a panic path is linked ({target}, {profile}):\n  {}",
                found.join("\n  ")
            );
        }
        let caught = planted(context, arch, profile)?;
        notes.push(format!("{target}, {profile}: a planted panic was noticed: {caught}"));
    }
    Ok(notes)
}

fn build(context: &Context, arch: Arch, profile: &str, more: &[&str]) -> Command {
    let mut cargo = context.places.cargo_in(Path::new(FOLDER));
    cargo.env("CARGO_TARGET_DIR", context.places.own_target("no-panic"));
    cargo.args(["build", "--profile", profile, "--target", arch.target()]).args(more);
    cargo
}

/// Builds with the planted panic, and returns how it was noticed. An image that does not compile is an error.
fn planted(context: &Context, arch: Arch, profile: &str) -> Result<&'static str> {
    let mut cargo = build(context, arch, profile, &["--features", "planted-panic"]);
    eprintln!("$ {}", shown(&cargo));
    let out = cargo.env_remove("RUSTFLAGS").stdin(Stdio::null()).output()?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr);
        ensure!(text.contains("error: linking with"), "the control does not build:\n{text}");
        return Ok("it does not link");
    }
    for elf in image::executables(&mut build(context, arch, profile, &["--features", "planted-panic"]))? {
        if !panic_symbols(&fs::read(elf)?)?.is_empty() {
            return Ok("its symbols are in the image");
        }
    }
    bail!("a planted panic was not noticed: this check does not work")
}

/// The symbols of an ELF file that have to do with panics, demangled.
pub fn panic_symbols(elf: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(elf)?;
    let mut names = Vec::new();
    for symbol in file.symbols() {
        names.push(symbol.name()?.to_owned());
    }
    ensure!(names.iter().any(|name| !name.is_empty()), "it has no symbols, so it cannot be checked");
    Ok(names
        .iter()
        .filter(|name| is_panic(name))
        .map(|name| format!("{:#}", rustc_demangle::demangle(name)))
        .collect())
}

/// Whether a symbol has to do with panics. The image's own crate has the word in its name, which does not count.
fn is_panic(name: &str) -> bool {
    let name = name.replace("no_panic", "").replace("no-panic", "");
    name.contains("panic") || name.contains("rust_begin_unwind")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_names() {
        for bad in [
            "_ZN4core9panicking9panic_fmt17h0123456789abcdefE",
            "rust_begin_unwind",
            "_RNvCs1_7___rustc17rust_begin_unwind",
            "_ZN8no_panic5panic17h0E",
        ] {
            assert!(is_panic(bad), "{bad}");
        }
        for good in ["_ZN8no_panic4main17h0123456789abcdefE", "memcpy", "", "no-panic.7rcbfp3g-cgu.0"] {
            assert!(!is_panic(good), "{good}");
        }
    }

    #[test]
    fn a_program_with_panics_is_noticed() {
        // This test program itself has panic symbols.
        let me = std::env::current_exe().and_then(fs::read).expect("the test's own file");
        assert!(!panic_symbols(&me).expect("an ELF file").is_empty());
        assert!(panic_symbols(b"no elf").is_err());
    }
}
