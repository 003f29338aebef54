// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modes of the local APIC, by name.

use core::fmt;

/// How to run the local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the mode in which it is found.
    Present,
    /// Memory-mapped registers, 8-bit ids.
    XApic,
    /// Registers in MSRs, 32-bit ids.
    X2Apic,
}

impl Mode {
    /// The mode of this name.
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
