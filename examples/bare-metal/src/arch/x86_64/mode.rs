// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modes of the local APIC, and their names.

use core::fmt;

/// The mode in which to run the local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The mode in which this kernel finds the APIC.
    Present,
    /// xAPIC: memory-mapped registers, 8-bit ids.
    XApic,
    /// x2APIC: registers in MSRs, 32-bit ids.
    X2Apic,
}

impl Mode {
    /// Returns the mode with this name; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "xapic" => Some(Self::XApic),
            "x2apic" => Some(Self::X2Apic),
            _ => None,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Present => "present",
            Self::XApic => "xapic",
            Self::X2Apic => "x2apic",
        })
    }
}
