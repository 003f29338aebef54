// SPDX-License-Identifier: MIT OR Apache-2.0
//! The implementation of `mk-ipi-core`'s platform traits for the kernels of the machine.

use crate::cpu::{with_current, Cpu};
use crate::kernel::{KernelState, RegionEvent, Unhandled};
use crate::memory::lock;
use crate::sched::Shared;
use crate::word::MockWord;
use mk_ipi_abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::directory::Directory;
use mk_ipi_core::platform::*;
use mk_ipi_core::Message;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::sync::Arc;

/// A handle of one kernel of the machine, which is cheap to clone. It implements all platform traits of `mk-ipi-core`, and has
/// methods that set the kernel's handlers.
///
/// Some trait methods depend on the calling CPU, for example `ring`, `disable`, `schedule` and `physical_id`. The CPUs of this
/// kernel can call them. The thread that built the machine can call them too: such a call counts as one by the kernel's first CPU
/// with interrupts off. On another thread, and on a CPU of another kernel, these methods panic.
#[derive(Clone)]
pub struct MockPlatform {
    shared: Arc<Shared>,
    kernel: usize,
}

impl core::fmt::Debug for MockPlatform {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("MockPlatform").field("kernel", &self.kernel).finish_non_exhaustive()
    }
}

impl MockPlatform {
    pub(crate) fn new(shared: Arc<Shared>, kernel: usize) -> Self {
        Self { shared, kernel }
    }

    fn state(&self) -> &KernelState {
        &self.shared.kernels[self.kernel]
    }

    /// Calls `f` with the calling CPU and its number in the machine. If the thread that built the machine calls this, the CPU is
    /// `None`, and the number is that of the kernel's first CPU.
    fn here<R>(&self, f: impl FnOnce(usize, Option<&Cpu>) -> R) -> R {
        with_current(|cpu| match cpu.and_then(|cpu| Some((cpu.number_in(&self.shared)?, cpu))) {
            Some((number, cpu)) => {
                let (own, kernel) = (self.kernel, cpu.kernel());
                assert!(kernel == own, "a CPU of kernel {kernel} uses the platform of kernel {own}");
                f(number, Some(cpu))
            }
            None => {
                let builder = std::thread::current().id() == self.shared.builder;
                assert!(builder, "a thread that is no CPU of this machine uses a platform");
                f(self.state().first_cpu, None)
            }
        })
    }

    /// Returns the physical ids of this kernel's CPUs.
    pub fn cpus(&self) -> &[PhysCpuId] {
        &self.state().cpus
    }

    /// Sets the handler of `vector` for all CPUs of this kernel. The machine calls it with interrupts off.
    ///
    /// If a CPU takes an interrupt whose vector has no handler, it panics, and the run fails.
    pub fn set_vector(&self, vector: Vector, handler: impl Fn() + Send + Sync + 'static) {
        lock(&self.state().vectors).insert(vector.get(), Arc::new(handler));
    }

    /// Sets the deferred work of this kernel. After [`DeferredWork::schedule`], the machine calls `routine` on the same CPU.
    pub fn set_deferred(&self, routine: impl Fn() + Send + Sync + 'static) {
        *lock(&self.state().deferred) = Some(Arc::new(routine));
    }

    /// Marks memory that this kernel uses for itself: its `map` refuses this memory, and its `peer_may_share` returns false for
    /// it.
    pub fn keep_private(&self, range: PhysRange) {
        lock(&self.state().private).push(range);
    }

    /// If `refuse` is true, each later `map` of this kernel fails, as if no memory were left for page tables. If it is false,
    /// `map` works again.
    pub fn refuse_maps(&self, refuse: bool) {
        self.state().maps_refused.store(refuse, Ordering::Relaxed);
    }

    /// Returns how many mappings this kernel has.
    pub fn live_mappings(&self) -> usize {
        lock(&self.state().mappings).len()
    }

    /// Returns how many accesses to shared memory this incarnation has made. Rings count too. [`Fault::Stop`](crate::Fault::Stop)
    /// uses this count.
    pub fn accesses(&self) -> u64 {
        self.state().clocks[0].load(Ordering::Relaxed)
    }

    /// Returns how many accesses to shared memory, and rings, this kernel has made with interrupts off, in all its incarnations.
    pub fn masked_accesses(&self) -> u64 {
        self.state().masked.load(Ordering::Relaxed)
    }

    /// Returns how many of the [`accesses`](Self::accesses) other kernels can see: stores, compare-and-swaps and rings.
    /// [`Fault::StopAtStore`](crate::Fault::StopAtStore) uses this count.
    pub fn stores(&self) -> u64 {
        self.state().clocks[1].load(Ordering::Relaxed)
    }

    /// Cancels all faults [`Stop`](crate::Fault::Stop) and [`StopAtStore`](crate::Fault::StopAtStore) of this kernel.
    pub fn forget_stop(&self) {
        self.state().forget_stop();
    }

    /// Returns the calls of `region_added` and `region_removed` that the core has made at this kernel in this incarnation.
    pub fn regions_seen(&self) -> Vec<RegionEvent> {
        lock(&self.state().regions).clone()
    }

    /// Returns the events about peers that the core reported to this kernel's `Observer` since the last call of this or of
    /// [`peer_news`](Self::peer_news), each with the peer's id.
    pub fn peer_events(&self) -> Vec<(InstanceId, PeerEvent)> {
        self.peer_news().into_iter().map(|(peer, event)| (peer.id, event)).collect()
    }

    /// Does the same as [`peer_events`](Self::peer_events), but returns the whole [`Peer`], with the incarnations of both
    /// kernels.
    pub fn peer_news(&self) -> Vec<(Peer, PeerEvent)> {
        std::mem::take(&mut lock(&self.state().peers))
    }

    /// Returns how often the core called `Observer::stop` at this kernel.
    pub fn stops(&self) -> u64 {
        self.state().stops.load(Ordering::Relaxed)
    }

    fn private(&self, range: PhysRange) -> bool {
        lock(&self.state().private).iter().any(|private| private.overlaps(range))
    }

    fn find_cpu(&self, cpu: PhysCpuId) -> Result<usize, DoorbellError> {
        self.shared.cpus.iter().position(|state| state.id == cpu).ok_or(DoorbellError::Unreachable(cpu))
    }
}

impl Cpu {
    /// Returns the platform of this CPU's kernel.
    pub fn platform(&self) -> MockPlatform {
        MockPlatform::new(self.shared().clone(), self.kernel())
    }
}

// SAFETY: the ring sets the vector in the target's request register with release, and the target takes it with acquire. So the
// handler sees all stores before the ring. Only the named CPU's register is changed. A ring works with interrupts on and off.
unsafe impl Doorbell for MockPlatform {
    fn check(&self, cpu: PhysCpuId, _: Vector) -> Result<(), DoorbellError> {
        self.find_cpu(cpu).map(drop)
    }

    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        let to = self.find_cpu(cpu)?;
        self.here(|from, cpu| match cpu {
            Some(cpu) => cpu.ring(to, vector),
            None => self.shared.ring(from, to, vector),
        });
        Ok(())
    }

    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.ring(cpu, vector)
    }
}

impl MockPlatform {
    /// Makes this kernel map the directory at `range`. After that, `peer_has_cpu` reads the directory. Without a directory,
    /// `peer_has_cpu` uses the CPUs with which the machine was built. Call this again when the kernel was started again, because
    /// its mappings are gone then.
    ///
    /// # Panics
    ///
    /// If `map` refuses the range.
    pub fn read_directory(&self, range: PhysRange) {
        self.map(range, Access::ReadOnly).expect("the directory can be mapped");
        *lock(&self.state().directory) = Some(range);
    }

    /// Returns the messages that the core passed to this kernel's `Observer::unhandled` since the last call.
    pub fn unhandled(&self) -> Vec<Unhandled> {
        std::mem::take(&mut *lock(&self.state().unhandled))
    }

    pub(crate) fn booted_as(&self, id: InstanceId) {
        self.state().instance.store(u32::from(id.get()) + 1, Ordering::Relaxed);
    }
}

// SAFETY: a thread is one CPU for as long as it runs, so id and index do not change. Two CPUs of a kernel have different ids and
// indices, and a CPU has only one thread at a time. The only other thread that `here` accepts is the thread that built the
// machine. That thread waits while CPUs run.
unsafe impl ThisCpu for MockPlatform {
    fn physical_id(&self) -> PhysCpuId {
        self.shared.cpus[self.here(|number, _| number)].id
    }

    fn index(&self) -> usize {
        self.shared.cpus[self.here(|number, _| number)].index
    }

    fn relax(&self) {
        self.here(|_, cpu| cpu.map_or_else(std::thread::yield_now, Cpu::relax));
    }
}

// SAFETY: only `Cpu::take_pending` takes interrupts, and it does nothing while they are off. A CPU is a thread, so code does not
// move to another CPU. `restore` switches interrupts on only if the matching `disable` found them on.
unsafe impl LocalInterrupts for MockPlatform {
    type State = bool;

    fn disable(&self) -> bool {
        self.here(|_, cpu| cpu.is_some_and(Cpu::disable_interrupts))
    }

    fn restore(&self, enabled: bool) {
        if enabled {
            self.here(|_, cpu| cpu.map(Cpu::enable_interrupts));
        }
    }
}

// SAFETY: a mapping refers to the words of `range` themselves. They stay valid as long as the mapping: `map` takes one reference
// to the memory for each mapping, and only `unmap` gives it back. `map` refuses the kernel's private memory.
unsafe impl PhysMemory for MockPlatform {
    type Word = MockWord;

    fn map(&self, range: PhysRange, access: Access) -> Result<Mapping<MockWord>, MapError> {
        if !range.start().is_page_aligned() || range.len() % 8 != 0 {
            return Err(MapError::Misaligned);
        }
        let words = self.shared.memory.words(range).ok_or(MapError::NotAllowed)?;
        if self.private(range) {
            return Err(MapError::NotAllowed);
        }
        if self.state().maps_refused.load(Ordering::Relaxed) {
            return Err(MapError::NoMemory);
        }
        lock(&self.state().mappings).push((range, access));
        self.state().count_pages(range, access, |count| count.fetch_add(1, Ordering::Relaxed));
        std::mem::forget(self.shared.memory.clone());
        // SAFETY: `words` is a valid slice of words that any thread may use. The reference that `forget` kept above makes it stay
        // valid until `unmap`.
        Ok(unsafe { Mapping::new(NonNull::from(words)) })
    }

    unsafe fn unmap(&self, mapping: Mapping<MockWord>) {
        let words = mapping.words();
        let range = words.first().and_then(|word| self.shared.memory.address_of(word));
        let range = range.and_then(|start| PhysRange::new(start, size_of_val(words) as u64));
        let mut mappings = lock(&self.state().mappings);
        let found = mappings.iter().rposition(|(mapped, _)| Some(*mapped) == range);
        let Some(found) = found else { panic!("unmap of {range:?}, which is not mapped") };
        let (range, access) = mappings.swap_remove(found);
        self.state().count_pages(range, access, |count| count.fetch_sub(1, Ordering::Relaxed));
        // SAFETY: `map` kept one reference for this mapping, and the mapping is found and removed only once. `shared` holds
        // another reference, so the memory still exists after this call.
        unsafe { Arc::decrement_strong_count(Arc::as_ptr(&self.shared.memory)) };
    }

    fn peer_may_share(&self, page: PhysRange) -> bool {
        self.shared.memory.words(page).is_some() && !self.private(page)
    }
}

// SAFETY: the pieces of a pool are disjoint ranges of whole pages, which nothing else uses.
unsafe impl InstancePool for MockPlatform {
    fn alloc(&self, instance: InstanceId, len: u64) -> Result<PhysAddr, PoolError> {
        self.shared.memory.alloc(instance, len)
    }

    unsafe fn free(&self, instance: InstanceId, range: PhysRange) {
        let mapped = lock(&self.state().mappings).iter().any(|(mapped, _)| mapped.overlaps(range));
        assert!(!mapped, "kernel {} frees {range:?}, which it still has mapped", self.kernel);
        self.shared.memory.free(instance, range);
    }
}

impl DeferredWork for MockPlatform {
    fn schedule(&self) {
        self.shared.cpus[self.here(|number, _| number)].deferred.store(true, Ordering::Release);
    }
}

impl Observer for MockPlatform {
    fn region_added(&self, instance: InstanceId, range: PhysRange) {
        lock(&self.state().regions).push(RegionEvent::Added(instance, range));
    }

    fn region_removed(&self, instance: InstanceId, range: PhysRange) {
        lock(&self.state().regions).push(RegionEvent::Removed(instance, range));
    }

    fn peer_event(&self, peer: Peer, event: PeerEvent) {
        lock(&self.state().peers).push((peer, event));
    }

    fn peer_has_cpu(&self, peer: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        if let Some(range) = *lock(&self.state().directory) {
            let words = self.shared.memory.words(range)?;
            return Some(Directory::open(words).ok()?.has_cpu(peer, cpu).unwrap_or(false));
        }
        // Without a directory, the kernel that has booted as this instance decides: it has the CPUs with which it was built.
        let is_peer =
            |kernel: &&KernelState| kernel.instance.load(Ordering::Relaxed) == u32::from(peer.get()) + 1;
        self.shared.kernels.iter().find(is_peer).map(|kernel| kernel.cpus.contains(&cpu))
    }

    fn unhandled(&self, message: &Message<'_>) {
        let message = (message.sender(), message.msg_type(), message.payload().to_vec());
        lock(&self.state().unhandled).push(message);
    }

    fn stop(&self) {
        self.state().stops.fetch_add(1, Ordering::Relaxed);
    }
}
