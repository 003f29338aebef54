// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory that was set aside at boot, so that Linux does not use it, and the owner of each part of it.
//!
//! The directory, the pools and the start pages are taken from the end of the memory downwards. An image that can be moved
//! is put at the highest address where it fits. Any other image is put at the address for which it was linked. The memory
//! that a kernel needs below 1 MiB is taken from a second piece, which the parameter `low=` names.

use crate::failure::{check, refuse, Result, Text};
use crate::ffi;
use crate::lock::Locked;
use crate::peers::MAX_INSTANCES;
use crate::role;
use core::ffi::CStr;
use core::fmt;
use core::ptr::NonNull;
use kernel::prelude::*;
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysRange, PAGE_SIZE};
use mk_ipi_core::platform::PoolError;
use mk_ipi_core::sync::UnsafeCell;

/// The largest number of parts. Each instance has four: a pool, start pages, an image and a piece of low memory. One more
/// part is the directory.
const MAX_PARTS: usize = 4 * MAX_INSTANCES + 1;
/// The end of low memory, in bytes. A CPU starts below this address.
const LOW_END: u64 = 1 << 20;

/// The owner of a part of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The directory.
    Directory,
    /// An instance's pool. The instance's region lies at its start.
    Pool(InstanceId),
    /// The start pages of an instance: the data that its kernel gets at its start.
    StartPages(InstanceId),
    /// An instance's image.
    Image(InstanceId),
    /// Memory of an instance below 1 MiB.
    Low(InstanceId),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("the directory"),
            Self::Pool(id) => write!(f, "the pool of instance {}", id.get()),
            Self::StartPages(id) => write!(f, "the start pages of instance {}", id.get()),
            Self::Image(id) => write!(f, "the image of instance {}", id.get()),
            Self::Low(id) => write!(f, "the low memory of instance {}", id.get()),
        }
    }
}

#[derive(Clone, Copy)]
struct Part {
    range: PhysRange,
    owner: Owner,
    /// If this part is a pool: how many bytes of it the region uses. 0 if there is no region.
    used: u64,
}

struct Memory {
    whole: Option<PhysRange>,
    low: Option<PhysRange>,
    parts: [Option<Part>; MAX_PARTS],
}

// SAFETY: no other `Locked` has the number 1.
static MEMORY: Locked<Memory> =
    unsafe { Locked::new(1, Memory { whole: None, low: None, parts: [None; MAX_PARTS] }) };

fn contains(outer: PhysRange, inner: PhysRange) -> bool {
    outer.start() <= inner.start() && inner.end() <= outer.end()
}

/// `len` rounded up to a multiple of the page size; `None` if the result is too large.
fn pages(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE_SIZE)
}

impl Memory {
    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().flatten()
    }

    fn place(&mut self, range: PhysRange, owner: Owner) -> Result<PhysRange> {
        let Some(place) = self.parts.iter_mut().find(|p| p.is_none()) else {
            return refuse!(ENOSPC, "more than {MAX_PARTS} parts of memory");
        };
        *place = Some(Part { range, owner, used: 0 });
        Ok(range)
    }

    fn pool(&mut self, id: InstanceId) -> Option<&mut Part> {
        self.parts.iter_mut().flatten().find(|p| p.owner == Owner::Pool(id))
    }

    /// The highest free place in `area` for `len` bytes, below `limit`. It begins at a multiple of `align`, a power of
    /// two.
    fn highest(&self, area: Option<PhysRange>, len: u64, align: u64, limit: u64) -> Option<PhysRange> {
        let area = area?;
        let mut end = area.end().0.min(limit);
        loop {
            let start = end.checked_sub(len)? & !align.wrapping_sub(1);
            let range = PhysRange::new(PhysAddr(start), len).filter(|_| start >= area.start().0)?;
            match self.parts().find(|p| p.range.overlaps(range)) {
                None => return Some(range),
                Some(taken) => end = taken.range.start().0,
            }
        }
    }
}

/// This module's claim on the memory that was set aside. Dropping this gives the memory up. Memory that is named by
/// `START+BYTES` is outside of Linux's RAM. It is requested in the resource tree, so that no other driver gets it, and this
/// value contains its range. Memory of `reserve_mem=` is not requested, and this value is `None`.
pub struct Claimed(Option<PhysRange>);

/// Claims the memory that the module's parameters name: `memory=`, and `low=` below 1 MiB, if it is given. Without
/// `memory=` another kernel is the host, and nothing is claimed.
pub fn claim(named: Option<&CStr>, low: Option<&CStr>) -> Result<Claimed> {
    let Some(named) = named else { return Ok(Claimed(None)) };
    let Ok(words) = named.to_str() else { return refuse!(EINVAL, "memory= is not text") };
    let low = low.map(claim_low).transpose()?;
    let (range, reserved) = match words.split_once('+') {
        Some((start, len)) => at("memory", start, len).map(|range| (range, Some(range)))?,
        None => (by_name(named)?, None),
    };
    are_pages("memory", range)?;
    if let Some(range) = reserved {
        // SAFETY: the name is static. `drop` releases the region.
        let taken = unsafe {
            let (tree, name) = (&raw mut ffi::iomem_resource, c"mk_ipi".as_ptr());
            ffi::__request_region(tree, range.start().0, range.len(), name, 0)
        };
        if taken.is_null() {
            return refuse!(EBUSY, "memory={words}: another driver has it");
        }
    }
    MEMORY.with(|m| (m.whole, m.low) = (Some(range), low));
    Ok(Claimed(reserved))
}

/// Checks the low memory that the parameter names. It cannot be requested, because Linux shows all memory below 1 MiB
/// as busy.
fn claim_low(named: &CStr) -> Result<PhysRange> {
    let Some((start, len)) = named.to_str().ok().and_then(|words| words.split_once('+')) else {
        return refuse!(EINVAL, "low= is START+BYTES");
    };
    let range = at("low", start, len)?;
    are_pages("low", range)?;
    if range.end().0 > LOW_END || range.start().0 == 0 || range.len() <= PAGE_SIZE {
        return refuse!(EINVAL, "low= must be two pages or more, above address 0 and below 1 MiB");
    }
    Ok(range)
}

fn are_pages(parameter: &str, range: PhysRange) -> Result {
    if !range.start().is_page_aligned() || range.len() % PAGE_SIZE != 0 || range.len() == 0 {
        return refuse!(EINVAL, "{parameter}= must begin and end at page boundaries, and must not be empty");
    }
    Ok(())
}

/// The range that a parameter `START+BYTES` names. It must have been reserved at boot.
fn at(parameter: &str, start: &str, len: &str) -> Result<PhysRange> {
    use mk_ipi_core::abi::boot_param::{parse_address, parse_size};
    let start = parse_address(start.as_bytes()).ok();
    let range =
        start.zip(parse_size(len.as_bytes()).ok()).and_then(|(start, len)| PhysRange::new(start, len));
    let Some(range) = range else { return refuse!(EINVAL, "{parameter}= is not START+BYTES") };
    let (first, len) = (range.start().0, range.len());
    // SAFETY: it only reads the resource tree.
    let kept = unsafe { ffi::mk_ipi_glue_reserved(first, len) };
    check(
        kept,
        format_args!(
            "{parameter}={first:#x}+{len:#x} is not kept from Linux: boot with memmap={len:#x}${first:#x}"
        ),
    )?;
    Ok(range)
}

/// The range that `reserve_mem=` on the kernel's command line has reserved under this name.
fn by_name(name: &CStr) -> Result<PhysRange> {
    let (mut start, mut len) = (0, 0);
    // SAFETY: `name` is a C string, and `start` and `len` can be written.
    let found = unsafe { ffi::reserve_mem_find_by_name(name.as_ptr().cast(), &mut start, &mut len) };
    match PhysRange::new(PhysAddr(start), len) {
        Some(range) if found != 0 => Ok(range),
        _ => refuse!(ENODEV, "memory={}: boot with reserve_mem=BYTES:ALIGN:{0}", name.to_str().unwrap_or("")),
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        MEMORY.with(|m| (m.whole, m.low) = (None, None));
        if let Some(range) = self.0 {
            // SAFETY: `claim` has requested this region.
            unsafe { ffi::__release_region(&raw mut ffi::iomem_resource, range.start().0, range.len()) };
        }
    }
}

/// Takes `len` contiguous bytes, rounded up to pages, for `owner`.
pub fn take(owner: Owner, len: u64) -> Result<PhysRange> {
    take_aligned(owner, len, PAGE_SIZE, PhysAddr::LIMIT)
}

/// Like `take`, but the memory begins at a multiple of `align`, which is a power of two, and ends at or below `limit`.
pub fn take_aligned(owner: Owner, len: u64, align: u64, limit: u64) -> Result<PhysRange> {
    let align = align.max(PAGE_SIZE);
    MEMORY.with(|m| {
        let wanted = pages(len).filter(|len| *len != 0);
        match wanted.and_then(|len| m.highest(m.whole, len, align, limit)) {
            Some(range) => m.place(range, owner),
            None => refuse!(ENOMEM, "no {len} contiguous bytes are free for {owner}"),
        }
    })
}

/// Takes `len` bytes below 1 MiB for `id`.
pub fn take_low(id: InstanceId, len: u64) -> Result<PhysRange> {
    MEMORY.with(|m| {
        // The first page of the low memory is reserved for the start of CPUs.
        let pieces =
            m.low.and_then(|low| PhysRange::new(PhysAddr(low.start().0 + PAGE_SIZE), low.len() - PAGE_SIZE));
        match m.highest(pieces, len, PAGE_SIZE, LOW_END) {
            Some(range) => m.place(range, Owner::Low(id)),
            None => refuse!(
                ENOMEM,
                "no {len} bytes below 1 MiB are free for instance {}: load the module with more memory in low=START+BYTES",
                id.get()
            ),
        }
    })
}

/// The page below 1 MiB that is reserved for the start of CPUs, if there is one.
pub fn start_page() -> Option<PhysAddr> {
    MEMORY.with(|m| m.low.map(|low| low.start()))
}

/// Takes the pages that contain `wanted` for `owner`. Fails if a part of them is not free.
pub fn take_at(owner: Owner, wanted: PhysRange) -> Result<PhysRange> {
    let start = wanted.start().0 & !(PAGE_SIZE - 1);
    let range = pages(wanted.end().0).and_then(|end| PhysRange::new(PhysAddr(start), end - start));
    MEMORY.with(|m| {
        let Some(range) = range.filter(|r| m.whole.is_some_and(|whole| contains(whole, *r))) else {
            let (start, end) = (wanted.start().0, wanted.end().0);
            return refuse!(ENOMEM, "{owner} lies at {start:#x}..{end:#x}, outside the memory set aside");
        };
        if let Some(other) = m.parts().find(|p| p.range.overlaps(range)) {
            return refuse!(EBUSY, "{owner} at {start:#x} overlaps {}", other.owner);
        }
        m.place(range, owner)
    })
}

/// Frees the memory of `owner`, if it has any.
pub fn give_back(owner: Owner) {
    MEMORY.with(|m| {
        for part in m.parts.iter_mut().filter(|p| p.is_some_and(|p| p.owner == owner)) {
            *part = None;
        }
    });
}

/// The range of the memory of `owner`, if it has any.
pub fn of(owner: Owner) -> Option<PhysRange> {
    MEMORY.with(|m| m.parts().find(|p| p.owner == owner).map(|p| p.range))
}

/// Returns whether Linux does not use this memory: it is part of the memory that was set aside for this module. If
/// another kernel is the host, the memory map of this kernel must say that the memory is reserved.
pub fn is_ours(range: PhysRange) -> bool {
    if role::is_joined() {
        // SAFETY: it only reads the memory map.
        return unsafe { ffi::mk_ipi_glue_is_not_ram(range.start().0, range.len()) };
    }
    MEMORY.with(|m| [m.whole, m.low].into_iter().flatten().any(|area| contains(area, range)))
}

/// Returns whether this page is part of the pool of an instance. If another kernel is the host, only the host knows the
/// pools, and this returns false.
pub fn is_in_a_pool(page: PhysRange) -> bool {
    MEMORY.with(|m| m.parts().any(|p| matches!(p.owner, Owner::Pool(_)) && contains(p.range, page)))
}

/// Calls `each` for the low memory of `id`, and then for all of the memory that was set aside, piece by piece in
/// ascending order. The second argument of `each` is true if the kernel of `id` may use the piece as its RAM: this is its
/// low memory, its image, and its pool without its region. The kernel can map the other pieces, but must not use them
/// as RAM.
pub fn map_of(id: InstanceId, mut each: impl FnMut(PhysRange, bool)) {
    MEMORY.with(|m| {
        let Some(whole) = m.whole else { return };
        if let Some(low) = m.parts().find(|p| p.owner == Owner::Low(id)) {
            each(low.range, true);
        }
        let mut at = whole.start().0;
        let mut piece = |from: u64, to: u64, own: bool| {
            if let Some(range) =
                to.checked_sub(from).filter(|l| *l != 0).and_then(|l| PhysRange::new(PhysAddr(from), l))
            {
                each(range, own);
            }
        };
        loop {
            let own = m.parts().filter(|p| p.owner == Owner::Image(id) || p.owner == Owner::Pool(id));
            let next = own.filter(|p| p.range.start().0 >= at).min_by_key(|p| p.range.start());
            let Some(part) = next else { break };
            let start = part.range.start().0 + pages(part.used).unwrap_or(0);
            piece(at, start, false);
            piece(start, part.range.end().0, true);
            at = part.range.end().0;
        }
        piece(at, whole.end().0, false);
    });
}

/// Takes `len` bytes from the start of the pool of `id`, for its region. Returns the address.
pub fn pool_alloc(id: InstanceId, len: u64) -> core::result::Result<PhysAddr, PoolError> {
    MEMORY.with(|m| {
        let pool = m.pool(id).ok_or(PoolError::NoPool)?;
        if pool.used != 0 || len > pool.range.len() {
            return Err(PoolError::Exhausted);
        }
        pool.used = len;
        Ok(pool.range.start())
    })
}

/// The part of the pool of `id` that is not its region.
pub fn free_of_pool(id: InstanceId) -> Option<PhysRange> {
    MEMORY.with(|m| {
        let pool = m.pool(id)?;
        let start = pool.range.start().0.checked_add(pages(pool.used)?)?;
        PhysRange::new(PhysAddr(start), pool.range.end().0.checked_sub(start)?)
    })
}

/// Returns the bytes of the region of `id` to its pool.
pub fn pool_free(id: InstanceId) {
    MEMORY.with(|m| m.pool(id).map(|pool| pool.used = 0));
}

/// The entry of a region in Linux's resource tree (`/proc/iomem`). The tree keeps pointers to both fields, and writes to
/// `resource` under its own lock.
struct Region {
    resource: UnsafeCell<ffi::Resource>,
    name: UnsafeCell<Text<32>>,
}

// SAFETY: `show_region` writes before it puts the entry into the tree, and `hide_region` after it has removed the entry.
// Both run under the host's lock, like all code that makes and destroys regions. If another kernel is the host, they run
// when the module is loaded and unloaded, and in the tick under the lock of the directory that is followed.
unsafe impl Sync for Region {}

static REGIONS: [Region; MAX_INSTANCES] = [const {
    // SAFETY: zeros are a valid `struct resource` that is not in the tree.
    let resource = UnsafeCell::new(unsafe { core::mem::zeroed() });
    Region { resource, name: UnsafeCell::new(Text::EMPTY) }
}; MAX_INSTANCES];

/// Shows the region of `id` in `/proc/iomem`.
pub fn show_region(id: InstanceId, range: PhysRange) {
    let Some(region) = REGIONS.get(id.index()) else { return };
    region.name.with_mut(|name| {
        region.resource.with_mut(|resource| {
            // SAFETY: the entry is not in the tree (see `Region`), so only this code uses it and its name. It does not
            // move, because it is a static.
            unsafe {
                // The text contains the NUL, so C can use it as a string.
                *name = Text::of(format_args!("mk_ipi region {}\0", id.get()));
                (*resource).start = range.start().0;
                (*resource).end = range.end().0 - 1;
                (*resource).name = (*name).as_str().as_ptr().cast();
                (*resource).flags = kernel::bindings::IORESOURCE_MEM as _;
                if ffi::insert_resource(&raw mut ffi::iomem_resource, resource) != 0 {
                    (*resource).name = core::ptr::null();
                    pr_err!("the region of instance {} is not in /proc/iomem\n", id.get());
                }
            }
        });
    });
}

/// Removes the region of `id` from `/proc/iomem`.
pub fn hide_region(id: InstanceId) {
    let Some(region) = REGIONS.get(id.index()) else { return };
    region.resource.with_mut(|resource| {
        // SAFETY: if the entry has a name, `show_region` has put it into the tree. After the removal only this code uses it.
        unsafe {
            if !(*resource).name.is_null() {
                ffi::remove_resource(resource);
                *resource = core::mem::zeroed();
            }
        }
    });
}

/// Maps physical memory as write-back memory. Returns `None` if Linux cannot map it. `memunmap` undoes the mapping.
///
/// # Safety
///
/// The caller is allowed to use this memory.
pub unsafe fn remap(range: PhysRange) -> Option<NonNull<[u8]>> {
    let len = usize::try_from(range.len()).ok()?;
    // SAFETY: the caller promises it.
    let at = unsafe { ffi::memremap(range.start().0, len, ffi::MEMREMAP_WB) };
    NonNull::new(at.cast()).map(|first| NonNull::slice_from_raw_parts(first, len))
}

/// Part of this module's memory, mapped until this is dropped.
pub struct Mapped {
    at: NonNull<u8>,
    len: usize,
}

impl Mapped {
    /// Maps `range`.
    pub fn new(range: PhysRange) -> Result<Self> {
        if !is_ours(range) {
            return refuse!(EACCES, "{:#x} is not in the memory that was set aside", range.start().0);
        }
        // SAFETY: it is memory of this module.
        unsafe { Self::any(range) }
    }

    /// Maps `range`, even if it is not memory of this module.
    ///
    /// # Safety
    ///
    /// The caller is allowed to use this memory.
    pub unsafe fn any(range: PhysRange) -> Result<Self> {
        // SAFETY: the caller promises it; `drop` undoes it.
        match unsafe { remap(range) } {
            Some(bytes) => Ok(Self { at: bytes.cast(), len: bytes.len() }),
            None => refuse!(ENOMEM, "{:#x} cannot be mapped", range.start().0),
        }
    }

    /// Copies `bytes` to offset `at`. Bytes beyond the end of the mapping are left out.
    ///
    /// # Safety
    ///
    /// No other code reads or writes that memory now.
    pub unsafe fn write(&self, at: usize, bytes: &[u8]) {
        let len = bytes.len().min(self.len.saturating_sub(at));
        // SAFETY: it is mapped, within its length, and the caller may write it.
        unsafe { self.at.as_ptr().wrapping_add(at).copy_from_nonoverlapping(bytes.as_ptr(), len) };
    }

    /// The mapped memory as a slice.
    ///
    /// # Safety
    ///
    /// No other code reads or writes that memory while the slice lives.
    pub unsafe fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: it is mapped and has this length; the caller promises the rest.
        unsafe { core::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }

    /// Fills `len` bytes at offset `at` with zeros. Bytes beyond the end of the mapping are left out.
    ///
    /// # Safety
    ///
    /// As [`write`](Self::write).
    pub unsafe fn clear(&self, at: usize, len: usize) {
        // SAFETY: as above.
        unsafe { self.at.as_ptr().wrapping_add(at).write_bytes(0, len.min(self.len.saturating_sub(at))) };
    }

    /// Copies the first bytes of the memory to `to`, as many as both have.
    ///
    /// # Safety
    ///
    /// No other code writes that memory now.
    pub unsafe fn read(&self, to: &mut [u8]) {
        // SAFETY: as above.
        unsafe { self.at.as_ptr().copy_to_nonoverlapping(to.as_mut_ptr(), to.len().min(self.len)) };
    }

    /// Copies from offset `at` to `to`, while other CPUs can write to the memory. Each byte is taken from one read of its
    /// aligned 8-byte word. The words are read one after the other, so the copy can be a mix of old and new words.
    pub fn read_words(&self, at: usize, to: &mut [u8]) {
        for (n, byte) in (at..self.len).zip(to) {
            let word = n & !7;
            // SAFETY: the word is mapped, aligned and within the length, because the mapping consists of complete pages.
            // The read is volatile, because others write the word.
            let word = unsafe { self.at.as_ptr().wrapping_add(word).cast::<u64>().read_volatile() };
            *byte = word.to_le_bytes()[n & 7];
        }
    }

    /// Reads the 4-byte word at offset `at`, which another CPU may write. Returns 0 if `at` is not aligned or is beyond
    /// the end.
    pub fn word(&self, at: usize) -> u32 {
        if at % 4 != 0 || at.saturating_add(4) > self.len {
            return 0;
        }
        // SAFETY: the word is mapped, aligned (a mapping begins at a page) and within the length. The read is volatile,
        // because another CPU writes the word.
        unsafe { self.at.as_ptr().wrapping_add(at).cast::<u32>().read_volatile() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: `memremap` returned this address.
        unsafe { ffi::memunmap(self.at.as_ptr().cast()) };
    }
}

/// Writes a line for each part of the memory: its addresses and its owner.
pub fn list(to: &mut impl fmt::Write) -> fmt::Result {
    MEMORY.with(|m| {
        m.parts().try_for_each(|part| {
            let (start, end) = (part.range.start().0, part.range.end().0);
            writeln!(to, "{start:#x}..{end:#x}: {}", part.owner)
        })
    })
}
