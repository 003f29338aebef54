// SPDX-License-Identifier: MIT OR Apache-2.0
//! Drawings: text files, of which `svgbob` makes pictures. Each picture names the sum of its source, so that one that is out of
//! date is found without the tool.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::cmd;

/// Where they are, source and picture side by side.
pub const FOLDER: &str = "docs/book/src/drawings";
/// How each picture begins.
const LICENCE: &str = "<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->";

/// The second line of the picture made of `source`.
fn stamp(name: &str, source: &str) -> String {
    format!(
        "<!-- Made of {name}.bob, sum {:016x}, by `cargo xtask book --drawings`: do not edit. -->",
        sum(source)
    )
}

/// FNV-1a: it finds what was forgotten, not what was forged.
fn sum(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The names of the files with this ending, without it.
fn named(root: &Path, ending: &str) -> Result<Vec<String>> {
    let folder = root.join(FOLDER);
    let files = fs::read_dir(&folder).with_context(|| folder.display().to_string())?.flatten();
    let names = files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(ending)?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

/// The pictures that are not those of their sources, and how many sources there are.
pub fn stale(root: &Path) -> Result<(Vec<String>, usize)> {
    let (sources, pictures) = (named(root, ".bob")?, named(root, ".svg")?);
    let mut found: Vec<String> = Vec::new();
    for name in pictures.iter().filter(|name| !sources.contains(name)) {
        found.push(format!("{FOLDER}/{name}.svg has no source"));
    }
    for name in &sources {
        let source = fs::read_to_string(root.join(FOLDER).join(format!("{name}.bob")))?;
        let picture = fs::read_to_string(root.join(FOLDER).join(format!("{name}.svg"))).unwrap_or_default();
        if !picture.starts_with(&format!("{LICENCE}\n{}\n", stamp(name, &source))) {
            found.push(format!(
                "{FOLDER}/{name}.svg is not that of {name}.bob: `cargo xtask book --drawings`"
            ));
        }
    }
    Ok((found, sources.len()))
}

/// Makes each picture anew, by `svgbob_cli`.
pub fn draw(root: &Path, svgbob: &Path) -> Result<usize> {
    let names = named(root, ".bob")?;
    ensure!(!names.is_empty(), "{FOLDER} has no drawing");
    for name in &names {
        let file = root.join(FOLDER).join(format!("{name}.bob"));
        let source = fs::read_to_string(&file)?;
        let picture = cmd::output(Command::new(svgbob).arg(&file))?;
        ensure!(picture.starts_with("<svg"), "{}: svgbob made no picture of it", file.display());
        let picture = format!("{LICENCE}\n{}\n{}\n", stamp(name, &source), picture.trim_end());
        fs::write(file.with_extension("svg"), picture)?;
    }
    Ok(names.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_that_is_out_of_date_is_found() {
        let root = std::env::temp_dir().join(format!("mk-ipi-drawings-{}", std::process::id()));
        let folder = root.join(FOLDER);
        fs::create_dir_all(&folder).expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("a file");
        write("a.bob", "-->\n");
        assert_eq!(stale(&root).expect("read").0.len(), 1, "there is no picture");
        write("a.svg", &format!("{LICENCE}\n{}\n<svg></svg>\n", stamp("a", "-->\n")));
        assert_eq!(stale(&root).expect("read"), (Vec::new(), 1));
        write("a.bob", "--->\n");
        assert_eq!(stale(&root).expect("read").0.len(), 1, "the source has changed");
        write("b.svg", "<svg></svg>");
        assert_eq!(stale(&root).expect("read").0.len(), 2, "one has no source");
        fs::remove_dir_all(root).expect("removed");
    }
}
