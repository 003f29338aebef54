// SPDX-License-Identifier: MIT OR Apache-2.0
//! Allocates pages from the instance pools of the memory map (layout.rs). Only the host does this, on one CPU and with interrupts
//! off.

use crate::layout::{self, MAX_KERNELS, POOL_LEN};
use core::ops::Range;
use mk_ipi_abi::{InstanceId, PhysAddr, PhysRange, PAGE_SIZE};
use mk_ipi_core::platform::PoolError;
use mk_ipi_core::sync::{AtomicU64, Ordering};

/// The number of pages in an instance pool.
const POOL_PAGES: u64 = POOL_LEN / PAGE_SIZE;
/// The number of words in a bit map of these pages.
const POOL_WORDS: usize = (POOL_PAGES / 64) as usize;

/// One bit for each page of each pool. It is set while the page is allocated.
pub struct Pools([[AtomicU64; POOL_WORDS]; MAX_KERNELS]);

impl Pools {
    /// Pools whose pages are all free.
    pub const fn new() -> Self {
        Self([const { [const { AtomicU64::new(0) }; POOL_WORDS] }; MAX_KERNELS])
    }

    /// Allocates pages for `len` bytes from the pool of `instance`. Returns the physical address of the first page.
    pub fn alloc(&self, instance: InstanceId, len: u64) -> Result<PhysAddr, PoolError> {
        let pool = layout::pool(instance).ok_or(PoolError::NoPool)?;
        let pages = len.div_ceil(PAGE_SIZE).max(1);
        let free = |p| self.page(instance, p).is_some_and(|(w, bit)| w.load(Ordering::Relaxed) & bit == 0);
        let first = (0..POOL_PAGES.saturating_sub(pages - 1)).find(|&p| (p..p + pages).all(free));
        let first = first.ok_or(PoolError::Exhausted)?;
        self.mark(instance, first..first + pages, true);
        Ok(PhysAddr(pool.start().0 + first * PAGE_SIZE))
    }

    /// Frees a range that `alloc` has allocated.
    pub fn free(&self, instance: InstanceId, range: PhysRange) {
        let Some(pool) = layout::pool(instance).filter(|&p| layout::contains(p, range)) else { return };
        let first = (range.start().0 - pool.start().0) / PAGE_SIZE;
        self.mark(instance, first..first + range.len().div_ceil(PAGE_SIZE), false);
    }

    fn page(&self, instance: InstanceId, page: u64) -> Option<(&AtomicU64, u64)> {
        let word = self.0.get(instance.index())?.get((page / 64) as usize)?;
        Some((word, 1 << (page % 64)))
    }

    fn mark(&self, instance: InstanceId, pages: Range<u64>, taken: bool) {
        for (word, bit) in pages.filter_map(|p| self.page(instance, p)) {
            let old = word.load(Ordering::Relaxed);
            word.store(if taken { old | bit } else { old & !bit }, Ordering::Relaxed);
        }
    }
}
