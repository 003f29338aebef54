// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system's C compiler agrees on size, alignment and every offset of the RFC v2 layout (SPEC chapter L).
#![cfg(not(miri))]
#![expect(clippy::unwrap_used, clippy::panic, clippy::arithmetic_side_effects, reason = "a test may panic")]

use mk_ipi_abi::rfc_v2::*;
use mk_ipi_abi::Pfn;
use std::collections::BTreeMap;
use std::env;
use std::mem::{align_of, offset_of, size_of, size_of_val};
use std::path::Path;
use std::process::Command;

/// Compiles and runs the C program. Returns the numbers that it prints, by name.
fn c_says() -> BTreeMap<String, u64> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/layout.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("layout-{}", std::process::id()));
    let cc = env::var("CC").unwrap_or_else(|_| "cc".into());
    let mut compile = Command::new(&cc);
    compile.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o"]).args([&program, &source]);
    let status = compile.status().unwrap_or_else(|e| {
        panic!("no C compiler `{cc}` ({e}): install one (Debian: gcc), or name it in CC")
    });
    assert!(status.success(), "`{cc}` does not compile {}", source.display());
    let out = Command::new(&program).output().unwrap();
    std::fs::remove_file(&program).unwrap();
    assert!(out.status.success());
    let lines = String::from_utf8(out.stdout).unwrap();
    lines.lines().map(|l| l.rsplit_once(' ').unwrap()).map(|(n, v)| (n.into(), v.parse().unwrap())).collect()
}

/// Adds the sizes and offsets that Rust has for a region of `N` slots, under the names that the C program prints.
fn region<const N: usize>(expected: &mut Vec<(String, u64)>) {
    let last = offset_of!(MkSharedData<N>, cpu_data) + (N - 1) * SLOT_SIZE;
    let size = size_of::<MkSharedData<N>>();
    assert_eq!(size as u64, region_size(N.try_into().unwrap()));
    for (name, value) in [
        ("region", size),
        ("region-align", align_of::<MkSharedData<N>>()),
        ("slots-at", offset_of!(MkSharedData<N>, cpu_data)),
        ("last-slot", last),
    ] {
        expected.push((format!("{name} {N}"), value as u64));
    }
}

#[test]
fn the_c_compiler_agrees_on_every_offset() {
    let data = MkIpiData::EMPTY;
    let mut expected: Vec<(String, u64)> = [
        ("size", size_of::<MkIpiData>()),
        ("align", align_of::<MkIpiData>()),
        ("offset sender_cpu", offset_of!(MkIpiData, sender_cpu)),
        ("size sender_cpu", size_of_val(&data.sender_cpu)),
        ("offset type", offset_of!(MkIpiData, msg_type)),
        ("size type", size_of_val(&data.msg_type)),
        ("offset data_size", offset_of!(MkIpiData, data_size)),
        ("size data_size", size_of_val(&data.data_size)),
        ("offset buffer", offset_of!(MkIpiData, buffer)),
        ("size buffer", size_of_val(&data.buffer)),
        ("MK_MAX_DATA_SIZE", MK_MAX_DATA_SIZE),
        ("MK_MAX_INSTANCES", MK_MAX_INSTANCES),
        ("MK_PFN_IPI_TYPE", MK_PFN_IPI_TYPE.0 as usize),
        ("MULTIKERNEL_VECTOR", MULTIKERNEL_VECTOR.get().into()),
        ("pfn-size", encode_pfn(Pfn(0)).len()),
    ]
    .map(|(name, value)| (name.to_owned(), value as u64))
    .into();
    region::<1>(&mut expected);
    region::<8>(&mut expected);
    region::<64>(&mut expected);
    region::<256>(&mut expected);
    region::<512>(&mut expected);
    region::<8192>(&mut expected);
    assert_eq!(c_says(), expected.into_iter().collect());
}
