// SPDX-License-Identifier: MIT OR Apache-2.0
//! mk-ipi in this kernel: the platform traits of mk-ipi-core, and the handlers of the doorbell.

use crate::{layout, platform};
use axcpu::asm::{disable_irqs, enable_irqs, irqs_enabled};
use axplat::mem::{pa, phys_ram_ranges, phys_to_virt, virt_to_phys};
use core::ptr::NonNull;
use mk_ipi_abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::platform::{
    Access, DeferredWork, Doorbell, DoorbellError, InstancePool, LocalInterrupts, MapError, Mapping,
    Observer, Peer, PeerEvent, PhysMemory, PoolError, ThisCpu,
};
use mk_ipi_core::sync::{AtomicBool, AtomicU64, Ordering};
use mk_ipi_x86::mode::ApicBase;
use mk_ipi_x86::{Hardware, LocalApic, ModeError};
use spin::Once;

/// The doorbell's vector. axplat-x86-pc uses the vectors 0xf0 to 0xf3, and the lower ones for lines of the I/O APIC.
pub const DOORBELL: Vector = Vector::new(0xf4).unwrap();
/// A second vector, for the conformance suite.
pub const SPARE_VECTOR: Vector = Vector::new(0xf5).unwrap();

/// The platform of this kernel's endpoints.
pub struct Kernel;

static APIC: Once<(LocalApic<Hardware>, PhysCpuId)> = Once::new();
/// True if deferred work is due.
static DUE: AtomicBool = AtomicBool::new(false);
/// How often `ring` was called.
pub static RUNG: AtomicU64 = AtomicU64::new(0);

/// Uses the local APIC as axplat has set it up, and registers the handlers of the doorbell.
pub fn start() -> Result<(), ModeError> {
    // SAFETY: this `Hardware` is only used to read `IA32_APIC_BASE`.
    let base = ApicBase::read(&unsafe { Hardware::new(None) }).page().0;
    let page = NonNull::new(virtual_address(base) as *mut u8);
    // SAFETY: axplat has mapped all of memory, and does not unmap it. The MTRRs prevent that the APIC's page is cached;
    // axplat relies on this, too. If axplat changes the APIC's mode, it has done so already.
    let apic = LocalApic::new(unsafe { Hardware::new(page) })?;
    APIC.call_once(|| (apic, apic.apic_id()));
    // axplat acknowledges the interrupt after the handler has returned. README.md says why this is safe.
    let opened = axplat::irq::register(DOORBELL.get().into(), platform::on_doorbell)
        && axplat::irq::register(SPARE_VECTOR.get().into(), platform::on_spare);
    assert!(opened, "a vector has a handler already");
    Ok(())
}

/// The machine's RAM.
pub fn ram() -> impl Iterator<Item = PhysRange> {
    let ranges = phys_ram_ranges().iter();
    ranges.filter_map(|&(start, len)| PhysRange::new(PhysAddr(start as u64), len as u64))
}

/// The virtual address at which the physical address `physical` is mapped.
pub fn virtual_address(physical: u64) -> u64 {
    phys_to_virt(pa!(physical as usize)).as_usize() as u64
}

/// The memory of this image.
pub fn image_range() -> PhysRange {
    extern "C" {
        static _skernel: u8;
        static _ebss: u8;
    }
    let physical = |at: *const u8| virt_to_phys((at as usize).into()).as_usize() as u64;
    let (start, end) = (physical(&raw const _skernel), physical(&raw const _ebss));
    PhysRange::new(PhysAddr(start), end - start).expect("an image ends after its beginning")
}

/// The local APIC.
pub fn apic() -> LocalApic<Hardware> {
    APIC.get().expect("start comes before any use").0
}

/// Returns whether deferred work is due, and marks it as not due. If it was due, the caller must run it.
pub fn take_due() -> bool {
    DUE.swap(false, Ordering::Relaxed)
}

// SAFETY: each call is passed on to the local APIC, which implements the trait as required.
unsafe impl Doorbell for Kernel {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        apic().check(cpu, vector)
    }

    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        RUNG.fetch_add(1, Ordering::Relaxed);
        apic().ring(cpu, vector)
    }

    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        apic().ring_from_nmi(cpu, vector)
    }
}

// SAFETY: there is one CPU, and its id was read at its start.
unsafe impl ThisCpu for Kernel {
    fn physical_id(&self) -> PhysCpuId {
        APIC.get().expect("start comes before any use").1
    }

    fn index(&self) -> usize {
        0
    }
}

// SAFETY: there is one CPU, and this turns its interrupts off and on.
unsafe impl LocalInterrupts for Kernel {
    type State = bool;

    fn disable(&self) -> bool {
        let were_on = irqs_enabled();
        disable_irqs();
        were_on
    }

    fn restore(&self, were_on: bool) {
        if were_on {
            enable_irqs();
        }
    }
}

// SAFETY: axplat has mapped all of RAM write-back cached, and does not unmap it. `map` returns nothing of this kernel's own
// image.
unsafe impl PhysMemory for Kernel {
    type Word = AtomicU64;

    fn map(&self, range: PhysRange, _: Access) -> Result<Mapping<AtomicU64>, MapError> {
        if !range.start().is_page_aligned() || !range.len().is_multiple_of(8) {
            return Err(MapError::Misaligned);
        }
        let is_ram = ram().any(|piece| layout::contains(piece, range));
        if range.start().0 == 0 || !is_ram || range.overlaps(image_range()) {
            return Err(MapError::NotAllowed);
        }
        let first = virtual_address(range.start().0) as *mut AtomicU64;
        let first = NonNull::new(first).ok_or(MapError::NotAllowed)?;
        let words = NonNull::slice_from_raw_parts(first, (range.len() / 8) as usize);
        // SAFETY: the words are aligned and not null, never unmapped, and not this kernel's own memory.
        Ok(unsafe { Mapping::new(words) })
    }

    unsafe fn unmap(&self, _: Mapping<AtomicU64>) {}

    fn peer_may_share(&self, page: PhysRange) -> bool {
        layout::contains(layout::pools(), page)
    }
}

// SAFETY: the pools are RAM that is used for nothing else. Only this one CPU allocates from them, with interrupts off.
unsafe impl InstancePool for Kernel {
    fn alloc(&self, instance: InstanceId, len: u64) -> Result<PhysAddr, PoolError> {
        let state = self.disable();
        let found = self.pools.alloc(instance, len);
        self.restore(state);
        found
    }

    unsafe fn free(&self, instance: InstanceId, range: PhysRange) {
        let state = self.disable();
        self.pools.free(instance, range);
        self.restore(state);
    }
}

impl DeferredWork for Kernel {
    fn schedule(&self) {
        DUE.store(true, Ordering::Relaxed);
    }
}

impl Observer for Kernel {
    fn peer_event(&self, peer: Peer, event: PeerEvent) {
        platform::on_peer_event(peer, event);
    }

    fn peer_has_cpu(&self, peer: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        self.lists(peer, cpu)
    }

    fn stop(&self) {
        platform::on_stop();
    }
}
