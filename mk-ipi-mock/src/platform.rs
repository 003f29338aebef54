// SPDX-License-Identifier: MIT OR Apache-2.0
//! The platform that a kernel on this machine gives to `mk-ipi-core`.

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

/// One kernel of the machine. It implements all of core's platform traits, and lets the kernel's code set its handlers.
///
/// This is a handle that is cheap to clone. Its methods act for the CPU that calls them. The thread that built the machine can
/// call them too. It counts as the kernel's first CPU, with interrupts off. On any other thread they panic.
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

    /// Calls `f` with the number of the calling CPU in the machine, and with that CPU. The CPU is `None` if the thread that
    /// built the machine calls.
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

    /// The physical ids of its CPUs.
    pub fn cpus(&self) -> &[PhysCpuId] {
        &self.state().cpus
    }

    /// Sets the handler of `vector` for all CPUs of this kernel. It is called with interrupts off.
    ///
    /// A CPU that takes an interrupt without a handler panics.
    pub fn set_vector(&self, vector: Vector, handler: impl Fn() + Send + Sync + 'static) {
        lock(&self.state().vectors).insert(vector.get(), Arc::new(handler));
    }

    /// Sets the deferred work. After [`DeferredWork::schedule`], `routine` is called on the same CPU.
    pub fn set_deferred(&self, routine: impl Fn() + Send + Sync + 'static) {
        *lock(&self.state().deferred) = Some(Arc::new(routine));
    }

    /// Marks memory that this kernel uses for itself: `map` refuses it, and no peer may share it.
    pub fn keep_private(&self, range: PhysRange) {
        lock(&self.state().private).push(range);
    }

    /// Makes each `map` fail as if no memory were left for page tables, or ends that.
    pub fn refuse_maps(&self, refuse: bool) {
        self.state().maps_refused.store(refuse, Ordering::Relaxed);
    }

    /// How many mappings this kernel has.
    pub fn live_mappings(&self) -> usize {
        lock(&self.state().mappings).len()
    }

    /// How many accesses to shared memory and doorbells this incarnation has made. [`Fault::Stop`](crate::Fault::Stop) counts
    /// these.
    pub fn accesses(&self) -> u64 {
        self.state().clocks[0].load(Ordering::Relaxed)
    }

    /// How many accesses to shared memory and doorbells this kernel has made with interrupts off, in all its incarnations.
    pub fn masked_accesses(&self) -> u64 {
        self.state().masked.load(Ordering::Relaxed)
    }

    /// How many of its [`accesses`](Self::accesses) others can see. [`Fault::StopAtStore`](crate::Fault::StopAtStore) counts
    /// these.
    pub fn stores(&self) -> u64 {
        self.state().clocks[1].load(Ordering::Relaxed)
    }

    /// Cancels every fault that would stop this incarnation.
    pub fn forget_stop(&self) {
        self.state().forget_stop();
    }

    /// The regions that were added and removed, as this kernel's observer was told.
    pub fn regions_seen(&self) -> Vec<RegionEvent> {
        lock(&self.state().regions).clone()
    }

    /// The events about peers that this kernel's observer was told of since the last call.
    pub fn peer_events(&self) -> Vec<(InstanceId, PeerEvent)> {
        self.peer_news().into_iter().map(|(peer, event)| (peer.id, event)).collect()
    }

    /// As [`peer_events`](Self::peer_events), with both lives of each event.
    pub fn peer_news(&self) -> Vec<(Peer, PeerEvent)> {
        std::mem::take(&mut lock(&self.state().peers))
    }

    /// How often the host told this kernel to stop.
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
    /// Its kernel's platform.
    pub fn platform(&self) -> MockPlatform {
        MockPlatform::new(self.shared().clone(), self.kernel())
    }
}

// SAFETY: the vector is set in the target's register with release and taken with acquire, so its handler sees
// all stores before the ring. Only the named CPU's register is changed. It works with interrupts on and off.
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
    /// Makes the kernel map the directory at `range`, and look there which instance owns a CPU. Without a directory it uses the
    /// CPUs with which the machine was built.
    ///
    /// # Panics
    ///
    /// If the kernel may not map it.
    pub fn read_directory(&self, range: PhysRange) {
        self.map(range, Access::ReadOnly).expect("the directory can be mapped");
        *lock(&self.state().directory) = Some(range);
    }

    /// The messages that no handler took, as the kernel's observer was told since the last call.
    pub fn unhandled(&self) -> Vec<Unhandled> {
        std::mem::take(&mut *lock(&self.state().unhandled))
    }

    pub(crate) fn booted_as(&self, id: InstanceId) {
        self.state().instance.store(u32::from(id.get()) + 1, Ordering::Relaxed);
    }
}

// SAFETY: id and index belong to the CPU of this thread, as long as the thread lives. No two CPUs of a kernel have the same,
// and a CPU has one thread at a time. The only other thread that `here` accepts is the one that built the machine, and that one
// waits while CPUs run.
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
// migrate. `restore` switches interrupts on only if its `disable` found them on.
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

// SAFETY: a mapping refers to the words of `range` themselves. They live as long as the mapping: `map` takes one reference to the
// memory for each mapping, and only `unmap` gives it back. Private memory is refused.
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
        // SAFETY: `words` is a valid slice of words that any thread may use. The reference that was forgotten above keeps it
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
        // SAFETY: `map` forgot one reference for this mapping, and the mapping is found and removed only once. `shared` holds
        // another reference, so the memory outlives this call.
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
        // Without a directory, the answer comes from how the machine was built.
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
