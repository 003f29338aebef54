// SPDX-License-Identifier: MIT OR Apache-2.0
//! The SGI to send, and its target: the value of `ICC_SGI1R_EL1`.

use crate::affinity::Affinity;
use mk_ipi_abi::Vector;

/// The INTID of a software generated interrupt (SGI): 0 to 15 (GIC, "INTIDs").
///
/// Firmware often reserves 8 to 15 for the Secure state, as Arm's server base architecture recommends. So use one of 0 to 7 as
/// the doorbell, unless you know that the machine's firmware allows another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sgi(u8);

impl Sgi {
    /// The SGI with this INTID. `None` if the INTID is above 15.
    pub const fn new(intid: u8) -> Option<Self> {
        match intid {
            0..=15 => Some(Self(intid)),
            _ => None,
        }
    }

    /// The SGI that a vector in the directory stands for: `0x20 + n` is SGI *n* (SPEC AR-2). `None` from 0x30 on.
    pub const fn of_vector(vector: Vector) -> Option<Self> {
        Self::new(vector.number())
    }

    /// The INTID of the SGI.
    pub const fn intid(self) -> u8 {
        self.0
    }

    /// The vector that stands for this SGI in the directory. It is `Some` for every SGI.
    pub const fn vector(self) -> Option<Vector> {
        Vector::of_number(self.0)
    }
}

/// A value of `ICC_SGI1R_EL1` that sends an SGI to one CPU (GIC, "ICC_SGI1R_EL1, Interrupt Controller Software Generated
/// Interrupt Group 1 Register").
///
/// | bits | field | value |
/// | --- | --- | --- |
/// | 15:0 | TargetList | one bit: bit Aff0 mod 16 of the target |
/// | 23:16 | Aff1 | Aff1 of the target |
/// | 27:24 | INTID | the SGI |
/// | 39:32 | Aff2 | Aff2 of the target |
/// | 40 | IRM | 0: the other fields name the target (1 would be "all but myself") |
/// | 47:44 | RS | Aff0 / 16 of the target |
/// | 55:48 | Aff3 | Aff3 of the target |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SgiCommand(u64);

impl SgiCommand {
    /// The command that sends `sgi` to the CPU at `target`.
    pub const fn to(target: Affinity, sgi: Sgi) -> Self {
        let (list, range) = (1 << (target.aff0() & 15), target.aff0() >> 4);
        let routed = target.aff1() << 16 | target.aff2() << 32 | target.aff3() << 48;
        Self(list | range << 44 | routed | (sgi.0 as u64) << 24)
    }

    /// The value of the register.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mk_ipi_abi::PhysCpuId;

    fn command(cpu: u64, intid: u8) -> u64 {
        SgiCommand::to(Affinity::new(PhysCpuId(cpu)).unwrap(), Sgi::new(intid).unwrap()).bits()
    }

    #[test]
    fn each_field_has_the_manuals_bits() {
        assert_eq!(command(0, 0), 1);
        assert_eq!(command(3, 0), 1 << 3);
        assert_eq!(command(15, 0), 1 << 15);
        assert_eq!(command(16, 0), 1 << 44 | 1);
        assert_eq!(command(0xff, 0), 0xf << 44 | 1 << 15);
        assert_eq!(command(0xff00, 0), 0x00ff_0000 | 1);
        assert_eq!(command(0xff_0000, 0), 0xff << 32 | 1);
        assert_eq!(command(0xff_0000_0000, 0), 0xff << 48 | 1);
        assert_eq!(command(0, 15), 15 << 24 | 1);
        assert_eq!(command(0x12_0034_5678, 9), 0x0012_7034_0956_0100);
    }

    #[test]
    fn every_command_names_one_cpu_and_never_all() {
        for cpu in (0..=0xffff).chain([0x12_0034_5678, 0xff_00ff_ffff]) {
            let bits = command(cpu, 1);
            assert_eq!((bits & 0xffff).count_ones(), 1, "one target");
            assert_eq!(bits & 1 << 40, 0, "IRM");
            assert_eq!(bits & !0x00ff_f0ff_0fff_ffff, 0, "reserved bits");
            let aff0 = (bits >> 44 & 0xf) << 4 | u64::from((bits & 0xffff).trailing_zeros());
            let named = aff0 | (bits >> 16 & 0xff) << 8 | (bits >> 32 & 0xff) << 16 | (bits >> 48) << 32;
            assert_eq!(named, cpu);
        }
    }

    #[test]
    fn sgis_are_vectors_0x20_to_0x2f_and_no_other_vector_is_one() {
        for v in 0x20..=0xfe {
            let sgi = Sgi::of_vector(Vector::new(v).unwrap());
            assert_eq!(sgi.map(Sgi::intid), v.checked_sub(0x20).filter(|n| *n < 16), "{v:#x}");
        }
        for n in 0..=15 {
            assert_eq!(Sgi::new(n).unwrap().vector(), Vector::new(0x20 + n));
        }
        assert!((16..=255).all(|n| Sgi::new(n).is_none()), "INTIDs from 16 on are no SGIs");
    }
}
