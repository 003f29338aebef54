// SPDX-License-Identifier: MIT OR Apache-2.0
//! A set of CPUs, by their physical ids, which are not 0..n on real machines.

use mk_ipi_abi::PhysCpuId;

/// Most CPUs that are looked at: more than any machine here has. A directory entry has room for twice as many.
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

    /// No CPUs.
    pub const fn none() -> Self {
        Self { ids: [PhysCpuId(0); MAX_CPUS], len: 0 }
    }

    /// Adds a CPU, if it is not in the set yet. A table can list one twice, as local APIC and as local x2APIC.
    pub fn add(&mut self, id: PhysCpuId) {
        if self.len < MAX_CPUS && !self.ids().contains(&id) {
            self.ids[self.len] = id;
            self.len += 1;
        }
    }
}
