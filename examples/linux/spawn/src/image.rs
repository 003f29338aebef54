// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel image: an ELF file with a PVH entry, and where it may lie in memory.
//!
//! The file is checked once, as a whole. A file that passed is in order: its segments lie inside the image and do not
//! overlap, and the entry is code that the file contains. The notes are those of Xen's public `elfnote.h`.

mod error;
mod note;
#[cfg(test)]
mod tests;

use crate::FOUR_GIB;
use core::mem::size_of;
use elf::abi::{EI_CLASS, EI_DATA, EI_NIDENT, ELFCLASS64, ELFDATA2LSB, ELFMAGIC};
use elf::abi::{EM_X86_64, ET_DYN, ET_EXEC, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::{Class, Elf64_Ehdr, FileHeader};
use elf::segment::{Elf64_Phdr, ProgramHeader, SegmentTable};
use mk_ipi_abi::{PhysAddr, PhysRange, PAGE_SIZE};

pub use error::ImageError;
pub use note::MAX_NOTES;

/// Most program headers that a file may have.
pub const MAX_SEGMENTS: usize = 64;

/// The offset of a bzImage's magic, "HdrS" (Linux, `Documentation/arch/x86/boot.rst`).
const BZIMAGE_MAGIC: usize = 0x202;

type Headers<'a> = SegmentTable<'a, LittleEndian>;

/// A kernel image that has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    file: &'a [u8],
    headers: Headers<'a>,
    extent: PhysRange,
    entry: u32,
    relocation: Option<Relocation>,
}

/// Where a movable image may lie (`XEN_ELFNOTE_PHYS32_RELOC`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The start must be a multiple of this: a power of two, at least a page.
    pub align: u64,
    /// Lowest start.
    pub min: PhysAddr,
    /// Highest address of its last byte. Linux says 512 MiB less one, or with `CONFIG_RANDOMIZE_BASE` 1 GiB less one.
    pub max: PhysAddr,
}

/// An image at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where a CPU enters it, in 32-bit mode.
    pub entry: u32,
    /// The memory that it takes: whole pages, below 4 GiB.
    pub range: PhysRange,
}

/// A part of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Bytes from the start of the image to it.
    pub offset: u64,
    /// The bytes that must be there.
    pub bytes: &'a [u8],
    /// How many zero bytes must follow them.
    pub zeroed: u64,
}

impl<'a> Image<'a> {
    /// Checks the ELF file `file`. Of each kind of note the first one counts. Of each segment only the first
    /// [`MAX_NOTES`] notes are looked at.
    ///
    /// # Errors
    ///
    /// What is wrong with the file. Whether it can lie at an address is checked by [`Self::place`].
    pub fn parse(file: &'a [u8]) -> Result<Self, ImageError> {
        let headers = program_headers(file)?;
        let extent = check_segments(file, headers)?;
        let entry = note::find(file, headers, note::PHYS32_ENTRY)?.ok_or(ImageError::NoEntry)?;
        let entry = note::entry(entry)?;
        let has_entry =
            |s: ProgramHeader| (s.p_paddr..s.p_paddr.saturating_add(s.p_filesz)).contains(&entry.into());
        if !loads(headers).any(has_entry) {
            return Err(ImageError::EntryOutside(entry));
        }
        let widest = loads(headers).map(|s| s.p_align).max().unwrap_or(0);
        let said = note::find(file, headers, note::PHYS32_RELOC)?;
        let relocation = said.map(|said| note::relocation(said, widest)).transpose()?;
        Ok(Self { file, headers, extent, entry, relocation })
    }

    /// The memory that the image takes where it was linked: from the first page with a byte of it to the last.
    pub const fn extent(&self) -> PhysRange {
        self.extent
    }

    /// Where a CPU enters it where it was linked.
    pub const fn entry(&self) -> u32 {
        self.entry
    }

    /// Where else it may lie. `None` if it must lie where it was linked.
    pub const fn relocation(&self) -> Option<Relocation> {
        self.relocation
    }

    /// The image with its first page at `at`. It can always lie where it was linked, if that is below 4 GiB.
    ///
    /// # Errors
    ///
    /// [`ImageError::Fixed`], [`ImageError::Unaligned`], [`ImageError::TooLow`] or [`ImageError::TooHigh`].
    pub fn place(&self, at: PhysAddr) -> Result<Placed, ImageError> {
        let linked = self.extent.start();
        let mut max = PhysAddr(FOUR_GIB.wrapping_sub(1));
        if at != linked {
            let Some(relocation) = self.relocation else { return Err(ImageError::Fixed { linked, at }) };
            if at.0 & relocation.align.wrapping_sub(1) != 0 {
                return Err(ImageError::Unaligned { at, align: relocation.align });
            }
            if at < relocation.min {
                return Err(ImageError::TooLow { at, min: relocation.min });
            }
            max = relocation.max;
        }
        let last = PhysAddr(at.0.saturating_add(self.extent.len().wrapping_sub(1)));
        let too_high = ImageError::TooHigh { last, max };
        let range = PhysRange::new(at, self.extent.len()).filter(|_| last <= max).ok_or(too_high)?;
        let entry = u64::from(self.entry).wrapping_sub(linked.0).wrapping_add(at.0);
        Ok(Placed { entry: u32::try_from(entry).map_err(|_| too_high)?, range })
    }

    /// The segments of the image. The memory between them can contain anything.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> {
        let (file, start) = (self.file, self.extent.start().0);
        loads(self.headers).map(move |header| Segment {
            offset: header.p_paddr.wrapping_sub(start),
            // It lies in the file: `parse` has checked that.
            bytes: data(file, &header).unwrap_or(&[]),
            zeroed: header.p_memsz.wrapping_sub(header.p_filesz),
        })
    }
}

/// The program headers of a file that this host can start.
fn program_headers(file: &[u8]) -> Result<Headers<'_>, ImageError> {
    if !file.starts_with(&ELFMAGIC) {
        let is_bzimage = file.get(BZIMAGE_MAGIC..).is_some_and(|rest| rest.starts_with(b"HdrS"));
        return Err(if is_bzimage { ImageError::BzImage } else { ImageError::NotElf });
    }
    let ident = |index: usize| file.get(index).copied().ok_or(ImageError::Tables);
    match (ident(EI_CLASS)?, ident(EI_DATA)?) {
        (ELFCLASS64, ELFDATA2LSB) => {}
        (ELFCLASS64, order) => return Err(ImageError::ByteOrder(order)),
        (class, _) => return Err(ImageError::Class(class)),
    }
    let rest = file.get(EI_NIDENT..size_of::<Elf64_Ehdr>()).ok_or(ImageError::Tables)?;
    let header = FileHeader::parse_tail((LittleEndian, Class::ELF64, 0, 0), rest);
    let header = header.map_err(|_| ImageError::Tables)?;
    if header.e_machine != EM_X86_64 {
        return Err(ImageError::Machine(header.e_machine));
    }
    if !matches!(header.e_type, ET_EXEC | ET_DYN) {
        return Err(ImageError::Type(header.e_type));
    }
    let (count, size) = (usize::from(header.e_phnum), usize::from(header.e_phentsize));
    if header.e_phoff == 0 || count == 0 {
        return Err(ImageError::Empty);
    }
    if count > MAX_SEGMENTS {
        return Err(ImageError::TooManySegments(count));
    }
    if size != size_of::<Elf64_Phdr>() {
        return Err(ImageError::HeaderSize(size));
    }
    let rest = usize::try_from(header.e_phoff).ok().and_then(|at| file.get(at..));
    let table = rest.and_then(|rest| rest.get(..count.wrapping_mul(size))).ok_or(ImageError::Tables)?;
    Ok(SegmentTable::new(LittleEndian, Class::ELF64, table))
}

/// The segments that take memory.
fn loads(headers: Headers<'_>) -> impl Iterator<Item = ProgramHeader> + '_ {
    headers.into_iter().filter(|header| header.p_type == PT_LOAD && header.p_memsz != 0)
}

/// The bytes of a segment in the file. `None` if the file does not have all of them. For an empty segment the place in
/// the file does not matter.
fn data<'a>(file: &'a [u8], header: &ProgramHeader) -> Option<&'a [u8]> {
    if header.p_filesz == 0 {
        return Some(&[]);
    }
    let rest = file.get(usize::try_from(header.p_offset).ok()?..)?;
    rest.get(..usize::try_from(header.p_filesz).ok()?)
}

/// As [`data`], but with an error in place of `None`.
fn data_of<'a>(file: &'a [u8], header: &ProgramHeader) -> Result<&'a [u8], ImageError> {
    let outside = ImageError::NotInFile { offset: header.p_offset, len: header.p_filesz, file: file.len() };
    data(file, header).ok_or(outside)
}

/// Checks each segment, and that no two overlap. Returns the pages that all of them take.
fn check_segments(file: &[u8], headers: Headers<'_>) -> Result<PhysRange, ImageError> {
    let (mut first, mut end) = (u64::MAX, 0);
    for (header, index) in loads(headers).zip(0..MAX_SEGMENTS) {
        let at = PhysAddr(header.p_paddr);
        let memory = header.p_memsz;
        let range = PhysRange::new(at, memory).ok_or(ImageError::Unaddressable { at, len: memory })?;
        if header.p_filesz > memory {
            return Err(ImageError::Sizes { at, file: header.p_filesz, memory });
        }
        data_of(file, &header)?;
        let before =
            loads(headers).take(index).filter_map(|h| PhysRange::new(PhysAddr(h.p_paddr), h.p_memsz));
        if let Some(other) = before.into_iter().find(|other| other.overlaps(range)) {
            return Err(ImageError::Overlap(other.start(), at));
        }
        first = first.min(at.0);
        end = end.max(range.end().0);
    }
    let first = first & !PAGE_SIZE.wrapping_sub(1);
    let len = end.checked_next_multiple_of(PAGE_SIZE).and_then(|end| end.checked_sub(first));
    len.and_then(|len| PhysRange::new(PhysAddr(first), len)).ok_or(ImageError::Empty)
}
