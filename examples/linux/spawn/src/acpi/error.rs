// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why tables cannot be written.

use core::fmt;
use mk_ipi_abi::{PhysAddr, PhysCpuId};

/// Why the tables cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// There is not enough room for them.
    TooSmall {
        /// Bytes that they need.
        needed: usize,
        /// Bytes that there are.
        given: usize,
    },
    /// They would not begin at the start of a page.
    Unaligned(PhysAddr),
    /// They would not lie below 4 GiB.
    TooHigh {
        /// Where they would begin.
        at: PhysAddr,
        /// How many bytes they have.
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
                write!(f, "the ACPI tables need {needed:#x} bytes, and there are {given:#x}")
            }
            Self::Unaligned(at) => write!(f, "the ACPI tables cannot lie at {:#x}, inside of a page", at.0),
            Self::TooHigh { at, len } => {
                write!(f, "the ACPI tables, {len:#x} bytes at {:#x}, must lie below 4 GiB", at.0)
            }
            Self::CpuId(cpu) => write!(f, "no CPU has the APIC id {:#x}", cpu.0),
            Self::Twice(cpu) => write!(f, "the CPU with APIC id {:#x} is listed twice", cpu.0),
        }
    }
}

impl core::error::Error for AcpiError {}
