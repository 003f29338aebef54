// SPDX-License-Identifier: MIT OR Apache-2.0
//! A set of CPUs, by their physical ids. On real machines these ids have gaps.

use mk_ipi_abi::PhysCpuId;

/// The largest number of CPUs in a set. It is above the number of CPUs of each test machine. Further CPUs are ignored.
pub const MAX_CPUS: usize = 512;

/// CPUs by their physical ids.
pub struct Cpus {
    ids: [PhysCpuId; MAX_CPUS],
    len: usize,
}

impl Cpus {
    /// The ids, in the order in which they were found.
    pub fn ids(&self) -> &[PhysCpuId] {
        &self.ids[..self.len]
    }

    /// The empty set.
    pub const fn none() -> Self {
        Self { ids: [PhysCpuId(0); MAX_CPUS], len: 0 }
    }

    /// Adds a CPU, unless the set contains it. (The MADT can list a CPU twice: as local APIC and as local x2APIC.)
    pub fn add(&mut self, id: PhysCpuId) {
        if self.len < MAX_CPUS && !self.ids().contains(&id) {
            self.ids[self.len] = id;
            self.len += 1;
        }
    }
}
