// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes the page that a spawned kernel gets at its entry. It contains Xen's `hvm_start_info`, version 1, and the memory
//! map, the module entry and the command line to which this structure points.
//!
//! The layouts and the values are those of Xen's public `arch-x86/hvm/start_info.h`. The kernel can write to the page: Linux
//! uses its first bytes as a stack.

mod error;
#[cfg(test)]
mod tests;

use crate::FOUR_GIB;
use core::fmt::{self, Write};
use core::mem::{offset_of, size_of};
use core::ops::Range;
use mk_ipi_abi::{PhysAddr, PhysRange, PAGE_SIZE};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use error::StartInfoError;

/// The largest number of bytes of a command line, including the NUL at its end. Linux on x86 has the same limit
/// (`COMMAND_LINE_SIZE`).
pub const MAX_COMMAND_LINE: usize = 2048;
/// The largest number of entries of the memory map.
pub const MAX_MEMORY: usize = 32;
/// The part of the page that [`StartInfo`] does not write, as offsets in bytes. The caller can use it.
pub const CALLERS: Range<usize> = 0xf00..0x1000;

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: U32 = U32::from_bytes(0x336e_c578_u32.to_le_bytes());
const VERSION: U32 = U32::from_bytes([1, 0, 0, 0]);

/// The type of an entry of the memory map (`XEN_HVM_MEMMAP_TYPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The memory belongs to the kernel, which can use it for any purpose.
    Ram = 1,
    /// The memory does not belong to the kernel. The kernel can map parts of it whose addresses it has been told.
    Reserved = 2,
}

/// `hvm_start_info`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Info {
    magic: U32,
    version: U32,
    flags: U32,
    nr_modules: U32,
    modlist: U64,
    cmdline: U64,
    rsdp: U64,
    memmap: U64,
    memmap_entries: U32,
    reserved: U32,
}

/// `hvm_modlist_entry`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Module {
    start: U64,
    size: U64,
    cmdline: U64,
    reserved: U64,
}

/// `hvm_memmap_table_entry`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Piece {
    start: U64,
    size: U64,
    kind: U32,
    reserved: U32,
}

/// The complete page.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Page {
    info: Info,
    unused_1: [u8; 8],
    module: Module,
    unused_2: [u8; 32],
    memory: [Piece; MAX_MEMORY],
    unused_3: [u8; 128],
    command_line: [u8; MAX_COMMAND_LINE],
    unused_4: [u8; 768],
    callers: [u8; 256],
}

const _: () = {
    assert!(size_of::<Info>() == 56 && size_of::<Module>() == 32 && size_of::<Piece>() == 24);
    assert!(offset_of!(Info, memmap_entries) == 48);
    assert!(size_of::<Page>() as u64 == PAGE_SIZE);
    assert!(offset_of!(Page, callers) == CALLERS.start && CALLERS.end == size_of::<Page>());
};

/// A start page that is being written. After each call the page is valid, and contains the data of all calls so far.
pub struct StartInfo<'a> {
    page: &'a mut Page,
    at: PhysAddr,
}

impl core::fmt::Debug for StartInfo<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StartInfo").field("at", &self.at).finish_non_exhaustive()
    }
}

impl<'a> StartInfo<'a> {
    /// Initialises `page`, whose physical address is `at`. The command line is empty, and there is no memory, no initramfs
    /// and no RSDP yet.
    ///
    /// # Errors
    ///
    /// [`StartInfoError::PageSize`], [`StartInfoError::Unaligned`] or [`StartInfoError::TooHigh`].
    pub fn new(page: &'a mut [u8], at: PhysAddr) -> Result<Self, StartInfoError> {
        let len = page.len();
        let page = Page::mut_from_bytes(page).map_err(|_| StartInfoError::PageSize(len))?;
        if !at.is_page_aligned() {
            return Err(StartInfoError::Unaligned(at));
        }
        below_4_gib(at, PAGE_SIZE)?;
        if let Some(ours) = page.as_mut_bytes().get_mut(..CALLERS.start) {
            ours.fill(0);
        }
        let address = |offset: usize| U64::new(at.0.wrapping_add(offset as u64));
        page.info.magic = MAGIC;
        page.info.version = VERSION;
        page.info.cmdline = address(offset_of!(Page, command_line));
        page.info.memmap = address(offset_of!(Page, memory));
        page.info.modlist = address(offset_of!(Page, module));
        Ok(Self { page, at })
    }

    /// The physical address of the page. The kernel must find it in `%ebx` at its entry.
    pub const fn address(&self) -> PhysAddr {
        self.at
    }

    /// Writes the physical address of the RSDP.
    ///
    /// # Errors
    ///
    /// [`StartInfoError::TooHigh`].
    pub fn rsdp(&mut self, at: PhysAddr) -> Result<(), StartInfoError> {
        below_4_gib(at, 1)?;
        self.page.info.rsdp = U64::new(at.0);
        Ok(())
    }

    /// Writes the address and the length of the initramfs. A second call replaces them.
    ///
    /// # Errors
    ///
    /// [`StartInfoError::TooHigh`]: the initramfs must be below 4 GiB, because Linux reads only 32 bits of the address.
    pub fn initramfs(&mut self, range: PhysRange) -> Result<(), StartInfoError> {
        below_4_gib(range.start(), range.len())?;
        self.page.module.start = U64::new(range.start().0);
        self.page.module.size = U64::new(range.len());
        self.page.info.nr_modules = U32::new(1);
        Ok(())
    }

    /// Adds an entry to the memory map.
    ///
    /// # Errors
    ///
    /// [`StartInfoError::TooManyPieces`] if the map has [`MAX_MEMORY`] entries already.
    pub fn memory(&mut self, range: PhysRange, kind: Kind) -> Result<(), StartInfoError> {
        let count = self.page.info.memmap_entries.get();
        let piece = self.page.memory.get_mut(count as usize).ok_or(StartInfoError::TooManyPieces(range))?;
        piece.start = U64::new(range.start().0);
        piece.size = U64::new(range.len());
        piece.kind = U32::new(kind as u32);
        self.page.info.memmap_entries = U32::new(count.saturating_add(1));
        Ok(())
    }

    /// Writes the command line. A second call replaces it.
    ///
    /// # Errors
    ///
    /// [`StartInfoError::CommandLine`], [`StartInfoError::Nul`] or [`StartInfoError::Format`]. After an error the command
    /// line is empty.
    pub fn command_line(&mut self, text: fmt::Arguments<'_>) -> Result<(), StartInfoError> {
        self.page.command_line.fill(0);
        let mut line = Line { to: &mut self.page.command_line, len: 0, nul: None };
        let written = match line.write_fmt(text) {
            Err(_) => Err(StartInfoError::Format),
            Ok(()) if line.len >= MAX_COMMAND_LINE => Err(StartInfoError::CommandLine(line.len)),
            Ok(()) => line.nul.map_or(Ok(()), |at| Err(StartInfoError::Nul(at))),
        };
        if written.is_err() {
            self.page.command_line.fill(0);
        }
        written
    }
}

/// A command line that is being written to the page. Bytes that do not fit are counted, but not stored.
struct Line<'a> {
    to: &'a mut [u8; MAX_COMMAND_LINE],
    /// The number of bytes so far, including those that did not fit.
    len: usize,
    /// The offset of the first NUL, if there is one.
    nul: Option<usize>,
}

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(to) = self.to.get_mut(self.len) {
                *to = byte;
            }
            if byte == 0 {
                self.nul = self.nul.or(Some(self.len));
            }
            self.len = self.len.saturating_add(1);
        }
        Ok(())
    }
}

fn below_4_gib(at: PhysAddr, len: u64) -> Result<(), StartInfoError> {
    let end = at.0.checked_add(len).filter(|end| *end <= FOUR_GIB);
    end.map(|_| ()).ok_or(StartInfoError::TooHigh { at, len })
}
