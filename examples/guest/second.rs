// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest has one CPU (examples/bare-metal/src/second.rs).

use mk_ipi_abi::PhysCpuId;

/// No second CPU.
pub fn physical_id() -> PhysCpuId {
    fatal!("there is one CPU")
}

/// Where none enters.
pub fn entry() -> u64 {
    fatal!("there is one CPU")
}

/// It is not here.
pub fn is_on() -> bool {
    false
}

/// It is not here.
pub fn is_off() -> bool {
    true
}

/// It has left.
pub fn leave() {}
