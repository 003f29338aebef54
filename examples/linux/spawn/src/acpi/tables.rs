// SPDX-License-Identifier: MIT OR Apache-2.0
//! The layouts of the tables (ACPI 6.4, chapter 5.2). The numbers in the comments are sections of that specification. The
//! checksums are 0 here. They are computed after a table was written.

use core::mem::{offset_of, size_of};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes};

const OEM_ID: [u8; 6] = *b"MKIPI ";

/// The header of all tables except the RSDP (5.2.6).
#[derive(FromZeros, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Header {
    signature: [u8; 4],
    length: U32,
    revision: u8,
    checksum: u8,
    oem_id: [u8; 6],
    oem_table_id: [u8; 8],
    oem_revision: U32,
    creator_id: [u8; 4],
    creator_revision: U32,
}

impl Header {
    /// A DSDT without AML. It consists only of a header.
    pub(super) fn empty_dsdt() -> Self {
        Self::new(*b"DSDT", 2, 36)
    }

    /// Offset of the checksum in the header.
    pub(super) const CHECKSUM: usize = offset_of!(Header, checksum);

    /// The header of a table. `length` is the length of the table in bytes, including the header.
    pub(super) fn new(signature: [u8; 4], revision: u8, length: u32) -> Self {
        Self {
            signature,
            length: U32::new(length),
            revision,
            checksum: 0,
            oem_id: OEM_ID,
            oem_table_id: *b"MKSPAWN ",
            oem_revision: U32::new(1),
            creator_id: *b"MKIP",
            creator_revision: U32::new(1),
        }
    }
}

/// The RSDP, which contains the address of the XSDT (5.2.5.3).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Rsdp {
    signature: [u8; 8],
    checksum: u8,
    oem_id: [u8; 6],
    revision: u8,
    rsdt: U32,
    length: U32,
    xsdt: U64,
    extended_checksum: u8,
    reserved: [u8; 3],
}

impl Rsdp {
    /// Offset of the checksum of the first part.
    pub(super) const CHECKSUM: usize = offset_of!(Rsdp, checksum);
    /// Length in bytes of the first part.
    pub(super) const FIRST_PART: usize = offset_of!(Rsdp, length);
    /// Offset of the checksum of the complete RSDP.
    pub(super) const EXTENDED_CHECKSUM: usize = offset_of!(Rsdp, extended_checksum);

    /// The RSDP for an XSDT at the physical address `xsdt`.
    pub(super) fn new(xsdt: u64) -> Self {
        Self {
            signature: *b"RSD PTR ",
            checksum: 0,
            oem_id: OEM_ID,
            revision: 2,
            rsdt: U32::ZERO,
            length: U32::new(36),
            xsdt: U64::new(xsdt),
            extended_checksum: 0,
            reserved: [0; 3],
        }
    }
}

/// The XSDT, which contains the addresses of the FADT and the MADT (5.2.8).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Xsdt {
    header: Header,
    tables: [U64; 2],
}

impl Xsdt {
    /// The XSDT with the physical addresses `tables`.
    pub(super) fn new(tables: [u64; 2]) -> Self {
        Self { header: Header::new(*b"XSDT", 1, 52), tables: tables.map(U64::new) }
    }
}

/// The FADT, which describes the platform (5.2.9). The fields that `new` does not set are 0, because a hardware-reduced
/// platform does not use them.
#[derive(FromZeros, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Fadt {
    header: Header,
    /// The fields from FIRMWARE_CTRL to CENTURY: 32-bit addresses of tables, and registers of fixed hardware.
    fixed: [u8; 73],
    iapc_boot_arch: U16,
    reserved: u8,
    flags: U32,
    /// The fields from RESET_REG to ARM_BOOT_ARCH.
    reset: [u8; 15],
    minor_version: u8,
    x_firmware_ctrl: U64,
    x_dsdt: U64,
    /// The fields from X_PM1a_EVT_BLK to Hypervisor Vendor Identity: registers of fixed hardware, and an id.
    x_fixed: [u8; 128],
}

impl Fadt {
    /// IAPC_BOOT_ARCH (5.2.9.3). Bits 2 to 5 are set: the kernel must not use VGA, MSI, ASPM control and the RTC. Bits 0 and
    /// 1 are clear: there are no legacy devices and no 8042.
    const IAPC_BOOT_ARCH: u16 = 0b11_1100;
    /// The flags. WBINVD works (bit 0), and the platform is hardware-reduced (bit 20).
    const FLAGS: u32 = 1 | 1 << 20;

    /// The FADT for a DSDT at the physical address `dsdt`.
    pub(super) fn new(dsdt: u64) -> Self {
        Self {
            header: Header::new(*b"FACP", 6, 276),
            iapc_boot_arch: U16::new(Self::IAPC_BOOT_ARCH),
            flags: U32::new(Self::FLAGS),
            minor_version: 4,
            x_dsdt: U64::new(dsdt),
            ..Self::new_zeroed()
        }
    }
}

/// The first part of the MADT, which lists the interrupt controllers (5.2.12). The entries follow it.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Madt {
    header: Header,
    local_apic: U32,
    flags: U32,
}

impl Madt {
    /// The first part of a MADT of `length` bytes. The flags say that there is no 8259.
    pub(super) fn new(length: u32) -> Self {
        let header = Header::new(*b"APIC", 5, length);
        Self { header, local_apic: U32::new(0xfee0_0000), flags: U32::ZERO }
    }
}

/// The flags of a CPU that can be used (5.2.12.2).
const ENABLED: U32 = U32::from_bytes([1, 0, 0, 0]);

/// The MADT entry of a CPU with an APIC id below 255 (5.2.12.2). The ACPI id must only be unique, so the APIC id is used.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct LocalApic {
    kind: u8,
    length: u8,
    acpi_id: u8,
    apic_id: u8,
    flags: U32,
}

impl LocalApic {
    /// The entry of the CPU with the APIC id `id`.
    pub(super) fn new(id: u8) -> Self {
        Self { kind: 0, length: 8, acpi_id: id, apic_id: id, flags: ENABLED }
    }
}

/// The MADT entry of a CPU with an APIC id of 255 or more (5.2.12.12).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct LocalX2Apic {
    kind: u8,
    length: u8,
    reserved: U16,
    x2apic_id: U32,
    flags: U32,
    acpi_id: U32,
}

impl LocalX2Apic {
    /// The entry of the CPU with the APIC id `id`.
    pub(super) fn new(id: u32) -> Self {
        let id = U32::new(id);
        Self { kind: 9, length: 16, reserved: U16::ZERO, x2apic_id: id, flags: ENABLED, acpi_id: id }
    }
}

/// The MADT entry of an IO-APIC (5.2.12.3).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct IoApic {
    kind: u8,
    length: u8,
    id: u8,
    reserved: u8,
    address: U32,
    first_interrupt: U32,
}

impl IoApic {
    /// The entry of an IO-APIC with its registers at `address`.
    pub(super) fn new(address: u32) -> Self {
        let address = U32::new(address);
        Self { kind: 1, length: 12, id: 0, reserved: 0, address, first_interrupt: U32::ZERO }
    }
}

// The lengths in the functions above must be the sizes of the structures.
const _: () = {
    assert!(size_of::<Header>() == 36 && Header::CHECKSUM == 9);
    assert!(size_of::<Rsdp>() == 36 && Rsdp::CHECKSUM == 8);
    assert!(Rsdp::FIRST_PART == 20 && Rsdp::EXTENDED_CHECKSUM == 32);
    assert!(size_of::<Xsdt>() == 52 && size_of::<Madt>() == 44);
    assert!(size_of::<Fadt>() == 276);
    assert!(offset_of!(Fadt, iapc_boot_arch) == 109 && offset_of!(Fadt, flags) == 112);
    assert!(offset_of!(Fadt, minor_version) == 131 && offset_of!(Fadt, x_dsdt) == 140);
    assert!(size_of::<LocalApic>() == 8 && size_of::<LocalX2Apic>() == 16 && size_of::<IoApic>() == 12);
};
