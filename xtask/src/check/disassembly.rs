// SPDX-License-Identifier: MIT OR Apache-2.0
//! The step `disassembly`: checks the compiled code of a program that calls every public function of the kernel crates. Before
//! each doorbell there must be a fence (SPEC A-5, AR-3, RV-3). Unit tests with fake registers cannot show whether the compiler
//! has moved the fence. A doorbell of an IMSIC is a store like any other, so the check cannot find each of them. It only checks
//! that the program has at least one store directly after such a fence (SPEC RV-7). On x86 each interrupt entry must begin with
//! `endbr64` (SPEC A-12).

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

/// The number of the MSR that is the interrupt command register (ICR) in x2APIC mode (Intel SDM vol. 3A, table 10-6).
const ICR: u32 = 0x830;

/// The names of the symbols of interrupt entries begin with this text (`doorbell_entry!` of mk-ipi-x86).
const ENTRY: &str = "mk_ipi_entry_";

/// The numbers of doorbells and interrupt entries that were checked and are right.
pub struct Found {
    /// For each architecture, the number of doorbells that have their fence.
    doorbells: [(Arch, usize); 3],
    /// The number of interrupt entries on x86 that begin with `endbr64`.
    entries: usize,
}

/// Runs the step. Returns notes with the numbers of doorbells and entries.
pub fn run(context: &Context) -> Result<Notes> {
    let found = in_image(context.places)?;
    let mut notes: Notes =
        found.doorbells.iter().map(|(arch, count)| format!("{}: {count} doorbells", arch.target())).collect();
    notes.push(format!("{} interrupt entries", found.entries));
    Ok(notes)
}

/// Builds the program for each architecture, and returns the numbers of doorbells and interrupt entries. It is an error if a
/// doorbell has no fence, or if an entry does not begin with `endbr64`.
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

/// Returns the number of interrupt entries in an ELF file. It is an error if an entry does not begin with `endbr64`, or if there
/// is no entry.
fn marked(elf: &[u8]) -> Result<usize> {
    let file = object::File::parse(elf)?;
    let mut found = 0;
    // Symbols without a size are included, because an entry is written in assembly.
    for symbol in file.symbols().filter(|symbol| !symbol.is_undefined()) {
        let name = symbol.name()?;
        if !name.starts_with(ENTRY) {
            continue;
        }
        let section = symbol.section_index().with_context(|| format!("{name} has no section"))?;
        let section = file.section_by_index(section)?;
        let at = symbol.address().checked_sub(section.address()).and_then(|at| usize::try_from(at).ok());
        let code = at.and_then(|at| section.data().ok()?.get(at..));
        let code = code.with_context(|| format!("{name} is not in its section"))?;
        ensure!(begins_with_endbr64(code), "{name} does not begin with ENDBR64");
        found += 1;
    }
    ensure!(found != 0, "the program has no symbol {ENTRY}*, so interrupt entries cannot be checked");
    Ok(found)
}

fn begins_with_endbr64(code: &[u8]) -> bool {
    Decoder::new(64, code, DecoderOptions::NONE).decode().mnemonic() == Mnemonic::Endbr64
}

/// Returns the number of doorbells in an ELF file. It is an error if a doorbell has no fence, or if there is no doorbell.
fn fenced(arch: Arch, elf: &[u8]) -> Result<usize> {
    let file = object::File::parse(elf)?;
    let text = file.section_by_name(".text").context("the program has no section .text")?;
    let (code, address) = (text.data()?, text.address());
    let found = match arch {
        Arch::X86 => writes(code, address)?,
        Arch::Arm64 => barriers::doorbells(&arm64::decode(code, address), true)?,
        Arch::Riscv64 => {
            let all = riscv64::decode(code, address)?;
            ensure!(
                riscv64::fenced_stores(&all) != 0,
                "the program has no doorbell of an IMSIC with its fence"
            );
            barriers::doorbells(&all, false)?
        }
    };
    ensure!(found != 0, "the program has no doorbell, so the fence cannot be checked");
    Ok(found)
}

/// Returns the number of WRMSR to the ICR in x86-64 code at `address`. It is an error if one of them has no fence.
fn writes(code: &[u8], address: u64) -> Result<usize> {
    let all: Vec<Instruction> =
        Decoder::with_ip(64, code, address, DecoderOptions::NONE).into_iter().collect();
    let targets: BTreeSet<u64> = all.iter().map(Instruction::near_branch_target).collect();
    // `straight` has the instructions directly before the present one. A CPU that comes to the present one has executed them.
    let (mut found, mut straight) = (0, Vec::new());
    for instruction in all {
        // If a jump leads to this instruction, the CPU may not have executed the instructions before it.
        if targets.contains(&instruction.ip()) {
            straight.clear();
        }
        if instruction.mnemonic() == Mnemonic::Wrmsr && msr(&straight, instruction.ip())? == ICR {
            let at = instruction.ip();
            ensure!(
                is_fenced(&straight),
                "the WRMSR to the ICR at {at:#x} has no MFENCE and LFENCE before it"
            );
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

/// Returns the number of the MSR that the WRMSR at `at` writes: the constant that an instruction before it has moved to ECX.
fn msr(before: &[Instruction], at: u64) -> Result<u32> {
    let to_ecx = before.iter().rev().find(|i| matches!(i.op0_register(), Register::ECX | Register::RCX));
    match to_ecx {
        Some(i) if i.mnemonic() == Mnemonic::Mov && i.op1_kind() == OpKind::Immediate32 => {
            Ok(i.immediate32())
        }
        _ => bail!("the code does not show which MSR the WRMSR at {at:#x} writes"),
    }
}

/// Returns whether these instructions contain an MFENCE with an LFENCE directly after it, and no access to memory after that.
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
    /// A jump to the next instruction.
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
        // ENDBR32; a push before ENDBR64; the first three bytes of ENDBR64; no bytes.
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
