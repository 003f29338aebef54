// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests in which the parser of another project reads the ACPI tables. It checks the sum of each table that it reads.
#![expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use acpi::fadt::Fadt;
use acpi::madt::{Madt, MadtEntry};
use acpi::{AcpiHandler, AcpiTables, PhysicalMapping};
use core::ptr::NonNull;
use mk_ipi_abi::{PhysAddr, PhysCpuId};
use mk_ipi_spawn::acpi::{len, write};

const AT: usize = 0x3ff0_0000;

/// The memory of the machine from address [`AT`].
#[derive(Clone, Copy)]
struct Memory<'a>(&'a [u8]);

impl AcpiHandler for Memory<'_> {
    unsafe fn map_physical_region<T>(&self, address: usize, size: usize) -> PhysicalMapping<Self, T> {
        let bytes = &self.0[address - AT..][..size];
        assert!(size_of::<T>() <= size && align_of::<T>() == 1);
        let start = NonNull::from(bytes).cast();
        // SAFETY: `bytes` has `size` bytes, which is enough for a `T`. They exist as long as `self`, and are not written.
        unsafe { PhysicalMapping::new(address, start, size, size, *self) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}

/// Writes tables for these CPUs, reads them by the other parser, and checks their content.
fn check(boot: u64, cpus: &[u64]) {
    let mut memory = vec![0; len(cpus.len())];
    let ids = cpus.iter().map(|id| PhysCpuId(*id));
    let rsdp = write(&mut memory, PhysAddr(AT as u64), PhysCpuId(boot), ids).expect("tables");
    // SAFETY: `rsdp` is the address of the RSDP in `memory`.
    let tables = unsafe { AcpiTables::from_rsdp(Memory(&memory), rsdp.0 as usize) }.expect("an RSDP");
    assert_eq!(tables.revision(), 2);
    assert_eq!(tables.headers().count(), 2);
    let dsdt = tables.dsdt().expect("a DSDT");
    assert_eq!(dsdt.length, 0);
    assert_eq!(tables.ssdts().count(), 0);

    let fadt = tables.find_table::<Fadt>().expect("a FADT");
    let (flags, arch) = (fadt.flags, fadt.iapc_boot_arch);
    assert!(flags.system_is_hw_reduced_acpi() && flags.supports_equivalent_to_wbinvd());
    assert!(!flags.supports_system_reset_via_fadt());
    assert!(!arch.legacy_devices_are_accessible() && !arch.motherboard_implements_8042());
    assert!(arch.dont_probe_vga() && arch.dont_enable_msi() && arch.dont_enable_pcie_aspm());
    assert!(arch.use_time_and_alarm_namespace_for_rtc());

    let madt = tables.find_table::<Madt>().expect("a MADT");
    assert!(!madt.get().supports_8259());
    assert_eq!({ madt.get().local_apic_address }, 0xfee0_0000);
    let (mut found, mut io_apics) = (Vec::new(), Vec::new());
    for entry in madt.get().entries() {
        match entry {
            MadtEntry::LocalApic(cpu) => found.push((u64::from(cpu.apic_id), { cpu.flags })),
            MadtEntry::LocalX2Apic(cpu) => found.push((u64::from(cpu.x2apic_id), { cpu.flags })),
            MadtEntry::IoApic(io_apic) => io_apics.push(io_apic.io_apic_address as usize),
            _ => panic!("an entry of another kind"),
        }
    }
    let wanted: Vec<_> = [boot].iter().chain(cpus).map(|id| (*id, 1)).collect();
    assert_eq!(found, wanted);
    assert_eq!(io_apics, [AT + memory.len() - 4096]);
}

#[test]
fn one_cpu_beside_the_boot_cpu() {
    check(0, &[2]);
}

#[test]
fn two_cpus_and_ids_at_the_bounds_of_the_short_entry() {
    check(0, &[254, 255]);
    check(16, &[1000, 254, 255, 0]);
}

#[test]
fn hundreds_of_cpus() {
    let ids: Vec<u64> = (1..=300).map(|n| 3 * n).collect();
    check(0, &ids);
}
