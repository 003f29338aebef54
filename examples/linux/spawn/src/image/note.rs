// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the notes of an image that Xen's public `elfnote.h` defines.

use super::{data_of, Headers, ImageError, Relocation};
use elf::abi::PT_NOTE;
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::note::{Note, NoteIterator};
use mk_ipi_abi::{PhysAddr, PAGE_SIZE};

/// How many notes of a segment are read. Further notes are ignored.
pub const MAX_NOTES: usize = 64;

/// `XEN_ELFNOTE_PHYS32_ENTRY`: the address of the 32-bit entry.
pub(super) const PHYS32_ENTRY: u64 = 18;
/// `XEN_ELFNOTE_PHYS32_RELOC`: the image can be moved, within these limits.
pub(super) const PHYS32_RELOC: u64 = 19;

/// The alignment of the image, if the note names none, and no segment is aligned to a page or more.
const DEFAULT_ALIGN: u64 = 0x20_0000;
/// The highest address of the last byte of the image, if the note does not name one.
const DEFAULT_MAX: u32 = u32::MAX;

/// Returns the content of the first note of Xen with the type `kind`. `None` if there is no such note.
pub(super) fn find<'a>(
    file: &'a [u8],
    headers: Headers<'_>,
    kind: u64,
) -> Result<Option<&'a [u8]>, ImageError> {
    for header in headers.iter().filter(|header| header.p_type == PT_NOTE) {
        // The name and the content of a note are padded to a multiple of 4 bytes, or of 8 bytes if the segment is aligned
        // to 8.
        let align = if header.p_align == 8 { 8 } else { 4 };
        let notes = NoteIterator::new(LittleEndian, Class::ELF64, align, data_of(file, &header)?);
        for note in notes.take(MAX_NOTES) {
            match note {
                Note::Unknown(note) if note.n_type == kind && note.name == b"Xen\0" => {
                    return Ok(Some(note.desc))
                }
                _ => {}
            }
        }
    }
    Ok(None)
}

/// Reads the content of the note `PHYS32_ENTRY`: an address of 4 bytes, or of 8 bytes whose upper half is 0.
pub(super) fn entry(said: &[u8]) -> Result<u32, ImageError> {
    match *said {
        [a, b, c, d] | [a, b, c, d, 0, 0, 0, 0] => Ok(u32::from_le_bytes([a, b, c, d])),
        _ => Err(ImageError::EntryNote(said.len())),
    }
}

/// Reads the content of the note `PHYS32_RELOC`. It has up to three words: the alignment, the lowest start, and the highest
/// address of the last byte. `segments` is the largest alignment of a segment. If the note names no alignment, `segments`
/// is used if it is at least the page size, and `DEFAULT_ALIGN` otherwise.
pub(super) fn relocation(said: &[u8], segments: u64) -> Result<Relocation, ImageError> {
    if said.len() > 12 || said.len() % 4 != 0 {
        return Err(ImageError::RelocationNote(said.len()));
    }
    let mut words =
        said.chunks_exact(4).filter_map(|word| word.first_chunk()).map(|w| u32::from_le_bytes(*w));
    let default = if segments >= PAGE_SIZE { segments } else { DEFAULT_ALIGN };
    let align = words.next().map_or(default, u64::from);
    if !align.is_power_of_two() {
        return Err(ImageError::Alignment(align));
    }
    let [min, max] = [0, DEFAULT_MAX].map(|default| PhysAddr(words.next().unwrap_or(default).into()));
    if min > max {
        return Err(ImageError::Bounds { min, max });
    }
    // The host's memory is divided into pages, so a smaller alignment is not possible.
    Ok(Relocation { align: align.max(PAGE_SIZE), min, max })
}
