// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks whether users can use the published crates: as packages, with the oldest versions of their dependencies, in another
//! workspace, and in place of an earlier version.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{ensure, Context as _, Result};
use clap::Args;

use super::{Context, Notes};
use crate::arch::Arch;
use crate::cmd::{self, Places};
use crate::provision::{self, Need, Provision, Toolchain};

/// The crates that will be published. Each comes after the crates on which it depends.
pub const PUBLISHED: [&str; 11] = [
    "mk-ipi-abi",
    "mk-ipi-core",
    "mk-ipi-services",
    "mk-ipi-net",
    "mk-ipi-x86",
    "mk-ipi-arm64",
    "mk-ipi-riscv",
    "mk-ipi-conformance",
    "mk-ipi-mock",
    "mk-ipi",
    "mk-ipi-capi",
];
/// Files that each package must have in addition to its source files.
const PAGES: [&str; 3] = ["README.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// The step `package`: does the same as `cargo publish`, except the upload. Makes the packages, and builds each crate from its
/// package and the packages of the other crates.
pub fn package(context: &Context) -> Result<Notes> {
    let places = context.places;
    let target = places.own_target("package");
    forget_packages(&target)?;
    let mut cargo = places.cargo();
    cargo.args(["publish", "--dry-run", "--workspace", "--allow-dirty", "--target-dir"]).arg(&target);
    cmd::run(&mut cargo)?;
    let made = |name: &str, version: &str| target.join("package").join(format!("{name}-{version}"));
    for name in PUBLISHED {
        let package = made(name, &version(&places.root, name)?);
        for page in PAGES {
            ensure!(package.join(page).is_file(), "the package of {name} has no {page}");
        }
    }
    Ok(vec![format!("{} packages", PUBLISHED.len())])
}

/// Removes the packages that earlier runs have unpacked and built. Cargo assumes that a package with the same version is
/// unchanged, and would use the old one. But our packages change without a new version.
fn forget_packages(target: &Path) -> Result<()> {
    if target.exists() {
        fs::remove_dir_all(target)?;
    }
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| Some(env::home_dir()?.join(".cargo"))).context("the home folder is not known")?;
    let Ok(registries) = fs::read_dir(home.join("registry/src")) else { return Ok(()) };
    for registry in registries {
        let registry = registry?;
        // The name of this folder is `HOST-HASH`. For the registry of a dry run, HOST is empty.
        if !registry.file_name().as_encoded_bytes().starts_with(b"-") {
            continue;
        }
        for package in fs::read_dir(registry.path())? {
            let package = package?;
            let file = package.file_name();
            let name = file.to_str().and_then(|file| file.rsplit_once('-')).map(|(name, _version)| name);
            if name.is_some_and(|name| PUBLISHED.contains(&name)) {
                fs::remove_dir_all(package.path())?;
            }
        }
    }
    Ok(())
}

/// The step `minimal-versions`: checks that the crates build with the oldest versions of their dependencies that the manifests
/// allow, for this machine and for each bare-metal target.
pub fn minimal_versions(context: &Context) -> Result<Notes> {
    let places = context.places;
    let folder = places.own_target("minimal-versions");
    copy_tracked(places, &PUBLISHED, &folder)?;
    let members = PUBLISHED.map(|name| format!("{name:?}")).join(", ");
    fs::write(folder.join("Cargo.toml"), format!("[workspace]\nresolver = \"2\"\nmembers = [{members}]\n"))?;
    let nightly = format!("+{}", provision::toolchain_name(Toolchain::Nightly)?);
    let cargo = |words: &[&str]| {
        let mut cmd = Command::new("cargo");
        cmd.current_dir(&folder).env_remove("RUSTUP_TOOLCHAIN").args(words);
        cmd.env("CARGO_TARGET_DIR", folder.join("target"));
        cmd
    };
    // Only a nightly cargo can select the oldest versions. For the bare-metal targets the oldest supported compiler is used.
    cmd::run(&mut cargo(&[&nightly, "update", "-Zdirect-minimal-versions"]))?;
    let msrv = format!("+{}", provision::MSRV);
    for arch in Arch::ALL {
        let crates = arch.crates().into_iter().flat_map(|name| ["-p", name]);
        cmd::run(cargo(&[&msrv, "check", "--locked", "--target", arch.target()]).args(crates))?;
    }
    cmd::run(&mut cargo(&["check", "--locked", "--workspace"]))?;
    let lock = fs::read_to_string(folder.join("Cargo.lock"))?;
    let version = locked_version(&lock, "x86_64").context("the lock file does not have the crate x86_64")?;
    Ok(vec![format!("the oldest version of the crate x86_64 is {version}")])
}

/// The step `outer-workspace`: makes another workspace, with a kernel and with a copy of this repository in a subfolder. The
/// kernel must be able to use the crates by their paths.
pub fn outer_workspace(context: &Context) -> Result<Notes> {
    let places = context.places;
    let outer = places.own_target("outer-workspace");
    copy_tracked(places, &[], &outer.join("vendor/mk-ipi"))?;
    let kernel = outer.join("kernel");
    fs::create_dir_all(kernel.join("src"))?;
    let resolver = "resolver = \"2\"";
    fs::write(outer.join("Cargo.toml"), format!("[workspace]\n{resolver}\nmembers = [\"kernel\"]\n"))?;
    let uses = |name: &&str| format!("{name} = {{ path = \"../vendor/mk-ipi/{name}\" }}\n");
    let crates: String = Arch::X86.crates().iter().map(uses).collect();
    let package = "[package]\nname = \"kernel\"\nversion = \"0.0.0\"\nedition = \"2024\"\n";
    fs::write(kernel.join("Cargo.toml"), format!("{package}\n[dependencies]\n{crates}"))?;
    fs::write(
        kernel.join("src/lib.rs"),
        "#![no_std]\npub use mk_ipi as front;\npub use mk_ipi_core as core_of_ours;\npub use mk_ipi_x86 as x86;\n",
    )?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&outer).env("CARGO_TARGET_DIR", outer.join("target"));
    cmd::run(cargo.args(["check", "-p", "kernel", "--target", Arch::X86.target()]))?;
    Ok(Vec::new())
}

/// The options of `cargo xtask semver`.
#[derive(Args, Clone, Debug)]
pub struct SemverArgs {
    /// The commit to compare with [default: the latest tag]
    #[arg(long, value_name = "COMMIT")]
    baseline: Option<String>,
    /// Install missing tools without asking
    #[arg(long)]
    pub yes: bool,
}

/// The command `cargo xtask semver`. It is an error if users of the crates must change their code, although the version number
/// says that they need not.
pub fn semver(places: &Places, provision: &Provision, args: &SemverArgs) -> Result<()> {
    let needs = [Need::CargoTool("cargo-semver-checks")];
    provision.announce(&needs)?;
    provision.ensure(&needs)?;
    let baseline = match &args.baseline {
        Some(commit) => commit.clone(),
        None => latest_tag(places).context("the repository has no tag: name a commit with --baseline")?,
    };
    let program =
        provision::tool("cargo-semver-checks").unwrap_or_else(|| PathBuf::from("cargo-semver-checks"));
    let mut check = Command::new(program);
    check.current_dir(&places.root).args(["semver-checks", "--baseline-rev", &baseline]);
    check.args(PUBLISHED.iter().flat_map(|name| ["-p", *name]));
    cmd::run(&mut check)
}

fn latest_tag(places: &Places) -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(&places.root).args(["describe", "--tags", "--abbrev=0"]);
    Ok(cmd::output(&mut git)?.trim().to_owned())
}

/// Copies the files in `folders` that git tracks to `to`, with their present content. If `folders` is empty, all files are
/// copied. Before that, everything in `to` is removed, except a folder `target`. A symbolic link to a file becomes a copy of that
/// file.
fn copy_tracked(places: &Places, folders: &[&str], to: &Path) -> Result<()> {
    if let Ok(entries) = fs::read_dir(to) {
        for entry in entries.flatten().filter(|entry| entry.file_name() != "target") {
            if entry.path().is_dir() {
                fs::remove_dir_all(entry.path())?
            } else {
                fs::remove_file(entry.path())?
            }
        }
    }
    let mut git = Command::new("git");
    git.current_dir(&places.root).args(["ls-files", "-z", "--"]).args(folders);
    for name in cmd::output(&mut git)?.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (places.root.join(name), to.join(name));
        if from.is_file() {
            fs::create_dir_all(to.parent().context("a file is not in a folder")?)?;
            fs::copy(&from, &to).with_context(|| name.to_owned())?;
        }
    }
    Ok(())
}

/// The manifest of a crate; with an empty name the manifest of the root.
fn manifest(root: &Path, name: &str) -> Result<toml::Table> {
    let path = root.join(name).join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.parse()?)
}

/// The version of a crate.
fn version(root: &Path, name: &str) -> Result<String> {
    let manifest = manifest(root, name)?;
    let version = manifest.get("package").and_then(|package| package.get("version")?.as_str());
    Ok(version.with_context(|| format!("{name} has no version"))?.to_owned())
}

/// The version of the package `name` in the text of a lock file.
fn locked_version(lock: &str, name: &str) -> Option<String> {
    let lock: toml::Table = lock.parse().ok()?;
    let packages = lock.get("package")?.as_array()?;
    let found = packages.iter().find(|package| package.get("name").and_then(|n| n.as_str()) == Some(name))?;
    Some(found.get("version")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use toml::{Table, Value};

    fn all() -> Vec<(&'static str, Table)> {
        let root = Places::find().expect("the repository").root;
        PUBLISHED.map(|name| (name, manifest(&root, name).expect(name))).into()
    }

    fn root() -> Table {
        let root = Places::find().expect("the repository").root;
        manifest(&root, "").expect("the root's")
    }

    /// Returns whether a part of this manifest is inherited from a workspace.
    fn inherits(value: &Value) -> bool {
        match value {
            Value::Table(table) => {
                table.get("workspace").is_some_and(|v| v.as_bool() == Some(true))
                    || table.values().any(inherits)
            }
            _ => false,
        }
    }

    #[test]
    fn nothing_that_is_published_inherits() {
        assert!(inherits(&Value::Table("a.b.workspace = true".parse().expect("TOML"))));
        for (name, manifest) in all() {
            assert!(!inherits(&Value::Table(manifest)), "{name} does not build in another workspace");
        }
    }

    #[test]
    fn they_say_what_the_root_says() {
        let root = root();
        let ours = root["workspace"]["package"].as_table().expect("a table");
        for (name, manifest) in all() {
            for (key, value) in ours {
                assert_eq!(manifest["package"].get(key), Some(value), "{key} of {name}");
            }
            assert_eq!(manifest.get("lints"), root["workspace"].get("lints"), "lints of {name}");
        }
    }

    #[test]
    fn all_that_is_a_members_and_may_be_published_is_listed() {
        let base = Places::find().expect("the repository").root;
        let members = root()["workspace"]["members"].as_array().expect("a list").clone();
        let mut found: Vec<String> = Vec::new();
        for member in members.iter().filter_map(Value::as_str) {
            let manifest = manifest(&base, member).expect(member);
            if manifest["package"].get("publish").and_then(Value::as_bool) != Some(false) {
                found.push(member.to_owned());
            }
        }
        let mut listed = PUBLISHED.map(ToOwned::to_owned);
        found.sort();
        listed.sort();
        assert_eq!(found, listed);
    }

    #[test]
    fn one_dependency_has_one_requirement() {
        let mut seen: BTreeMap<String, Value> = BTreeMap::new();
        for (name, manifest) in all() {
            let tables =
                ["dependencies", "dev-dependencies"].iter().filter_map(|key| manifest.get(*key)?.as_table());
            for (dependency, requirement) in tables.flatten() {
                let before = seen.entry(dependency.clone()).or_insert_with(|| requirement.clone());
                assert_eq!(before, requirement, "{dependency} of {name}");
            }
        }
        assert!(seen.contains_key("mk-ipi-abi"));
    }

    #[test]
    fn what_the_registry_shows() {
        for (name, manifest) in all() {
            let package = manifest["package"].as_table().expect("a table");
            let words = |key: &str| package[key].as_array().expect(key).len();
            assert!(package["description"].as_str().is_some_and(|text| text.len() > 20), "{name}");
            assert_eq!(package["readme"].as_str(), Some("README.md"), "{name}");
            assert_eq!(package["documentation"].as_str(), Some(&*format!("https://docs.rs/{name}")));
            // crates.io accepts at most five keywords, and at most five categories.
            assert!((1..=5).contains(&words("keywords")) && (1..=5).contains(&words("categories")), "{name}");
            assert!(package["metadata"]["docs"]["rs"].get("targets").is_some(), "{name}");
            assert!(package.get("repository").is_none(), "{name}: the project has no public repository");
        }
    }

    #[test]
    fn versions_of_lock_files() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.2.3\"\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n";
        assert_eq!(locked_version(lock, "b"), Some("2.0.0".into()));
        assert_eq!(locked_version(lock, "c"), None);
    }
}
