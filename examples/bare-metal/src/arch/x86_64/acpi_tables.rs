// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's CPUs, from the ACPI MADT. APIC ids are not 0..n on real machines.

use crate::boot::Boot;
use crate::cpus::Cpus;
use acpi::madt::{Madt, MadtEntry};
use acpi::{AcpiError, AcpiHandler, AcpiTables, PhysicalMapping};
use core::ptr::NonNull;
use mk_ipi_abi::PhysCpuId;

/// MADT flag: the CPU may be used (ACPI 6.5, table 5.22).
const ENABLED: u32 = 1;

/// All of memory is mapped one to one.
#[derive(Clone, Copy)]
struct Identity;

impl AcpiHandler for Identity {
    unsafe fn map_physical_region<T>(&self, address: usize, size: usize) -> PhysicalMapping<Self, T> {
        let start = NonNull::new(address as *mut T).expect("no ACPI table lies at address 0");
        // SAFETY: boot.s maps the first 4 GiB one to one, and a PC's ACPI tables lie below.
        unsafe { PhysicalMapping::new(address, start, size, size, Self) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}

/// The enabled CPUs of the machine, as the ACPI tables have them that `boot` names.
pub fn cpus(boot: &Boot) -> Result<Cpus, AcpiError> {
    // SAFETY: the emulator put the RSDP's address into the start info; it is checked by the crate.
    let tables = unsafe { AcpiTables::from_rsdp(Identity, boot.firmware as usize) }?;
    let madt = tables.find_table::<Madt>()?;
    let mut cpus = Cpus::none();
    for entry in madt.get().entries() {
        match entry {
            MadtEntry::LocalApic(cpu) if cpu.flags & ENABLED != 0 => cpus.add(PhysCpuId(cpu.apic_id.into())),
            MadtEntry::LocalX2Apic(cpu) if cpu.flags & ENABLED != 0 => {
                cpus.add(PhysCpuId(cpu.x2apic_id.into()))
            }
            _ => {}
        }
    }
    Ok(cpus)
}
