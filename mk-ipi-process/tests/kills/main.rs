// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels that die: three processes stream to each other, and are stopped and killed at random moments, and started again. Each message
//! is accounted for: none is lost, doubled, torn or out of order, but those that SPEC chapter N says may be.
//!
//! `MK_IPI_KILLS=N` says how many kills; `cargo xtask kills N` does that. `MK_IPI_SEED=N` says which moments are tried.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation, reason = "tests")]
#![expect(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod books;
mod journal;
mod kernel;
mod supervisor;

/// Kernels of the machine.
const KERNELS: usize = 3;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.as_slice() {
        [_, word, path, me, command_line] if word == "kernel" => {
            kernel::run(path, me.parse().unwrap(), command_line);
        }
        _ => supervisor::run(),
    }
}
