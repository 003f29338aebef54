// SPDX-License-Identifier: MIT OR Apache-2.0
//! The errors of [`write()`](super::write()).

use core::fmt;
use mk_ipi_abi::{PhysAddr, PhysCpuId};

/// Why the tables cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// The buffer is too small for the tables.
    TooSmall {
        /// How many bytes the tables need.
        needed: usize,
        /// How many bytes the buffer has.
        given: usize,
    },
    /// The address of the buffer is not the start of a page. Contains the address.
    Unaligned(PhysAddr),
    /// The tables are not completely below 4 GiB.
    TooHigh {
        /// The address of the tables.
        at: PhysAddr,
        /// How many bytes the tables have.
        len: usize,
    },
    /// No CPU has this APIC id.
    CpuId(PhysCpuId),
    /// This CPU is listed twice.
    Twice(PhysCpuId),
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooSmall { needed, given } => {
                write!(f, "the ACPI tables need {needed:#x} bytes, but the buffer has {given:#x}")
            }
            Self::Unaligned(at) => {
                write!(f, "the address {:#x} of the ACPI tables is not the start of a page", at.0)
            }
            Self::TooHigh { at, len } => {
                write!(f, "the ACPI tables, {len:#x} bytes at {:#x}, are not below 4 GiB", at.0)
            }
            Self::CpuId(cpu) => write!(f, "no CPU has the APIC id {:#x}", cpu.0),
            Self::Twice(cpu) => write!(f, "the CPU with APIC id {:#x} is listed twice", cpu.0),
        }
    }
}

impl core::error::Error for AcpiError {}
