// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes small ELF files, for these tests and for the fuzz target.

use std::vec::Vec;

pub const PT_LOAD: u32 = 1;
pub const PT_NOTE: u32 = 4;
/// Offset of `EI_CLASS` in the ELF header.
pub const CLASS: usize = 4;
/// Offset of `EI_DATA` in the ELF header.
pub const ORDER: usize = 5;
/// Offset of `e_type` in the ELF header.
pub const KIND: usize = 16;
/// Offset of `e_machine` in the ELF header.
pub const MACHINE: usize = 18;
/// Offset of `e_phoff` in the ELF header.
pub const HEADERS: usize = 32;
/// Offset of `e_shoff` in the ELF header.
pub const SECTIONS: usize = 40;
/// Offset of `e_phentsize` in the ELF header.
pub const SIZE: usize = 54;
/// Offset of `e_phnum` in the ELF header.
pub const COUNT: usize = 56;
/// Offset of `p_offset` in a program header.
pub const OFFSET: usize = 8;
/// Offset of `p_filesz` in a program header.
pub const IN_FILE: usize = 32;

const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// A segment of the file that is written.
#[derive(Clone, Debug)]
pub struct Part {
    /// `p_type`.
    pub kind: u32,
    /// `p_vaddr` and `p_paddr`.
    pub at: u64,
    /// The content of the segment in the file.
    pub bytes: Vec<u8>,
    /// `p_memsz`.
    pub memory: u64,
    /// `p_align`.
    pub align: u64,
}

/// A segment that is loaded at `at`, with `memory` bytes in memory.
pub fn load(at: u64, bytes: &[u8], memory: u64) -> Part {
    Part { kind: PT_LOAD, at, bytes: bytes.to_vec(), memory, align: 0x1000 }
}

/// A segment of notes.
pub fn notes(bytes: Vec<u8>) -> Part {
    Part { kind: PT_NOTE, at: 0, memory: bytes.len() as u64, bytes, align: 4 }
}

/// A note with padding.
pub fn note(name: &[u8], kind: u32, said: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [name.len() as u32, said.len() as u32, kind] {
        bytes.extend(word.to_le_bytes());
    }
    for part in [name, said] {
        bytes.extend(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// A note of Xen with the type `kind`. Its content is `words`.
pub fn xen(kind: u32, words: &[u32]) -> Vec<u8> {
    let said: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    note(b"Xen\0", kind, &said)
}

/// The offset in the file of a field of the program header `index`. `field` is the field's offset in the program header.
pub fn field(index: usize, field: usize) -> usize {
    FILE_HEADER + PROGRAM_HEADER * index + field
}

/// The bytes of an ELF file with these segments. The file is a program for x86-64 without sections.
pub fn file(parts: &[Part]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(KIND, 0);
    for half in [2u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    for long in [0, FILE_HEADER as u64, 0] {
        file.extend(long.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [FILE_HEADER, PROGRAM_HEADER, parts.len(), 0, 0, 0] {
        file.extend((half as u16).to_le_bytes());
    }
    let mut offset = FILE_HEADER + PROGRAM_HEADER * parts.len();
    for part in parts {
        file.extend(part.kind.to_le_bytes());
        file.extend(0u32.to_le_bytes());
        let len = part.bytes.len();
        for long in [offset as u64, part.at, part.at, len as u64, part.memory, part.align] {
            file.extend(long.to_le_bytes());
        }
        offset += len;
    }
    parts.iter().for_each(|part| file.extend(&part.bytes));
    file
}
