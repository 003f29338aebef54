// SPDX-License-Identifier: MIT OR Apache-2.0
//! Physical memory and the instance pools in it.

use crate::word::MockWord;
use mk_ipi_abi::{InstanceId, PhysAddr, PhysRange, PAGE_SIZE};
use mk_ipi_core::platform::PoolError;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The physical address of the first byte of memory.
pub const MEMORY_START: PhysAddr = PhysAddr(0x10_0000);
/// The value of each word of newly allocated memory. It is not 0, so that code that expects zeros fails.
pub const POISON_ALLOC: u64 = 0xa5a5_a5a5_a5a5_a5a5;
/// The value of each word that was given back to a pool.
pub const POISON_FREE: u64 = 0x6b6b_6b6b_6b6b_6b6b;

const WORDS_PER_PAGE: usize = 512;

const _: () = assert!(size_of::<MockWord>() == 8 && align_of::<MockWord>() == align_of::<u64>());

/// Locks `mutex`, even if a thread panicked while it held the lock. The state under these locks is consistent at all times, so it
/// can still be used.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Pool {
    range: PhysRange,
    live: Vec<PhysRange>,
    exhausted: bool,
}

/// All physical memory of a machine. It begins at [`MEMORY_START`].
#[derive(Debug)]
pub(crate) struct Memory {
    words: Box<[MockWord]>,
    next: Mutex<u64>,
    pools: Mutex<BTreeMap<u8, Pool>>,
}

impl Memory {
    pub fn new(pages: usize) -> Self {
        // The operating system provides zeroed pages at their first access. So a machine uses only as much memory as it accesses.
        let zeroed = Box::into_raw(vec![0u64; pages * WORDS_PER_PAGE].into_boxed_slice());
        // SAFETY: `MockWord` is a transparent AtomicU64. It has the size and alignment of a u64 (asserted above), and all
        // values of a u64 are valid. `into_raw` gave up the box, so nothing else owns it.
        let words = unsafe { Box::from_raw(zeroed as *mut [MockWord]) };
        Self { words, next: Mutex::new(MEMORY_START.0), pools: Mutex::default() }
    }

    pub fn pages(&self) -> usize {
        self.words.len() / WORDS_PER_PAGE
    }

    /// Returns the words of `range`. Its length is rounded down to a multiple of 8. Returns `None` if a part of the range is
    /// outside of this memory.
    pub fn words(&self, range: PhysRange) -> Option<&[MockWord]> {
        let first = usize::try_from(range.start().0.checked_sub(MEMORY_START.0)? / 8).ok()?;
        self.words.get(first..first.checked_add(usize::try_from(range.len() / 8).ok()?)?)
    }

    /// Returns the word at physical address `at`. Panics if `at` is misaligned or outside of this memory.
    pub fn word(&self, at: PhysAddr) -> &MockWord {
        assert!(at.0 % 8 == 0, "{:#x} is not the address of a word", at.0);
        let word = PhysRange::new(at, 8).and_then(|range| self.words(range)?.first());
        word.unwrap_or_else(|| panic!("no memory at {:#x}", at.0))
    }

    /// Returns the physical address of `word`, or `None` if the word is not in this memory.
    pub fn address_of(&self, word: &MockWord) -> Option<PhysAddr> {
        let offset = (&raw const *word as usize).checked_sub(self.words.as_ptr() as usize)?;
        (offset < self.words.len() * 8).then(|| PhysAddr(MEMORY_START.0 + offset as u64))
    }

    /// Reserves pages that nothing else uses. They are never given back.
    pub fn reserve(&self, len: u64) -> PhysRange {
        let mut next = lock(&self.next);
        let range = PhysRange::new(PhysAddr(*next), len.next_multiple_of(PAGE_SIZE)).expect("an empty range");
        assert!(self.words(range).is_some(), "the machine has no {len} bytes of memory left");
        *next = range.end().0;
        range
    }

    pub fn add_pool(&self, instance: InstanceId, len: u64) {
        let pool = Pool { range: self.reserve(len), live: Vec::new(), exhausted: false };
        assert!(lock(&self.pools).insert(instance.get(), pool).is_none(), "a second pool for {instance:?}");
    }

    /// Allocates pages from the pool of `instance`, at the lowest free address. So freed memory is soon used again, and a use
    /// after free does damage that a test can notice.
    pub fn alloc(&self, instance: InstanceId, len: u64) -> Result<PhysAddr, PoolError> {
        let mut pools = lock(&self.pools);
        let pool = pools.get_mut(&instance.get()).ok_or(PoolError::NoPool)?;
        if pool.exhausted {
            return Err(PoolError::Exhausted);
        }
        let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or(PoolError::Exhausted)?;
        let mut start = pool.range.start();
        for live in &pool.live {
            if live.start().0 - start.0 >= len {
                break;
            }
            start = live.end();
        }
        let piece = PhysRange::new(start, len).filter(|p| p.end() <= pool.range.end());
        let piece = piece.ok_or(PoolError::Exhausted)?;
        pool.live.push(piece);
        pool.live.sort_by_key(|r| r.start());
        self.fill(piece, POISON_ALLOC);
        Ok(start)
    }

    pub fn free(&self, instance: InstanceId, range: PhysRange) {
        let mut pools = lock(&self.pools);
        let whole = range.len().next_multiple_of(PAGE_SIZE);
        let pool = pools.get_mut(&instance.get()).unwrap_or_else(|| panic!("free to {instance:?}: no pool"));
        let found = pool.live.iter().position(|r| r.start() == range.start() && r.len() == whole);
        let Some(found) = found else { panic!("free of {range:?}, which is not allocated") };
        self.fill(pool.live.remove(found), POISON_FREE);
    }

    pub fn pool_used(&self, instance: InstanceId) -> u64 {
        let pools = lock(&self.pools);
        pools.get(&instance.get()).map_or(0, |pool| pool.live.iter().map(|r| r.len()).sum())
    }

    pub fn exhaust_pool(&self, instance: InstanceId, exhausted: bool) {
        let mut pools = lock(&self.pools);
        pools.get_mut(&instance.get()).expect("no such pool").exhausted = exhausted;
    }

    fn fill(&self, range: PhysRange, value: u64) {
        for word in self.words(range).unwrap_or_default() {
            word.raw().store(value, Ordering::Relaxed);
        }
    }
}

/// Returns the indices of the pages that contain a byte of `range`. Page 0 begins at [`MEMORY_START`].
pub(crate) fn pages_of(range: PhysRange) -> std::ops::Range<usize> {
    let page = |at: u64| usize::try_from((at - MEMORY_START.0) / PAGE_SIZE).expect("LP64");
    page(range.start().0)..page(range.end().0 - 1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const I: InstanceId = InstanceId::new(3);

    fn range(at: PhysAddr, len: u64) -> PhysRange {
        PhysRange::new(at, len).unwrap()
    }

    #[test]
    fn pools_run_out_and_use_freed_pages_again() {
        let m = Memory::new(4);
        assert_eq!(m.alloc(I, 1), Err(PoolError::NoPool));
        m.add_pool(I, 3 * 4096);
        let (a, b) = (m.alloc(I, 1).unwrap(), m.alloc(I, 4097).unwrap());
        assert_eq!((a, b, m.pool_used(I)), (MEMORY_START, PhysAddr(0x10_1000), 3 * 4096));
        assert_eq!(m.alloc(I, 1), Err(PoolError::Exhausted));
        assert_eq!(m.alloc(I, u64::MAX), Err(PoolError::Exhausted));
        m.free(I, range(a, 1));
        assert_eq!(m.alloc(I, 4097), Err(PoolError::Exhausted));
        assert_eq!(m.alloc(I, 4096), Ok(a));
        m.exhaust_pool(I, true);
        m.free(I, range(b, 4097));
        assert_eq!(m.alloc(I, 1), Err(PoolError::Exhausted));
        m.exhaust_pool(I, false);
        assert_eq!(m.alloc(I, 1), Ok(b));
    }

    #[test]
    fn memory_is_poisoned_when_it_changes_hands() {
        let m = Memory::new(1);
        m.add_pool(I, 4096);
        let at = m.alloc(I, 100).unwrap();
        assert_eq!(m.word(at).raw().load(Ordering::Relaxed), POISON_ALLOC);
        m.free(I, range(at, 100));
        assert_eq!(m.word(PhysAddr(at.0 + 4088)).raw().load(Ordering::Relaxed), POISON_FREE);
    }

    #[test]
    #[should_panic(expected = "not allocated")]
    fn a_double_free_is_refused() {
        let m = Memory::new(1);
        m.add_pool(I, 4096);
        let at = m.alloc(I, 100).unwrap();
        m.free(I, range(at, 100));
        m.free(I, range(at, 100));
    }

    #[test]
    fn addresses_and_words_agree() {
        let m = Memory::new(2);
        let at = PhysAddr(MEMORY_START.0 + 4096 + 8);
        assert_eq!(m.address_of(m.word(at)), Some(at));
        assert_eq!(m.address_of(&MockWord::new(0)), None);
        assert!(m.words(range(MEMORY_START, 2 * 4096)).is_some_and(|w| w.len() == 1024));
        for (start, len) in
            [(MEMORY_START, 2 * 4096 + 8), (PhysAddr(0), 8), (PhysAddr(MEMORY_START.0 - 8), 16)]
        {
            assert!(m.words(range(start, len)).is_none());
        }
    }
}
