// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fuzz target `boot_param`. Without cargo-fuzz this is a program that runs the target on the files named on its command
//! line.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| mk_ipi_fuzz::boot_param(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    mk_ipi_fuzz::replay(mk_ipi_fuzz::boot_param)
}
