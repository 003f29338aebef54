// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks a kernel image, which is an ELF file with a PVH entry, and says at which addresses it can be put.
//!
//! [`Image::parse`] checks the complete file. In an image that it has accepted, the segments do not overlap, and the entry
//! points to bytes that the file contains. The notes of the file are those of Xen's public `elfnote.h`.

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

/// The largest number of program headers that a file can have.
pub const MAX_SEGMENTS: usize = 64;

/// The offset of the magic number "HdrS" of a bzImage (Linux, `Documentation/arch/x86/boot.rst`).
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

/// The addresses at which an image can be put, if it can be moved (`XEN_ELFNOTE_PHYS32_RELOC`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The start of the image must be a multiple of this number. It is a power of two, and at least the page size.
    pub align: u64,
    /// The lowest possible start of the image.
    pub min: PhysAddr,
    /// The highest possible address of the last byte of the image. In a Linux image this is 512 MiB - 1, or 1 GiB - 1 with
    /// `CONFIG_RANDOMIZE_BASE`.
    pub max: PhysAddr,
}

/// An image with the address at which it is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The address of the PVH entry. A CPU starts there in 32-bit mode.
    pub entry: u32,
    /// The memory of the image. It consists of complete pages, and is below 4 GiB.
    pub range: PhysRange,
}

/// A segment of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The offset of the segment from the start of the image, in bytes.
    pub offset: u64,
    /// The bytes that must be copied to that place.
    pub bytes: &'a [u8],
    /// How many zero bytes must follow `bytes`.
    pub zeroed: u64,
}

impl<'a> Image<'a> {
    /// Checks the ELF file `file`. If there are several notes of the same type, the first one is used. In each segment of
    /// notes only the first [`MAX_NOTES`] notes are read.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the file. This function does not check addresses at which the image is put: [`Self::place`]
    /// does this.
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

    /// The memory of the image if it is put at the address for which it was linked. It consists of complete pages.
    pub const fn extent(&self) -> PhysRange {
        self.extent
    }

    /// The address of the PVH entry if the image is put at the address for which it was linked.
    pub const fn entry(&self) -> u32 {
        self.entry
    }

    /// The other addresses at which the image can be put. `None` if it must be put at the address for which it was linked.
    pub const fn relocation(&self) -> Option<Relocation> {
        self.relocation
    }

    /// Checks that the image can be put at `at`, which is the address of its first page. The address for which it was linked
    /// is always allowed, if the image is below 4 GiB there.
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

    /// The segments of the image that must be loaded. The memory between them can have any content.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> {
        let (file, start) = (self.file, self.extent.start().0);
        loads(self.headers).map(move |header| Segment {
            offset: header.p_paddr.wrapping_sub(start),
            // `parse` has checked that the file contains these bytes.
            bytes: data(file, &header).unwrap_or(&[]),
            zeroed: header.p_memsz.wrapping_sub(header.p_filesz),
        })
    }
}

/// Checks the ELF header of `file`. Returns the program headers.
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

/// The program headers of the segments that are loaded and are not empty.
fn loads(headers: Headers<'_>) -> impl Iterator<Item = ProgramHeader> + '_ {
    headers.into_iter().filter(|header| header.p_type == PT_LOAD && header.p_memsz != 0)
}

/// The bytes of a segment in the file. `None` if the file does not contain all of them. If the segment has no bytes in the
/// file, its offset is not checked.
fn data<'a>(file: &'a [u8], header: &ProgramHeader) -> Option<&'a [u8]> {
    if header.p_filesz == 0 {
        return Some(&[]);
    }
    let rest = file.get(usize::try_from(header.p_offset).ok()?..)?;
    rest.get(..usize::try_from(header.p_filesz).ok()?)
}

/// Like [`data`], but returns an error instead of `None`.
fn data_of<'a>(file: &'a [u8], header: &ProgramHeader) -> Result<&'a [u8], ImageError> {
    let outside = ImageError::NotInFile { offset: header.p_offset, len: header.p_filesz, file: file.len() };
    data(file, header).ok_or(outside)
}

/// Checks each segment, and checks that no two segments overlap. Returns the range from the first page of the lowest segment
/// to the last page of the highest segment.
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
