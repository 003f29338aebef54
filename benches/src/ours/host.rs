// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels in one process that share memory. Each has one CPU. The platform's methods do as little as possible, so that mk-ipi
//! itself is measured.
//!
//! `tests/instructions` uses this file too.

use std::array;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::{
    Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange, Vector, PAGE_SIZE,
};
use mk_ipi_core::platform::{
    Access, DeferredWork, Doorbell, DoorbellError, InstancePool, LocalInterrupts, MapError, Mapping,
    Observer, PhysMemory, PoolError, ThisCpu,
};
use mk_ipi_core::sync::{AtomicU64, Ordering, Word};
use mk_ipi_core::{Endpoint, Handler, InstanceConfig, LinkConfig};

/// The type of every message.
pub const NUMBERED: MessageType = MessageType(7);

/// A kernel. `CPUS` is the number of CPUs for which its endpoint is made. The kernel uses only one CPU.
pub type Kernel<W, H, const CPUS: usize> = Endpoint<Host<W>, H, CPUS, 1>;

/// A word of shared memory that can be made with the value 0.
pub trait Zero: Word {
    /// Makes a word with the value 0.
    fn zero() -> Self;
}

impl Zero for AtomicU64 {
    fn zero() -> Self {
        Self::new(0)
    }
}

const PAGE_WORDS: usize = PAGE_SIZE as usize / 8;

#[repr(align(4096))]
struct Page<W>([W; PAGE_WORDS]);

/// The memory that all kernels share. It is zeroed, and begins at physical address [`START`].
pub struct Memory<W> {
    pages: Box<[Page<W>]>,
    /// How many bytes the pool has given out.
    given: AtomicU64,
}

/// The physical address at which [`Memory`] begins.
pub const START: PhysAddr = PhysAddr(1 << 32);

impl<W: Zero> Memory<W> {
    /// Makes memory of at least `len` bytes.
    pub fn new(len: u64) -> Arc<Self> {
        let page = || Page(array::from_fn(|_| W::zero()));
        let pages = (0..len.div_ceil(PAGE_SIZE)).map(|_| page()).collect();
        Arc::new(Self { pages, given: AtomicU64::new(0) })
    }

    fn words(&self, range: PhysRange) -> Option<&[W]> {
        const { assert!(size_of::<Page<W>>() == PAGE_SIZE as usize && size_of::<W>() == 8) };
        let offset = range.start().0.checked_sub(START.0)?;
        let first = usize::try_from(offset / 8).ok()?;
        // SAFETY: a `Page` is an array of `PAGE_WORDS` words and has no padding (asserted above).
        let words =
            unsafe { slice::from_raw_parts(self.pages.as_ptr().cast(), self.pages.len() * PAGE_WORDS) };
        words.get(first..first.checked_add(usize::try_from(range.len() / 8).ok()?)?)
    }
}

/// The platform of a kernel.
pub struct Host<W> {
    memory: Arc<Memory<W>>,
    cpu: PhysCpuId,
    /// How many doorbells this kernel has rung. Only this kernel's thread writes it, so no locked instruction is needed.
    rung: AtomicU64,
}

impl<W: Zero> Host<W> {
    /// The platform of the kernel on CPU `cpu`. Only one thread at a time may use it.
    pub const fn new(memory: Arc<Memory<W>>, cpu: PhysCpuId) -> Self {
        Self { memory, cpu, rung: AtomicU64::new(0) }
    }

    /// How many doorbells this kernel has rung.
    pub fn rung(&self) -> u64 {
        self.rung.load(Ordering::Relaxed)
    }
}

/// Makes a kernel that has an identity and one handler. `me` is its instance id, and also the physical id of its CPU.
pub fn kernel<W: Zero, H: Handler, const CPUS: usize>(
    memory: &Arc<Memory<W>>,
    me: u8,
    handler: H,
) -> Box<Kernel<W, H, CPUS>> {
    let kernel = Box::new(Kernel::new(Host::new(memory.clone(), PhysCpuId(me.into()))));
    kernel.identify(InstanceId::new(me), Incarnation::FIRST);
    let _for_ever = kernel.register(NUMBERED, handler).expect("room for a handler");
    kernel
}

/// Lets each of two kernels make its own region, and attach the region of the other.
pub fn link<W: Zero, H: Handler, const CPUS: usize>(kernels: [(&Kernel<W, H, CPUS>, u8, Geometry); 2]) {
    let regions = kernels.map(|(kernel, me, geometry)| create(kernel, me, geometry));
    let [(a, a_id, _), (b, b_id, _)] = kernels;
    attach(a, b_id, regions[1]);
    attach(b, a_id, regions[0]);
}

/// Lets a kernel make its own region. Returns the range of the region.
pub fn create<W: Zero, H: Handler, const CPUS: usize>(
    kernel: &Kernel<W, H, CPUS>,
    me: u8,
    geometry: Geometry,
) -> PhysRange {
    let create = |config: &InstanceConfig<'_>| kernel.create_instance(config);
    configured(me, LinkConfig::Native(Some(geometry)), create).expect("a region")
}

/// Lets a kernel attach the instance `id`, whose region is `region`.
pub fn attach<W: Zero, H: Handler, const CPUS: usize>(
    kernel: &Kernel<W, H, CPUS>,
    id: u8,
    region: PhysRange,
) {
    let attach = |config: &InstanceConfig<'_>| kernel.attach_instance(config, Some(region));
    configured(id, LinkConfig::Native(None), attach).expect("a region in memory");
}

/// Calls `with` with the config of instance `id`.
pub fn configured<R>(id: u8, link: LinkConfig, with: impl FnOnce(&InstanceConfig<'_>) -> R) -> R {
    let cpu = PhysCpuId(id.into());
    with(&InstanceConfig {
        id: InstanceId::new(id),
        incarnation: Incarnation::FIRST,
        cpus: &[cpu],
        doorbell_cpu: cpu,
        vector: Vector::RFC_V2,
        link,
        one_doorbell: false,
    })
}

// SAFETY: a doorbell causes no interrupt here. Receivers poll, and load with acquire what senders store with release.
unsafe impl<W: Zero> Doorbell for Host<W> {
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

// SAFETY: a kernel has one CPU. The thread that uses the kernel is that CPU.
unsafe impl<W: Zero> ThisCpu for Host<W> {
    #[inline(always)]
    fn physical_id(&self) -> PhysCpuId {
        self.cpu
    }
    #[inline(always)]
    fn index(&self) -> usize {
        0
    }
    #[inline(always)]
    fn compare_exchange_alone(&self, word: &AtomicU64, current: u64, new: u64) -> bool {
        mk_ipi_x86::compare_exchange_alone(word, current, new)
    }
}

// SAFETY: there are no interrupts, and the only thread of a kernel is the kernel's CPU.
unsafe impl<W: Zero> LocalInterrupts for Host<W> {
    type State = ();
    #[inline(always)]
    fn disable(&self) {}
    #[inline(always)]
    fn restore(&self, (): ()) {}
}

// SAFETY: a mapping is a part of `memory`. This memory is aligned, is accessed only as `W`, and exists as long as this `Host`.
// The endpoint owns the `Host` and the mapping.
unsafe impl<W: Zero> PhysMemory for Host<W> {
    type Word = W;
    fn map(&self, range: PhysRange, _: Access) -> Result<Mapping<W>, MapError> {
        if !range.start().is_page_aligned() {
            return Err(MapError::Misaligned);
        }
        let words = self.memory.words(range).ok_or(MapError::NotAllowed)?;
        // SAFETY: the comment at the `impl` gives the proof.
        Ok(unsafe { Mapping::new(NonNull::from(words)) })
    }
    unsafe fn unmap(&self, _: Mapping<W>) {}
    fn peer_may_share(&self, _: PhysRange) -> bool {
        false
    }
}

// SAFETY: no memory is given out twice, because freed memory is not used again.
unsafe impl<W: Zero> InstancePool for Host<W> {
    fn alloc(&self, _: InstanceId, len: u64) -> Result<PhysAddr, PoolError> {
        let at = self.memory.given.fetch_add(len.next_multiple_of(PAGE_SIZE), Ordering::Relaxed);
        Ok(PhysAddr(START.0 + at))
    }
    unsafe fn free(&self, _: InstanceId, _: PhysRange) {}
}

impl<W: Zero> DeferredWork for Host<W> {
    #[inline(always)]
    fn schedule(&self) {
        // Nothing to do: the benchmarks run the deferred work themselves.
    }
}

impl<W: Zero> Observer for Host<W> {}
