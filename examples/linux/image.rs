// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts a kernel image and its initramfs into an instance's memory.

use crate::failure::{failure, refuse, Result};
use crate::file::File;
use crate::memory::{self, Mapped, Owner};
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysRange, PAGE_SIZE};
use mk_ipi_spawn::image::Image;

/// A CPU that starts in 32-bit mode reaches addresses below this.
const REACH: u64 = 1 << 32;

/// An image in memory.
#[derive(Clone, Copy)]
pub struct Loaded {
    /// Where a CPU enters it.
    pub entry: u32,
    /// True if it could have been put elsewhere, as Linux can.
    pub is_movable: bool,
}

/// Puts the image in `file` into memory of `id`: to where it was linked, or, if it can be moved, as high as it fits. On
/// an error nothing of it stays.
///
/// # Safety
///
/// No CPU runs what `id` had in this memory before.
pub unsafe fn load(id: InstanceId, file: &File) -> Result<Loaded> {
    let image = Image::parse(file.bytes()).map_err(|e| failure!(EINVAL, "the image: {e}"))?;
    memory::give_back(Owner::Image(id));
    let range = match image.relocation() {
        Some(to) => {
            let limit = to.max.0.saturating_add(1).min(REACH);
            memory::take_aligned(Owner::Image(id), image.extent().len(), to.align, limit)?
        }
        None => memory::take_at(Owner::Image(id), image.extent())?,
    };
    // SAFETY: the memory was taken for this image, and no CPU runs it (the caller promises it).
    let placed = unsafe { place(&image, range) };
    if placed.is_err() {
        memory::give_back(Owner::Image(id));
    }
    placed
}

/// # Safety
///
/// Nothing uses the memory of `range`.
unsafe fn place(image: &Image<'_>, range: PhysRange) -> Result<Loaded> {
    let placed = image.place(range.start()).map_err(|e| failure!(EINVAL, "the image: {e}"))?;
    let memory = Mapped::new(range)?;
    for segment in image.segments() {
        let to = usize::try_from(segment.offset).unwrap_or(usize::MAX);
        // SAFETY: the caller promises it.
        unsafe {
            memory.write(to, segment.bytes);
            memory
                .clear(to.saturating_add(segment.bytes.len()), usize::try_from(segment.zeroed).unwrap_or(0));
        }
    }
    Ok(Loaded { entry: placed.entry, is_movable: image.relocation().is_some() })
}

/// Puts the initramfs in `file` at the end of the pool of `id`. Returns where it lies.
///
/// # Safety
///
/// No CPU runs the kernel of `id`.
pub unsafe fn put_initrd(id: InstanceId, file: &File) -> Result<PhysRange> {
    let len = file.bytes().len() as u64;
    let Some(room) = memory::free_of_pool(id).filter(|_| len != 0) else {
        return refuse!(EINVAL, "the first file system is empty, or instance {} has no pool", id.get());
    };
    let start = len.checked_next_multiple_of(PAGE_SIZE).and_then(|pages| room.end().0.checked_sub(pages));
    // To unpack it takes at least as much memory again.
    let start = start.filter(|start| start.saturating_sub(room.start().0) >= len);
    let place = start.and_then(|start| PhysRange::new(PhysAddr(start), len));
    let Some(place) = place.filter(|place| place.end().0 <= REACH) else {
        return refuse!(
            ENOSPC,
            "a first file system of {len} bytes, and as much to unpack it, have no room in a pool of {} bytes below 4 GiB",
            room.len()
        );
    };
    let pages = PhysRange::new(place.start(), room.end().0 - place.start().0).unwrap_or(place);
    // SAFETY: it is the instance's own memory, and the instance does not run (the caller promises it).
    unsafe { Mapped::new(pages)?.write(0, file.bytes()) };
    Ok(place)
}
