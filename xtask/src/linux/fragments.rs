// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options that we need in the configuration of Linux. Checks that Kconfig has set them.

use anyhow::{ensure, Result};

/// A file with options of Linux's configuration.
pub struct Fragment {
    /// The name of the file.
    pub name: &'static str,
    /// The content of the file: lines such as `CONFIG_X=y`.
    pub text: &'static str,
}

const BASE: Fragment =
    Fragment { name: "base.config", text: include_str!("../../../examples/linux/config/base.config") };
const DEBUG: Fragment =
    Fragment { name: "debug.config", text: include_str!("../../../examples/linux/config/debug.config") };

/// The fragments that are added to Linux's `tinyconfig`; with `debug` also the one with debug checks.
pub fn fragments(debug: bool) -> Vec<Fragment> {
    if debug {
        vec![BASE, DEBUG]
    } else {
        vec![BASE]
    }
}

/// Returns the lines of the fragments that `config`, the final configuration, does not have. Kconfig drops an option without a
/// message if the dependencies of this option are not met. Lines that switch an option off (`=n`) are not compared, because
/// another option can select the option.
pub fn dropped(fragments: &[Fragment], config: &str) -> Vec<String> {
    let has: Vec<&str> = config.lines().map(str::trim).collect();
    let wanted = fragments.iter().flat_map(|f| f.text.lines()).map(str::trim);
    let set = wanted.filter(|line| line.starts_with("CONFIG_") && !line.ends_with("=n"));
    set.filter(|line| !has.contains(line)).map(ToOwned::to_owned).collect()
}

/// It is an error if an option was dropped. The error names the option. If it is `CONFIG_RUST`, then `rust` is called: it returns
/// why Rust is not available.
pub fn check(fragments: &[Fragment], config: &str, rust: impl FnOnce() -> String) -> Result<()> {
    let dropped = dropped(fragments, config);
    let why = if dropped.iter().any(|line| line == "CONFIG_RUST=y") {
        format!("\n`make rustavailable` says:\n{}", rust())
    } else {
        String::new()
    };
    ensure!(dropped.is_empty(), "this Linux cannot be configured with {}{why}", dropped.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Fragment =
        Fragment { name: "t", text: "# CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=n\nCONFIG_RUST=y\nCONFIG_N=16\n" };

    #[test]
    fn what_kconfig_dropped() {
        let all = "CONFIG_B=y\nCONFIG_RUST=y\nCONFIG_N=16\n# CONFIG_C is not set\n";
        assert_eq!(dropped(&[ASKED], all), Vec::<String>::new());
        assert_eq!(dropped(&[ASKED], &format!("{all}CONFIG_C=y\n")), Vec::<String>::new());
        assert_eq!(dropped(&[ASKED], &all.replace("16", "8")), ["CONFIG_N=16"]);
        assert_eq!(dropped(&[ASKED], &all.replace("CONFIG_B=y", "# CONFIG_B is not set")), ["CONFIG_B=y"]);
        assert_eq!(dropped(&[ASKED], &all.replace("CONFIG_B=y", "CONFIG_BB=y")), ["CONFIG_B=y"]);
    }

    #[test]
    fn missing_rust_is_explained() {
        let said = |config: &str| check(&[ASKED], config, || "no bindgen".into()).map_err(|e| e.to_string());
        assert!(said("CONFIG_B=y\nCONFIG_N=16\n").is_err_and(|e| e.contains("no bindgen")));
        assert!(said("CONFIG_RUST=y\nCONFIG_N=16\n").is_err_and(|e| !e.contains("no bindgen")));
        assert!(said("CONFIG_B=y\nCONFIG_RUST=y\nCONFIG_N=16\n").is_ok());
    }

    #[test]
    fn nothing_is_asked_for_twice() {
        let texts: Vec<Fragment> = fragments(true);
        let mut names: Vec<&str> = texts
            .iter()
            .flat_map(|f| f.text.lines())
            .filter_map(|line| line.strip_prefix("CONFIG_")?.split('=').next())
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
