// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask book`: checks the book in docs/book, and builds it as a folder of HTML. It can also make the book's drawings.
//!
//! mdBook reads pages from one folder only, but two pages of the book are elsewhere in the repository. So the command makes a
//! copy of the book's folder, adds the two pages, and gives the copy to mdBook.

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

/// The folder of the book's pages and pictures.
const SOURCE: &str = "docs/book/src";
/// The folder of `book.toml`.
const FOLDER: &str = "docs/book";
/// The copy that mdBook reads, in [`FOLDER`]. It is as deep in the repository as [`SOURCE`], so relative links to files of the
/// repository stay valid.
const COPY: &str = "made";
/// The folder that mdBook writes, in [`FOLDER`]. It is as deep as [`SOURCE`], for the same reason.
const HTML: &str = "html";
/// Pages of the repository that are added to the book: the file name in the book, and the path in the repository. If [`SOURCE`]
/// has a page with this name, the added page replaces it.
const CARRIED: [(&str, &str); 2] = [("spec.md", "SPEC.md"), ("evidence.md", "docs/evidence.md")];

/// The options of `cargo xtask book`.
#[derive(Args, Clone, Debug)]
pub struct BookArgs {
    /// Only check the pages and the drawings, as `cargo xtask test --only book` does
    #[arg(long, conflicts_with = "drawings")]
    check: bool,
    /// Only make the pictures again from their text files
    #[arg(long)]
    drawings: bool,
    /// Install missing tools without asking
    #[arg(long)]
    pub yes: bool,
}

/// The command `cargo xtask book`.
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

/// Checks the pages and drawings. Returns a note that says how many pages, links and drawings there are.
pub fn checked(root: &Path) -> Result<String> {
    let (problems, seen) = check::problems(root)?;
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(format!("{} pages, {} links, {} drawings", seen.pages, seen.links, seen.drawings))
}

/// Returns the path of a tool, and installs the tool if it is missing.
fn program(provision: &Provision, name: &'static str) -> Result<PathBuf> {
    let needs = [Need::CargoTool(name)];
    provision.announce(&needs)?;
    provision.ensure(&needs)?;
    provision::tool(name).with_context(|| format!("{name} was not found after it was installed"))
}

/// Copies [`SOURCE`] for mdBook, and adds the pages of [`CARRIED`].
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

/// Returns the text of a page, in which each link to a page of [`CARRIED`] leads to that page in the book.
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
