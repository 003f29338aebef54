// SPDX-License-Identifier: MIT OR Apache-2.0
//! Gets the source of a Linux, and builds this Linux with support for Rust.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use clap::ValueEnum;

use super::fragments::{self, Fragment};
use super::make::{clean, make};
use crate::cmd;
use crate::provision::{self, Plan};

/// The versions of Linux whose source is downloaded from Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Series {
    /// Linux 7.3, from trixie-backports
    #[value(name = "7.3")]
    V7_3,
    /// Linux 6.12, from bookworm-backports
    #[value(name = "6.12")]
    V6_12,
}

impl Series {
    /// The version.
    fn name(self) -> &'static str {
        match self {
            Series::V7_3 => "7.3",
            Series::V6_12 => "6.12",
        }
    }

    /// The suite of Debian that has the source.
    fn suite(self) -> &'static str {
        match self {
            Series::V7_3 => "trixie-backports",
            Series::V6_12 => "bookworm-backports",
        }
    }

    /// Debian's package with the source.
    fn package(self) -> String {
        format!("linux-source-{}", self.name())
    }
}

/// The source of a Linux.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A package of Debian.
    Debian(Series),
    /// A source tree of the user.
    Own(PathBuf),
}

/// A Linux that a command needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The source.
    pub source: Source,
    /// Whether Linux is built with debug checks.
    pub debug: bool,
}

/// A source tree of Linux.
struct Tree {
    folder: PathBuf,
    /// A unique name: the version of Debian's package; or for a tree of the user, the version of Linux and a hash of the path.
    name: String,
}

/// A Linux that was built.
pub struct Built {
    /// The folder with the output of the build (make's `O=`).
    pub out: PathBuf,
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// The name of the build. Builds from other sources, with other compilers or with other options have other names.
    pub key: String,
    /// The C compiler with which Linux was built. Its modules must be built with the same compiler.
    pub cc: &'static str,
}

impl Built {
    /// The image of Linux for a boot loader.
    pub fn image(&self) -> PathBuf {
        self.out.join("arch/x86/boot/bzImage")
    }

    /// The kernel as an ELF file. A note in it has the address of the entry point.
    pub fn elf(&self) -> PathBuf {
        self.out.join("vmlinux")
    }
}

/// The folder of all source trees and all builds of Linux.
fn home() -> Result<PathBuf> {
    Ok(provision::cache()?.join("linux"))
}

impl Wanted {
    /// A name of this Linux for messages.
    pub fn title(&self) -> String {
        let debug = if self.debug { " with debug checks" } else { "" };
        match &self.source {
            Source::Debian(series) => format!("Linux {}{debug}", series.name()),
            Source::Own(folder) => format!("the Linux in {}{debug}", folder.display()),
        }
    }

    /// The C compiler to use. If clang is needed, but no clang that is new enough is installed, this is `clang`.
    fn cc(&self) -> &'static str {
        if self.debug {
            provision::clang().unwrap_or("clang")
        } else {
            "gcc"
        }
    }

    /// The source tree; `None` if it was not downloaded yet.
    fn tree(&self) -> Result<Option<Tree>> {
        match &self.source {
            Source::Own(folder) => own_tree(folder).map(Some),
            Source::Debian(series) => debian_tree(*series, &home()?.join("source")),
        }
    }

    /// The folder, the name and the configuration of the build.
    fn place(&self, tree: &Tree) -> Result<Place> {
        let fragments = fragments::fragments(self.debug);
        let mut hash = DefaultHasher::new();
        for fragment in &fragments {
            fragment.text.hash(&mut hash);
        }
        let cc = self.cc();
        for (program, words) in [("rustc", "-vV"), (cc, "--version")] {
            cmd::output(Command::new(program).arg(words)).unwrap_or_default().hash(&mut hash);
        }
        let debug = if self.debug { "-debug" } else { "" };
        let key = format!("{}-{:08x}{debug}", tree.name, hash.finish() as u32);
        Ok(Place { out: home()?.join(&key), key, fragments, cc })
    }
}

/// The folder, the name and the configuration of a build.
struct Place {
    out: PathBuf,
    key: String,
    fragments: Vec<Fragment>,
    cc: &'static str,
}

impl Place {
    /// The file that is written at the end of a build. If it does not exist, the build is not complete.
    fn stamp(&self) -> PathBuf {
        self.out.join(".mk-ipi-built")
    }
}

/// It is an error if `folder` is not a source tree of Linux, or if Linux was configured or built in it. A build from such a tree
/// cannot write its output to another folder.
pub fn check_tree(folder: &Path) -> Result<()> {
    let shown = folder.display();
    ensure!(
        folder.join("Kbuild").is_file() && folder.join("rust").is_dir(),
        "{shown} is not a source tree of Linux"
    );
    let built = [".config", "include/config", "arch/x86/include/generated"];
    if let Some(trace) = built.iter().find(|trace| folder.join(trace).exists()) {
        bail!(
            "in {shown} a Linux was configured or built ({trace} exists). A build from such a tree cannot write its output to \
             another folder. Run `make mrproper` in the tree, which also deletes its .config"
        );
    }
    Ok(())
}

/// Returns a source tree of the user.
fn own_tree(folder: &Path) -> Result<Tree> {
    check_tree(folder)?;
    let version = cmd::output(clean("make").arg("-s").arg("-C").arg(folder).arg("kernelversion"))?;
    let mut hash = DefaultHasher::new();
    folder.hash(&mut hash);
    Ok(Tree { folder: folder.into(), name: format!("{}-own-{:08x}", version.trim(), hash.finish() as u32) })
}

/// Returns the newest source tree of this version that was downloaded from Debian and unpacked.
fn debian_tree(series: Series, sources: &Path) -> Result<Option<Tree>> {
    let Ok(entries) = fs::read_dir(sources) else { return Ok(None) };
    let prefix = format!("{}.", series.name());
    let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let newest = names.filter(|name| name.starts_with(&prefix)).max_by_key(|name| numbers(name));
    Ok(newest.map(|name| Tree { folder: sources.join(&name).join(series.package()), name }))
}

/// The numbers in a version. Compared as numbers, 7.3.10 is newer than 7.3.9.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
}

/// The plans to download and build this Linux, if that was not done yet.
pub fn plan(wanted: &Wanted) -> Result<Vec<Plan>> {
    let mut plans = Vec::new();
    let tree = wanted.tree()?;
    if let (None, Source::Debian(series)) = (&tree, &wanted.source) {
        let (series, to) = (*series, home()?.join("source"));
        let what = format!(
            "download the package {} of {} from this machine's apt sources (about 150 MB), and unpack it into {} (2 GB)",
            series.package(),
            series.suite(),
            to.display()
        );
        plans.push(Plan { what, act: Box::new(move || fetch(series, &to)) });
    }
    let built = tree.as_ref().map(|tree| wanted.place(tree)).transpose()?.is_some_and(|p| p.stamp().exists());
    if !built {
        let time = if wanted.debug { "10 to 20" } else { "4 to 10" };
        let what = format!("build {} in {} (takes {time} minutes)", wanted.title(), home()?.display());
        let wanted = wanted.clone();
        plans.push(Plan { what, act: Box::new(move || build(&wanted)) });
    }
    Ok(plans)
}

/// Takes the lock for writing to [`home()`]. It is one lock for all versions of Linux. If a second command needs the same Linux,
/// it waits for the lock. Then nothing is left to download, and make has nothing left to build.
fn lock() -> Result<File> {
    cmd::lock(&home()?)
}

/// Downloads and unpacks the source of this version.
fn fetch(series: Series, sources: &Path) -> Result<()> {
    let _lock = lock()?;
    if debian_tree(series, sources)?.is_some() {
        return Ok(());
    }
    fs::create_dir_all(sources)?;
    let parts = sources.join(format!("unpacking-{}", series.name()));
    if parts.exists() {
        fs::remove_dir_all(&parts)?;
    }
    let package = series.package();
    let version = provision::unpack_package(&package, Some(series.suite()), &parts.join("deb"))
        .context("the source of Linux could not be downloaded (with --source DIR you can use a source tree of your own)")?;
    let archive = parts.join("deb/usr/src").join(format!("{package}.tar.xz"));
    let tree = parts.join("tree");
    fs::create_dir_all(&tree)?;
    cmd::run(Command::new("tar").arg("-C").arg(&tree).arg("-xf").arg(&archive))?;
    ensure!(
        tree.join(&package).join("Kbuild").is_file(),
        "{} does not contain the source tree {package}",
        archive.display()
    );
    fs::rename(&tree, sources.join(version))?;
    fs::remove_dir_all(&parts)?;
    Ok(())
}

/// Returns the built Linux. A tree of the user may have changed, so make is run. A tree from Debian must have been built before.
pub fn ready(wanted: &Wanted) -> Result<Built> {
    let tree = wanted.tree()?.context("the source of Linux does not exist")?;
    let place = wanted.place(&tree)?;
    if matches!(wanted.source, Source::Own(_)) {
        build(wanted)?;
    }
    let release = fs::read_to_string(place.out.join("include/config/kernel.release"))?;
    Ok(Built { out: place.out, release: release.trim().into(), key: place.key, cc: place.cc })
}

/// Configures and builds Linux. An incomplete build is continued.
fn build(wanted: &Wanted) -> Result<()> {
    let tree = wanted.tree()?.context("the source of Linux does not exist")?;
    let place = wanted.place(&tree)?;
    let _lock = lock()?;
    fs::create_dir_all(&place.out)?;
    let in_tree = || {
        let mut cmd = make(&tree.folder, place.cc);
        cmd.arg("ARCH=x86_64").arg(format!("O={}", place.out.display()));
        cmd
    };
    // The Kconfig files in a tree of the user may have changed, so Linux is configured each time. If the configuration stays the
    // same, make builds only what depends on changed sources.
    if matches!(wanted.source, Source::Own(_)) || !place.stamp().exists() {
        configure(&tree, &place, &in_tree)?;
    }
    cmd::run(in_tree().args(["bzImage", "modules"]))?;
    fs::write(place.stamp(), "")?;
    Ok(())
}

/// Writes the configuration of Linux, and checks that it has the options of all fragments.
fn configure(tree: &Tree, place: &Place, in_tree: &dyn Fn() -> Command) -> Result<()> {
    cmd::run(in_tree().arg("tinyconfig"))?;
    let config = place.out.join(".config");
    // The script writes temporary files to its working folder. So this folder must not be the source tree.
    let mut merge = clean(tree.folder.join("scripts/kconfig/merge_config.sh"));
    merge.current_dir(&place.out).arg("-m").arg("-O").arg(&place.out).arg(&config);
    for fragment in &place.fragments {
        let file = place.out.join(fragment.name);
        fs::write(&file, fragment.text)?;
        merge.arg(file);
    }
    // The script prints a line for each option whose value it changes. This output is not shown.
    cmd::output(&mut merge)?;
    cmd::run(in_tree().arg("olddefconfig"))?;
    fragments::check(&place.fragments, &fs::read_to_string(&config)?, || {
        let said = in_tree().arg("rustavailable").output();
        said.map_or_else(|e| e.to_string(), |out| String::from_utf8_lossy(&out.stderr).into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("7.3.10-1~bpo13+1") > numbers("7.3.4-1~bpo13+1"));
        assert!(numbers("7.3.4-2~bpo13+1") > numbers("7.3.4-1~bpo13+1"));
    }

    #[test]
    fn the_newest_tree_of_a_series() {
        let dir = std::env::temp_dir().join(format!("mk-ipi-trees-{}", std::process::id()));
        for name in ["7.3.4-1~bpo13+1", "7.3.10-1~bpo13+1", "unpacking-7.3", "6.12.95-1~bpo12+1", "7.30.1-1"]
        {
            fs::create_dir_all(dir.join(name)).expect("a folder");
        }
        let name = |series| debian_tree(series, &dir).expect("trees").map(|tree| tree.name);
        assert_eq!(name(Series::V7_3).as_deref(), Some("7.3.10-1~bpo13+1"));
        assert_eq!(name(Series::V6_12).as_deref(), Some("6.12.95-1~bpo12+1"));
        fs::remove_dir_all(&dir).expect("gone");
        assert_eq!(name(Series::V7_3), None);
    }

    #[test]
    fn a_tree_that_was_built_in_place_is_refused() {
        let dir = std::env::temp_dir().join(format!("mk-ipi-own-{}", std::process::id()));
        fs::create_dir_all(dir.join("rust")).expect("a folder");
        let why = || check_tree(&dir).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(why().contains("not a source tree of Linux"));
        fs::write(dir.join("Kbuild"), "").expect("a file");
        fs::write(dir.join(".config"), "").expect("a file");
        assert!(why().contains("make mrproper"));
        fs::remove_dir_all(&dir).expect("gone");
    }
}
