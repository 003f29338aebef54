// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the book. Every page must be in the table of contents. Every link, anchor, included file and test that a page
//! names must exist. Listings must not be too long. Every picture must be made from the present text of its drawing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::page::Page;
use super::{drawings, CARRIED, SOURCE};
use crate::cmd;

/// Listings in the book, and the largest number of lines of code that each can have. Comments and blank lines do not count.
const LISTINGS: [(&str, usize); 3] = [
    ("mk-ipi-process/examples/first_kernel.rs", 100),
    ("examples/first_kernel.c", 85),
    ("examples/rfc_v2_kernel.c", 60),
];
/// Pages that are not in docs/book, and whose links and anchors are checked too.
const OTHER_PAGES: [&str; 7] = [
    "README.md",
    "ROADMAP.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "SPEC.md",
    "docs/evidence.md",
];
/// A name in code font that has at least this many underscores is assumed to be the name of a test. A function with this name
/// must exist.
const TEST_NAME: usize = 4;
/// The page with the table of contents.
const SUMMARY: &str = "SUMMARY.md";

/// The numbers of pages, links and drawings that were checked.
#[derive(Debug, Default)]
pub struct Seen {
    pub pages: usize,
    pub links: usize,
    pub drawings: usize,
}

/// Checks the book. Returns its problems, and how much was checked.
pub fn problems(root: &Path) -> Result<(Vec<String>, Seen)> {
    let mut found = Vec::new();
    let source = root.join(SOURCE);
    let mut own: Vec<String> = names(&source)?.into_iter().filter(|name| name.ends_with(".md")).collect();
    own.retain(|name| name != SUMMARY);
    let mut pages = BTreeMap::new();
    let in_book = own.iter().map(|name| format!("{SOURCE}/{name}"));
    for name in in_book.chain(OTHER_PAGES.map(ToOwned::to_owned)).chain([format!("{SOURCE}/{SUMMARY}")]) {
        let text = fs::read_to_string(root.join(&name)).with_context(|| name.clone())?;
        pages.insert(name, Page::parse(&text));
    }
    found.extend(contents(&own, pages.get(&format!("{SOURCE}/{SUMMARY}")).map_or(&[], |p| &p.links)));
    let mut seen = Seen { pages: pages.len(), ..Seen::default() };
    let code = code(root)?;
    for (name, page) in &pages {
        for link in page.links.iter().filter(|link| !is_remote(link)) {
            seen.links += 1;
            found.extend(bad_link(root, &pages, name, link).map(|why| format!("{name}: {link}: {why}")));
        }
        if name.starts_with(SOURCE) {
            found.extend(
                names_nothing(&page.code, &code).map(|test| format!("{name}: there is no function {test}")),
            );
        }
        for (file, part) in &page.includes {
            found.extend(bad_include(root, name, file, part.as_deref()).map(|why| format!("{name}: {why}")));
        }
    }
    for (file, most) in LISTINGS {
        let text = fs::read_to_string(root.join(file)).context(file)?;
        let lines = lines_of_code(&text);
        if lines > most {
            found.push(format!("{file} has {lines} lines of code, but at most {most} are allowed"));
        }
    }
    let (stale, count) = drawings::stale(root)?;
    found.extend(stale);
    seen.drawings = count;
    Ok((found, seen))
}

/// Returns the text of all Rust files of the repository.
fn code(root: &Path) -> Result<String> {
    let mut git = Command::new("git");
    let listed = cmd::output(git.current_dir(root).args(["ls-files", "-z", "--", "*.rs"]))?;
    let files = listed.split('\0').filter(|name| !name.is_empty());
    Ok(files.filter_map(|name| fs::read_to_string(root.join(name)).ok()).collect())
}

/// Returns those names in `named` that look like the name of a test, if `code` does not declare a function with this name.
fn names_nothing<'a>(named: &'a [String], code: &'a str) -> impl Iterator<Item = &'a str> {
    let is_name = |text: &&str| {
        text.matches('_').count() >= TEST_NAME && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let is_made = |name: &&str| {
        [format!("fn {name}("), format!("fn {name}<"), format!(" {name}: ")].iter().any(|f| code.contains(f))
    };
    named.iter().map(String::as_str).filter(is_name).filter(move |name| !is_made(name))
}

/// Returns the names of the files in a folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// Returns a problem for each page that the table of contents does not list exactly once.
fn contents(own: &[String], listed: &[String]) -> Vec<String> {
    let pages: BTreeSet<&String> = own.iter().collect();
    let mut found: Vec<String> = Vec::new();
    for page in &pages {
        match listed.iter().filter(|link| link == page).count() {
            1 => {}
            n => found.push(format!("{SUMMARY} lists {page} {n} times")),
        }
    }
    found
}

fn is_remote(link: &str) -> bool {
    link.contains("://") || link.starts_with("mailto:")
}

/// Returns the path in the repository to which a relative link in `folder` leads, without `..`. Returns `None` if the link leads
/// out of the repository.
fn resolve(folder: &Path, link: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in folder.join(link).components() {
        match part {
            Component::ParentDir => path.pop().then_some(())?,
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    Some(path)
}

/// Returns why a link in the page `name` is wrong, or `None` if it is right.
fn bad_link(root: &Path, pages: &BTreeMap<String, Page>, name: &str, link: &str) -> Option<String> {
    let (target, anchor) =
        link.split_once('#').map_or((link, None), |(target, anchor)| (target, Some(anchor)));
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    let path = if target.is_empty() { Some(PathBuf::from(name)) } else { resolve(folder, target) };
    let Some(path) = path else { return Some("the link leads out of the repository".into()) };
    if !root.join(&path).exists() {
        return Some("there is no such file".into());
    }
    let path = path.to_string_lossy();
    let is_of_book = name.starts_with(SOURCE);
    if is_of_book && target.ends_with(".md") && !path.starts_with(SOURCE) {
        // mdBook would change the link to an .html file, which does not exist.
        if !CARRIED.iter().any(|(_, from)| *from == path) {
            return Some("the page is not in the book: link to its folder instead".into());
        }
    }
    let page = pages.get(&*path)?;
    match anchor {
        Some(anchor) if !page.anchors.contains(anchor) => Some("there is no such heading".into()),
        _ => None,
    }
}

/// Returns why an include in the page `name` is wrong, or `None` if it is right.
fn bad_include(root: &Path, name: &str, file: &str, part: Option<&str>) -> Option<String> {
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    let text = resolve(folder, file).and_then(|path| fs::read_to_string(root.join(path)).ok());
    let Some(text) = text else { return Some(format!("the page includes {file}, which does not exist")) };
    let part = part?;
    let has = |mark: &str| {
        text.lines().any(|line| {
            line.trim_end().ends_with(&format!("{mark}: {part}"))
                || line.contains(&format!("{mark}: {part} "))
        })
    };
    (!has("ANCHOR") || !has("ANCHOR_END")).then(|| {
        format!("the page includes the part {part} of {file}, but that file does not mark such a part")
    })
}

/// Returns the number of lines that are neither blank nor comments.
fn lines_of_code(text: &str) -> usize {
    let is_code = |line: &&str| {
        let line = line.trim();
        let is_comment = line.starts_with("//") || (line.starts_with("/*") && line.ends_with("*/"));
        !line.is_empty() && !is_comment
    };
    text.lines().filter(is_code).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a temporary tree: a page of the book with this text, a second page, pages outside of the book, and a file with a
    /// marked part. Returns its root.
    fn tree(name: &str, text: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("mk-ipi-book-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join(SOURCE)).expect("a folder");
        for (file, text) in [
            ("SPEC.md", "# Spec\n"),
            ("other.md", "# Other\n"),
            ("x.rs", "// ANCHOR: a\nfn x() {}\n// ANCHOR_END: a\n"),
            ("docs/book/src/page.md", text),
            ("docs/book/src/second.md", "# Second one\n"),
        ] {
            fs::write(root.join(file), text).expect("a file");
        }
        root
    }

    /// Returns the problems of a page of the book that has this text.
    fn wrong(name: &str, text: &str) -> Vec<String> {
        let root = tree(name, text);
        let mut pages = BTreeMap::new();
        for file in ["SPEC.md", "docs/book/src/page.md", "docs/book/src/second.md"] {
            let text = fs::read_to_string(root.join(file)).expect("a page");
            pages.insert(file.to_owned(), Page::parse(&text));
        }
        let own = "docs/book/src/page.md";
        let page = &pages[own];
        let mut found: Vec<String> =
            page.links.iter().filter_map(|link| bad_link(&root, &pages, own, link)).collect();
        found.extend(page.includes.iter().filter_map(|(f, p)| bad_include(&root, own, f, p.as_deref())));
        fs::remove_dir_all(root).expect("removed");
        found
    }

    #[test]
    fn good_links_and_includes_pass() {
        let text =
            "# Here\n[a](second.md#second-one) [b](../../../SPEC.md#spec) [c](#here) [d](../../../x.rs)\n\
            {{#include ../../../x.rs:a}}\n";
        assert_eq!(wrong("good", text), [""; 0]);
    }

    #[test]
    fn a_bad_link_is_named() {
        for (text, why) in [
            ("[a](none.md)", "there is no such file"),
            ("[a](second.md#none)", "there is no such heading"),
            ("[a](#none)", "there is no such heading"),
            ("![a](none.svg)", "there is no such file"),
            ("[a](../../../other.md)", "the page is not in the book: link to its folder instead"),
            ("[a](../../../../x)", "the link leads out of the repository"),
        ] {
            assert_eq!(wrong("bad", text), [why], "{text}");
        }
    }

    #[test]
    fn a_bad_include_is_named() {
        assert_eq!(wrong("no-file", "{{#include no.rs}}").len(), 1);
        assert_eq!(wrong("no-part", "{{#include ../../../x.rs:b}}").len(), 1);
    }

    #[test]
    fn each_page_is_listed_once() {
        let own = ["a.md".to_owned(), "b.md".to_owned()];
        assert_eq!(contents(&own, &own), [""; 0]);
        assert_eq!(contents(&own, &own[..1]), ["SUMMARY.md lists b.md 0 times"]);
        assert_eq!(contents(&own[..1], &["a.md".into(), "a.md".into()]), ["SUMMARY.md lists a.md 2 times"]);
    }

    #[test]
    fn a_test_that_is_not_there_is_named() {
        let code = "fn one_that_is_there_now() {}\n    a_model_of_a_macro: model,\n";
        let named = ["one_that_is_there_now", "a_model_of_a_macro", "one_that_is_not_there", "run_deferred"];
        let named = named.map(ToOwned::to_owned);
        assert_eq!(names_nothing(&named, code).collect::<Vec<_>>(), ["one_that_is_not_there"]);
    }

    #[test]
    fn comments_and_blank_lines_are_no_code() {
        assert_eq!(lines_of_code("// a\n\nfn b() {}\n/* c */\nint d; /* e */\n"), 2);
    }
}
