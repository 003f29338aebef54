// SPDX-License-Identifier: MIT OR Apache-2.0
//! Downloads packages with apt for a user who is not root. apt gets its own folders for package lists and downloads, so nothing
//! on the system is changed. It uses the package sources that are configured on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

use crate::cmd;

/// The fields of `/etc/os-release` that we use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// `ID`, such as `debian`.
    pub id: String,
    /// `VERSION_CODENAME`, such as `bookworm`.
    pub codename: String,
}

/// The suites of a package source that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suites {
    /// The suites of this machine's release; and its backports, if they are needed.
    Own,
    /// Only this suite, from the mirror of this machine's release.
    Only(String),
}

impl Release {
    /// The release of this machine.
    pub fn of_machine() -> Result<Self> {
        Self::parse(&fs::read_to_string("/etc/os-release")?)
    }

    /// Parses the text of `/etc/os-release`.
    fn parse(text: &str) -> Result<Self> {
        let value = |key: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='))?;
            Some(line.trim().trim_matches(['"', '\'']).to_owned())
        };
        let codename = value("VERSION_CODENAME").filter(|c| !c.is_empty());
        let codename = codename.context("/etc/os-release has no VERSION_CODENAME")?;
        Ok(Self { id: value("ID").unwrap_or_default(), codename })
    }

    /// The backports of this release, if its own QEMU does not emulate x2APIC and the QEMU in the backports does.
    pub fn backports(&self) -> Option<String> {
        (self.codename == "bookworm").then(|| format!("{}-backports", self.codename))
    }

    /// Returns whether `suite` belongs to the release: the release itself, its updates or its backports. A name such as `stable`
    /// is assumed to be the release.
    fn owns(&self, suite: &str) -> bool {
        let base = suite.split(['-', '/']).next().unwrap_or_default();
        base == self.codename || ["stable", "oldstable", "testing", "unstable", "sid"].contains(&base)
    }

    /// Returns the suites to use, for a package source that has `suites`.
    fn suites(&self, suites: &[&str], wanted: &Suites) -> Vec<String> {
        if let Suites::Only(suite) = wanted {
            let ours = suites.contains(&self.codename.as_str());
            return ours.then(|| suite.clone()).into_iter().collect();
        }
        self.own_suites(suites)
    }

    /// Returns those of `suites` that belong to the release. If the release itself is one of them, and the backports are needed,
    /// they are added.
    fn own_suites(&self, suites: &[&str]) -> Vec<String> {
        let mut own: Vec<String> = suites.iter().filter(|s| self.owns(s)).map(ToString::to_string).collect();
        if let Some(extra) = self.backports() {
            if own.contains(&self.codename) && !own.contains(&extra) {
                own.push(extra);
            }
        }
        own
    }
}

/// Returns the stanzas to use from a deb822 text (`*.sources`). In each stanza, the suites are replaced by those to use.
pub fn from_deb822(text: &str, release: &Release, wanted: &Suites) -> String {
    let mut out = String::new();
    let mut stanza: Vec<&str> = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#')).chain([""]) {
        if !line.trim().is_empty() {
            stanza.push(line);
        } else if !stanza.is_empty() {
            out.push_str(&deb822_stanza(&stanza, release, wanted).unwrap_or_default());
            stanza.clear();
        }
    }
    out
}

/// Returns one stanza, for binary packages and the suites to use only. `None` if the stanza is not to be used.
fn deb822_stanza(lines: &[&str], release: &Release, wanted: &Suites) -> Option<String> {
    // A line that begins with a blank continues the field above it.
    let mut fields: Vec<(&str, String)> = Vec::new();
    for line in lines {
        if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut()?;
            value.push('\n');
            value.push_str(line);
        } else {
            let (name, value) = line.split_once(':')?;
            fields.push((name, value.trim().to_owned()));
        }
    }
    let get = |name: &str| fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
    let off = |v: &str| ["no", "false", "without", "off", "disable"].contains(&v.trim());
    if get("Enabled").is_some_and(off) || !get("Types")?.split_whitespace().any(|t| t == "deb") {
        return None;
    }
    let suites = release.suites(&get("Suites")?.split_whitespace().collect::<Vec<_>>(), wanted);
    if suites.is_empty() {
        return None;
    }
    let mut out = String::new();
    for (name, value) in &fields {
        let value = match name.to_ascii_lowercase().as_str() {
            "types" => "deb",
            "suites" => &suites.join(" "),
            _ => value,
        };
        out.push_str(&format!("{name}: {value}\n"));
    }
    out.push('\n');
    Some(out)
}

/// Returns the lines to use from a text in the one-line style (`*.list`). In each line, the suite is replaced by one to use.
pub fn from_one_line(text: &str, release: &Release, wanted: &Suites) -> String {
    text.lines().filter_map(|line| one_line(line, release, wanted)).collect()
}

/// Returns a line `deb [options] uri suite components...` for each suite to use. `None` if `line` has no package source to use.
fn one_line(line: &str, release: &Release, wanted: &Suites) -> Option<String> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (options, rest) = inner.split_once(']')?;
            (format!("[{options}] "), rest)
        }
        None => (String::new(), rest),
    };
    let mut words = rest.split_whitespace();
    let uri = words.next().filter(|uri| !uri.starts_with("cdrom:"))?;
    let suite = words.next()?;
    let components = words.collect::<Vec<_>>().join(" ");
    let suites = release.suites(&[suite], wanted);
    Some(suites.iter().map(|s| format!("deb {options}{uri} {s} {components}\n")).collect())
}

/// An apt with its own package lists and downloads, in a folder.
pub struct Apt {
    dir: PathBuf,
    release: Release,
}

impl Apt {
    /// Prepares the folder `dir`, with the package sources of this machine.
    pub fn new(dir: PathBuf) -> Result<Self> {
        Self::with(dir, Release::of_machine()?, &Suites::Own)
    }

    /// Prepares the folder `dir` for one suite of Debian, from the mirror of this machine. The suite can belong to another
    /// release. It is an error if this machine is not a Debian.
    pub fn of_suite(dir: PathBuf, suite: &str) -> Result<Self> {
        let release = Release::of_machine()?;
        ensure!(release.id == "debian", "this machine's apt sources are for {}, not for Debian", release.id);
        Self::with(dir, release, &Suites::Only(suite.into()))
    }

    fn with(dir: PathBuf, release: Release, wanted: &Suites) -> Result<Self> {
        for sub in ["sources.d", "lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let mut deb822 = String::new();
        let mut lists = String::new();
        for path in source_files()? {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            if path.extension().is_some_and(|e| e == "sources") {
                deb822.push_str(&from_deb822(&text, &release, wanted));
            } else {
                lists.push_str(&from_one_line(&text, &release, wanted));
            }
        }
        if deb822.is_empty() && lists.is_empty() {
            bail!("the configuration of apt has no package source for {}", release.codename);
        }
        fs::write(dir.join("sources.d/derived.sources"), deb822)?;
        fs::write(dir.join("sources.d/derived.list"), lists)?;
        // Hooks of the system are not run, because they change the system's caches. apt downloads as the present user, because
        // its own user cannot write to a home folder.
        let conf = "#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n\
                    #clear DPkg::Post-Invoke;\nAPT::Sandbox::User \"root\";\n";
        fs::write(dir.join("apt.conf"), conf)?;
        Ok(Self { dir, release })
    }

    /// The command `apt-get`, with our own folders.
    fn get(&self) -> Command {
        let dir = |sub: &str| self.dir.join(sub).display().to_string();
        let mut cmd = Command::new("apt-get");
        cmd.arg("-q").arg("-c").arg(self.dir.join("apt.conf")).arg("-oDebug::NoLocking=1");
        cmd.arg("-oDir::Etc::SourceList=/dev/null");
        cmd.arg(format!("-oDir::Etc::SourceParts={}", dir("sources.d")));
        cmd.arg(format!("-oDir::State::Lists={}", dir("lists")));
        cmd.arg(format!("-oDir::Cache={}", dir("cache")));
        cmd.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        cmd
    }

    /// Downloads the first of `packages` that exists; the packages `more`; and all dependencies that are not installed on the
    /// system. Unpacks all of them into the folder `root`.
    pub fn unpack(&self, packages: &[&str], more: &[&str], root: &Path) -> Result<()> {
        let archives = self.dir.join("cache/archives");
        for old in debs(&archives)? {
            fs::remove_file(old)?;
        }
        cmd::run(self.get().arg("update"))?;
        let Some(package) = packages.iter().find(|package| self.has(package)) else {
            bail!("the apt sources have none of these packages: {}", packages.join(" "))
        };
        let mut install = self.get();
        install.args(["-y", "--download-only", "--no-install-recommends"]);
        if let Some(suite) = self.release.backports() {
            install.args(["-t", &suite]);
        }
        cmd::run(install.arg("install").arg(package).args(more))?;
        let debs = debs(&archives)?;
        if debs.is_empty() {
            bail!("apt-get has downloaded nothing for {package}");
        }
        debs.iter().try_for_each(|deb| unpack_deb(deb, root))
    }

    /// Returns whether the package sources have a package with this name.
    fn has(&self, package: &str) -> bool {
        // With --print-uris apt downloads nothing. It prints the address of the package, or fails.
        cmd::output(self.get().args(["download", "--print-uris", package])).is_ok()
    }

    /// Downloads one package without its dependencies, and unpacks it into the folder `root`. Returns the version of the package.
    pub fn unpack_one(&self, package: &str, root: &Path) -> Result<String> {
        cmd::run(self.get().arg("update"))?;
        let archives = self.dir.join("cache/archives");
        cmd::run(self.get().current_dir(&archives).args(["download", package]))?;
        let debs = debs(&archives)?;
        let [deb] = debs.as_slice() else {
            bail!("apt-get has downloaded {} packages for {package}, not one", debs.len())
        };
        let name = deb.file_name().unwrap_or_default().to_string_lossy();
        let version =
            name.split('_').nth(1).context("the file name of the package has no version")?.to_owned();
        fs::create_dir_all(root)?;
        unpack_deb(deb, root)?;
        Ok(version)
    }
}

/// Unpacks a package into the folder `root`.
fn unpack_deb(deb: &Path, root: &Path) -> Result<()> {
    let status = Command::new("dpkg").arg("-x").arg(deb).arg(root).status();
    let status = status.context("dpkg could not be started")?;
    ensure!(status.success(), "`dpkg -x {}` ended with {status}", deb.display());
    Ok(())
}

/// The files with the package sources of this machine, as apt reads them.
fn source_files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
        for entry in parts {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "sources" || e == "list") {
                files.push(path);
            }
        }
    }
    files.sort();
    let main = PathBuf::from("/etc/apt/sources.list");
    if main.is_file() {
        files.insert(0, main);
    }
    Ok(files)
}

/// The packages in a folder.
fn debs(archives: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(archives)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "deb") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
#[path = "apt_tests.rs"]
mod tests;
