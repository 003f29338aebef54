// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this Linux supplies to mk-ipi-core: one trait, one paragraph.

use crate::apic::Apic;
use crate::callback::Callback;
use crate::peers::MAX_INSTANCES;
use crate::{deferred, ffi, listed, memory, peers, stop};
use core::ptr::NonNull;
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::platform::{
    Access, DeferredWork, Doorbell, DoorbellError, InstancePool, LocalInterrupts, MapError, Mapping,
    Observer, Peer, PeerEvent, PhysMemory, PoolError, ThisCpu,
};
use mk_ipi_core::sync::{AtomicU64, UnsafeCell};
use mk_ipi_core::Endpoint;

/// Most CPUs of this Linux.
pub const MAX_CPUS: usize = 512;
/// Messages that one run of the deferred work hands on, at most: what is bounded in interrupt context.
const BUDGET: usize = 16;

/// This kernel's end of every link.
pub static ENDPOINT: Endpoint<Linux, Callback, MAX_CPUS, 32, BUDGET, MAX_INSTANCES> = Endpoint::new(Linux);

/// This kernel.
pub struct Linux;

struct TheApic(UnsafeCell<Option<Apic>>);
// SAFETY: written once by `set_apic`, before anything reads it.
unsafe impl Sync for TheApic {}
static APIC: TheApic = TheApic(UnsafeCell::new(None));

impl Linux {
    /// Keeps the doorbell.
    ///
    /// # Safety
    ///
    /// Once, before anything is sent.
    pub unsafe fn set_apic(&self, apic: Apic) {
        // SAFETY: the caller: nobody reads it yet.
        APIC.0.with_mut(|place| unsafe { *place = Some(apic) });
    }

    /// The doorbell; `None` before `set_apic`.
    pub fn apic(&self) -> Option<&'static Apic> {
        // SAFETY: written once, before this (`set_apic`).
        APIC.0.with(|place| unsafe { (*place).as_ref() })
    }
}

// SAFETY: passed on to the local APIC, which keeps the duty; Linux's own vectors are not among those that instances list.
unsafe impl Doorbell for Linux {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.apic().ok_or(DoorbellError::Stuck)?.check(cpu, vector)
    }
    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.apic().ok_or(DoorbellError::Stuck)?.ring(cpu, vector)
    }
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.apic().ok_or(DoorbellError::Stuck)?.ring_from_nmi(cpu, vector)
    }
}

// SAFETY: Linux's own numbers, dense from 0. Core asks with interrupts off, or in a callback, which runs with interrupts off
// (deferred.rs).
unsafe impl ThisCpu for Linux {
    #[inline]
    fn physical_id(&self) -> PhysCpuId {
        // SAFETY: reads per-CPU variables that no CPU changes once it is up.
        PhysCpuId(unsafe { ffi::mk_ipi_glue_apic_id(ffi::mk_ipi_glue_cpu()) }.into())
    }
    #[inline]
    fn index(&self) -> usize {
        // SAFETY: reads a per-CPU variable.
        unsafe { ffi::mk_ipi_glue_cpu() as usize }
    }
}

// SAFETY: `local_irq_save` and `local_irq_restore`, which nest; an NMI may use them, and leaves the flag as it found it.
unsafe impl LocalInterrupts for Linux {
    type State = u64;
    #[inline]
    fn disable(&self) -> u64 {
        // SAFETY: undone by `restore`.
        unsafe { ffi::mk_ipi_glue_irq_save() }
    }
    #[inline]
    fn restore(&self, state: u64) {
        // SAFETY: what `disable` gave.
        unsafe { ffi::mk_ipi_glue_irq_restore(state) };
    }
}

// SAFETY: `memremap` maps the whole range write-back; only memory that was kept from Linux is mapped (`memory::is_ours`).
//
// `memremap` has no read-only mappings: what core maps so is not stored to by core, but the page tables would let it.
unsafe impl PhysMemory for Linux {
    type Word = AtomicU64;

    fn map(&self, range: PhysRange, _: Access) -> Result<Mapping<AtomicU64>, MapError> {
        if !range.start().is_page_aligned() || range.len() % 8 != 0 {
            return Err(MapError::Misaligned);
        }
        if !memory::is_ours(range) {
            return Err(MapError::NotAllowed);
        }
        // SAFETY: memory of ours; undone by `unmap`.
        let bytes = unsafe { memory::remap(range) }.ok_or(MapError::NoMemory)?;
        let words = NonNull::slice_from_raw_parts(bytes.cast::<AtomicU64>(), bytes.len() / 8);
        // SAFETY: page-aligned, mapped, and that long until `unmap`; used through words alone.
        Ok(unsafe { Mapping::new(words) })
    }

    unsafe fn unmap(&self, mapping: Mapping<AtomicU64>) {
        // SAFETY: what `memremap` gave; the caller has the rest.
        unsafe { ffi::memunmap(mapping.as_ptr().as_ptr().cast()) };
    }

    /// Peers share what is in the instance pools, and nothing else.
    fn peer_may_share(&self, page: PhysRange) -> bool {
        memory::is_in_a_pool(page)
    }
}

// SAFETY: each pool is memory of one instance's own (memory.rs), zeroed by core before it is published.
unsafe impl InstancePool for Linux {
    fn alloc(&self, instance: InstanceId, len: u64) -> Result<PhysAddr, PoolError> {
        memory::pool_alloc(instance, len)
    }
    unsafe fn free(&self, instance: InstanceId, _: PhysRange) {
        memory::pool_free(instance);
    }
}

impl DeferredWork for Linux {
    fn schedule(&self) {
        deferred::schedule();
    }
}

impl Observer for Linux {
    fn peer_event(&self, peer: Peer, event: PeerEvent) {
        peers::on_event(peer, event);
    }
    /// In interrupt context: programs end first, and that takes a task.
    fn stop(&self) {
        stop::on_stop();
    }
    fn peer_has_cpu(&self, peer: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        // SAFETY: core asks while it holds the instance that it is about to ring.
        unsafe { listed::lists_cpu(peer, cpu) }
    }
    fn region_added(&self, instance: InstanceId, range: PhysRange) {
        memory::show_region(instance, range);
    }
    fn region_removed(&self, instance: InstanceId, _: PhysRange) {
        memory::hide_region(instance);
    }
}
