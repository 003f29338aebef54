// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes an initramfs. Linux's tool `gen_init_cpio` makes it from a list of files. To put device files into it, this tool does
//! not need to run as root.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};

use super::kernel::Built;

/// A file in the initramfs, and its source.
pub struct Entry {
    /// The path in the initramfs, which begins with `/`.
    pub to: String,
    /// The source file.
    pub from: PathBuf,
}

/// Empty folders on which the first program mounts file systems.
const MOUNTS: [&str; 5] = ["/dev", "/proc", "/run", "/sys", "/tmp"];

/// Writes an initramfs with these entries to `file`.
pub fn write(linux: &Built, entries: &[Entry], file: &Path) -> Result<()> {
    let mut list = file.as_os_str().to_owned();
    list.push(".list");
    fs::write(&list, lines(entries)?)?;
    let mut tool = Command::new(linux.out.join("usr/gen_init_cpio"));
    tool.arg(&list).stdin(Stdio::null()).stdout(File::create(file)?);
    let status = tool.status().context("gen_init_cpio could not be started")?;
    ensure!(status.success(), "gen_init_cpio ended with {status}");
    Ok(())
}

/// The files in `folder` and its subfolders, as entries below `/`.
pub fn tree(folder: &Path) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_path_buf(), String::new())];
    while let Some((dir, at)) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            let to = format!("{at}/{}", path.file_name().unwrap_or_default().to_string_lossy());
            if path.is_dir() {
                open.push((path, to));
            } else {
                found.push(Entry { to, from: path });
            }
        }
    }
    Ok(found)
}

/// Returns the list for `gen_init_cpio`. It begins with the folders; a folder comes before the folders in it.
fn lines(entries: &[Entry]) -> Result<String> {
    let above = |entry: &'_ Entry| -> Vec<String> {
        let folders = Path::new(&entry.to).ancestors().skip(1).filter(|path| *path != Path::new("/"));
        folders.map(|path| path.display().to_string()).collect()
    };
    let mut folders: BTreeSet<String> = MOUNTS.iter().map(ToString::to_string).collect();
    folders.extend(entries.iter().flat_map(above));
    let mut lines: Vec<String> = folders.iter().map(|folder| format!("dir {folder} 755 0 0")).collect();
    lines.push("nod /dev/console 600 0 0 c 5 1".into());
    lines.push("slink /bin/sh busybox 777 0 0".into());
    for Entry { to, from } in entries {
        let from = from.display().to_string();
        ensure!(
            !from.contains(char::is_whitespace),
            "the path {from} has a blank, which gen_init_cpio does not accept"
        );
        lines.push(format!("file {to} {from} {} 0 0", if runs(Path::new(&from)) { "755" } else { "644" }));
    }
    Ok(lines.join("\n") + "\n")
}

/// Returns whether a file is a program or a script, so that it must be executable. A module is an ELF file too, but no program.
fn runs(file: &Path) -> bool {
    let head = fs::read(file).unwrap_or_default();
    let module = file.extension().is_some_and(|end| end == "ko");
    head.starts_with(b"#!") || (head.starts_with(b"\x7fELF") && !module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tool_is_told() {
        let entry = |to: &str, from: &str| Entry { to: to.into(), from: from.into() };
        let entries = [entry("/lib/modules/a.ko", "/x/a.ko"), entry("/init", "/x/init")];
        let expected = "dir /dev 755 0 0\ndir /lib 755 0 0\ndir /lib/modules 755 0 0\ndir /proc 755 0 0\n\
                        dir /run 755 0 0\ndir /sys 755 0 0\ndir /tmp 755 0 0\n\
                        nod /dev/console 600 0 0 c 5 1\nslink /bin/sh busybox 777 0 0\n\
                        file /lib/modules/a.ko /x/a.ko 644 0 0\nfile /init /x/init 644 0 0\n";
        assert_eq!(lines(&entries).ok().as_deref(), Some(expected));
        assert!(lines(&[entry("/a", "/with blank/a")]).is_err());
    }

    #[test]
    fn programs_and_scripts_run() {
        assert!(runs(&std::env::current_exe().expect("this program")));
        assert!(!runs(Path::new("/etc/os-release")));
    }
}
