// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies a kernel image and its initramfs into the memory of an instance.

use crate::failure::{failure, refuse, Result};
use crate::file::File;
use crate::memory::{self, Mapped, Owner};
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysRange, PAGE_SIZE};
use mk_ipi_spawn::image::Image;

/// The first address that a CPU cannot access in 32-bit mode, in which a kernel starts.
const REACH: u64 = 1 << 32;

/// An image in memory.
#[derive(Clone, Copy)]
pub struct Loaded {
    /// The address of the image's entry.
    pub entry: u32,
    /// True if the image can be put at other addresses, too. Linux is such an image.
    pub is_movable: bool,
}

/// Takes memory for the image in `file`, as memory of `id`, and copies the image to it. An image that can be moved is put at
/// the highest address where it fits. Any other image is put at the address for which it was linked. After an error, `id`
/// has no memory for an image.
///
/// # Safety
///
/// No CPU executes the image that `id` had before.
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

/// Copies the segments of `image` to the memory of `range`.
///
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

/// Copies the initramfs in `file` to the end of the pool of `id`. Returns its address and length.
///
/// # Safety
///
/// No CPU runs the kernel of `id`.
pub unsafe fn put_initrd(id: InstanceId, file: &File) -> Result<PhysRange> {
    let len = file.bytes().len() as u64;
    let Some(room) = memory::free_of_pool(id).filter(|_| len != 0) else {
        return refuse!(EINVAL, "the initramfs is empty, or instance {} has no pool", id.get());
    };
    let start = len.checked_next_multiple_of(PAGE_SIZE).and_then(|pages| room.end().0.checked_sub(pages));
    // The kernel needs at least as much memory again when it unpacks the initramfs.
    let start = start.filter(|start| start.saturating_sub(room.start().0) >= len);
    let place = start.and_then(|start| PhysRange::new(PhysAddr(start), len));
    let Some(place) = place.filter(|place| place.end().0 <= REACH) else {
        return refuse!(
            ENOSPC,
            "an initramfs of {len} bytes, and as many bytes to unpack it, do not fit into a pool of {} bytes below 4 GiB",
            room.len()
        );
    };
    let pages = PhysRange::new(place.start(), room.end().0 - place.start().0).unwrap_or(place);
    // SAFETY: it is the instance's own memory, and the instance does not run (the caller promises it).
    unsafe { Mapped::new(pages)?.write(0, file.bytes()) };
    Ok(place)
}
