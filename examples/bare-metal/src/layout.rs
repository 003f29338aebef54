// SPDX-License-Identifier: MIT OR Apache-2.0
//! The physical memory map of the demo. It is written down only here.
//!
//! Addresses count from where memory begins, `RAM` of the architecture (arch/mod.rs): 0 on x86-64.
//!
//! | from | bytes | what | written by |
//! | --- | --- | --- | --- |
//! | `0x0000_8000` | 4 KiB | trampoline of started CPUs, on x86-64 | host |
//! | `0x0100_0000` + k x `0x0100_0000` | 16 MiB each | image of kernel k, linked at this address, and its stack | kernel k |
//! | `0x1800_0000` | 64 KiB | the demo's control area: console lock, steps (control.rs) | all |
//! | `0x1801_0000` + k x `0x1000` | 4 KiB each | PVH start info of kernel k | host |
//! | `0x1810_0000` | 64 KiB | the directory (SPEC chapter D) | host |
//! | `0x1900_0000` + k x `0x0010_0000` | 1 MiB each | instance pool of kernel k: its region; last 83 pages: conformance suite | all |
//! | `0x1a00_0000` + k x `0x0040_0000` | 4 MiB each | journal of kernel k: what it keeps over its lives (journal.rs) | kernel k |
//! | `0x2000_0000` and up | | the images' ELF files, where the command line says | emulator |
//!
//! So the machine needs RAM from 1 MiB to the end of the last ELF file: 1 GiB is plenty, and boot.s maps it as memory.
//! Firmware can have its own memory below the images. Only the directory, the regions and the doorbell belong to the
//! protocol.
//!
//! A kernel that serves another host (serve.rs) is linked where that host wants it, and uses nothing of this map. All
//! that it knows of the memory is its command line and its start info.

use crate::arch::RAM;
use mk_ipi_abi::{InstanceId, PhysAddr, PhysRange, PAGE_SIZE};
use mk_ipi_conformance::NATIVE_LEN;

/// Most kernels that the map has room for, the host included.
pub const MAX_KERNELS: usize = 16;
/// Page where a started CPU begins, on x86-64. boot.s has this address, too.
#[cfg(target_arch = "x86_64")]
pub const TRAMPOLINE: u64 = 0x8000;
/// First image window.
const IMAGES: u64 = RAM + 0x0100_0000;
/// Bytes of an image window.
const IMAGE_WINDOW: u64 = 0x0100_0000;
/// The demo's control area.
pub const CONTROL: u64 = RAM + 0x1800_0000;
/// Bytes of the control area.
pub const CONTROL_LEN: u64 = 0x1_0000;
/// First start info page.
const START_INFOS: u64 = CONTROL + CONTROL_LEN;
/// The directory.
pub const DIRECTORY: u64 = RAM + 0x1810_0000;
/// Bytes of the directory's window.
pub const DIRECTORY_LEN: u64 = 0x1_0000;
/// First instance pool.
const POOLS: u64 = RAM + 0x1900_0000;
/// First journal.
const JOURNALS: u64 = RAM + 0x1a00_0000;
/// Bytes of a journal's window.
pub const JOURNAL_LEN: u64 = 0x40_0000;
/// The ELF files must begin at or above this address, beyond all of the above.
pub const FILES: u64 = RAM + 0x2000_0000;
/// Bytes of an instance pool.
pub const POOL_LEN: u64 = 0x10_0000;

/// The range of `len` bytes at `start`, both constants of this map.
fn fixed(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr(start), len).expect("the memory map is in range")
}

/// Where the image of kernel `k` may lie.
pub fn image_window(k: usize) -> PhysRange {
    fixed(IMAGES + k as u64 * IMAGE_WINDOW, IMAGE_WINDOW)
}

/// The page of kernel `k`'s start info.
pub fn start_info(k: usize) -> u64 {
    START_INFOS + k as u64 * 0x1000
}

/// The journal of kernel `k`.
pub fn journal(k: usize) -> u64 {
    JOURNALS + k as u64 * JOURNAL_LEN
}

/// The directory's window.
pub fn directory() -> PhysRange {
    fixed(DIRECTORY, DIRECTORY_LEN)
}

/// The pool of `instance`, if the map has one for it.
pub fn pool(instance: InstanceId) -> Option<PhysRange> {
    let k = instance.index();
    (k < MAX_KERNELS).then(|| fixed(POOLS + k as u64 * POOL_LEN, POOL_LEN))
}

/// Slots of the conformance suite's regions: almost one for every physical id that one byte can hold.
pub const SUITE_SLOTS: u32 = 240;

/// `pages` of kernel `k`'s pool, ending `before` pages before the pool's end, for the conformance suite. The kernel's
/// region never reaches so far.
fn suite(k: usize, before: u64, pages: u64) -> PhysRange {
    fixed(POOLS + (k as u64 + 1) * POOL_LEN - (before + pages) * PAGE_SIZE, pages * PAGE_SIZE)
}

/// The page of kernel `k` that the conformance suite shares.
pub fn suite_page(k: usize) -> PhysRange {
    suite(k, 0, 1)
}

/// Kernel `k`'s slots in the conformance suite: 272 bytes each.
pub fn suite_region(k: usize) -> PhysRange {
    suite(k, 1, 16)
}

/// Kernel `k`'s native region in the conformance suite.
pub fn suite_native_region(k: usize) -> PhysRange {
    suite(k, 17, NATIVE_LEN / PAGE_SIZE)
}

/// All pools: the pages that a peer may share lie there.
pub fn pools() -> PhysRange {
    fixed(POOLS, MAX_KERNELS as u64 * POOL_LEN)
}

/// Returns whether `inner` lies within `outer`.
pub fn contains(outer: PhysRange, inner: PhysRange) -> bool {
    outer.start() <= inner.start() && inner.end() <= outer.end()
}
