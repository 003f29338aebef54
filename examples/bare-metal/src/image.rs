// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loads another kernel's ELF file to the address for which it is linked.

use crate::{arch, layout};
use core::fmt;
use elf::abi::PT_LOAD;
use elf::endian::LittleEndian;
use elf::segment::ProgramHeader;
use elf::{ElfBytes, ParseError};
use mk_ipi_abi::{PhysAddr, PhysRange};

/// Why an image cannot be loaded.
#[derive(Debug)]
pub enum ImageError {
    /// The file is not a valid ELF file.
    Elf(ParseError),
    /// The file has no entry, or the entry is outside of the kernel's window.
    NoEntry,
    /// A segment is not inside the kernel's window. Contains the physical address at which the segment begins.
    Misplaced(u64),
    /// A segment is larger in the file than in memory. Contains the physical address at which the segment begins.
    BadSegment(u64),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elf(e) => write!(f, "not a valid ELF file: {e:?}"),
            Self::NoEntry => write!(f, "no entry inside the kernel's window"),
            Self::Misplaced(at) => write!(f, "the segment at {at:#x} is not inside the kernel's window"),
            Self::BadSegment(at) => write!(f, "the segment at {at:#x} is larger in the file than in memory"),
        }
    }
}

impl From<ParseError> for ImageError {
    fn from(e: ParseError) -> Self {
        Self::Elf(e)
    }
}

/// Copies the segments of the ELF file `file` to their physical addresses, which must be inside `window`. Returns the address
/// of the entry.
///
/// # Safety
///
/// `window` is mapped RAM, and no other code uses it.
pub unsafe fn load(file: &[u8], window: PhysRange) -> Result<u64, ImageError> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file)?;
    let segments = elf.segments().ok_or(ImageError::NoEntry)?;
    for segment in segments.iter().filter(|segment| segment.p_type == PT_LOAD && segment.p_memsz != 0) {
        // SAFETY: the caller keeps the safety rules of this function.
        unsafe { place(&elf, &segment, window)? };
    }
    let entry = arch::image_entry(&elf)?;
    let at = PhysRange::new(PhysAddr(entry), 1).filter(|at| layout::contains(window, *at));
    at.map(|_| entry).ok_or(ImageError::NoEntry)
}

/// Copies the bytes of one segment, and fills the rest of the segment with zeros.
///
/// # Safety
///
/// As for [`load`].
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
    let place = arch::at(at) as *mut u8;
    // SAFETY: `target` is inside `window`, which this function may overwrite. A byte slice needs no alignment.
    let memory = unsafe { core::slice::from_raw_parts_mut(place, target.len() as usize) };
    let (head, tail) = memory.split_at_mut(bytes.len());
    head.copy_from_slice(bytes);
    tail.fill(0);
    Ok(())
}
