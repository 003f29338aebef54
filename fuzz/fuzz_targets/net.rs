// SPDX-License-Identifier: MIT OR Apache-2.0
//! The target `net`; without cargo-fuzz a program that replays the inputs named on its command line.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| mk_ipi_fuzz::net(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    mk_ipi_fuzz::replay(mk_ipi_fuzz::net)
}
