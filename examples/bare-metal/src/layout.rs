// SPDX-License-Identifier: MIT OR Apache-2.0
//! The physical memory map of the demo. Other files get these addresses from here.
//!
//! The addresses in this table are relative to the start of memory, which is `RAM` of the architecture (arch/mod.rs): 0 on
//! x86-64.
//!
//! | address | length | content | written by |
//! | --- | --- | --- | --- |
//! | `0x0000_8000` | 4 KiB | trampoline, the code at which a started CPU begins (x86-64 only) | host |
//! | `0x0100_0000` + k x `0x0100_0000` | 16 MiB each | image of kernel k, linked at this address, and its stack | kernel k |
//! | `0x1800_0000` | 64 KiB | the demo's control area: console lock, steps (control.rs) | all |
//! | `0x1801_0000` + k x `0x1000` | 4 KiB each | PVH start info of kernel k | host |
//! | `0x1810_0000` | 64 KiB | the directory (SPEC chapter D) | host |
//! | `0x1900_0000` + k x `0x0010_0000` | 1 MiB each | pool of kernel k: its region; at the end, the conformance suite | all |
//! | `0x1a00_0000` + k x `0x0040_0000` | 4 MiB each | journal of kernel k: the state for its next life (journal.rs) | kernel k |
//! | `0x2000_0000` and up | | the ELF files of the images, at the addresses in the command line | emulator |
//!
//! So the machine needs RAM from 1 MiB to the end of the last ELF file. 1 GiB is enough, and boot.s maps it as memory.
//! Firmware can use memory below the images. Of this map, only the directory and the regions belong to the protocol of
//! mk-ipi.
//!
//! A kernel that serves (serve.rs) does not use this map. It is linked at an address that its host chooses. It knows only the
//! memory that its command line and its start info name.

use crate::arch::RAM;
use mk_ipi_abi::{InstanceId, PhysAddr, PhysRange, PAGE_SIZE};
use mk_ipi_conformance::NATIVE_LEN;

/// The largest number of kernels for which the map has room, including the host.
pub const MAX_KERNELS: usize = 16;
/// The page of the trampoline, at which a started CPU begins. trampoline.s contains the same address.
#[cfg(target_arch = "x86_64")]
pub const TRAMPOLINE: u64 = 0x8000;
/// The window of kernel 0's image.
const IMAGES: u64 = RAM + 0x0100_0000;
/// The length of an image window, in bytes.
const IMAGE_WINDOW: u64 = 0x0100_0000;
/// The demo's control area.
pub const CONTROL: u64 = RAM + 0x1800_0000;
/// The length of the control area, in bytes.
pub const CONTROL_LEN: u64 = 0x1_0000;
/// The start info page of kernel 0.
const START_INFOS: u64 = CONTROL + CONTROL_LEN;
/// The directory.
pub const DIRECTORY: u64 = RAM + 0x1810_0000;
/// The length of the memory for the directory, in bytes.
pub const DIRECTORY_LEN: u64 = 0x1_0000;
/// The instance pool of kernel 0.
const POOLS: u64 = RAM + 0x1900_0000;
/// The journal of kernel 0.
const JOURNALS: u64 = RAM + 0x1a00_0000;
/// The length of the memory for a journal, in bytes.
pub const JOURNAL_LEN: u64 = 0x40_0000;
/// The ELF files must be at or above this address, so that they overlap nothing else of the map.
pub const FILES: u64 = RAM + 0x2000_0000;
/// The length of an instance pool, in bytes.
pub const POOL_LEN: u64 = 0x10_0000;

/// The range of `len` bytes at `start`. Panics if the range does not fit into the address space. All ranges of this map fit.
fn fixed(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr(start), len).expect("the memory map is in range")
}

/// The window of kernel `k`: the memory for its image and its stack.
pub fn image_window(k: usize) -> PhysRange {
    fixed(IMAGES + k as u64 * IMAGE_WINDOW, IMAGE_WINDOW)
}

/// The physical address of kernel `k`'s start info page.
pub fn start_info(k: usize) -> u64 {
    START_INFOS + k as u64 * 0x1000
}

/// The physical address of kernel `k`'s journal.
pub fn journal(k: usize) -> u64 {
    JOURNALS + k as u64 * JOURNAL_LEN
}

/// The memory for the directory.
pub fn directory() -> PhysRange {
    fixed(DIRECTORY, DIRECTORY_LEN)
}

/// The pool of `instance`. `None` if the map has no pool for it.
pub fn pool(instance: InstanceId) -> Option<PhysRange> {
    let k = instance.index();
    (k < MAX_KERNELS).then(|| fixed(POOLS + k as u64 * POOL_LEN, POOL_LEN))
}

/// The number of slots in the conformance suite's regions. 16 pages have room for this number of slots.
pub const SUITE_SLOTS: u32 = 240;

/// A range of `pages` pages in kernel `k`'s pool, for the conformance suite. It ends `before` pages before the end of the
/// pool. The kernel's region is at the pool's start, and does not reach this range.
fn suite(k: usize, before: u64, pages: u64) -> PhysRange {
    fixed(POOLS + (k as u64 + 1) * POOL_LEN - (before + pages) * PAGE_SIZE, pages * PAGE_SIZE)
}

/// The page of kernel `k` that other kernels map in a case of the conformance suite.
pub fn suite_page(k: usize) -> PhysRange {
    suite(k, 0, 1)
}

/// Kernel `k`'s RFC v2 region in the conformance suite. A slot has 272 bytes.
pub fn suite_region(k: usize) -> PhysRange {
    suite(k, 1, 16)
}

/// Kernel `k`'s native region in the conformance suite.
pub fn suite_native_region(k: usize) -> PhysRange {
    suite(k, 17, NATIVE_LEN / PAGE_SIZE)
}

/// The memory of all pools. A peer may share only pages in it.
pub fn pools() -> PhysRange {
    fixed(POOLS, MAX_KERNELS as u64 * POOL_LEN)
}

/// Returns whether all of `inner` is inside `outer`.
pub fn contains(outer: PhysRange, inner: PhysRange) -> bool {
    outer.start() <= inner.start() && inner.end() <= outer.end()
}
