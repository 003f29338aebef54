// SPDX-License-Identifier: MIT OR Apache-2.0
//! Implements for Linux the traits by which mk-ipi-core calls a kernel.

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

/// The largest number of CPUs of this Linux.
pub const MAX_CPUS: usize = 512;
/// The largest number of messages for which one run of the deferred work calls handlers. This bounds the time in interrupt
/// context.
const BUDGET: usize = 16;

/// This kernel's endpoint. It contains this kernel's end of each link.
pub static ENDPOINT: Endpoint<Linux, Callback, MAX_CPUS, 32, BUDGET, MAX_INSTANCES> = Endpoint::new(Linux);

/// This Linux, which implements the traits.
pub struct Linux;

struct TheApic(UnsafeCell<Option<Apic>>);
// SAFETY: `set_apic` writes it once, before other code reads it.
unsafe impl Sync for TheApic {}
static APIC: TheApic = TheApic(UnsafeCell::new(None));

impl Linux {
    /// Stores the local APIC, which rings the doorbells.
    ///
    /// # Safety
    ///
    /// Called once, before anything is sent.
    pub unsafe fn set_apic(&self, apic: Apic) {
        // SAFETY: no code reads it yet (the caller promises it).
        APIC.0.with_mut(|place| unsafe { *place = Some(apic) });
    }

    /// The local APIC. `None` if `set_apic` was not called.
    pub fn apic(&self) -> Option<&'static Apic> {
        // SAFETY: `set_apic` writes it once, and no other code runs this function at that time.
        APIC.0.with(|place| unsafe { (*place).as_ref() })
    }
}

// SAFETY: the local APIC implements the trait as required, and these functions only call it. No instance lists a vector that
// Linux uses for itself.
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

// SAFETY: these are Linux's own numbers of the CPUs, which are dense and begin at 0. Core calls these functions with
// interrupts off, or in a handler, which runs with interrupts off (deferred.rs). So the task stays on its CPU.
unsafe impl ThisCpu for Linux {
    #[inline]
    fn physical_id(&self) -> PhysCpuId {
        // SAFETY: it reads per-CPU variables that do not change while the CPU is online.
        PhysCpuId(unsafe { ffi::mk_ipi_glue_apic_id(ffi::mk_ipi_glue_cpu()) }.into())
    }
    #[inline]
    fn index(&self) -> usize {
        // SAFETY: it reads a per-CPU variable.
        unsafe { ffi::mk_ipi_glue_cpu() as usize }
    }
}

// SAFETY: these are `local_irq_save` and `local_irq_restore`, which can be nested. An NMI can call them, and leaves the
// interrupt flag as it was.
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

// SAFETY: `memremap` maps the complete range as write-back memory. Only memory that Linux does not use is mapped
// (`memory::is_ours`).
//
// `memremap` has no read-only mappings. Core does not write to memory that it maps read-only, but the page tables would
// allow it.
unsafe impl PhysMemory for Linux {
    type Word = AtomicU64;

    fn map(&self, range: PhysRange, _: Access) -> Result<Mapping<AtomicU64>, MapError> {
        if !range.start().is_page_aligned() || range.len() % 8 != 0 {
            return Err(MapError::Misaligned);
        }
        if !memory::is_ours(range) {
            return Err(MapError::NotAllowed);
        }
        // SAFETY: it is memory of this module. `unmap` removes the mapping.
        let bytes = unsafe { memory::remap(range) }.ok_or(MapError::NoMemory)?;
        let words = NonNull::slice_from_raw_parts(bytes.cast::<AtomicU64>(), bytes.len() / 8);
        // SAFETY: the memory is page-aligned, and mapped with this length until `unmap`. It is used only as words.
        Ok(unsafe { Mapping::new(words) })
    }

    unsafe fn unmap(&self, mapping: Mapping<AtomicU64>) {
        // SAFETY: `memremap` returned this address, and the mapping is not used any more (the caller promises it).
        unsafe { ffi::memunmap(mapping.as_ptr().as_ptr().cast()) };
    }

    /// A peer can share only pages of instance pools.
    fn peer_may_share(&self, page: PhysRange) -> bool {
        memory::is_in_a_pool(page)
    }
}

// SAFETY: each pool belongs to one instance only (memory.rs), and core fills the region with zeros before other kernels use
// it.
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
    /// Called when the host asks this kernel to stop. Can run in interrupt context. So it only queues a work item, which
    /// begins a shutdown: the programs end first.
    fn stop(&self) {
        stop::on_stop();
    }
    fn peer_has_cpu(&self, peer: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        // SAFETY: core calls this while it holds the instance whose doorbell it rings next.
        unsafe { listed::lists_cpu(peer, cpu) }
    }
    fn region_added(&self, instance: InstanceId, range: PhysRange) {
        memory::show_region(instance, range);
    }
    fn region_removed(&self, instance: InstanceId, _: PhysRange) {
        memory::hide_region(instance);
    }
}
