// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replaces examples/bare-metal/src/second.rs. A guest (arch.rs says what a guest is) has only one CPU.

use mk_ipi_abi::PhysCpuId;

/// Does not return: a call is a fatal error, because there is no second CPU.
pub fn physical_id() -> PhysCpuId {
    fatal!("this kernel has only one CPU")
}

/// Does not return: a call is a fatal error, because there is no second CPU.
pub fn entry() -> u64 {
    fatal!("this kernel has only one CPU")
}

/// Always false: there is no second CPU.
pub fn is_on() -> bool {
    false
}

/// Always true: there is no second CPU.
pub fn is_off() -> bool {
    true
}

/// Does nothing: there is no second CPU.
pub fn leave() {}
