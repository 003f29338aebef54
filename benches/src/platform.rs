// SPDX-License-Identifier: MIT OR Apache-2.0
//! A platform for two kernels in one process, each a thread that polls: shared memory, and nothing to wait for.

use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector, PAGE_SIZE};
use mk_ipi_core::platform::{
    Access, DeferredWork, Doorbell, DoorbellError, InstancePool, LocalInterrupts, MapError, Mapping,
    Observer, PhysMemory, PoolError, ThisCpu,
};
use mk_ipi_core::sync::{AtomicU64, Ordering};

const PAGE_WORDS: usize = PAGE_SIZE as usize / 8;

#[repr(align(4096))]
struct Page(#[expect(dead_code, reason = "read as words of the whole memory")] [AtomicU64; PAGE_WORDS]);

/// The memory that both kernels see, zeroed, from physical address [`Memory::START`] on.
pub struct Memory {
    pages: Box<[Page]>,
    /// Bytes that the pool has given.
    given: AtomicU64,
}

impl Memory {
    /// Its first physical address.
    pub const START: PhysAddr = PhysAddr(1 << 32);

    /// At least `len` bytes.
    pub fn new(len: u64) -> Arc<Self> {
        let page = || Page([const { AtomicU64::new(0) }; PAGE_WORDS]);
        let pages = (0..len.div_ceil(PAGE_SIZE)).map(|_| page()).collect();
        Arc::new(Self { pages, given: AtomicU64::new(0) })
    }

    fn words(&self, range: PhysRange) -> Option<&[AtomicU64]> {
        let offset = range.start().0.checked_sub(Self::START.0)?;
        let first = usize::try_from(offset / 8).ok()?;
        // SAFETY: a `Page` is an array of `PAGE_WORDS` words and nothing else: as large as it is aligned.
        let words =
            unsafe { slice::from_raw_parts(self.pages.as_ptr().cast(), self.pages.len() * PAGE_WORDS) };
        words.get(first..first.checked_add(usize::try_from(range.len() / 8).ok()?)?)
    }
}

/// One kernel, with one CPU.
pub struct Host {
    memory: Arc<Memory>,
    cpu: PhysCpuId,
    /// Doorbells rung. Of this kernel's thread alone, so that counting costs no locked instruction.
    rung: AtomicU64,
}

impl Host {
    /// The kernel on the CPU `cpu`; it is to be used by one thread at a time.
    pub fn new(memory: Arc<Memory>, cpu: PhysCpuId) -> Self {
        Self { memory, cpu, rung: AtomicU64::new(0) }
    }
}

// SAFETY: there is no interrupt: the receiver polls, and reads with acquire what was published with release.
unsafe impl Doorbell for Host {
    #[inline(always)]
    fn check(&self, _: PhysCpuId, _: Vector) -> Result<(), DoorbellError> {
        Ok(())
    }
    #[inline(always)]
    fn ring(&self, _: PhysCpuId, _: Vector) -> Result<(), DoorbellError> {
        self.rung.store(self.rung.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        Ok(())
    }
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.ring(cpu, vector)
    }
}

// SAFETY: a kernel has one CPU, which is the thread that uses it.
unsafe impl ThisCpu for Host {
    #[inline(always)]
    fn physical_id(&self) -> PhysCpuId {
        self.cpu
    }
    #[inline(always)]
    fn index(&self) -> usize {
        0
    }
}

// SAFETY: there are no interrupts, and the one thread is pinned.
unsafe impl LocalInterrupts for Host {
    type State = ();
    #[inline(always)]
    fn disable(&self) {}
    #[inline(always)]
    fn restore(&self, (): ()) {}
}

// SAFETY: a mapping is a part of `memory`, which is aligned, lives as long as this `Host` and with it the
// endpoint that holds both, and is accessed as atomic words alone.
unsafe impl PhysMemory for Host {
    type Word = AtomicU64;
    fn map(&self, range: PhysRange, _: Access) -> Result<Mapping<AtomicU64>, MapError> {
        if !range.start().is_page_aligned() {
            return Err(MapError::Misaligned);
        }
        let words = self.memory.words(range).ok_or(MapError::NotAllowed)?;
        // SAFETY: see above.
        Ok(unsafe { Mapping::new(NonNull::from(words)) })
    }
    unsafe fn unmap(&self, _: Mapping<AtomicU64>) {}
    fn peer_may_share(&self, _: PhysRange) -> bool {
        false
    }
}

// SAFETY: nothing is given twice, as nothing is taken back.
unsafe impl InstancePool for Host {
    fn alloc(&self, _: InstanceId, len: u64) -> Result<PhysAddr, PoolError> {
        let at = self.memory.given.fetch_add(len.next_multiple_of(PAGE_SIZE), Ordering::Relaxed);
        Ok(PhysAddr(Memory::START.0 + at))
    }
    unsafe fn free(&self, _: InstanceId, _: PhysRange) {}
}

impl DeferredWork for Host {
    #[inline(always)]
    fn schedule(&self) {
        // Whoever polls runs the deferred work next.
    }
}

impl Observer for Host {}
