// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PVH entry of an image: what it is given, and how to find it in an ELF file.

use crate::boot::Boot;
use crate::image::ImageError;
use elf::abi::PT_NOTE;
use elf::endian::LittleEndian;
use elf::note::Note;
use elf::segment::ProgramHeader;
use elf::ElfBytes;

/// The type of the ELF note that contains an image's PVH entry.
const XEN_ELFNOTE_PHYS32_ENTRY: u64 = 18;

/// Reads the start info at `argument`. `None` if no valid one is there.
///
/// # Safety
///
/// `argument` is the address that the PVH entry in boot.s got in ebx.
pub unsafe fn boot(argument: u64) -> Option<Boot> {
    // SAFETY: the caller keeps the safety rules of this function.
    unsafe { Boot::read(argument) }
}

/// The address of the PVH entry, from the first note of the image that contains one.
pub fn image_entry(elf: &ElfBytes<'_, LittleEndian>) -> Result<u64, ImageError> {
    let segments = elf.segments().ok_or(ImageError::NoEntry)?;
    for segment in segments.iter().filter(|segment| segment.p_type == PT_NOTE) {
        if let Some(entry) = entry_in(elf, &segment)? {
            return Ok(entry.into());
        }
    }
    Err(ImageError::NoEntry)
}

/// The address of the PVH entry, if a note in `segment` contains one.
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
