// SPDX-License-Identifier: MIT OR Apache-2.0
//! mk-ipi in this kernel: the platform traits of mk-ipi-core, and the handlers of the doorbell.

use crate::{layout, platform, told};
use bootloader_api::info::MemoryRegionKind;
use core::ptr::NonNull;
use mk_ipi_abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::platform::{
    Access, DeferredWork, Doorbell, DoorbellError, InstancePool, LocalInterrupts, MapError, Mapping,
    Observer, Peer, PeerEvent, PhysMemory, PoolError, ThisCpu,
};
use mk_ipi_core::sync::{AtomicBool, AtomicU64, Ordering};
use mk_ipi_x86::mode::ApicBase;
use mk_ipi_x86::{doorbell_entry, Hardware, LocalApic, Mode, ModeError, SpuriousVector};
use spin::{Mutex, Once};
use x86_64::instructions::interrupts;
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::VirtAddr;

/// The doorbell's vector. Any vector that the kernel does not use would do.
pub const DOORBELL: Vector = Vector::new(0x40).unwrap();
/// A second vector, for the conformance suite.
pub const SPARE_VECTOR: Vector = Vector::new(0x41).unwrap();

/// The platform of this kernel's endpoints.
pub struct Kernel;

static APIC: Once<(LocalApic<Hardware>, PhysCpuId)> = Once::new();
/// True if deferred work is due.
static DUE: AtomicBool = AtomicBool::new(false);
/// How often `ring` was called.
pub static RUNG: AtomicU64 = AtomicU64::new(0);

/// Sets up the local APIC, which no code has set up before, and the handlers of the doorbell. If `x2apic` is true, switches
/// the APIC to x2APIC mode first.
pub fn start(x2apic: bool) -> Result<(), ModeError> {
    // SAFETY: this `Hardware` is only used to read `IA32_APIC_BASE`.
    let base = ApicBase::read(&unsafe { Hardware::new(None) }).page().0;
    let page = NonNull::new(virtual_address(base) as *mut u8);
    // SAFETY: the boot loader has mapped all of memory, and this kernel does not unmap it. The MTRRs, which firmware has set,
    // prevent that the APIC's page is cached.
    let hardware = unsafe { Hardware::new(page) };
    if x2apic {
        // SAFETY: no code has used the APIC's page yet.
        unsafe { Mode::enter_x2apic(&hardware)? };
    }
    let apic = LocalApic::new(hardware)?;
    // SAFETY: `doorbell_entry!` makes each of these functions for the IDT. Each vector that can interrupt this CPU has its entry
    // before the APIC is enabled.
    unsafe {
        set_vector(DOORBELL.get(), doorbell_entry);
        set_vector(SPARE_VECTOR.get(), spare_entry);
        set_vector(0xff, spurious_entry);
        apic.enable(SpuriousVector::DEFAULT);
    }
    APIC.call_once(|| (apic, apic.apic_id()));
    Ok(())
}

doorbell_entry!(fn doorbell_entry => on_doorbell);
doorbell_entry!(fn spare_entry => on_spare);
doorbell_entry!(fn spurious_entry => on_spurious);

extern "C" fn on_doorbell() {
    apic().eoi();
    platform::on_doorbell();
}

extern "C" fn on_spare() {
    apic().eoi();
    platform::on_spare();
}

/// A spurious interrupt is not acknowledged (Intel SDM vol. 3A, 10.9).
extern "C" fn on_spurious() {}

/// The interrupt descriptor table.
static IDT: Mutex<InterruptDescriptorTable> = Mutex::new(InterruptDescriptorTable::new());

/// Sets the handler of `vector`, and loads the table.
///
/// # Safety
///
/// `handler` is code that an interrupt may enter.
unsafe fn set_vector(vector: u8, handler: unsafe extern "C" fn()) {
    let mut idt = IDT.lock();
    // SAFETY: the caller keeps the safety rules of this function.
    unsafe { idt[vector].set_handler_addr(VirtAddr::from_ptr(handler as *const ())) };
    // SAFETY: the table is a static, and does not move.
    unsafe { idt.load_unsafe() };
}

/// The machine's RAM, without the memory that the boot loader used for this kernel's image, stack and page tables.
pub fn ram() -> impl Iterator<Item = PhysRange> {
    let usable = told().memory.iter().filter(|region| region.kind == MemoryRegionKind::Usable);
    usable.filter_map(|region| PhysRange::new(PhysAddr(region.start), region.end - region.start))
}

/// The virtual address at which the physical address `physical` is mapped.
pub fn virtual_address(physical: u64) -> u64 {
    physical + told().offset
}

/// The memory of this image.
pub fn image_range() -> PhysRange {
    let (start, len) = told().image;
    PhysRange::new(PhysAddr(start), len).expect("the image is within the address space")
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
        let were_on = interrupts::are_enabled();
        interrupts::disable();
        were_on
    }

    fn restore(&self, were_on: bool) {
        if were_on {
            interrupts::enable();
        }
    }
}

// SAFETY: the boot loader has mapped all of RAM write-back cached, and this kernel does not unmap it. `map` returns nothing
// of the memory that the boot loader used for this kernel.
unsafe impl PhysMemory for Kernel {
    type Word = AtomicU64;

    fn map(&self, range: PhysRange, _: Access) -> Result<Mapping<AtomicU64>, MapError> {
        if !range.start().is_page_aligned() || !range.len().is_multiple_of(8) {
            return Err(MapError::Misaligned);
        }
        let is_ram = ram().any(|piece| layout::contains(piece, range));
        if range.start().0 == 0 || !is_ram {
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
