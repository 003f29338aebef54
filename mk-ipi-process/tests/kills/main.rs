// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels that die: three processes stream to each other, and are stopped and killed at random moments, and started again. The
//! test checks each message: none is lost, doubled, torn or out of order, except where SPEC chapter N allows that.
//!
//! `MK_IPI_KILLS=N` sets the number of kills; `cargo xtask kills N` does the same. `MK_IPI_SEED=N` sets the seed of the random
//! numbers.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation, reason = "tests")]
#![expect(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod books;
mod journal;
mod kernel;
mod supervisor;

/// The number of kernels in the machine.
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
