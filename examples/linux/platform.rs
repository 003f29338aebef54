// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this Linux supplies to mk-ipi-core, trait by trait.

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
/// Messages that one run of the deferred work hands on, at most. This bounds the time in interrupt context.
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
    /// Stores the doorbell.
    ///
    /// # Safety
    ///
    /// Called once, before anything is sent.
    pub unsafe fn set_apic(&self, apic: Apic) {
        // SAFETY: nothing reads it yet (the caller promises it).
        APIC.0.with_mut(|place| unsafe { *place = Some(apic) });
    }

    /// The doorbell; `None` before `set_apic`.
    pub fn apic(&self) -> Option<&'static Apic> {
        // SAFETY: it is written only once, before this is called (`set_apic`).
        APIC.0.with(|place| unsafe { (*place).as_ref() })
    }
}

// SAFETY: passed on to the local APIC, which implements the trait as required. Linux's own vectors are not among those
// that instances list.
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

// SAFETY: these are Linux's own numbers, dense from 0. Core asks with interrupts off, or in a callback, which runs with
// interrupts off (deferred.rs).
unsafe impl ThisCpu for Linux {
    #[inline]
    fn physical_id(&self) -> PhysCpuId {
        // SAFETY: it reads per-CPU variables that do not change once the CPU is up.
        PhysCpuId(unsafe { ffi::mk_ipi_glue_apic_id(ffi::mk_ipi_glue_cpu()) }.into())
    }
    #[inline]
    fn index(&self) -> usize {
        // SAFETY: reads a per-CPU variable.
        unsafe { ffi::mk_ipi_glue_cpu() as usize }
    }
}

// SAFETY: these are `local_irq_save` and `local_irq_restore`, which nest. An NMI may use them, and leaves the flag as
// it found it.
unsafe impl LocalInterrupts for Linux {
    type State = u64;
    #[inline]
    fn disable(&self) -> u64 {
        // SAFETY: undone by `restore`.
        unsafe { ffi::mk_ipi_glue_irq_save() }
    }
    #[inline]
    fn restore(&self, state: u64) {
        // SAFETY: `state` is what `disable` returned.
        unsafe { ffi::mk_ipi_glue_irq_restore(state) };
    }
}

// SAFETY: `memremap` maps the whole range write-back; only memory that was kept from Linux is mapped (`memory::is_ours`).
//
// `memremap` has no read-only mappings. Core does not store to what it maps as read-only, but the page tables would let
// it.
unsafe impl PhysMemory for Linux {
    type Word = AtomicU64;

    fn map(&self, range: PhysRange, _: Access) -> Result<Mapping<AtomicU64>, MapError> {
        if !range.start().is_page_aligned() || range.len() % 8 != 0 {
            return Err(MapError::Misaligned);
        }
        if !memory::is_ours(range) {
            return Err(MapError::NotAllowed);
        }
        // SAFETY: it is memory of this module; `unmap` undoes it.
        let bytes = unsafe { memory::remap(range) }.ok_or(MapError::NoMemory)?;
        let words = NonNull::slice_from_raw_parts(bytes.cast::<AtomicU64>(), bytes.len() / 8);
        // SAFETY: page-aligned, mapped, and of this length until `unmap`. It is only used as words.
        Ok(unsafe { Mapping::new(words) })
    }

    unsafe fn unmap(&self, mapping: Mapping<AtomicU64>) {
        // SAFETY: `memremap` returned it; the caller promises the rest.
        unsafe { ffi::memunmap(mapping.as_ptr().as_ptr().cast()) };
    }

    /// Peers share pages in the instance pools, and no others.
    fn peer_may_share(&self, page: PhysRange) -> bool {
        memory::is_in_a_pool(page)
    }
}

// SAFETY: each pool is memory of one instance alone (memory.rs), and core zeroes it before it is published.
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
    /// Runs in interrupt context. The programs must end first, and that takes a task.
    fn stop(&self) {
        stop::on_stop();
    }
    fn peer_has_cpu(&self, peer: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        // SAFETY: core calls this while it holds the instance that it is about to ring.
        unsafe { listed::lists_cpu(peer, cpu) }
    }
    fn region_added(&self, instance: InstanceId, range: PhysRange) {
        memory::show_region(instance, range);
    }
    fn region_removed(&self, instance: InstanceId, _: PhysRange) {
        memory::hide_region(instance);
    }
}
