// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks in the instructions that a kernel links that there is a fence before each doorbell (SPEC A-5, AR-3, RV-3, RV-7). Unit
//! tests with fake registers cannot show that the compiler left the fence in its place. On x86 it also checks the first
//! instruction of each interrupt entry (SPEC A-12).

mod arm64;
mod barriers;
mod riscv64;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{bail, ensure, Context as _, Result};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use object::{Object, ObjectSection, ObjectSymbol};

use super::{no_panic, Context, Notes};
use crate::arch::Arch;
use crate::cmd::Places;
use crate::image;

/// The interrupt command register in x2APIC mode (Intel SDM vol. 3A, table 10-6).
const ICR: u32 = 0x830;

/// The symbols of interrupt entries begin with this (`doorbell_entry!` of mk-ipi-x86).
const ENTRY: &str = "mk_ipi_entry_";

/// The number of correct doorbells and entries in the images.
pub struct Found {
    /// Doorbells of each architecture, each fenced.
    doorbells: [(Arch, usize); 3],
    /// Interrupt entries on x86, each of which begins with `endbr64`.
    entries: usize,
}

/// The step: checks that the images that call every public function have doorbells, each with its fence, and entries, each with
/// `endbr64`.
pub fn run(context: &Context) -> Result<Notes> {
    let found = in_image(context.places)?;
    let mut notes: Notes =
        found.doorbells.iter().map(|(arch, count)| format!("{}: {count} doorbells", arch.target())).collect();
    notes.push(format!("{} interrupt entries", found.entries));
    Ok(notes)
}

/// Builds the images that call every public function, and counts their fenced doorbells and their entries.
pub fn in_image(places: &Places) -> Result<Found> {
    let (mut doorbells, mut entries) = (Arch::ALL.map(|arch| (arch, 0)), 0);
    for (arch, count) in &mut doorbells {
        let mut cargo = places.cargo_in(Path::new(no_panic::FOLDER));
        cargo.env("CARGO_TARGET_DIR", places.own_target("no-panic"));
        let built = image::executables(cargo.args(["build", "--release", "--target", arch.target()]))?;
        let [elf] = built.as_slice() else { bail!("{} must have one executable", no_panic::FOLDER) };
        let bytes = fs::read(elf)?;
        let place = || elf.display().to_string();
        *count = fenced(*arch, &bytes).with_context(place)?;
        if *arch == Arch::X86 {
            entries = marked(&bytes).with_context(place)?;
        }
    }
    Ok(Found { doorbells, entries })
}

/// The number of interrupt entries in an ELF file. An error if one does not begin with `endbr64`, or if there is none.
fn marked(elf: &[u8]) -> Result<usize> {
    let file = object::File::parse(elf)?;
    let mut found = 0;
    // Symbols without a size are included, because an entry is assembly.
    for symbol in file.symbols().filter(|symbol| !symbol.is_undefined()) {
        let name = symbol.name()?;
        if !name.starts_with(ENTRY) {
            continue;
        }
        let section = symbol.section_index().with_context(|| format!("{name} has no section"))?;
        let section = file.section_by_index(section)?;
        let at = symbol.address().checked_sub(section.address()).and_then(|at| usize::try_from(at).ok());
        let code = at.and_then(|at| section.data().ok()?.get(at..));
        let code = code.with_context(|| format!("{name} lies outside its section"))?;
        ensure!(begins_with_endbr64(code), "{name} does not begin with ENDBR64");
        found += 1;
    }
    ensure!(found != 0, "it has no {ENTRY}*, so entries cannot be checked");
    Ok(found)
}

fn begins_with_endbr64(code: &[u8]) -> bool {
    Decoder::new(64, code, DecoderOptions::NONE).decode().mnemonic() == Mnemonic::Endbr64
}

/// The number of doorbells in an ELF file. An error if one has no fence, or if there is none.
fn fenced(arch: Arch, elf: &[u8]) -> Result<usize> {
    let file = object::File::parse(elf)?;
    let text = file.section_by_name(".text").context("it has no .text")?;
    let (code, address) = (text.data()?, text.address());
    let found = match arch {
        Arch::X86 => writes(code, address)?,
        Arch::Arm64 => barriers::doorbells(&arm64::decode(code, address), true)?,
        Arch::Riscv64 => {
            let all = riscv64::decode(code, address)?;
            ensure!(riscv64::fenced_stores(&all) != 0, "it has no fenced doorbell of an IMSIC");
            barriers::doorbells(&all, false)?
        }
    };
    ensure!(found != 0, "it has no doorbell, so the fence cannot be checked");
    Ok(found)
}

/// The number of WRMSR to the ICR in this code. An error if one has no fence.
fn writes(code: &[u8], address: u64) -> Result<usize> {
    let all: Vec<Instruction> =
        Decoder::with_ip(64, code, address, DecoderOptions::NONE).into_iter().collect();
    let targets: BTreeSet<u64> = all.iter().map(Instruction::near_branch_target).collect();
    let (mut found, mut straight) = (0, Vec::new());
    for instruction in all {
        // If this instruction can be jumped to, the instructions before it may not have run.
        if targets.contains(&instruction.ip()) {
            straight.clear();
        }
        if instruction.mnemonic() == Mnemonic::Wrmsr && msr(&straight, instruction.ip())? == ICR {
            let at = instruction.ip();
            ensure!(is_fenced(&straight), "WRMSR to the ICR at {at:#x} without MFENCE; LFENCE before it");
            found += 1;
        }
        if instruction.flow_control() == FlowControl::Next {
            straight.push(instruction);
        } else {
            straight.clear();
        }
    }
    Ok(found)
}

/// The MSR that the next WRMSR writes.
fn msr(before: &[Instruction], at: u64) -> Result<u32> {
    let to_ecx = before.iter().rev().find(|i| matches!(i.op0_register(), Register::ECX | Register::RCX));
    match to_ecx {
        Some(i) if i.mnemonic() == Mnemonic::Mov && i.op1_kind() == OpKind::Immediate32 => {
            Ok(i.immediate32())
        }
        _ => bail!("cannot tell which MSR is written at {at:#x}"),
    }
}

/// MFENCE, LFENCE, and then no access to memory.
fn is_fenced(before: &[Instruction]) -> bool {
    let Some(at) = before.iter().rposition(|i| i.mnemonic() == Mnemonic::Mfence) else { return false };
    let (fence, rest) = before[at..].split_at(before[at..].len().min(2));
    let memory = |i: &Instruction| (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    fence.get(1).is_some_and(|i| i.mnemonic() == Mnemonic::Lfence) && !rest.iter().any(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MFENCE: &[u8] = &[0x0f, 0xae, 0xf0];
    const LFENCE: &[u8] = &[0x0f, 0xae, 0xe8];
    const TO_ICR: &[u8] = &[0xb9, 0x30, 0x08, 0, 0];
    const TO_EOI: &[u8] = &[0xb9, 0x0b, 0x08, 0, 0];
    const WRMSR: &[u8] = &[0x0f, 0x30];
    const STORE: &[u8] = &[0x89, 0x07];
    const MOVE: &[u8] = &[0x89, 0xd8];
    /// To the next instruction.
    const JUMP: &[u8] = &[0x74, 0x00];

    fn found(code: &[&[u8]]) -> Option<usize> {
        writes(&code.concat(), 0x1000).ok()
    }

    #[test]
    fn a_fenced_write_is_found() {
        assert_eq!(found(&[STORE, MFENCE, LFENCE, TO_ICR, MOVE, WRMSR]), Some(1));
        assert_eq!(found(&[TO_EOI, WRMSR, MFENCE, LFENCE, TO_ICR, WRMSR]), Some(1));
        assert_eq!(found(&[TO_EOI, WRMSR]), Some(0));
        assert!(Arch::ALL.iter().all(|arch| fenced(*arch, b"no elf").is_err()));
    }

    #[test]
    fn an_entry_begins_with_endbr64_or_is_an_error() {
        assert!(begins_with_endbr64(&[0xf3, 0x0f, 0x1e, 0xfa, 0x50]));
        // ENDBR32, a push, a cut ENDBR64, nothing.
        for code in [&[0xf3, 0x0f, 0x1e, 0xfb][..], &[0x50, 0xf3, 0x0f, 0x1e, 0xfa], &[0xf3, 0x0f, 0x1e], &[]]
        {
            assert!(!begins_with_endbr64(code), "{code:x?}");
        }
        assert!(marked(b"no elf").is_err());
    }

    #[test]
    fn a_write_without_its_fence_is_an_error() {
        for code in [
            &[TO_ICR, WRMSR][..],
            &[MFENCE, TO_ICR, WRMSR],
            &[LFENCE, TO_ICR, WRMSR],
            &[LFENCE, MFENCE, TO_ICR, WRMSR],
            &[MFENCE, MOVE, LFENCE, TO_ICR, WRMSR],
            &[MFENCE, LFENCE, STORE, TO_ICR, WRMSR],
            &[MFENCE, LFENCE, JUMP, TO_ICR, WRMSR],
            &[WRMSR],
            &[MOVE, WRMSR],
        ] {
            assert_eq!(found(code), None, "{code:x?}");
        }
    }
}
