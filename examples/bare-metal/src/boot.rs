// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel is told at its start. The host passes it to the kernels that it starts as a PVH start info, on each
//! architecture.

use crate::arch::{at, CACHED_END};
use crate::layout;
use core::ffi::CStr;
use core::fmt::{self, Write};
use core::mem::offset_of;
use mk_ipi_abi::{PhysAddr, PhysRange};

/// `hvm_start_info` of the PVH boot ABI, version 1.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    nr_modules: u32,
    modules: u64,
    cmdline: u64,
    firmware: u64,
    memmap: u64,
    nr_memmap: u32,
    reserved: u32,
}

/// `hvm_memmap_table_entry`.
#[repr(C)]
#[derive(Clone, Copy)]
struct MemmapEntry {
    start: u64,
    len: u64,
    kind: u32,
    reserved: u32,
}

/// `HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// `XEN_HVM_MEMMAP_TYPE_RAM`. In the memory map of a kernel that serves (serve.rs), this memory belongs to that kernel.
const RAM: u32 = 1;
/// `XEN_HVM_MEMMAP_TYPE_RESERVED`. In the memory map of a kernel that serves (serve.rs), the kernel shares this memory with
/// the host and the other kernels.
const RESERVED: u32 = 2;
/// The largest number of memory map entries that are kept. Further entries are ignored.
const MAX_MEMMAP: usize = 32;

/// What a kernel was told at its start, copied out of the start info.
pub struct Boot {
    cmdline: [u8; 512],
    cmdline_len: usize,
    memmap: [MemmapEntry; MAX_MEMMAP],
    nr_memmap: usize,
    /// Physical address of the firmware's description of the machine: the ACPI RSDP, or a device tree.
    pub firmware: u64,
}

impl Boot {
    /// Reads the start info at `at`. `None` if no start info is there, or its command line is too long.
    ///
    /// # Safety
    ///
    /// `at` is the argument that the entry in boot.s got.
    pub unsafe fn read(at: u64) -> Option<Self> {
        // SAFETY: the caller keeps the safety rules of this function. The memory at `at` is mapped.
        let info = unsafe { (at as *const StartInfo).read_unaligned() };
        if info.magic != MAGIC || info.version == 0 {
            return None;
        }
        let none = MemmapEntry { start: 0, len: 0, kind: 0, reserved: 0 };
        let (cmdline, memmap) = ([0; 512], [none; MAX_MEMMAP]);
        let mut boot = Self { cmdline, cmdline_len: 0, memmap, nr_memmap: 0, firmware: info.firmware };
        if info.cmdline != 0 {
            // SAFETY: as PVH requires, this is the address of a NUL-terminated string.
            let line = unsafe { CStr::from_ptr(info.cmdline as *const _) }.to_bytes();
            boot.cmdline_len = line.len();
            boot.cmdline.get_mut(..line.len())?.copy_from_slice(line);
        }
        boot.nr_memmap = (info.nr_memmap as usize).min(MAX_MEMMAP);
        for (i, entry) in boot.memmap[..boot.nr_memmap].iter_mut().enumerate() {
            // SAFETY: as PVH requires, this is the address of an array of `nr_memmap` entries.
            *entry = unsafe { (info.memmap as *const MemmapEntry).add(i).read_unaligned() };
        }
        Some(boot)
    }

    /// A value with an empty command line and no memory. `firmware` is the value of the field of that name.
    #[allow(dead_code, reason = "for a machine that is not booted by PVH")]
    pub fn new(firmware: u64) -> Self {
        let none = MemmapEntry { start: 0, len: 0, kind: 0, reserved: 0 };
        Self { cmdline: [0; 512], cmdline_len: 0, memmap: [none; MAX_MEMMAP], nr_memmap: 0, firmware }
    }

    /// Sets the command line. If it is too long, changes nothing and returns `None`.
    #[allow(dead_code, reason = "for a machine that is not booted by PVH")]
    pub fn set_cmdline(&mut self, line: &[u8]) -> Option<()> {
        // The last byte stays 0.
        self.cmdline[..511].get_mut(..line.len())?.copy_from_slice(line);
        self.cmdline_len = line.len();
        Some(())
    }

    /// Adds a piece of RAM to the memory map. Returns whether the map had room for it.
    #[allow(dead_code, reason = "for a machine that is not booted by PVH")]
    pub fn add_ram(&mut self, ram: PhysRange) -> bool {
        let Some(place) = self.memmap.get_mut(self.nr_memmap) else { return false };
        *place = MemmapEntry { start: ram.start().0, len: ram.len(), kind: RAM, reserved: 0 };
        self.nr_memmap += 1;
        true
    }

    /// The command line.
    pub fn cmdline(&self) -> &[u8] {
        &self.cmdline[..self.cmdline_len]
    }

    /// Returns whether `range` is RAM that is mapped.
    pub fn is_ram(&self, range: PhysRange) -> bool {
        self.is_within(&[RAM], range)
    }

    /// Returns whether `range` is mapped memory, either of this kernel or shared with others.
    pub fn is_memory(&self, range: PhysRange) -> bool {
        self.is_within(&[RAM, RESERVED], range)
    }

    /// Returns whether one entry of these kinds contains all of `range`, and boot.s maps it.
    fn is_within(&self, kinds: &[u32], range: PhysRange) -> bool {
        let entries = self.memmap[..self.nr_memmap].iter().filter(|e| kinds.contains(&e.kind));
        let mut entries = entries.filter_map(|e| PhysRange::new(PhysAddr(e.start), e.len));
        range.end().0 <= CACHED_END && entries.any(|entry| layout::contains(entry, range))
    }

    /// Writes the start info page of kernel `k`. It has this kernel's memory map and firmware address, and the command line
    /// `cmdline`.
    ///
    /// Returns the page's physical address, or an error if the command line is too long.
    ///
    /// # Safety
    ///
    /// Kernel `k` does not run, and its start info page is RAM.
    pub unsafe fn write_for(&self, k: usize, cmdline: fmt::Arguments) -> Result<u64, fmt::Error> {
        #[repr(C)]
        struct Page {
            info: StartInfo,
            memmap: [MemmapEntry; MAX_MEMMAP],
            cmdline: [u8; 512],
        }
        const _: () = assert!(size_of::<Page>() <= 4096);
        let physical = layout::start_info(k);
        let page = at(physical) as *mut Page;
        let mut line = Text { bytes: [0; 512], len: 0 };
        line.write_fmt(cmdline)?;
        let behind = |offset: usize| physical + offset as u64;
        let info = StartInfo {
            magic: MAGIC,
            version: 1,
            flags: 0,
            nr_modules: 0,
            modules: 0,
            cmdline: behind(offset_of!(Page, cmdline)),
            firmware: self.firmware,
            memmap: behind(offset_of!(Page, memmap)),
            nr_memmap: self.nr_memmap as u32,
            reserved: 0,
        };
        // SAFETY: the caller keeps the safety rules of this function. The page is aligned and large enough.
        unsafe { page.write(Page { info, memmap: self.memmap, cmdline: line.bytes }) };
        Ok(physical)
    }
}

/// A NUL-terminated string. Writing text that does not fit is an error.
struct Text {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let end = self.len + s.len();
        // The last byte stays 0.
        let place = self.bytes[..511].get_mut(self.len..end).ok_or(fmt::Error)?;
        place.copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}
