// SPDX-License-Identifier: MIT OR Apache-2.0
//! The drawings of the book. A picture is made from a text file: by `svgbob` if it is a drawing, by `anstyle_svg` if it is the
//! output of a command. Each picture contains a checksum of its text file. The check compares only these checksums, so it does
//! not need `svgbob` to find a picture that is out of date.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anstyle_svg::Term;
use anyhow::{ensure, Context, Result};

use crate::cmd;

/// The folder of the text files and the pictures.
pub const FOLDER: &str = "docs/book/src/drawings";
/// The file name extensions of the text files: a drawing, and the output of a command.
const SOURCES: [&str; 2] = ["bob", "term"];
/// The first line of each picture.
const LICENCE: &str = "<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->";

/// Returns the second line of the picture that is made from the text file `name`. `source` is the content of that file.
fn stamp(name: &str, source: &str) -> String {
    format!("<!-- Made by xtask of {name}, whose sum is {:016x}: do not edit. -->", sum(source))
}

/// Returns the checksum of a text (FNV-1a). It shows that a text was changed by mistake. It does not protect against an attack.
fn sum(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Returns the files in [`FOLDER`] that have one of these extensions, sorted by name.
fn named(root: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let folder = root.join(FOLDER);
    let files = fs::read_dir(&folder).with_context(|| folder.display().to_string())?.flatten();
    let has_one =
        |file: &PathBuf| file.extension().and_then(OsStr::to_str).is_some_and(|e| endings.contains(&e));
    let mut files: Vec<PathBuf> = files.map(|file| file.path()).filter(has_one).collect();
    files.sort();
    Ok(files)
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns a problem for each picture that was not made from the present text file, or has no text file. Also returns the number
/// of text files.
pub fn stale(root: &Path) -> Result<(Vec<String>, usize)> {
    let (sources, pictures) = (named(root, &SOURCES)?, named(root, &["svg"])?);
    let mut found: Vec<String> = Vec::new();
    for picture in &pictures {
        if !SOURCES.iter().any(|ending| sources.contains(&picture.with_extension(ending))) {
            found.push(format!("{FOLDER}/{} has no text file from which it was made", name_of(picture)));
        }
    }
    for file in &sources {
        let (name, source) = (name_of(file), fs::read_to_string(file)?);
        let picture = fs::read_to_string(file.with_extension("svg")).unwrap_or_default();
        if !picture.starts_with(&format!("{LICENCE}\n{}\n", stamp(&name, &source))) {
            found.push(format!(
                "the picture of {FOLDER}/{name} is missing or out of date: run `cargo xtask book --drawings`"
            ));
        }
    }
    Ok((found, sources.len()))
}

/// Makes each picture again. `svgbob` is the path of the program `svgbob_cli`. Returns the number of pictures.
pub fn draw(root: &Path, svgbob: &Path) -> Result<usize> {
    let sources = named(root, &SOURCES)?;
    ensure!(!sources.is_empty(), "{FOLDER} has no drawing");
    for file in &sources {
        let (name, source) = (name_of(file), fs::read_to_string(file)?);
        let picture = if file.extension().is_some_and(|ending| ending == "term") {
            Term::new().render_svg(&source)
        } else {
            cmd::output(Command::new(svgbob).arg(file))?
        };
        ensure!(picture.starts_with("<svg"), "no picture could be made of {name}");
        let picture = format!("{LICENCE}\n{}\n{}\n", stamp(&name, &source), picture.trim_end());
        fs::write(file.with_extension("svg"), picture)?;
    }
    Ok(sources.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_is_a_comment_of_xml() {
        let stamp = stamp("a.bob", "-->\n");
        let inner = stamp.strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->"));
        assert!(inner.is_some_and(|text| !text.contains("--")), "{stamp}");
    }

    #[test]
    fn a_terminal_becomes_a_picture_without_a_tool() {
        let root = std::env::temp_dir().join(format!("mk-ipi-terminal-{}", std::process::id()));
        fs::create_dir_all(root.join(FOLDER)).expect("a folder");
        fs::write(root.join(FOLDER).join("run.term"), "$ cargo run\nhello & <goodbye>\n").expect("a file");
        assert_eq!(draw(&root, Path::new("no such tool")).expect("drawn"), 1);
        assert_eq!(stale(&root).expect("read"), (Vec::new(), 1));
        let picture = fs::read_to_string(root.join(FOLDER).join("run.svg")).expect("a picture");
        assert!(picture.contains("hello &amp; &lt;goodbye&gt;"), "{picture}");
        fs::remove_dir_all(root).expect("removed");
    }

    #[test]
    fn a_picture_that_is_out_of_date_is_found() {
        let root = std::env::temp_dir().join(format!("mk-ipi-drawings-{}", std::process::id()));
        let folder = root.join(FOLDER);
        fs::create_dir_all(&folder).expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("a file");
        write("a.bob", "-->\n");
        assert_eq!(stale(&root).expect("read").0.len(), 1, "there is no picture");
        write("a.svg", &format!("{LICENCE}\n{}\n<svg></svg>\n", stamp("a.bob", "-->\n")));
        assert_eq!(stale(&root).expect("read"), (Vec::new(), 1));
        write("a.bob", "--->\n");
        assert_eq!(stale(&root).expect("read").0.len(), 1, "the source has changed");
        write("b.svg", "<svg></svg>");
        assert_eq!(stale(&root).expect("read").0.len(), 2, "one has no source");
        fs::remove_dir_all(root).expect("removed");
    }
}
