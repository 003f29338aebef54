// SPDX-License-Identifier: MIT OR Apache-2.0
//! How an image is entered: by PVH, from the emulator or through the trampoline of boot.s.

use crate::boot::Boot;
use crate::image::ImageError;
use elf::abi::PT_NOTE;
use elf::endian::LittleEndian;
use elf::note::Note;
use elf::segment::ProgramHeader;
use elf::ElfBytes;

/// The note that gives an image's PVH entry.
const XEN_ELFNOTE_PHYS32_ENTRY: u64 = 18;

/// What the PVH entry was given: the start info at `argument`. `None` if there is none.
///
/// # Safety
///
/// `argument` is what the PVH entry was given.
pub unsafe fn boot(argument: u64) -> Option<Boot> {
    // SAFETY: the caller promises it.
    unsafe { Boot::read(argument) }
}

/// The PVH entry that a note of the image names.
pub fn image_entry(elf: &ElfBytes<'_, LittleEndian>) -> Result<u64, ImageError> {
    let segments = elf.segments().ok_or(ImageError::NoEntry)?;
    for segment in segments.iter().filter(|segment| segment.p_type == PT_NOTE) {
        if let Some(entry) = entry_in(elf, &segment)? {
            return Ok(entry.into());
        }
    }
    Err(ImageError::NoEntry)
}

/// The PVH entry that the notes of `segment` name, if any does.
fn entry_in(elf: &ElfBytes<'_, LittleEndian>, segment: &ProgramHeader) -> Result<Option<u32>, ImageError> {
    for note in elf.segment_data_as_notes(segment)? {
        if let Note::Unknown(note) = note {
            if note.n_type == XEN_ELFNOTE_PHYS32_ENTRY && note.name.starts_with(b"Xen") {
                let word = note.desc.first_chunk::<4>().ok_or(ImageError::NoEntry)?;
                return Ok(Some(u32::from_le_bytes(*word)));
            }
        }
    }
    Ok(None)
}
