// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernels of a demo: how many, and the language of each.

use std::fmt;
use std::str::FromStr;

use anyhow::{bail, ensure, Error, Result};

/// The language of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lang {
    /// `examples/bare-metal`.
    Rust,
    /// `examples/c-kernel`. It cannot be the host, cannot be killed, and does not run the conformance suite.
    C,
}

/// Two to 16 kernels, the host first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernels(Vec<Lang>);

impl Kernels {
    /// This many kernels, all in Rust.
    pub fn rust(count: usize) -> Self {
        Self(vec![Lang::Rust; count])
    }

    /// How many.
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// The language of each.
    pub fn langs(&self) -> &[Lang] {
        &self.0
    }

    /// Whether any is written in C.
    pub fn has_c(&self) -> bool {
        self.0.contains(&Lang::C)
    }
}

/// A number, or a list such as `rust,c,rust`.
impl FromStr for Kernels {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let kernels = match text.parse() {
            Ok(count @ 0..=16) => Self::rust(count),
            Ok(_) => bail!("at most 16 kernels"),
            Err(_) => Self(text.split(',').map(lang).collect::<Result<_>>()?),
        };
        ensure!((2..=16).contains(&kernels.0.len()), "2 to 16 kernels");
        ensure!(kernels.0.first() == Some(&Lang::Rust), "the first one is the host, which must be in Rust");
        Ok(kernels)
    }
}

fn lang(word: &str) -> Result<Lang> {
    match word {
        "rust" => Ok(Lang::Rust),
        "c" => Ok(Lang::C),
        _ => bail!("`{word}` is neither rust nor c"),
    }
}

impl fmt::Display for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|lang| if *lang == Lang::C { "c" } else { "rust" }).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_a_list() {
        assert_eq!("3".parse::<Kernels>().expect("three"), Kernels::rust(3));
        let mixed: Kernels = "rust,c,rust".parse().expect("a list");
        assert_eq!(mixed.langs(), [Lang::Rust, Lang::C, Lang::Rust]);
        assert_eq!((mixed.count(), mixed.to_string().as_str(), mixed.has_c()), (3, "rust,c,rust", true));
        for bad in ["", "0", "1", "17", "rust", "c,rust", "rust,go", "rust,,c", "-2"] {
            assert!(bad.parse::<Kernels>().is_err(), "{bad}");
        }
    }
}
