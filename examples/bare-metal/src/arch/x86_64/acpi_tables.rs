// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the machine's CPUs from the ACPI MADT. On real machines the APIC ids have gaps.

use crate::arch::at;
use crate::boot::Boot;
use crate::cpus::Cpus;
use acpi::madt::{Madt, MadtEntry};
use acpi::rsdp::Rsdp;
use acpi::{AcpiError, AcpiHandler, AcpiTables, PhysicalMapping};
use core::ptr::NonNull;
use mk_ipi_abi::PhysCpuId;

/// MADT flag: the CPU may be used (ACPI 6.5, table 5.22).
const ENABLED: u32 = 1;

/// Maps ACPI tables for the crate `acpi`. All of memory is mapped already, at a fixed offset. So this only adds the offset
/// (`at`). Here the offset is 0. A guest includes this file too (examples/guest), and can have another offset.
#[derive(Clone, Copy)]
struct Mapped;

impl AcpiHandler for Mapped {
    unsafe fn map_physical_region<T>(&self, address: usize, size: usize) -> PhysicalMapping<Self, T> {
        let start = NonNull::new(at(address as u64) as *mut T).expect("no ACPI table lies at address 0");
        // SAFETY: the first 4 GiB are mapped at a fixed offset (`at`), and a PC's ACPI tables lie below that limit.
        unsafe { PhysicalMapping::new(address, start, size, size, Self) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}

/// The enabled CPUs of the machine, from the ACPI tables at the address in `boot`.
pub fn cpus(boot: &Boot) -> Result<Cpus, AcpiError> {
    // SAFETY: the emulator put the RSDP's address into the start info. The crate `acpi` checks the tables.
    let tables = unsafe { AcpiTables::from_rsdp(Mapped, boot.firmware as usize) }?;
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

/// Searches the first MiB for the RSDP of a BIOS, and returns its physical address. A guest that was not told the address calls
/// this.
#[allow(dead_code, reason = "PVH gives the address")]
pub fn rsdp() -> Option<u64> {
    // SAFETY: the first MiB is mapped, and the search reads only bytes.
    let found = unsafe { Rsdp::search_for_on_bios(Mapped) }.ok()?;
    u64::try_from(found.physical_start()).ok()
}
