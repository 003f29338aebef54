// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the public functions of the kernel crates, and checks whether a program names all of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, FnArg, ImplItem, Item, Signature, Type, Visibility};

use crate::cmd::{KERNEL_CRATES, SPAWN_FOLDER};

/// A public function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Function {
    file: String,
    /// The type to which the function belongs, if it has no parameter `self`. Several types have such a function with the same
    /// name, such as `new`. So the program must name the type too.
    owner: Option<String>,
    name: String,
}

/// All public functions of the crates that a kernel links.
pub fn functions(root: &Path) -> Result<Vec<Function>> {
    let mut found = BTreeSet::new();
    for folder in KERNEL_CRATES.into_iter().chain([SPAWN_FOLDER]) {
        for file in rust_files(&root.join(folder).join("src"))? {
            let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            let text = fs::read_to_string(&file)?;
            found.extend(in_text(&text, &shown).with_context(|| shown.clone())?);
        }
    }
    Ok(found.into_iter().collect())
}

/// Returns those of `functions` that no Rust file in `folder` names, as one line of text each.
pub fn not_named(functions: &[Function], folder: &Path) -> Result<Vec<String>> {
    let mut words = Vec::new();
    for file in rust_files(folder)? {
        let text = fs::read_to_string(&file)?;
        flatten(text.parse().map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?, &mut words);
    }
    Ok(missing(functions, &words))
}

/// Returns those of `functions` that `words` do not name, as one line of text each.
fn missing(functions: &[Function], words: &[String]) -> Vec<String> {
    let unnamed = functions.iter().filter(|f| !is_named(f, words));
    unnamed
        .map(|f| match &f.owner {
            Some(owner) => format!("{}: {owner}::{}", f.file, f.name),
            None => format!("{}: {}", f.file, f.name),
        })
        .collect()
}

/// Returns whether the words contain `Owner::name` or `Owner::<..>::name`; or if there is no owner, the name alone.
fn is_named(function: &Function, words: &[String]) -> bool {
    let Some(owner) = &function.owner else { return words.contains(&function.name) };
    let after = words.iter().enumerate().filter(|(_, w)| *w == owner).map(|(at, _)| &words[at + 1..]);
    after.into_iter().any(|rest| {
        let mut depth = 0_i32;
        for word in rest {
            match word.as_str() {
                "<" => depth += 1,
                ">" => depth -= 1,
                ":" => {}
                name if depth <= 0 => return *name == function.name,
                _ => {}
            }
        }
        false
    })
}

/// Adds each token of a program to `words`. A group becomes the word `(`, the tokens in it, and the word `)`, whatever its
/// brackets are.
fn flatten(tokens: TokenStream, words: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                words.push("(".into());
                flatten(group.stream(), words);
                words.push(")".into());
            }
            other => words.push(other.to_string()),
        }
    }
}

/// Returns the public functions in the text of a Rust file.
fn in_text(text: &str, file: &str) -> Result<Vec<Function>> {
    let mut found = Vec::new();
    let parsed = syn::parse_file(text)?;
    if !is_elsewhere(&parsed.attrs) {
        collect(&parsed.items, file, &mut found);
    }
    Ok(found)
}

/// Adds the public functions among `items` to `found`. Functions of a trait are left out.
fn collect(items: &[Item], file: &str, found: &mut Vec<Function>) {
    for item in items {
        match item {
            Item::Mod(module) if !is_elsewhere(&module.attrs) => {
                if let Some((_, items)) = &module.content {
                    collect(items, file, found);
                }
            }
            Item::Fn(f) if is_public(&f.vis) && !is_elsewhere(&f.attrs) => {
                found.push(Function { file: file.into(), owner: None, name: f.sig.ident.to_string() });
            }
            Item::Impl(block) if block.trait_.is_none() && !is_elsewhere(&block.attrs) => {
                for item in &block.items {
                    if let ImplItem::Fn(f) = item {
                        if is_public(&f.vis) && !is_elsewhere(&f.attrs) {
                            found.push(method(file, &block.self_ty, &f.sig));
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

/// Describes a function in an `impl` block of the type `owner`.
fn method(file: &str, owner: &Type, signature: &Signature) -> Function {
    let with_receiver = matches!(signature.inputs.first(), Some(FnArg::Receiver(_)));
    let owner = match owner {
        Type::Path(path) if !with_receiver => path.path.segments.last().map(|s| s.ident.to_string()),
        _ => None,
    };
    Function { file: file.into(), owner, name: signature.ident.to_string() }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Returns whether the attributes say that the item is not in a kernel: `#[cfg(test)]`, `#[cfg(loom)]`, or `#[cfg(all(..))]`
/// without `not`, which the crates use only for tests and models.
fn is_elsewhere(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|a| a.path().is_ident("cfg")).any(|a| {
        let Ok(list) = a.meta.require_list() else { return false };
        let text = list.tokens.to_string();
        text == "test" || text == "loom" || (text.starts_with("all") && !text.contains("not"))
    })
}

/// Returns all Rust files in `folder` and its subfolders. Files and folders whose name ends with `tests` or `loom` are left out.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let is_test = name.ends_with("tests") || name.ends_with("loom");
        if path.is_dir() && !is_test {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") && !is_test {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRATE: &str = "
        pub fn free() {}
        pub(crate) fn inner() {}
        fn private() {}
        pub struct A<T>(T);
        impl<T> A<T> { pub fn new() {} pub fn read(&self) {} fn hidden(&self) {} #[cfg(loom)] pub fn model() {} }
        impl core::fmt::Display for A<u8> { fn fmt(&self) {} }
        pub mod nested { pub const fn deep() {} }
        #[cfg(test)] mod tests { pub fn helper() {} }
        #[cfg(all(loom, test))] pub fn both() {}
        #[cfg(not(loom))] pub fn shipped() {}
    ";

    fn lacking(program: &str) -> Vec<String> {
        let mut words = Vec::new();
        flatten(program.parse().expect("tokens"), &mut words);
        missing(&in_text(CRATE, "lib.rs").expect("source"), &words)
    }

    #[test]
    fn all_public_functions_are_found() {
        let all = ["lib.rs: free", "lib.rs: A::new", "lib.rs: read", "lib.rs: deep", "lib.rs: shipped"];
        assert_eq!(lacking(""), all);
    }

    #[test]
    fn a_file_for_models_alone_has_none() {
        let text = "//! Models.\n#![cfg(loom)]\npub fn model() {}";
        assert_eq!(in_text(text, "line.rs").expect("source").len(), 0);
    }

    #[test]
    fn named_in_any_usual_way() {
        let program =
            "fn main() { free(); let a = crate::A::<[u8; 4]>::new(); a.read(); nested::deep(); shipped(); }";
        assert_eq!(lacking(program), Vec::<String>::new());
        assert_eq!(lacking(&program.replace("crate::A::<[u8; 4]>", "A")), Vec::<String>::new());
    }

    #[test]
    fn a_namesake_or_a_comment_does_not_count() {
        let program =
            "// free\nfn main() { let a = B::new(); a.read(); deep(); shipped(); \"free\"; A { new: 1 } }";
        assert_eq!(lacking(program), ["lib.rs: free", "lib.rs: A::new"]);
    }
}
