// SPDX-License-Identifier: MIT OR Apache-2.0
//! SBI's inter-processor interrupt as a doorbell.

use crate::sbi::{probe, Extension, SbiError, SbiIo};
use mk_ipi_abi::{PhysCpuId, Vector};
use mk_ipi_core::platform::{Doorbell, DoorbellError};

/// The number of the function `sbi_send_ipi` in [`Extension::Ipi`].
const SEND_IPI: u64 = 0;
/// The value of `hart_mask_base` that means all harts. The mask is then ignored (SBI, "Hart list parameter").
const ALL_HARTS: u64 = u64::MAX;

/// The vector that stands for the supervisor software interrupt in the directory. The exception code of this interrupt is 1
/// (privileged, "Supervisor Cause (scause) Register"; SPEC RV-2). [`SbiDoorbell`] refuses every other vector.
pub const SOFTWARE_INTERRUPT: Vector = Vector::of_number(1).unwrap();

/// The firmware's inter-processor interrupt. Each call works on the hart that runs the call, so one object serves all harts of a
/// kernel.
///
/// A hart cannot read its own id. The firmware passes the id in A0 to the entry of the kernel, and to the entry of a hart that
/// [`Hsm::start`](crate::Hsm::start) started. The kernel must keep it for its `ThisCpu` implementation, for example in `tp` or
/// `sscratch`.
#[derive(Clone, Copy, Debug)]
pub struct SbiDoorbell<Io> {
    io: Io,
}

impl<Io: SbiIo> SbiDoorbell<Io> {
    /// Makes the object. It fails with [`SbiError::NotSupported`] if the firmware does not have the IPI extension.
    pub fn new(io: Io) -> Result<Self, SbiError> {
        probe(&io, Extension::Ipi)?;
        Ok(Self { io })
    }

    /// The object that calls the firmware and accesses the registers.
    pub const fn io(&self) -> &Io {
        &self.io
    }

    /// Handles this hart's software interrupt: clears it, and then calls `look`, which looks for messages. The order is
    /// important. A message that comes while `look` runs makes the interrupt pending again. If the interrupt were cleared after
    /// `look`, that message would stay unread.
    pub fn handle(&self, look: impl FnOnce()) {
        self.acknowledge();
        look();
    }

    /// Clears this hart's software interrupt. This is the first step of [`handle`](Self::handle). Call it alone to clear an
    /// interrupt that a former kernel of this hart left pending. The interrupt needs no end of interrupt (EOI).
    pub fn acknowledge(&self) {
        self.io.clear_software_interrupt();
        self.io.fence_after_clear();
    }
}

/// Returns the `hart_mask_base` with which a mask of 1 names `cpu`. It fails with [`DoorbellError::Unreachable`] if this value
/// means all harts, and with [`DoorbellError::NoSuchVector`] if `vector` is not [`SOFTWARE_INTERRUPT`].
fn reach(cpu: PhysCpuId, vector: Vector) -> Result<u64, DoorbellError> {
    match cpu.0 {
        ALL_HARTS => Err(DoorbellError::Unreachable(cpu)),
        _ if vector != SOFTWARE_INTERRUPT => Err(DoorbellError::NoSuchVector(vector)),
        base => Ok(base),
    }
}

// SAFETY: `fence w, o` makes earlier stores visible (see `SbiIo`). The mask names one hart, because the base is never
// `ALL_HARTS`.
unsafe impl<Io: SbiIo> Doorbell for SbiDoorbell<Io> {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        reach(cpu, vector).map(drop)
    }

    /// It also fails with [`DoorbellError::Unreachable`] if the firmware reports that no hart has this id, or that this kernel
    /// may not use the hart. For any other error of the firmware it fails with [`DoorbellError::Refused`], which contains the
    /// absolute value of the error.
    // Inlined, so that the fence and the call are next to each other in the compiled code. The check of the disassembly needs
    // this (SPEC RV-3).
    #[inline]
    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        let base = reach(cpu, vector)?;
        self.io.fence_before_doorbell();
        // SAFETY: the call interrupts only `cpu`, and the kernel of this hart expects the interrupt.
        let sent = unsafe { self.io.call(Extension::Ipi, SEND_IPI, [1, base, 0]) };
        match sent.ok() {
            Ok(_) => Ok(()),
            Err(SbiError::InvalidParam) => Err(DoorbellError::Unreachable(cpu)),
            #[expect(clippy::cast_possible_truncation, reason = "errors are small numbers")]
            Err(_) => Err(DoorbellError::Refused(sent.error.unsigned_abs() as u32)),
        }
    }

    /// The same as `ring`. A doorbell is one call, which the firmware completes before the interrupted code continues.
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.ring(cpu, vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Op};

    const V: Vector = SOFTWARE_INTERRUPT;

    /// Makes the doorbell of `fake`, and empties the log of `fake`.
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
            assert_eq!(doorbell.check(cpu, V), Ok(()), "check does not ask the firmware");
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
