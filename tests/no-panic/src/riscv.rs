// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of mk-ipi-riscv, with firmware that can return any values, and with the real instructions.

use crate::opaque::{any, maybe, sink, vector};
use mk_ipi_abi::{PhysAddr, PhysCpuId};
use mk_ipi_core::platform::Doorbell;
use mk_ipi_riscv::{Extension, Hsm, Identity, Imsic, ImsicIo, SbiDoorbell, SbiError, SbiIo, SbiReturn};

/// Firmware and interrupt files that can return any values.
struct Firmware;

// SAFETY: this code is never run, and the requirements of the trait are about running code.
unsafe impl SbiIo for Firmware {
    unsafe fn call(&self, extension: Extension, function: u64, args: [u64; 3]) -> SbiReturn {
        sink((extension, function, args));
        SbiReturn { error: any(), value: any() }
    }
    fn fence_before_doorbell(&self) {
        sink(());
    }
    fn clear_software_interrupt(&self) {
        sink(());
    }
    fn fence_after_clear(&self) {
        sink(());
    }
}

// SAFETY: as above.
unsafe impl ImsicIo for Firmware {
    fn has_file(&self, cpu: PhysCpuId) -> bool {
        sink(cpu);
        maybe()
    }
    unsafe fn send(&self, cpu: PhysCpuId, identity: Identity) {
        sink((cpu, identity));
    }
    unsafe fn write(&self, register: u64, value: u64) {
        sink((register, value));
    }
    unsafe fn claim(&self) -> u64 {
        any()
    }
    fn fence_after_claim(&self) {
        sink(());
    }
}

pub fn call_all() {
    with(Firmware, Firmware);
    files(Firmware);
    sink(vector().and_then(Identity::of_vector).map(|identity| (identity.get(), identity.vector())));
    #[cfg(target_arch = "riscv64")]
    on_hardware();
    sink(SbiReturn { error: any(), value: any() }.ok().map_err(SbiError::errno));
    sink(Extension::Hsm.id());
}

#[cfg(target_arch = "riscv64")]
fn on_hardware() {
    use mk_ipi_core::platform::LocalInterrupts;
    use mk_ipi_riscv::{Hardware, ImsicFiles};
    // SAFETY: as above.
    let hardware = unsafe { Hardware::new() };
    let state = hardware.disable();
    hardware.restore(state);
    with(hardware, hardware);
    // SAFETY: as above.
    files(unsafe { ImsicFiles::new(any(), any(), any()) });
}

fn with<Io: SbiIo>(io: Io, other: Io) {
    if let Ok(doorbell) = SbiDoorbell::new(io) {
        doorbell.acknowledge();
        doorbell.handle(|| sink(()));
        sink(core::ptr::from_ref(doorbell.io()));
        if let Some(vector) = vector() {
            sink((doorbell.check(PhysCpuId(any()), vector), doorbell.ring(PhysCpuId(any()), vector)));
            sink(doorbell.ring_from_nmi(PhysCpuId(any()), vector));
        }
    }
    if let Ok(hsm) = Hsm::new(other) {
        sink(hsm.status(PhysCpuId(any())));
        // SAFETY: as above.
        unsafe {
            sink(hsm.start(PhysCpuId(any()), PhysAddr(any()), any()));
            sink(hsm.stop());
        }
    }
}

fn files<Io: ImsicIo>(io: Io) {
    // SAFETY: as above.
    let imsic = unsafe { Imsic::new(io) };
    sink(core::ptr::from_ref(imsic.io()));
    if let Some(vector) = vector() {
        sink((imsic.check(PhysCpuId(any()), vector), imsic.ring(PhysCpuId(any()), vector)));
        sink(imsic.ring_from_nmi(PhysCpuId(any()), vector));
        let identities = Identity::of_vector(vector).map(|identity| [identity; 2]);
        // SAFETY: as above.
        unsafe {
            imsic.enable(identities.as_ref().map_or(&[], |list| list));
            sink(imsic.claim());
        }
    }
}
