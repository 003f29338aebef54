// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loads another kernel's ELF file to where it was linked.

use crate::layout;
use core::fmt;
use elf::abi::PT_LOAD;
use elf::endian::LittleEndian;
use elf::note::Note;
use elf::segment::ProgramHeader;
use elf::{ElfBytes, ParseError};
use mk_ipi_abi::{PhysAddr, PhysRange};

/// The note that gives an image's PVH entry.
const XEN_ELFNOTE_PHYS32_ENTRY: u64 = 18;
/// `PT_NOTE`.
const PT_NOTE: u32 = elf::abi::PT_NOTE;

/// Why an image cannot be loaded.
#[derive(Debug)]
pub enum ImageError {
    /// No ELF file, or a broken one.
    Elf(ParseError),
    /// No note names a PVH entry inside the image.
    NoEntry,
    /// A segment lies outside the window that the memory map gives this kernel: where it begins.
    Misplaced(u64),
    /// A segment is larger in the file than in memory, or has no bytes in the file where it says.
    BadSegment(u64),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elf(e) => write!(f, "no usable ELF file: {e:?}"),
            Self::NoEntry => write!(f, "no PVH entry"),
            Self::Misplaced(at) => write!(f, "a segment at {at:#x} lies outside the kernel's window"),
            Self::BadSegment(at) => write!(f, "the segment at {at:#x} contradicts itself"),
        }
    }
}

impl From<ParseError> for ImageError {
    fn from(e: ParseError) -> Self {
        Self::Elf(e)
    }
}

/// Copies the image in `file` to where it was linked, inside `window`; gives its PVH entry.
///
/// # Safety
///
/// Nothing else uses `window`, which is RAM and mapped.
pub unsafe fn load(file: &[u8], window: PhysRange) -> Result<u32, ImageError> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file)?;
    let segments = elf.segments().ok_or(ImageError::NoEntry)?;
    let mut entry = None;
    for segment in segments.iter() {
        match segment.p_type {
            // SAFETY: the caller's promise.
            PT_LOAD if segment.p_memsz != 0 => unsafe { place(&elf, &segment, window)? },
            PT_NOTE => entry = entry.or(pvh_entry(&elf, &segment)?),
            _ => {}
        }
    }
    let in_window = |e: &u32| {
        let at = PhysRange::new(PhysAddr((*e).into()), 1);
        at.is_some_and(|at| layout::contains(window, at))
    };
    entry.filter(in_window).ok_or(ImageError::NoEntry)
}

/// Copies one segment, zeros after its bytes.
///
/// # Safety
///
/// As [`load`].
unsafe fn place(
    elf: &ElfBytes<'_, LittleEndian>,
    segment: &ProgramHeader,
    window: PhysRange,
) -> Result<(), ImageError> {
    let at = segment.p_paddr;
    let target = PhysRange::new(PhysAddr(at), segment.p_memsz).ok_or(ImageError::Misplaced(at))?;
    if !layout::contains(window, target) {
        return Err(ImageError::Misplaced(at));
    }
    let bytes = elf.segment_data(segment)?;
    if bytes.len() as u64 > target.len() {
        return Err(ImageError::BadSegment(at));
    }
    // SAFETY: `target` lies in `window`, which is the caller's to overwrite; a byte slice has no alignment.
    let memory = unsafe { core::slice::from_raw_parts_mut(at as *mut u8, target.len() as usize) };
    let (head, tail) = memory.split_at_mut(bytes.len());
    head.copy_from_slice(bytes);
    tail.fill(0);
    Ok(())
}

/// The PVH entry that the notes of `segment` name, if they do.
fn pvh_entry(elf: &ElfBytes<'_, LittleEndian>, segment: &ProgramHeader) -> Result<Option<u32>, ImageError> {
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
