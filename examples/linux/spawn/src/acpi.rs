// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes ACPI tables for a spawned kernel (ACPI 6.4, chapter 5.2). They list its CPUs, and none of the machine's devices.
//!
//! The tables say that the platform is hardware-reduced. So a spawned Linux does not use the 8259, the PIT, the HPET and the
//! alarm of the RTC, which belong to the host. Without ACPI tables Linux would assume that the machine is an old PC, and
//! would use these devices.

mod error;
mod tables;
#[cfg(test)]
mod tests;

use crate::FOUR_GIB;
use core::mem::size_of;
use mk_ipi_abi::{PhysAddr, PhysCpuId, PAGE_SIZE};
use tables::{Fadt, Header, IoApic, LocalApic, LocalX2Apic, Madt, Rsdp, Xsdt};
use zerocopy::{Immutable, IntoBytes};

pub use error::AcpiError;

/// Offset of the RSDP in the buffer.
const RSDP: usize = 0;
/// Offset of the XSDT in the buffer.
const XSDT: usize = 0x40;
/// Offset of the DSDT in the buffer.
const DSDT: usize = 0x80;
/// Offset of the FADT in the buffer.
const FADT: usize = 0x100;
/// Offset of the MADT in the buffer. It is the last table, because its length varies. After it comes the last page of the
/// buffer, whose bytes are all 0xff (see [`write()`]).
const MADT: usize = 0x240;

/// The lowest APIC id that needs an x2APIC entry in the MADT (ACPI 6.4, 5.2.12.12).
const FIRST_LONG_ID: u8 = 255;
/// The APIC id that means all CPUs (Intel SDM vol. 3A, 10.12.9).
const BROADCAST: u32 = u32::MAX;
const PAGE: usize = 4096;
/// Number of bytes of all tables without the entries of the CPUs.
const FIXED: usize = MADT + size_of::<Madt>() + size_of::<IoApic>();

const _: () = {
    assert!(PAGE as u64 == PAGE_SIZE);
    assert!(RSDP + size_of::<Rsdp>() <= XSDT && XSDT + size_of::<Xsdt>() <= DSDT);
    assert!(DSDT + size_of::<Header>() <= FADT && FADT + size_of::<Fadt>() <= MADT);
};

/// Number of bytes that [`write()`] needs for the machine's boot CPU and `cpus` other CPUs. It is a multiple of the page
/// size. If it does not fit into a `usize`, the result is `usize::MAX`.
pub const fn len(cpus: usize) -> usize {
    let all = cpus.saturating_add(1).saturating_mul(size_of::<LocalX2Apic>());
    all.saturating_add(FIXED).div_ceil(PAGE).saturating_add(1).saturating_mul(PAGE)
}

/// Writes the tables to the start of `to`, whose physical address is `at`. Returns the physical address of the RSDP.
///
/// The first [`len`] bytes of `to` are written. The kernel must not use these bytes as free memory.
///
/// The last of these pages contains only bytes with the value 0xff. The MADT says that this page has the registers of an
/// IO-APIC. There is no such IO-APIC, but the MADT must list one: otherwise Linux writes to the ELCR ports 0x4d0 and
/// 0x4d1, which belong to the host. If all registers of an IO-APIC read as ones, Linux does not use it. Linux maps the
/// page uncached. So the caller must write the page back from the CPU caches before the kernel starts.
///
/// `boot_cpu` is the machine's boot CPU. The MADT lists it first. Linux assumes that the first CPU of the MADT is the boot
/// CPU, and never sends an INIT to it. This is necessary, because an INIT to the machine's boot CPU resets the machine.
/// After the boot CPU, the MADT lists `cpus` in their order. If the boot CPU is one of `cpus`, it is not listed a second time.
///
/// # Errors
///
/// [`AcpiError`]. After an error the content of `to` must not be used.
pub fn write(
    to: &mut [u8],
    at: PhysAddr,
    boot_cpu: PhysCpuId,
    cpus: impl Iterator<Item = PhysCpuId> + Clone,
) -> Result<PhysAddr, AcpiError> {
    let (needed, given) = (len(cpus.clone().count()), to.len());
    let parts = to.get_mut(..needed).and_then(|to| to.split_last_chunk_mut::<PAGE>());
    let (to, last_page) = parts.ok_or(AcpiError::TooSmall { needed, given })?;
    if !at.is_page_aligned() {
        return Err(AcpiError::Unaligned(at));
    }
    let end = at.0.checked_add(needed as u64).filter(|end| *end <= FOUR_GIB);
    let ones = end.and_then(|end| u32::try_from(end.wrapping_sub(PAGE_SIZE)).ok());
    let ones = ones.ok_or(AcpiError::TooHigh { at, len: needed })?;
    to.fill(0);
    last_page.fill(0xff);
    let mut tables = Tables { to, at };
    tables.madt(boot_cpu, cpus, ones)?;
    let dsdt = tables.seal(DSDT, Header::empty_dsdt())?;
    let fadt = tables.seal(FADT, Fadt::new(dsdt))?;
    let xsdt = tables.seal(XSDT, Xsdt::new([fadt, tables.address(MADT)]))?;
    tables.put(RSDP, Rsdp::new(xsdt))?;
    tables.sum(RSDP, Rsdp::CHECKSUM, Rsdp::FIRST_PART)?;
    tables.sum(RSDP, Rsdp::EXTENDED_CHECKSUM, size_of::<Rsdp>())?;
    Ok(PhysAddr(tables.address(RSDP)))
}

/// The tables while they are being written.
struct Tables<'a> {
    to: &'a mut [u8],
    at: PhysAddr,
}

impl Tables<'_> {
    /// The physical address of the byte at `offset`.
    fn address(&self, offset: usize) -> u64 {
        self.at.0.wrapping_add(offset as u64)
    }

    /// Writes `what` at `offset`. Returns the offset after it.
    fn put<T: IntoBytes + Immutable>(&mut self, offset: usize, what: T) -> Result<usize, AcpiError> {
        let end = offset.saturating_add(size_of::<T>());
        let too_small = AcpiError::TooSmall { needed: end, given: self.to.len() };
        let place = self.to.get_mut(offset..end).ok_or(too_small)?;
        what.write_to(place).map_err(|_| too_small)?;
        Ok(end)
    }

    /// Sets the byte at `offset + checksum` so that the sum of the `len` bytes at `offset` is 0.
    fn sum(&mut self, offset: usize, checksum: usize, len: usize) -> Result<(), AcpiError> {
        let end = offset.saturating_add(len);
        let too_small = AcpiError::TooSmall { needed: end, given: self.to.len() };
        let bytes = self.to.get_mut(offset..end).ok_or(too_small)?;
        let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        let byte = bytes.get_mut(checksum).ok_or(too_small)?;
        *byte = byte.wrapping_sub(sum);
        Ok(())
    }

    /// Writes a table of a fixed length at `offset`, with its checksum. Returns its address.
    fn seal<T: IntoBytes + Immutable>(&mut self, offset: usize, table: T) -> Result<u64, AcpiError> {
        self.put(offset, table)?;
        self.sum(offset, Header::CHECKSUM, size_of::<T>())?;
        Ok(self.address(offset))
    }

    /// Writes the MADT: an entry for the boot CPU, one for each other CPU, and one for an IO-APIC at `ones` that does not exist.
    fn madt(
        &mut self,
        boot_cpu: PhysCpuId,
        cpus: impl Iterator<Item = PhysCpuId> + Clone,
        ones: u32,
    ) -> Result<(), AcpiError> {
        let others = cpus.filter(|cpu| *cpu != boot_cpu);
        let mut next = self.cpu(MADT.saturating_add(size_of::<Madt>()), boot_cpu)?;
        let mut listed = 0usize;
        for cpu in others.clone() {
            if others.clone().take(listed).any(|other| other == cpu) {
                return Err(AcpiError::Twice(cpu));
            }
            next = self.cpu(next, cpu)?;
            listed = listed.wrapping_add(1);
        }
        let end = self.put(next, IoApic::new(ones))?;
        let len = end.wrapping_sub(MADT);
        let too_high = AcpiError::TooHigh { at: self.at, len };
        self.put(MADT, Madt::new(u32::try_from(len).map_err(|_| too_high)?))?;
        self.sum(MADT, Header::CHECKSUM, len)
    }

    /// Writes the entry of `cpu` at `offset`. Returns the offset after it.
    fn cpu(&mut self, offset: usize, cpu: PhysCpuId) -> Result<usize, AcpiError> {
        let id = u32::try_from(cpu.0).ok().filter(|id| *id != BROADCAST).ok_or(AcpiError::CpuId(cpu))?;
        match u8::try_from(id) {
            Ok(id) if id < FIRST_LONG_ID => self.put(offset, LocalApic::new(id)),
            _ => self.put(offset, LocalX2Apic::new(id)),
        }
    }
}
