// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel image from a file: an ELF whose note names a PVH entry, put where it was linked.

use crate::failure::{check, failure, refuse, Result};
use crate::ffi;
use crate::memory::{self, Mapped, Owner};
use core::ffi::CStr;
use core::ptr;
use elf::abi::{PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use elf::note::Note;
use elf::segment::ProgramHeader;
use elf::ElfBytes;
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysRange};

/// The note that gives an image's PVH entry (Xen, `elfnote.h`: `XEN_ELFNOTE_PHYS32_ENTRY`).
const PHYS32_ENTRY: u64 = 18;
/// Largest file that is read.
const MAX_FILE: usize = 64 << 20;
/// Most segments, and most notes of a segment, that are looked at.
const MAX_SEGMENTS: usize = 64;

type Elf<'a> = ElfBytes<'a, LittleEndian>;

/// A file, read whole.
pub struct File {
    bytes: *mut u8,
    len: usize,
}

impl File {
    /// Reads the file at `path`.
    pub fn read(path: &CStr) -> Result<Self> {
        let mut bytes = ptr::null_mut();
        // SAFETY: a C string; the kernel allocates, and `drop` frees.
        let read = unsafe {
            let size = ptr::null_mut();
            ffi::kernel_read_file_from_path(
                path.as_ptr().cast(),
                0,
                &mut bytes,
                MAX_FILE,
                size,
                ffi::mk_ipi_glue_image_kind,
            )
        };
        let read = i32::try_from(read).unwrap_or(i32::MAX);
        let len = check(read, format_args!("{} cannot be read", path.to_str().unwrap_or("the file")))?;
        Ok(Self { bytes: bytes.cast(), len: len as usize })
    }

    fn bytes(&self) -> &[u8] {
        if self.bytes.is_null() {
            return &[];
        }
        // SAFETY: `len` bytes were read there; freed by `drop` alone.
        unsafe { core::slice::from_raw_parts(self.bytes, self.len) }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the kernel's own buffer, from vmalloc.
        unsafe { ffi::vfree(self.bytes.cast()) };
    }
}

/// Puts the image in `file` where it was linked, as memory of `id`; gives its PVH entry. Nothing of it stays on an error.
///
/// # Safety
///
/// No CPU runs what `id` had there before.
pub unsafe fn load(id: InstanceId, file: &File) -> Result<u32> {
    let elf = Elf::minimal_parse(file.bytes()).map_err(|e| failure!(EINVAL, "no usable ELF file: {e:?}"))?;
    let segments = match elf.segments() {
        Some(segments) if segments.len() <= MAX_SEGMENTS => segments,
        _ => return refuse!(EINVAL, "the file has no segments, or more than {MAX_SEGMENTS}"),
    };
    let loads = || segments.iter().filter(|s| s.p_type == PT_LOAD && s.p_memsz != 0);
    let mut extent: Option<(u64, u64)> = None;
    for (n, segment) in loads().enumerate() {
        let (start, end) = extent_of(&elf, &segment)?;
        if loads().take(n).any(|s| start < s.p_paddr.saturating_add(s.p_memsz) && s.p_paddr < end) {
            return refuse!(EINVAL, "the segment at {start:#x} overlaps another");
        }
        let (first, last) = extent.unwrap_or((start, end));
        extent = Some((first.min(start), last.max(end)));
    }
    let whole = extent.and_then(|(start, end)| PhysRange::new(PhysAddr(start), end - start));
    let Some(whole) = whole else { return refuse!(EINVAL, "the file has nothing to load") };
    let entry = entry(&elf)?;
    if !loads().any(|s| (s.p_paddr..s.p_paddr.saturating_add(s.p_filesz)).contains(&entry.into())) {
        return refuse!(EINVAL, "the PVH entry {entry:#x} is not in the image");
    }
    memory::give_back(Owner::Image(id));
    let range = memory::take_at(Owner::Image(id), whole)?;
    let placed = Mapped::new(range).map(|memory| {
        for segment in loads() {
            let at = segment.p_paddr.saturating_sub(range.start().0) as usize;
            let bytes = elf.segment_data(&segment).unwrap_or(&[]);
            // SAFETY: memory that was taken for this image, and no CPU runs it (the caller).
            unsafe {
                memory.write(at, bytes);
                memory.clear(
                    at.saturating_add(bytes.len()),
                    (segment.p_memsz as usize).saturating_sub(bytes.len()),
                );
            }
        }
    });
    if placed.is_err() {
        memory::give_back(Owner::Image(id));
    }
    placed.map(|()| entry)
}

/// Where a segment that makes sense begins and ends.
fn extent_of(elf: &Elf<'_>, segment: &ProgramHeader) -> Result<(u64, u64)> {
    let at = segment.p_paddr;
    let end = at.checked_add(segment.p_memsz).filter(|end| *end <= PhysAddr::LIMIT);
    let whole = segment.p_filesz <= segment.p_memsz && elf.segment_data(segment).is_ok();
    match end {
        Some(end) if whole => Ok((at, end)),
        _ => refuse!(EINVAL, "the segment at {at:#x} contradicts itself"),
    }
}

/// The PVH entry that the file's notes name.
fn entry(elf: &Elf<'_>) -> Result<u32> {
    let segments = elf.segments().into_iter().flat_map(|all| all.iter()).take(MAX_SEGMENTS);
    for segment in segments.filter(|s| s.p_type == PT_NOTE) {
        let Ok(notes) = elf.segment_data_as_notes(&segment) else { continue };
        for note in notes.take(MAX_SEGMENTS) {
            let Note::Unknown(note) = note else { continue };
            if note.n_type == PHYS32_ENTRY && note.name.starts_with(b"Xen") {
                if let Some(word) = note.desc.first_chunk::<4>() {
                    return Ok(u32::from_le_bytes(*word));
                }
            }
        }
    }
    refuse!(EINVAL, "no note of the file names a PVH entry")
}
