// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies the sources of the module, and of all crates in it, to a folder with the layout that Kbuild needs. The build uses a
//! copy because Kbuild writes files to the folders of the sources.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;

use crate::arch::Arch;
use crate::cmd::{self, Places};
use crate::image::{self, BARE_METAL};

/// The folder of the module.
pub const MODULE: &str = "examples/linux";
/// The folder with the manifest and the lock file of the external crates. It is a workspace of its own.
pub const VENDOR: &str = "examples/linux/vendor";
/// The external crates that Kbuild compiles into the module.
const CRATES: [&str; 9] = [
    "bit_field",
    "bitflags",
    "crc",
    "crc-catalog",
    "elf",
    "static_assertions",
    "volatile",
    "x86_64",
    "zerocopy",
];
/// The procedural macros that these crates use. Cargo builds them, and the compiler loads them.
const MACROS: [&str; 3] = ["const_fn", "rustversion", "zerocopy_derive"];
/// Folders of an external crate that are not copied, because its build does not need them.
const NOT_BUILT: [&str; 4] = ["tests", "examples", "ci", "testdata"];
/// The name of the file in the copy that lists all copied files.
const LIST: &str = ".staged";

/// The files of the copy: the path in the copy, and the source file.
type Files = BTreeMap<PathBuf, PathBuf>;

/// Makes the copy in `dir`, or brings it up to date. Only changed files are written, so that make builds only these again.
pub fn lay(places: &Places, dir: &Path) -> Result<()> {
    let mut files = Files::new();
    let root = &places.root;
    for entry in listed(&root.join(MODULE))?.into_iter().filter(|p| !p.starts_with("vendor")) {
        files.insert(Path::new(MODULE).join(&entry), root.join(MODULE).join(&entry));
    }
    let sources = [Path::new(BARE_METAL).join("src")]
        .into_iter()
        .chain(Arch::X86.crates().into_iter().map(|name| Path::new(name).join("src")));
    for folder in sources {
        files.extend(below(&folder, &root.join(&folder))?);
    }
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        files.insert(licence.into(), root.join(licence));
    }
    for package in packages(places)?.packages.iter().filter(|p| CRATES.contains(&p.name.as_str())) {
        let folder = package.folder()?;
        let all = below(&Path::new("vendor").join(&package.name), folder)?;
        let built = |to: &Path| {
            !NOT_BUILT.iter().any(|name| to.components().nth(2).is_some_and(|c| c.as_os_str() == *name))
        };
        files.extend(all.into_iter().filter(|(to, _)| built(to)));
    }
    for (name, file) in macros(places)? {
        files.insert(format!("macros/lib{name}.so").into(), file);
    }
    write(dir, &files)
}

/// Returns all files of `folder`. In the copy they will be in `to`.
fn below(to: &Path, folder: &Path) -> Result<Files> {
    Ok(listed(folder)?.into_iter().map(|entry| (to.join(&entry), folder.join(&entry))).collect())
}

/// Returns the paths of the files in `folder` and its subfolders, relative to `folder`. Hidden files, and files that a build has
/// made, are left out.
fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(at) = open.pop() {
        let dir = folder.join(&at);
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name();
            let path = at.join(&name);
            if is_litter(&name.to_string_lossy()) {
                continue;
            }
            if entry.path().is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Returns whether a file with this name is hidden, or is the output of a build.
fn is_litter(name: &str) -> bool {
    let ends = [".o", ".a", ".ko", ".mod", ".mod.c", ".cmd", ".d", ".rmeta"];
    let names = ["Module.symvers", "modules.order", "target"];
    name.starts_with('.') || names.contains(&name) || ends.iter().any(|end| name.ends_with(end))
}

/// Writes `files` to `dir`. A file that an earlier call wrote, and that is not in `files`, is removed.
fn write(dir: &Path, files: &Files) -> Result<()> {
    fs::create_dir_all(dir)?;
    let list = dir.join(LIST);
    let before = fs::read_to_string(&list).unwrap_or_default();
    for path in gone(&before, files) {
        // This fails if the user has deleted the file, which does no harm.
        let _ = fs::remove_file(dir.join(path));
    }
    let lines: Vec<String> = files.keys().map(|path| path.display().to_string()).collect();
    fs::write(&list, lines.join("\n"))?;
    for (path, from) in files {
        let to = dir.join(path);
        let bytes = fs::read(from).with_context(|| from.display().to_string())?;
        if fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(dir))?;
        fs::copy(from, &to).with_context(|| to.display().to_string())?;
    }
    Ok(())
}

/// Returns the files in `before`, the list of an earlier call, that are not in `files`.
fn gone<'a>(before: &'a str, files: &Files) -> Vec<&'a str> {
    before.lines().filter(|path| !path.is_empty() && !files.contains_key(Path::new(path))).collect()
}

/// The part of the output of `cargo metadata` that we use.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

impl Package {
    /// Returns the folder of the package. It is an error if its library is not `src/lib.rs`, because Kbuild expects this file.
    fn folder(&self) -> Result<&Path> {
        let folder = self.manifest_path.parent().context("a manifest is not in a folder")?;
        let root = self.targets.iter().find(|t| t.kind.iter().any(|k| k == "lib")).map(|t| &t.src_path);
        ensure!(root == Some(&folder.join("src/lib.rs")), "{}: its library is not src/lib.rs", self.name);
        Ok(folder)
    }
}

/// Returns the packages of the workspace [`VENDOR`]. Cargo downloads them if they are missing.
fn packages(places: &Places) -> Result<Metadata> {
    let mut cargo = places.cargo_in(Path::new(VENDOR));
    cargo.args(["metadata", "--format-version", "1", "--locked"]);
    let metadata: Metadata = serde_json::from_str(&cmd::output(&mut cargo)?)?;
    for name in CRATES {
        let count = metadata.packages.iter().filter(|p| p.name == name).count();
        ensure!(count == 1, "{VENDOR}/Cargo.lock has {name} {count} times, not once");
    }
    Ok(metadata)
}

/// Builds the procedural macros. Returns the name and the shared library of each.
fn macros(places: &Places) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut cargo = places.cargo_in(Path::new(VENDOR));
    cargo.args(["build", "--release", "--locked"]);
    cargo.env("CARGO_TARGET_DIR", places.own_target("linux/vendor"));
    let built = image::artifacts(&mut cargo)?;
    let mut found = Vec::new();
    for name in MACROS {
        let of_it = built.iter().filter(|a| a.target.name == name && a.target.is_proc_macro());
        let files: Vec<_> = of_it.flat_map(|a| &a.filenames).filter(|f| is_library(f)).collect();
        let [file] = files.as_slice() else {
            bail!("cargo built {} libraries of {name}, not one", files.len())
        };
        found.push((name, file.to_path_buf()));
    }
    Ok(found)
}

fn is_library(file: &Path) -> bool {
    file.extension().is_some_and(|end| end == "so")
}

/// Returns the output of `rustc --version`. The user must build the module with the same version, because only this version can
/// load the procedural macros.
pub fn compiler() -> Result<String> {
    Ok(cmd::output(Command::new("rustc").arg("--version"))?.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_put_there_goes() {
        let files = Files::from([("a/b.rs".into(), "x".into()), ("c".into(), "y".into())]);
        assert_eq!(gone("a/b.rs\na/old.rs\nc", &files), ["a/old.rs"]);
        assert_eq!(gone("", &files), Vec::<&str>::new());
    }

    #[test]
    fn what_a_build_left_is_no_source() {
        for litter in ["x.o", ".x.o.cmd", "mk_ipi.ko", "mk_ipi.mod.c", "Module.symvers", ".staged", "target"]
        {
            assert!(is_litter(litter), "{litter}");
        }
        for source in ["Kbuild", "lib.rs", "glue.c", "glue.h", "init", "trampoline.s", "base.config"] {
            assert!(!is_litter(source), "{source}");
        }
    }

    #[test]
    fn a_copy_is_brought_up_to_date() {
        let dir = std::env::temp_dir().join(format!("mk-ipi-stage-{}", std::process::id()));
        let (from, to) = (dir.join("from"), dir.join("to"));
        fs::create_dir_all(from.join("sub")).expect("a folder");
        for name in ["one", "two", "sub/three"] {
            fs::write(from.join(name), name).expect("a file");
        }
        let all = || below(Path::new("x"), &from).expect("the files");
        write(&to, &all()).expect("a copy");
        let time = |name: &str| fs::metadata(to.join(name)).and_then(|m| m.modified()).expect("a time");
        let kept = time("x/one");
        fs::write(to.join("x/built.o"), "").expect("a file");
        fs::remove_file(from.join("two")).expect("gone");
        fs::write(from.join("sub/three"), "other").expect("a file");
        write(&to, &all()).expect("a copy");
        assert_eq!(time("x/one"), kept);
        assert_eq!(fs::read_to_string(to.join("x/sub/three")).ok().as_deref(), Some("other"));
        assert!(!to.join("x/two").exists() && to.join("x/built.o").exists());
        fs::remove_dir_all(&dir).expect("gone");
    }
}
