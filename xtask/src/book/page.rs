// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parses a page of the book: the anchors of its headings, its links, and the files that it includes.

use std::collections::{BTreeMap, BTreeSet};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// What a page of Markdown contains.
#[derive(Debug, Default)]
pub struct Page {
    /// The anchors of its headings.
    pub anchors: BTreeSet<String>,
    /// The targets of its links and pictures.
    pub links: Vec<String>,
    /// The files that mdBook includes in the page. If the page includes only a part of the file, then also the name of the part.
    pub includes: Vec<(String, Option<String>)>,
    /// The texts between backquotes in the page.
    pub code: Vec<String>,
}

impl Page {
    /// Parses the text of a page.
    pub fn parse(text: &str) -> Self {
        let mut page = Self { includes: includes(text), ..Self::default() };
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut heading: Option<String> = None;
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            if let Event::Code(code) = &event {
                page.code.push(code.to_string());
            }
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(part) | Event::Code(part) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&part);
                    }
                }
                Event::End(TagEnd::Heading(_)) => {
                    let slug = slug(&heading.take().unwrap_or_default());
                    let count = seen.entry(slug.clone()).or_insert(0);
                    page.anchors.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
                    *count += 1;
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                _ => {}
            }
        }
        page
    }
}

/// Returns the anchor that mdBook and GitHub make for a heading.
fn slug(heading: &str) -> String {
    let anchor = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c.to_ascii_lowercase()),
        c if c.is_whitespace() => Some('-'),
        _ => None,
    };
    heading.trim().chars().filter_map(anchor).collect()
}

/// Returns the file and the part of each `{{#include FILE}}` and `{{#include FILE:PART}}`.
fn includes(text: &str) -> Vec<(String, Option<String>)> {
    let after = text.split("{{#include ").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0.trim()));
    after
        .map(|target| match target.split_once(':') {
            Some((file, part)) => (file.to_owned(), Some(part.to_owned())),
            None => (target.to_owned(), None),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_links_and_includes_are_found() {
        let page = Page::parse(
            "# A `first` kernel: x, y\n\n## Same\n\n## Same\n\n[a](b.md#c) ![d](e.svg)\n\n[f]: g.md\n[f]\n\n\
            ```rust\n# no heading\n[no](link)\n{{#include ../x.rs:part}}\n```\n{{#include y.md}}\n",
        );
        assert_eq!(page.anchors.iter().collect::<Vec<_>>(), ["a-first-kernel-x-y", "same", "same-1"]);
        assert_eq!(page.links, ["b.md#c", "e.svg", "g.md"]);
        assert_eq!(page.code, ["first"]);
        let part = ("../x.rs".to_owned(), Some("part".to_owned()));
        assert_eq!(page.includes, [part, ("y.md".to_owned(), None)]);
    }
}
