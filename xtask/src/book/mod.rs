// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask book`: builds the book in docs/book as a folder of HTML, and its drawings.
//!
//! mdBook takes pages from one folder only. So this makes a copy of that folder, and adds two pages from elsewhere in the
//! repository.

mod check;
mod drawings;
mod page;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};
use clap::Args;

use crate::cmd::{self, Places};
use crate::provision::{self, Need, Provision};

/// The pages and pictures.
const SOURCE: &str = "docs/book/src";
/// The book's folder, which has `book.toml`.
const FOLDER: &str = "docs/book";
/// The copy that mdBook reads, and the folder that it writes. Both are as deep in the repository as the source, so relative
/// links to files of the repository stay valid.
const COPY: &str = "made";
const HTML: &str = "html";
/// Pages of the repository that are added to the book. In the source, a page with the first name is replaced by them.
const CARRIED: [(&str, &str); 2] = [("spec.md", "SPEC.md"), ("evidence.md", "docs/evidence.md")];

/// What `book` takes.
#[derive(Args, Clone, Debug)]
pub struct BookArgs {
    /// Only check the pages, as `cargo xtask test --only book` does
    #[arg(long, conflicts_with = "drawings")]
    check: bool,
    /// Only make the drawings again from their sources
    #[arg(long)]
    drawings: bool,
    /// Install what is missing without asking
    #[arg(long)]
    pub yes: bool,
}

/// The command.
pub fn book(places: &Places, provision: &Provision, args: &BookArgs) -> Result<()> {
    let root = &places.root;
    if args.drawings {
        let svgbob = program(provision, "svgbob_cli")?;
        println!("{} drawings", drawings::draw(root, &svgbob)?);
        return Ok(());
    }
    println!("{}", checked(root)?);
    if args.check {
        return Ok(());
    }
    let mdbook = program(provision, "mdbook")?;
    copy(root)?;
    let mut build = Command::new(mdbook);
    build.current_dir(root.join(FOLDER)).env("MDBOOK_BOOK__SRC", COPY);
    cmd::run(build.args(["build", "--dest-dir", HTML]))?;
    println!("{}", root.join(FOLDER).join(HTML).join("index.html").display());
    Ok(())
}

/// Checks the pages and drawings. Returns a note that says how many there are.
pub fn checked(root: &Path) -> Result<String> {
    let (problems, seen) = check::problems(root)?;
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(format!("{} pages, {} links, {} drawings", seen.pages, seen.links, seen.drawings))
}

fn program(provision: &Provision, name: &'static str) -> Result<PathBuf> {
    let needs = [Need::CargoTool(name)];
    provision.announce(&needs)?;
    provision.ensure(&needs)?;
    provision::tool(name).with_context(|| format!("{name} is not there"))
}

/// Copies the source for mdBook, and adds the pages of [`CARRIED`].
fn copy(root: &Path) -> Result<()> {
    let (from, to) = (root.join(SOURCE), root.join(FOLDER).join(COPY));
    if to.exists() {
        fs::remove_dir_all(&to)?;
    }
    copy_folder(&from, &to)?;
    for (name, page) in CARRIED {
        let text = fs::read_to_string(root.join(page)).context(page)?;
        fs::write(to.join(name), text)?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)?.flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if entry.path().extension().is_some_and(|ending| ending == "md") {
            fs::write(target, carried(&fs::read_to_string(entry.path())?))?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A page, with links to the pages of [`CARRIED`] changed so that they lead to these pages in the book.
fn carried(page: &str) -> String {
    CARRIED.iter().fold(page.to_owned(), |page, (name, from)| {
        page.replace(&format!("](../../../{from}"), &format!("]({name}"))
            .replace(&format!("](../../{}", from.trim_start_matches("docs/")), &format!("]({name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_carried_pages_stay_in_the_book() {
        let page = "[N](../../../SPEC.md#n-native-link) [e](../../evidence.md) [c](../../../examples/linux)";
        assert_eq!(carried(page), "[N](spec.md#n-native-link) [e](evidence.md) [c](../../../examples/linux)");
    }

    #[test]
    fn the_book_is_good() {
        let root = Places::find().expect("the repository").root;
        checked(&root).expect("no problem");
    }
}
