// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest has one CPU (examples/bare-metal/src/second.rs).

use mk_ipi_abi::PhysCpuId;

/// Fails: there is no second CPU.
pub fn physical_id() -> PhysCpuId {
    fatal!("there is one CPU")
}

/// Fails: there is no second CPU.
pub fn entry() -> u64 {
    fatal!("there is one CPU")
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
