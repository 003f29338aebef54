// SPDX-License-Identifier: MIT OR Apache-2.0
//! The option `--kernels`: the number of kernels of a demo, and the language of each.

use std::fmt;
use std::str::FromStr;

use anyhow::{bail, ensure, Error, Result};

/// The language of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lang {
    /// Rust: the kernel in `examples/bare-metal`.
    Rust,
    /// C: the kernel in `examples/c-kernel`. It cannot be the host, cannot be killed, and does not run the conformance suite.
    C,
}

/// The languages of 2 to 16 kernels. The first kernel is the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernels(Vec<Lang>);

impl Kernels {
    /// Returns this number of kernels, all in Rust.
    pub fn rust(count: usize) -> Self {
        Self(vec![Lang::Rust; count])
    }

    /// The number of kernels.
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// The language of each kernel.
    pub fn langs(&self) -> &[Lang] {
        &self.0
    }

    /// Whether a kernel is written in C.
    pub fn has_c(&self) -> bool {
        self.0.contains(&Lang::C)
    }
}

/// The text is a number, or a list such as `rust,c,rust`.
impl FromStr for Kernels {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let kernels = match text.parse() {
            Ok(count @ 0..=16) => Self::rust(count),
            Ok(_) => bail!("there can be at most 16 kernels"),
            Err(_) => Self(text.split(',').map(lang).collect::<Result<_>>()?),
        };
        ensure!((2..=16).contains(&kernels.0.len()), "there must be 2 to 16 kernels");
        ensure!(
            kernels.0.first() == Some(&Lang::Rust),
            "the first kernel is the host, which must be in Rust"
        );
        Ok(kernels)
    }
}

fn lang(word: &str) -> Result<Lang> {
    match word {
        "rust" => Ok(Lang::Rust),
        "c" => Ok(Lang::C),
        _ => bail!("`{word}` is neither `rust` nor `c`"),
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
