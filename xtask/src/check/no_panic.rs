// SPDX-License-Identifier: MIT OR Apache-2.0
//! The step `no-panic`: checks that the crates that a kernel links have no panic path. It links a program that calls every public
//! function, and searches the symbols of this program. Libraries (rlib) are not searched, because they do not contain generic and
//! inlined functions.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{bail, ensure, Context as _, Result};
use object::{Object, ObjectSymbol};

use super::{public, Context, Notes};
use crate::arch::Arch;
use crate::cmd::shown;
use crate::image;

/// The folder of the program, a workspace of its own.
pub const FOLDER: &str = "tests/no-panic";
/// The profiles with which the program is built: optimised for speed, and for size. One of them can remove a panic path that the
/// other one keeps.
const PROFILES: [&str; 2] = ["release", "small"];

/// Runs the step. Also checks that the program names every public function. With the feature `planted-panic` the program has a
/// panic on purpose, and the step checks that this panic is found.
pub fn run(context: &Context) -> Result<Notes> {
    let root = &context.places.root;
    ensure!(root.join(FOLDER).join("Cargo.toml").is_file(), "there is no {FOLDER}");
    let functions = public::functions(root)?;
    let missing = public::not_named(&functions, &root.join(FOLDER).join("src"))?;
    ensure!(
        missing.is_empty(),
        "{FOLDER}/src does not call these public functions:\n  {}",
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
                "the program has a panic path ({target}, {profile}):\n  {}",
                found.join("\n  ")
            );
        }
        let caught = planted(context, arch, profile)?;
        notes.push(format!("{target}, {profile}: the panic that was added on purpose was found: {caught}"));
    }
    Ok(notes)
}

/// The command that builds the program.
fn build(context: &Context, arch: Arch, profile: &str, more: &[&str]) -> Command {
    let mut cargo = context.places.cargo_in(Path::new(FOLDER));
    cargo.env("CARGO_TARGET_DIR", context.places.own_target("no-panic"));
    cargo.args(["build", "--profile", profile, "--target", arch.target()]).args(more);
    cargo
}

/// Builds the program with a panic that is added on purpose, and returns how the panic was found: by the linker, or by the
/// symbols. It is an error if it was not found, or if the program does not compile.
fn planted(context: &Context, arch: Arch, profile: &str) -> Result<&'static str> {
    let mut cargo = build(context, arch, profile, &["--features", "planted-panic"]);
    eprintln!("$ {}", shown(&cargo));
    let out = cargo.env_remove("RUSTFLAGS").stdin(Stdio::null()).output()?;
    if !out.status.success() {
        let text = String::from_utf8_lossy(&out.stderr);
        ensure!(
            text.contains("error: linking with"),
            "the program with the added panic does not compile:\n{text}"
        );
        return Ok("the program cannot be linked");
    }
    for elf in image::executables(&mut build(context, arch, profile, &["--features", "planted-panic"]))? {
        if !panic_symbols(&fs::read(elf)?)?.is_empty() {
            return Ok("the program has symbols of a panic");
        }
    }
    bail!("a panic that was added on purpose was not found, so this check does not work")
}

/// Returns the names of those symbols of an ELF file that belong to a panic, demangled. It is an error if the file has no
/// symbols.
pub fn panic_symbols(elf: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(elf)?;
    let mut names = Vec::new();
    for symbol in file.symbols() {
        names.push(symbol.name()?.to_owned());
    }
    ensure!(names.iter().any(|name| !name.is_empty()), "the file has no symbols, so it cannot be checked");
    Ok(names
        .iter()
        .filter(|name| is_panic(name))
        .map(|name| format!("{:#}", rustc_demangle::demangle(name)))
        .collect())
}

/// Returns whether the name of a symbol says that it belongs to a panic. The name of the program's own crate contains the word
/// "panic", which does not count.
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
