// SPDX-License-Identifier: MIT OR Apache-2.0
//! SBI's inter-processor interrupt as a doorbell.

use crate::sbi::{probe, Extension, SbiError, SbiIo};
use mk_ipi_abi::{PhysCpuId, Vector};
use mk_ipi_core::platform::{Doorbell, DoorbellError};

/// `sbi_send_ipi` of [`Extension::Ipi`].
const SEND_IPI: u64 = 0;
/// A `hart_mask_base` that means all harts, whatever the mask (SBI, "Hart list parameter").
const ALL_HARTS: u64 = u64::MAX;

/// The vector that stands for the supervisor software interrupt in the directory. Its cause is 1 (privileged,
/// "Supervisor Cause (scause) Register"; SPEC RV-2). No other vector can be used here.
pub const SOFTWARE_INTERRUPT: Vector = Vector::of_number(1).unwrap();

/// The firmware's inter-processor interrupt, for whichever hart runs the call: one object serves all harts of a kernel.
///
/// A hart cannot read its own id. The firmware passes it in A0 to the kernel's entry, and
/// [`Hsm::start`](crate::Hsm::start) to the entry of a started hart. The kernel keeps it for `ThisCpu`, in `tp` or
/// `sscratch`.
#[derive(Clone, Copy, Debug)]
pub struct SbiDoorbell<Io> {
    io: Io,
}

impl<Io: SbiIo> SbiDoorbell<Io> {
    /// The doorbell, if the firmware has the IPI extension; else [`SbiError::NotSupported`].
    pub fn new(io: Io) -> Result<Self, SbiError> {
        probe(&io, Extension::Ipi)?;
        Ok(Self { io })
    }

    /// The access to firmware and registers.
    pub const fn io(&self) -> &Io {
        &self.io
    }

    /// Handles this hart's software interrupt: clears it, and then looks for messages by `look`. The order matters: a message that comes
    /// while `look` runs makes the interrupt pending again. If the interrupt were cleared after the look, that message would not be
    /// found.
    pub fn handle(&self, look: impl FnOnce()) {
        self.acknowledge();
        look();
    }

    /// Clears this hart's software interrupt: the first half of [`handle`](Self::handle). Use it alone for an interrupt
    /// that a former kernel of this hart left pending. There is no end of interrupt.
    pub fn acknowledge(&self) {
        self.io.clear_software_interrupt();
        self.io.fence_after_clear();
    }
}

/// The base of a mask with one bit, which stands for `cpu`.
fn reach(cpu: PhysCpuId, vector: Vector) -> Result<u64, DoorbellError> {
    match cpu.0 {
        ALL_HARTS => Err(DoorbellError::Unreachable(cpu)),
        _ if vector != SOFTWARE_INTERRUPT => Err(DoorbellError::NoSuchVector(vector)),
        base => Ok(base),
    }
}

// SAFETY: ordering is by `fence w, o`, see `SbiIo`; the mask names one hart, and the base is never that of all.
unsafe impl<Io: SbiIo> Doorbell for SbiDoorbell<Io> {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        reach(cpu, vector).map(drop)
    }

    /// Also [`DoorbellError::Unreachable`] if the firmware says that no hart has this id, or that it is not this
    /// kernel's;
    /// [`DoorbellError::Refused`] with the number of any other error.
    // Inlined, so that fence and call stay together in the code: the check of the disassembly needs that (SPEC RV-3).
    #[inline]
    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        let base = reach(cpu, vector)?;
        self.io.fence_before_doorbell();
        // SAFETY: it sends an interrupt that the target's kernel expects, to the one hart that was named.
        let sent = unsafe { self.io.call(Extension::Ipi, SEND_IPI, [1, base, 0]) };
        match sent.ok() {
            Ok(_) => Ok(()),
            Err(SbiError::InvalidParam) => Err(DoorbellError::Unreachable(cpu)),
            #[expect(clippy::cast_possible_truncation, reason = "errors are small numbers")]
            Err(_) => Err(DoorbellError::Refused(sent.error.unsigned_abs() as u32)),
        }
    }

    /// A doorbell is one call, and the firmware completes it before the interrupted code goes on.
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.ring(cpu, vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Op};

    const V: Vector = SOFTWARE_INTERRUPT;

    /// The doorbell of a fake whose log is empty.
    fn doorbell(fake: &Fake) -> SbiDoorbell<&Fake> {
        let doorbell = SbiDoorbell::new(fake).unwrap();
        fake.take();
        doorbell
    }

    #[test]
    fn a_doorbell_is_a_fence_then_one_call_that_names_one_hart() {
        let fake = Fake::new();
        for hart in [0, 1, 63, 64, 0x1_0000_0001, u64::MAX - 1] {
            let sent = [Op::FenceBefore, Op::Call(Extension::Ipi, 0, [1, hart, 0])];
            assert_eq!(doorbell(&fake).ring(PhysCpuId(hart), V), Ok(()));
            assert_eq!(fake.take(), sent);
            assert_eq!(doorbell(&fake).ring_from_nmi(PhysCpuId(hart), V), Ok(()));
            assert_eq!(fake.take(), sent);
        }
    }

    #[test]
    fn the_base_of_all_harts_and_any_other_vector_are_refused_and_nothing_is_called() {
        let fake = Fake::new();
        let (doorbell, all) = (doorbell(&fake), PhysCpuId(u64::MAX));
        for found in [doorbell.check(all, V), doorbell.ring(all, V), doorbell.ring_from_nmi(all, V)] {
            assert_eq!(found, Err(DoorbellError::Unreachable(all)));
        }
        for vector in (0x20..=0xfe).filter_map(Vector::new) {
            let expected =
                if vector.get() == 0x21 { Ok(()) } else { Err(DoorbellError::NoSuchVector(vector)) };
            assert_eq!(doorbell.check(PhysCpuId(3), vector), expected);
            assert_eq!(fake.take(), [], "check makes no call");
            assert_eq!(doorbell.ring(PhysCpuId(3), vector), expected);
            assert_eq!(fake.take().is_empty(), expected.is_err());
        }
    }

    #[test]
    fn what_the_firmware_refuses_is_told() {
        let cpu = PhysCpuId(9);
        for (error, expected) in [
            (-3, DoorbellError::Unreachable(cpu)),
            (-1, DoorbellError::Refused(1)),
            (-2, DoorbellError::Refused(2)),
            (-99, DoorbellError::Refused(99)),
        ] {
            let fake = Fake::new();
            let doorbell = doorbell(&fake);
            fake.error.set(error);
            assert_eq!(doorbell.ring(cpu, V), Err(expected));
            assert_eq!(doorbell.check(cpu, V), Ok(()), "only the firmware knows");
        }
    }

    #[test]
    fn an_interrupt_is_cleared_before_anything_is_read() {
        let fake = Fake::new();
        doorbell(&fake).acknowledge();
        assert_eq!(fake.take(), [Op::Clear, Op::FenceAfter]);
    }

    #[test]
    fn a_firmware_without_the_extension_has_no_doorbell() {
        let fake = Fake { has_extensions: false, ..Fake::new() };
        assert_eq!(SbiDoorbell::new(&fake).map(drop), Err(SbiError::NotSupported));
        assert_eq!(fake.take(), [Op::Call(Extension::Base, 3, [0x73_5049, 0, 0])]);
        let fake = Fake::new();
        fake.error.set(-1);
        assert_eq!(SbiDoorbell::new(&fake).map(drop), Err(SbiError::Failed));
    }
}
