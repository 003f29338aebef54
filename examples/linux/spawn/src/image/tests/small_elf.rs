// SPDX-License-Identifier: MIT OR Apache-2.0
//! A writer of small ELF files, for the tests here and the fuzz target.

use std::vec::Vec;

pub const PT_LOAD: u32 = 1;
pub const PT_NOTE: u32 = 4;
/// Offsets in the file's header.
pub const CLASS: usize = 4;
pub const ORDER: usize = 5;
pub const KIND: usize = 16;
pub const MACHINE: usize = 18;
pub const HEADERS: usize = 32;
pub const SECTIONS: usize = 40;
pub const SIZE: usize = 54;
pub const COUNT: usize = 56;
/// Offsets in a program header.
pub const OFFSET: usize = 8;
pub const IN_FILE: usize = 32;

const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// A segment of the file that is written.
#[derive(Clone, Debug)]
pub struct Part {
    pub kind: u32,
    pub at: u64,
    pub bytes: Vec<u8>,
    pub memory: u64,
    pub align: u64,
}

/// A segment that is loaded.
pub fn load(at: u64, bytes: &[u8], memory: u64) -> Part {
    Part { kind: PT_LOAD, at, bytes: bytes.to_vec(), memory, align: 0x1000 }
}

/// A segment of notes.
pub fn notes(bytes: Vec<u8>) -> Part {
    Part { kind: PT_NOTE, at: 0, memory: bytes.len() as u64, bytes, align: 4 }
}

/// A note, padded.
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

/// Xen's note `kind` with these words.
pub fn xen(kind: u32, words: &[u32]) -> Vec<u8> {
    let said: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    note(b"Xen\0", kind, &said)
}

/// The offset of the field `field` of the program header `index`.
pub fn field(index: usize, field: usize) -> usize {
    FILE_HEADER + PROGRAM_HEADER * index + field
}

/// The file with these segments: a program for x86-64, without sections.
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
