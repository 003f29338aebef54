// SPDX-License-Identifier: MIT OR Apache-2.0
//! The id of a CPU: the affinity fields of its `MPIDR_EL1`.

use mk_ipi_abi::PhysCpuId;

/// The bits of `MPIDR_EL1` with the affinity: Aff3 in bits 39:32; Aff2, Aff1 and Aff0 in bits 23:0 (Arm ARM, "MPIDR_EL1").
const FIELDS: u64 = 0xff_00ff_ffff;

/// The affinity of a CPU: four numbers of 8 bits. The GIC routes an interrupt by all four (GIC, "Affinity routing").
///
/// As a [`PhysCpuId`] it has the affinity fields in the same bits as `MPIDR_EL1`, and all other bits are 0 (SPEC AR-1). PSCI uses
/// the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity(u64);

impl Affinity {
    /// The affinity in a value of `MPIDR_EL1`. The other bits of the value are ignored.
    pub const fn of_mpidr(mpidr: u64) -> Self {
        Self(mpidr & FIELDS)
    }

    /// The affinity in a physical id. `None` if a bit outside of the affinity fields is set: no CPU has such an id.
    pub const fn new(cpu: PhysCpuId) -> Option<Self> {
        match cpu.0 & !FIELDS {
            0 => Some(Self(cpu.0)),
            _ => None,
        }
    }

    /// The physical id.
    pub const fn cpu(self) -> PhysCpuId {
        PhysCpuId(self.0)
    }

    /// Aff0, the lowest level: 0 to 255.
    pub const fn aff0(self) -> u64 {
        self.0 & 0xff
    }

    /// Aff1: 0 to 255.
    pub const fn aff1(self) -> u64 {
        self.0 >> 8 & 0xff
    }

    /// Aff2: 0 to 255.
    pub const fn aff2(self) -> u64 {
        self.0 >> 16 & 0xff
    }

    /// Aff3, the highest level: 0 to 255.
    pub const fn aff3(self) -> u64 {
        self.0 >> 32 & 0xff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_physical_id_is_the_affinity_and_nothing_else_of_mpidr() {
        // All bits outside of the affinity fields are set.
        let mpidr = 0xffff_ff12_ff34_5678;
        let affinity = Affinity::of_mpidr(mpidr);
        assert_eq!(affinity.cpu(), PhysCpuId(0x12_0034_5678));
        assert_eq!(
            (affinity.aff3(), affinity.aff2(), affinity.aff1(), affinity.aff0()),
            (0x12, 0x34, 0x56, 0x78)
        );
        assert_eq!(Affinity::new(affinity.cpu()), Some(affinity));
    }

    #[test]
    fn an_id_with_a_bit_outside_of_the_affinity_is_rejected() {
        for bit in 0..64 {
            let is_affinity = matches!(bit, 0..=23 | 32..=39);
            assert_eq!(Affinity::new(PhysCpuId(1 << bit)).is_some(), is_affinity, "bit {bit}");
        }
        assert_eq!(Affinity::new(PhysCpuId(0x8000_0001)), None, "a value of MPIDR_EL1 with bit 31 (RES1)");
    }
}
