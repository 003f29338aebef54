// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mode of the local APIC, and the change to x2APIC mode.

use crate::regs::{ApicIo, IA32_APIC_BASE};
use mk_ipi_abi::PhysAddr;

bitflags::bitflags! {
    /// `IA32_APIC_BASE` (Intel SDM vol. 3A, 10.4.4 and 10.12.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ApicBase: u64 {
        /// This CPU booted the machine.
        const BSP = 1 << 8;
        /// The APIC is in x2APIC mode.
        const EXTD = 1 << 10;
        /// The APIC is on.
        const EN = 1 << 11;
        /// All other bits: the address, and reserved bits. A write keeps them.
        const _ = !0;
    }
}

impl ApicBase {
    /// Reads this CPU's register.
    pub fn read(io: &impl ApicIo) -> Self {
        // SAFETY: every x86-64 CPU has the MSR, in every mode; a read has no effect.
        Self::from_bits_retain(unsafe { io.rdmsr(IA32_APIC_BASE) })
    }

    /// The physical address of the page with the xAPIC's registers: bits 51:12.
    pub const fn page(self) -> PhysAddr {
        PhysAddr(self.bits() & 0x000f_ffff_ffff_f000)
    }
}

/// The mode of a local APIC: how its registers are accessed, and how many bits an id has (Intel SDM vol. 3A, table 10-5).
///
/// If a machine has a CPU with an id above 254, all kernels of the machine must run in x2APIC mode. A CPU in xAPIC mode cannot
/// address such a CPU: a doorbell for it fails with [`Unreachable`](mk_ipi_core::platform::DoorbellError::Unreachable).
///
/// These ids are in the MADT, which lists the CPUs as "Processor Local x2APIC" (ACPI 6.5, 5.2.12.12). A CPU finds its own 32-bit
/// id by CPUID in either mode: in EDX of the leaves 0BH and 1FH. Bits 31:24 of EBX in leaf 01H (the initial APIC id) are not
/// enough, and the id register of the xAPIC is not enough either. Both have only the low 8 bits of the id, which can be equal to
/// another CPU's id (Intel SDM vol. 3A, 10.12.8.1). [`LocalApic::new`](crate::LocalApic::new) refuses a CPU in xAPIC mode whose
/// id does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The registers are memory-mapped, and ids have 8 bits.
    XApic,
    /// The registers are MSRs, and ids have 32 bits.
    X2Apic,
}

/// Why an APIC cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeError {
    /// The APIC is off: EN and EXTD are both 0.
    Disabled,
    /// EXTD is 1 and EN is 0. The manual calls this combination invalid.
    Invalid,
    /// The CPU is in xAPIC mode, and the xAPIC's page is not mapped.
    NotMapped,
    /// The CPU is in xAPIC mode, and its id (the number in this variant) is above 254. The id does not fit into the id register,
    /// so peers would send its doorbells to another CPU.
    IdTooLong(u32),
    /// The CPU has no x2APIC.
    NoX2Apic,
    /// This CPU is in the mode that the variant contains. The [`LocalApic`](crate::LocalApic) was made for the other mode.
    Differs(Mode),
}

impl core::fmt::Display for ModeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Disabled => f.write_str("the local APIC is off"),
            Self::Invalid => f.write_str("the mode bits of the local APIC are invalid"),
            Self::NotMapped => f.write_str("the page of the xAPIC is not mapped"),
            Self::IdTooLong(id) => write!(f, "the CPU is in xAPIC mode, and its id {id:#x} is above 254"),
            Self::NoX2Apic => f.write_str("the CPU has no x2APIC"),
            Self::Differs(mode) => write!(f, "the local APIC of this CPU is in the wrong mode: {mode:?}"),
        }
    }
}

impl core::error::Error for ModeError {}

impl Mode {
    /// Reads the mode of this CPU's APIC. It fails with [`ModeError::Disabled`] or [`ModeError::Invalid`].
    pub fn read(io: &impl ApicIo) -> Result<Self, ModeError> {
        Self::decode(ApicBase::read(io))
    }

    const fn decode(base: ApicBase) -> Result<Self, ModeError> {
        match (base.contains(ApicBase::EN), base.contains(ApicBase::EXTD)) {
            (true, false) => Ok(Self::XApic),
            (true, true) => Ok(Self::X2Apic),
            (false, false) => Err(ModeError::Disabled),
            (false, true) => Err(ModeError::Invalid),
        }
    }

    /// Switches this CPU's APIC to x2APIC mode. It does nothing if the APIC is in this mode already. To return to xAPIC mode,
    /// software must first switch the APIC off. This crate has no call for that.
    ///
    /// Only an APIC in xAPIC mode can be switched: if it is off, the write would fault (Intel SDM vol. 3A, 10.12.5). So the call
    /// fails with [`ModeError::Disabled`] or [`ModeError::Invalid`], and with [`ModeError::NoX2Apic`] if the CPU has no x2APIC.
    ///
    /// # Safety
    ///
    /// From this call on, no code on this CPU uses the xAPIC's page. The call is not made in a handler that may have interrupted
    /// a send between its two writes of the ICR.
    pub unsafe fn enter_x2apic(io: &impl ApicIo) -> Result<(), ModeError> {
        let base = ApicBase::read(io);
        match Self::decode(base)? {
            Self::X2Apic => Ok(()),
            Self::XApic if !io.has_x2apic() => Err(ModeError::NoX2Apic),
            Self::XApic => {
                // SAFETY: the write is legal, because EN is set and the CPU has an x2APIC. The caller promises the rest.
                unsafe { io.wrmsr(IA32_APIC_BASE, base.union(ApicBase::EXTD).bits()) };
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Op};
    use std::vec;

    /// A usual value of `IA32_APIC_BASE`: page 0xfee00000 and the flag of the boot CPU. The tests add the two mode bits.
    const BASE: u64 = 0xfee0_0100;
    const EN: u64 = 0x800;
    const EXTD: u64 = 0x400;

    #[test]
    fn the_mode_is_read_from_en_and_extd() {
        for (bits, mode) in [
            (0, Err(ModeError::Disabled)),
            (EXTD, Err(ModeError::Invalid)),
            (EN, Ok(Mode::XApic)),
            (EN | EXTD, Ok(Mode::X2Apic)),
        ] {
            // The other bits do not change the mode.
            for rest in [0, BASE, !(EN | EXTD)] {
                let fake = &Fake::new(rest | bits);
                assert_eq!(Mode::read(&fake), mode);
                assert_eq!(fake.take(), vec![Op::RdMsr(0x1b)]);
            }
        }
    }

    #[test]
    fn the_page_is_bits_51_to_12() {
        assert_eq!(ApicBase::read(&&Fake::new(BASE | EN)).page(), PhysAddr(0xfee0_0000));
        assert_eq!(ApicBase::read(&&Fake::new(!0)).page(), PhysAddr(0x000f_ffff_ffff_f000));
    }

    #[test]
    fn x2apic_mode_is_entered_from_xapic_mode_only() {
        // SAFETY: no code uses the page of a fake.
        let enter = |fake: &Fake| unsafe { Mode::enter_x2apic(&fake) };
        let x = Fake::new(BASE | EN);
        assert_eq!(enter(&x), Ok(()));
        assert_eq!(x.take(), vec![Op::RdMsr(0x1b), Op::WrMsr(0x1b, BASE | EN | EXTD)]);
        assert_eq!((Mode::read(&&x), enter(&x)), (Ok(Mode::X2Apic), Ok(())));
        for (bits, error) in [(0, ModeError::Disabled), (EXTD, ModeError::Invalid)] {
            let off = Fake::new(BASE | bits);
            assert_eq!(enter(&off), Err(error));
            assert_eq!(off.take(), vec![Op::RdMsr(0x1b)], "nothing is written");
        }
    }

    #[test]
    fn x2apic_mode_is_not_entered_without_cpuid_bit_21() {
        let fake = Fake { x2apic: false, ..Fake::new(BASE | EN) };
        // SAFETY: as above.
        assert_eq!(unsafe { Mode::enter_x2apic(&&fake) }, Err(ModeError::NoX2Apic));
        assert_eq!(fake.take(), vec![Op::RdMsr(0x1b)]);
    }
}
