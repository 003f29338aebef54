// SPDX-License-Identifier: MIT OR Apache-2.0
//! A message-signalled interrupt of another hart's IMSIC as a doorbell: one store, without a call of the firmware.
//!
//! "AIA" is the RISC-V advanced interrupt architecture, version 1.0.

use mk_ipi_abi::{PhysCpuId, Vector};
use mk_ipi_core::platform::{Doorbell, DoorbellError};

/// `eidelivery`: whether the file interrupts its hart (AIA, "External interrupt delivery enable register").
const DELIVERY: u64 = 0x70;
/// `eithreshold`: this identity and all higher ones do not interrupt. With 0, all do.
const THRESHOLD: u64 = 0x72;
/// `eip0`: pending identities, 64 in each even register.
const PENDING: u64 = 0x80;
/// `eie0`: enabled identities.
const ENABLED: u64 = 0xc0;
/// How many such registers, of 64 identities each, hold the identities that vectors can stand for.
const BLOCKS: u8 = 4;

/// An interrupt identity that a vector can stand for: 1 to 0xde. Vector `0x20 + n` is identity *n* (SPEC RV-7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(u8);

impl Identity {
    /// The identity that a vector stands for; `None` for 0x20, because there is no identity 0.
    pub const fn of_vector(vector: Vector) -> Option<Self> {
        match vector.number() {
            0 => None,
            n => Some(Self(n)),
        }
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The vector that stands for this identity. Every identity of this type has one.
    pub const fn vector(self) -> Option<Vector> {
        Vector::of_number(self.0)
    }
}

/// The instructions that access the interrupt files: another hart's through its page, this hart's through its
/// registers.
///
/// # Implementation safety
///
/// Each method does what it says, on this hart and in program order. All of them are compiler barriers: no access to memory that
/// another hart can see moves across them, in either direction.
///
/// `send` is `fence w, o`, then the store, and nothing in between. The store to the other hart's file is an output.
/// Without the fence it could become visible before the message (ISA, "FENCE instruction"). Both are one method, so
/// that the check of the disassembly knows which store it is.
///
/// `fence_after_claim` is `fence o, rw`. The claim is a write of a register, and so an output. The fence keeps later
/// loads after it (ISA, "CSR Access Ordering").
///
/// `has_file` says whether `send` stores to the supervisor-level interrupt file of that hart, and of no other. Both
/// must follow what the device tree or ACPI says of the machine (AIA, "Arrangement of the memory regions of multiple
/// interrupt files").
pub unsafe trait ImsicIo {
    /// Returns whether the supervisor-level interrupt file of this hart is mapped.
    fn has_file(&self, cpu: PhysCpuId) -> bool;

    /// Makes all earlier stores visible before any later output. Then stores the identity's number, 32 bits, to
    /// `seteipnum_le` of that hart's file, which is its first word: `fence w, o`, `sw`.
    ///
    /// # Safety
    ///
    /// [`has_file`](Self::has_file), and the caller may cause the effect.
    unsafe fn send(&self, cpu: PhysCpuId, identity: Identity);

    /// Writes a register of this hart's file: first the register's number to `siselect`, then `value` to `sireg`.
    ///
    /// # Safety
    ///
    /// The register exists and takes the value, and the caller may cause the effect. No interrupt handler of this hart
    /// uses `siselect`.
    unsafe fn write(&self, register: u64, value: u64);

    /// Takes the pending and enabled interrupt of the lowest number: `csrrw rd, stopei, zero`. Bits 26 to 16 of the
    /// result are the identity; 0 means none (AIA, "Supervisor top external interrupt").
    ///
    /// # Safety
    ///
    /// The caller handles the interrupt.
    unsafe fn claim(&self) -> u64;

    /// Keeps all later accesses to memory after the claim: `fence o, rw`.
    fn fence_after_claim(&self);
}

/// The IMSICs of a machine, for whichever hart runs the call.
#[derive(Clone, Copy, Debug)]
pub struct Imsic<Io> {
    io: Io,
}

impl<Io: ImsicIo> Imsic<Io> {
    /// The IMSICs.
    ///
    /// # Safety
    ///
    /// Every hart that uses the object has an IMSIC with a supervisor-level file, and the AIA's registers (`Ssaia`).
    pub const unsafe fn new(io: Io) -> Self {
        Self { io }
    }

    /// The access to the files.
    pub const fn io(&self) -> &Io {
        &self.io
    }

    /// Makes this hart's file deliver these interrupts, and none of the others that vectors can stand for. It clears
    /// what a former kernel left pending. Each hart calls it once.
    ///
    /// # Safety
    ///
    /// Interrupts are off. Once they are on, and `sie.SEIE` is set, the trap entry calls [`claim`](Self::claim) for
    /// supervisor external interrupts, and can handle all of these.
    pub unsafe fn enable(&self, identities: &[Identity]) {
        for block in 0..BLOCKS {
            let in_block = identities.iter().filter(|identity| identity.0 / 64 == block);
            let bits = in_block.fold(0u64, |bits, identity| bits | 1 << (identity.0 % 64));
            // SAFETY: every file has these registers; identities that it does not implement read 0. The caller promises
            // the rest.
            unsafe {
                self.io.write(PENDING.wrapping_add(2 * u64::from(block)), 0);
                self.io.write(ENABLED.wrapping_add(2 * u64::from(block)), bits);
            }
        }
        // SAFETY: as above.
        unsafe {
            self.io.write(THRESHOLD, 0);
            self.io.write(DELIVERY, 1);
        }
    }

    /// Takes an interrupt of this hart. The handler of supervisor external interrupts calls this first, again and again
    /// until it returns `None`. A message that comes later rings again.
    ///
    /// # Safety
    ///
    /// The caller is that handler, with interrupts off.
    pub unsafe fn claim(&self) -> Option<u16> {
        // SAFETY: the caller promises it.
        let found = unsafe { self.io.claim() };
        self.io.fence_after_claim();
        u16::try_from(found >> 16 & 0x7ff).ok().filter(|identity| *identity != 0)
    }

    fn reach(&self, cpu: PhysCpuId, vector: Vector) -> Result<Identity, DoorbellError> {
        if !self.io.has_file(cpu) {
            return Err(DoorbellError::Unreachable(cpu));
        }
        Identity::of_vector(vector).ok_or(DoorbellError::NoSuchVector(vector))
    }
}

// SAFETY: ordering is by `fence w, o`, see `ImsicIo`; a file belongs to one hart.
unsafe impl<Io: ImsicIo> Doorbell for Imsic<Io> {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.reach(cpu, vector).map(drop)
    }

    /// It does not know whether the other hart's file implements the identity, or delivers it.
    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        let identity = self.reach(cpu, vector)?;
        // SAFETY: the file is there. It sends an interrupt that the target's kernel expects, to one hart.
        unsafe { self.io.send(cpu, identity) };
        Ok(())
    }

    /// A doorbell is one store, so it cannot disturb a doorbell that was interrupted.
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.ring(cpu, vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::vec::Vec;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Op {
        Send(u64, u8),
        Write(u64, u64),
        Claim,
        FenceAfter,
    }

    /// Files of harts 0 to 3.
    #[derive(Default)]
    struct Fake {
        log: RefCell<Vec<Op>>,
        top: Cell<u64>,
    }

    // SAFETY: it reaches no file.
    unsafe impl ImsicIo for &Fake {
        fn has_file(&self, cpu: PhysCpuId) -> bool {
            cpu.0 < 4
        }
        unsafe fn send(&self, cpu: PhysCpuId, identity: Identity) {
            assert!(self.has_file(cpu), "a store to somewhere");
            self.log.borrow_mut().push(Op::Send(cpu.0, identity.get()));
        }
        unsafe fn write(&self, register: u64, value: u64) {
            assert!(register < 0x80 || register % 2 == 0, "odd registers do not exist with 64 bits");
            self.log.borrow_mut().push(Op::Write(register, value));
        }
        unsafe fn claim(&self) -> u64 {
            self.log.borrow_mut().push(Op::Claim);
            self.top.take()
        }
        fn fence_after_claim(&self) {
            self.log.borrow_mut().push(Op::FenceAfter);
        }
    }

    fn imsic(fake: &Fake) -> Imsic<&Fake> {
        // SAFETY: a fake has all files that it says it has.
        unsafe { Imsic::new(fake) }
    }

    fn vector(v: u8) -> Vector {
        Vector::new(v).unwrap()
    }

    #[test]
    fn a_doorbell_is_one_store_of_the_identity() {
        let fake = Fake::default();
        for v in 0x21..=0xfe {
            let sent = [Op::Send(3, v - 0x20)];
            assert_eq!(imsic(&fake).ring(PhysCpuId(3), vector(v)), Ok(()));
            assert_eq!(fake.log.take(), sent);
            assert_eq!(imsic(&fake).ring_from_nmi(PhysCpuId(3), vector(v)), Ok(()));
            assert_eq!(fake.log.take(), sent);
            let identity = Identity::of_vector(vector(v)).unwrap();
            assert_eq!(identity.vector(), Some(vector(v)));
        }
    }

    #[test]
    fn a_hart_without_a_file_and_identity_0_are_refused_and_nothing_is_stored() {
        let fake = Fake::default();
        for (cpu, v, why) in [
            (4, 0x21, DoorbellError::Unreachable(PhysCpuId(4))),
            (u64::MAX, 0x21, DoorbellError::Unreachable(PhysCpuId(u64::MAX))),
            (0, 0x20, DoorbellError::NoSuchVector(vector(0x20))),
        ] {
            let (imsic, cpu) = (imsic(&fake), PhysCpuId(cpu));
            let found = [
                imsic.check(cpu, vector(v)),
                imsic.ring(cpu, vector(v)),
                imsic.ring_from_nmi(cpu, vector(v)),
            ];
            assert_eq!(found, [Err(why); 3]);
            assert_eq!(fake.log.take(), []);
        }
        assert_eq!(imsic(&fake).check(PhysCpuId(0), vector(0x21)), Ok(()));
        assert_eq!(fake.log.take(), [], "check touches nothing");
    }

    #[test]
    fn an_interrupt_is_claimed_before_anything_is_read() {
        let fake = Fake::default();
        for (top, identity) in [(1 << 16 | 1, Some(1)), (0x7ff << 16 | 0x7ff, Some(0x7ff)), (0, None)] {
            fake.top.set(top);
            // SAFETY: a fake interrupts no CPU.
            assert_eq!(unsafe { imsic(&fake).claim() }, identity);
            assert_eq!(fake.log.take(), [Op::Claim, Op::FenceAfter]);
        }
    }

    #[test]
    fn enabling_forgets_what_is_pending_and_lets_in_what_is_named() {
        let fake = Fake::default();
        let identities = [0x21, 0x22, 0x60, 0xfe].map(|v| Identity::of_vector(vector(v)).unwrap());
        // SAFETY: a fake interrupts no CPU.
        unsafe { imsic(&fake).enable(&identities) };
        assert_eq!(
            fake.log.take(),
            [
                Op::Write(0x80, 0),
                Op::Write(0xc0, 0b110),
                Op::Write(0x82, 0),
                Op::Write(0xc2, 1),
                Op::Write(0x84, 0),
                Op::Write(0xc4, 0),
                Op::Write(0x86, 0),
                Op::Write(0xc6, 1 << 30),
                Op::Write(0x72, 0),
                Op::Write(0x70, 1),
            ]
        );
    }
}
