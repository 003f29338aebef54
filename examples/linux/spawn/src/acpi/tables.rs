// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tables as they lie in memory (ACPI 6.4, chapter 5.2). The checksums are 0 here; they are computed last.

use core::mem::{offset_of, size_of};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes};

const OEM_ID: [u8; 6] = *b"MKIPI ";

/// The header of every table but the RSDP (5.2.6).
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
    /// A table that is only its header: a DSDT without any AML.
    pub(super) fn empty_dsdt() -> Self {
        Self::new(*b"DSDT", 2, 36)
    }

    /// Offset of the checksum.
    pub(super) const CHECKSUM: usize = offset_of!(Header, checksum);

    /// The header of a table of `length` bytes, the header included.
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

/// The RSDP, which says where the XSDT is (5.2.5.3).
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
    /// Offset of the first checksum, and how many bytes it covers.
    pub(super) const CHECKSUM: usize = offset_of!(Rsdp, checksum);
    /// See [`CHECKSUM`](Self::CHECKSUM).
    pub(super) const FIRST_PART: usize = offset_of!(Rsdp, length);
    /// Offset of the checksum of the whole.
    pub(super) const EXTENDED_CHECKSUM: usize = offset_of!(Rsdp, extended_checksum);

    /// The pointer to the XSDT at `xsdt`.
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

/// The list of the other tables (5.2.8).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Xsdt {
    header: Header,
    tables: [U64; 2],
}

impl Xsdt {
    /// The list of `tables`.
    pub(super) fn new(tables: [u64; 2]) -> Self {
        Self { header: Header::new(*b"XSDT", 1, 52), tables: tables.map(U64::new) }
    }
}

/// The fixed description of the platform (5.2.9). All other fields are 0: a hardware-reduced platform does not have
/// them.
#[derive(FromZeros, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Fadt {
    header: Header,
    /// FIRMWARE_CTRL to CENTURY: tables below 4 GiB, registers of fixed hardware.
    fixed: [u8; 73],
    iapc_boot_arch: U16,
    reserved: u8,
    flags: U32,
    /// RESET_REG to ARM_BOOT_ARCH.
    reset: [u8; 15],
    minor_version: u8,
    x_firmware_ctrl: U64,
    x_dsdt: U64,
    /// X_PM1a_EVT_BLK to the vendor's id of a hypervisor: registers of fixed hardware.
    x_fixed: [u8; 128],
}

impl Fadt {
    /// There is no VGA, MSI, ASPM or RTC (bits 2 to 5 are set). There are no devices of an old PC and no 8042 (those
    /// bits are 0; 5.2.9.3).
    const IAPC_BOOT_ARCH: u16 = 0b11_1100;
    /// WBINVD works (bit 0), and the platform is hardware-reduced (bit 20).
    const FLAGS: u32 = 1 | 1 << 20;

    /// The description, with the DSDT at `dsdt`.
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

/// The beginning of the list of interrupt controllers (5.2.12).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Madt {
    header: Header,
    local_apic: U32,
    flags: U32,
}

impl Madt {
    /// The beginning of a list of `length` bytes. Its flags do not claim an 8259.
    pub(super) fn new(length: u32) -> Self {
        let header = Header::new(*b"APIC", 5, length);
        Self { header, local_apic: U32::new(0xfee0_0000), flags: U32::ZERO }
    }
}

/// The flag of a CPU that can be used (5.2.12.2).
const ENABLED: U32 = U32::from_bytes([1, 0, 0, 0]);

/// A CPU with an id below 255 (5.2.12.2). Its id serves as its ACPI id, too, which only has to be unique.
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
    /// The CPU `id`.
    pub(super) fn new(id: u8) -> Self {
        Self { kind: 0, length: 8, acpi_id: id, apic_id: id, flags: ENABLED }
    }
}

/// A CPU with an id from 255 on (5.2.12.12).
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
    /// The CPU `id`.
    pub(super) fn new(id: u32) -> Self {
        let id = U32::new(id);
        Self { kind: 9, length: 16, reserved: U16::ZERO, x2apic_id: id, flags: ENABLED, acpi_id: id }
    }
}

/// An IO-APIC (5.2.12.3).
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
    /// The IO-APIC at `address`.
    pub(super) fn new(address: u32) -> Self {
        let address = U32::new(address);
        Self { kind: 1, length: 12, id: 0, reserved: 0, address, first_interrupt: U32::ZERO }
    }
}

// The lengths that are used above must match.
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
