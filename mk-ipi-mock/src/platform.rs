// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel on the machine hands to core.

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

/// One kernel of the machine: all of core's platform traits, and what its kernel code sets up.
///
/// A cheap handle. Its methods act for the CPU that calls. The thread that built the machine may call them too
/// and counts as the kernel's first CPU, with interrupts off; any other thread panics.
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

    /// Calls `f` with the number in the machine of the CPU that calls, and with that CPU unless the builder's
    /// thread stands in for it.
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

    /// Has `handler` called, with interrupts off, for each interrupt with `vector` at any CPU of this kernel.
    ///
    /// An interrupt without a handler is a panic.
    pub fn set_vector(&self, vector: Vector, handler: impl Fn() + Send + Sync + 'static) {
        lock(&self.state().vectors).insert(vector.get(), Arc::new(handler));
    }

    /// Has `routine` called for [`DeferredWork::schedule`], on the same CPU.
    pub fn set_deferred(&self, routine: impl Fn() + Send + Sync + 'static) {
        *lock(&self.state().deferred) = Some(Arc::new(routine));
    }

    /// Memory that this kernel uses for itself: it is not mapped, and no peer may share it.
    pub fn keep_private(&self, range: PhysRange) {
        lock(&self.state().private).push(range);
    }

    /// From now on each `map` fails for want of page tables, or no longer.
    pub fn refuse_maps(&self, refuse: bool) {
        self.state().maps_refused.store(refuse, Ordering::Relaxed);
    }

    /// How many mappings were not unmapped yet.
    pub fn live_mappings(&self) -> usize {
        lock(&self.state().mappings).len()
    }

    /// Accesses to shared memory and doorbells of this incarnation: the clock of
    /// [`Fault::Stop`](crate::Fault::Stop).
    pub fn accesses(&self) -> u64 {
        self.state().clocks[0].load(Ordering::Relaxed)
    }

    /// Accesses to shared memory and doorbells by CPUs whose interrupts were off, in the kernel's life.
    pub fn masked_accesses(&self) -> u64 {
        self.state().masked.load(Ordering::Relaxed)
    }

    /// Those accesses that others can see: the clock of [`Fault::StopAtStore`](crate::Fault::StopAtStore).
    pub fn stores(&self) -> u64 {
        self.state().clocks[1].load(Ordering::Relaxed)
    }

    /// Takes back every order to stop this incarnation.
    pub fn forget_stop(&self) {
        self.state().forget_stop();
    }

    /// The regions that this kernel's observer saw come and go.
    pub fn regions_seen(&self) -> Vec<RegionEvent> {
        lock(&self.state().regions).clone()
    }

    /// What happened to the peers of this kernel since the last call.
    pub fn peer_events(&self) -> Vec<(InstanceId, PeerEvent)> {
        self.peer_news().into_iter().map(|(peer, event)| (peer.id, event)).collect()
    }

    /// As [`peer_events`](Self::peer_events), with both lives.
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
// what was stored before; only the named CPU's register is touched; it works with interrupts on and off.
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
    /// Has the kernel map the directory at `range`, and ask it whose a CPU is. Without one it goes by how the machine was built.
    ///
    /// # Panics
    ///
    /// If the kernel may not map it.
    pub fn read_directory(&self, range: PhysRange) {
        self.map(range, Access::ReadOnly).expect("the directory can be mapped");
        *lock(&self.state().directory) = Some(range);
    }

    /// What the kernel's observer was told of messages that no handler took, since the last call.
    pub fn unhandled(&self) -> Vec<Unhandled> {
        std::mem::take(&mut *lock(&self.state().unhandled))
    }

    pub(crate) fn booted_as(&self, id: InstanceId) {
        self.state().instance.store(u32::from(id.get()) + 1, Ordering::Relaxed);
    }
}

// SAFETY: id and index belong to the CPU whose thread this is, for that thread's life; no two CPUs of a kernel
// share them, and a CPU has one thread at a time. The only other thread that gets past `here` is the one that
// built the machine, which waits while CPUs run.
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

// SAFETY: interrupts are taken by `Cpu::take_pending` alone, which does nothing while they are off; a CPU is a
// thread, so nothing migrates; `restore` switches on only what its `disable` found on.
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

// SAFETY: a mapping is the very words of `range`, which live as long as it does: `map` gives each one a
// reference of its own to the memory, which only `unmap` takes back. Private memory is refused.
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
        // SAFETY: `words` is a valid slice of words that any thread may use; the reference forgotten above keeps
        // it so until `unmap`.
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
        // SAFETY: `map` forgot one reference for this mapping, which is found and removed only once; `shared`
        // holds another, so the memory outlives this call.
        unsafe { Arc::decrement_strong_count(Arc::as_ptr(&self.shared.memory)) };
    }

    fn peer_may_share(&self, page: PhysRange) -> bool {
        self.shared.memory.words(page).is_some() && !self.private(page)
    }
}

// SAFETY: the pieces of a pool are disjoint runs of whole pages that nothing else is made from.
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
        // Without a directory: as the machine was built.
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
