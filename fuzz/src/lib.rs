// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fuzz targets: functions that get any bytes, and panic if mk-ipi does something wrong. `cargo xtask fuzz` runs them with
//! libFuzzer. `cargo test` in this folder runs them with the seeds and with random bytes; it needs no nightly compiler.

mod boot_param;
mod directory;
mod image;
mod inspect;
mod native;
mod net;
mod services;
mod slot;
mod stamp;

pub use boot_param::boot_param;
pub use directory::directory;
pub use image::image;
pub use inspect::inspect;
pub use native::native;
pub use net::net;
pub use services::services;
pub use slot::slot;
pub use stamp::stamp;

/// Runs a target on the files named on the command line. Such a file can be an input that libFuzzer stored, because it failed.
///
/// # Errors
///
/// If a file cannot be read.
pub fn replay(target: fn(&[u8])) -> std::io::Result<()> {
    for file in std::env::args_os().skip(1) {
        target(&std::fs::read(file)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Runs a target with its seeds, then with `runs` random inputs. If a random input fails, the message has its number.
    fn feed(name: &str, target: fn(&[u8]), runs: u64) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
        for file in std::fs::read_dir(seeds).into_iter().flatten() {
            target(&std::fs::read(file.unwrap().path()).unwrap());
        }
        for seed in 0..runs {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut input = vec![0; random.usize(..1024)];
            random.fill(&mut input);
            let failed = std::panic::catch_unwind(|| target(&input)).is_err();
            assert!(!failed, "{name} fails on random input {seed}");
        }
    }

    #[test]
    fn slots() {
        feed("slot", slot, 3_000);
    }

    #[test]
    fn natives() {
        feed("native", native, 3_000);
    }

    /// Runs the first part of each seed, for many lengths of this part. After each part a hostile kernel writes words of all
    /// kinds, and the inspector explains the regions. `native` itself lets the inspector explain them only at the end of an
    /// input, and only if its first byte is below 64.
    #[test]
    fn the_seeds_of_native_are_explained_wherever_they_stop() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/native");
        let mut files: Vec<_> = std::fs::read_dir(seeds).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        let (mut random, mut quarantines) = (fastrand::Rng::with_seed(1), 0);
        for file in &files {
            let input = std::fs::read(file).unwrap();
            for len in (1..=input.len()).step_by(8).chain([input.len()]) {
                quarantines += native::foretell::explain(&input[..len], &[]);
                let mut words = [0; 1024];
                random.fill(&mut words);
                quarantines += native::foretell::explain(&input[..len], &words);
            }
        }
        // Otherwise the inspector would have explained only lanes that are in order.
        let count = files.len();
        assert!(count >= 8 && quarantines >= 20, "{count} seeds, {quarantines} lanes went into quarantine");
    }

    #[test]
    fn nets() {
        feed("net", net, 30_000);
    }

    #[test]
    fn stamps() {
        feed("stamp", stamp, 10_000);
    }

    #[test]
    fn boot_params() {
        feed("boot_param", boot_param, 30_000);
    }

    #[test]
    fn images() {
        feed("image", image, 30_000);
    }

    #[test]
    fn inspections() {
        feed("inspect", inspect, 3_000);
    }

    #[test]
    fn services_of_a_kernel() {
        feed("services", services, 30_000);
    }

    #[test]
    fn directories() {
        feed("directory", directory, 3_000);
    }
}
