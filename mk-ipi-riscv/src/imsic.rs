// SPDX-License-Identifier: MIT OR Apache-2.0
//! A doorbell by a message-signalled interrupt: one store to the IMSIC of the other hart, without a call of the firmware.
//!
//! "AIA" is the RISC-V advanced interrupt architecture, version 1.0.

use mk_ipi_abi::{PhysCpuId, Vector};
use mk_ipi_core::platform::{Doorbell, DoorbellError};

/// The number of `eidelivery`. With 1 the file interrupts its hart (AIA, "External interrupt delivery enable register").
const DELIVERY: u64 = 0x70;
/// The number of `eithreshold`. Identities from this value on do not interrupt. With 0, every enabled identity interrupts.
const THRESHOLD: u64 = 0x72;
/// The number of `eip0`, the first register of the pending identities. Each register with an even number has 64 of them.
const PENDING: u64 = 0x80;
/// The number of `eie0`, the first register of the enabled identities. Each register with an even number has 64 of them.
const ENABLED: u64 = 0xc0;
/// The number of registers, with 64 identities each, that contain the identities of all vectors.
const BLOCKS: u8 = 4;

/// An interrupt identity that a vector can stand for: 1 to 0xde. Vector `0x20 + n` is identity *n* (SPEC RV-7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(u8);

impl Identity {
    /// The identity that a vector stands for. `None` for vector 0x20, because there is no identity 0.
    pub const fn of_vector(vector: Vector) -> Option<Self> {
        match vector.number() {
            0 => None,
            n => Some(Self(n)),
        }
    }

    /// The number of the identity.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The vector that stands for this identity. It is `Some` for every identity of this type.
    pub const fn vector(self) -> Option<Vector> {
        Vector::of_number(self.0)
    }
}

/// The instructions that access the interrupt files. They access the file of another hart through its page, and the file of this
/// hart through this hart's registers.
///
/// # Implementation safety
///
/// Each method does what its documentation says, on the hart that runs it, and in program order. All methods are compiler
/// barriers: the compiler moves no access to memory that another hart can access across them, in either direction.
///
/// `send` is `fence w, o`, and then the store, without an instruction in between. The store to the other hart's file is an
/// output. Without the fence it could take effect before the message is visible (ISA, "FENCE instruction"). The fence and the
/// store are in one method, so that the check of the disassembly can find this store.
///
/// `fence_after_claim` is `fence o, rw`. The claim writes a CSR, which counts as an output. The fence keeps later loads after the
/// claim (ISA, "CSR Access Ordering").
///
/// If `has_file` returns true for a hart, `send` to this hart stores to the supervisor-level interrupt file of this hart, and
/// not to another file. The device tree or ACPI gives the addresses of the files (AIA, "Arrangement of the memory regions of
/// multiple interrupt files").
pub unsafe trait ImsicIo {
    /// Returns whether the supervisor-level interrupt file of this hart is mapped.
    fn has_file(&self, cpu: PhysCpuId) -> bool;

    /// Makes all earlier stores visible before any later output (`fence w, o`). Then stores the number of the identity as 32 bits
    /// to `seteipnum_le`, the first word of that hart's file (`sw`).
    ///
    /// # Safety
    ///
    /// [`has_file`](Self::has_file) returns true for `cpu`. The caller has the right to interrupt this hart by this identity.
    unsafe fn send(&self, cpu: PhysCpuId, identity: Identity);

    /// Writes a register of this hart's file: first its number to `siselect`, then `value` to `sireg`.
    ///
    /// # Safety
    ///
    /// The register exists, and `value` is legal for it. The caller has the right to cause the effect of the write. No interrupt
    /// handler of this hart writes to `siselect` without restoring it.
    unsafe fn write(&self, register: u64, value: u64);

    /// Takes the pending and enabled interrupt with the lowest identity (`csrrw rd, stopei, zero`). Bits 26 to 16 of the result
    /// are the identity. If they are 0, no interrupt was pending (AIA, "Supervisor top external interrupt").
    ///
    /// # Safety
    ///
    /// The caller handles the interrupt.
    unsafe fn claim(&self) -> u64;

    /// Keeps all later accesses to memory after the claim: `fence o, rw`.
    fn fence_after_claim(&self);
}

/// The IMSICs of a machine. Each call works on the hart that runs the call, so one object serves all harts of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Imsic<Io> {
    io: Io,
}

impl<Io: ImsicIo> Imsic<Io> {
    /// Makes the object.
    ///
    /// # Safety
    ///
    /// Every hart that uses the object has an IMSIC with a supervisor-level file, and the AIA's registers (`Ssaia`).
    pub const unsafe fn new(io: Io) -> Self {
        Self { io }
    }

    /// The object that accesses the interrupt files.
    pub const fn io(&self) -> &Io {
        &self.io
    }

    /// Makes this hart's file deliver `identities`, and disables the other identities below 256. It also clears the pending bits
    /// of all identities below 256, which a former kernel may have left. Each hart of the kernel must call it once.
    ///
    /// # Safety
    ///
    /// Interrupts are off. When they are switched on, and `sie.SEIE` is set, the trap entry calls [`claim`](Self::claim) for
    /// supervisor external interrupts, and can handle every one of `identities`.
    pub unsafe fn enable(&self, identities: &[Identity]) {
        for block in 0..BLOCKS {
            let in_block = identities.iter().filter(|identity| identity.0 / 64 == block);
            let bits = in_block.fold(0u64, |bits, identity| bits | 1 << (identity.0 % 64));
            // SAFETY: every file has these registers. Bits of identities that a file does not implement ignore writes. The caller
            // promises the rest.
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

    /// Takes an interrupt of this hart, and returns its identity. The handler of supervisor external interrupts calls this
    /// until it returns `None`. After each identity of a doorbell it looks for messages. If a peer stores a message after the
    /// claim, its doorbell causes a new interrupt.
    ///
    /// # Safety
    ///
    /// The caller is the handler of supervisor external interrupts, with interrupts off.
    pub unsafe fn claim(&self) -> Option<u16> {
        // SAFETY: the caller promises it.
        let found = unsafe { self.io.claim() };
        self.io.fence_after_claim();
        u16::try_from(found >> 16 & 0x7ff).ok().filter(|identity| *identity != 0)
    }

    /// Returns the identity for `vector`. It fails with [`DoorbellError::Unreachable`] if the file of `cpu` is not mapped, and
    /// with [`DoorbellError::NoSuchVector`] if `vector` stands for no identity.
    fn reach(&self, cpu: PhysCpuId, vector: Vector) -> Result<Identity, DoorbellError> {
        if !self.io.has_file(cpu) {
            return Err(DoorbellError::Unreachable(cpu));
        }
        Identity::of_vector(vector).ok_or(DoorbellError::NoSuchVector(vector))
    }
}

// SAFETY: `fence w, o` makes earlier stores visible (see `ImsicIo`). A file belongs to one hart.
unsafe impl<Io: ImsicIo> Doorbell for Imsic<Io> {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.reach(cpu, vector).map(drop)
    }

    /// The method cannot find out whether the file of the other hart implements the identity, and whether it delivers it.
    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        let identity = self.reach(cpu, vector)?;
        // SAFETY: `reach` has checked `has_file`. The store interrupts only `cpu`, and the kernel of this hart expects the
        // identity.
        unsafe { self.io.send(cpu, identity) };
        Ok(())
    }

    /// The same as `ring`. A doorbell is one store, so it cannot disturb a doorbell that was interrupted.
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.ring(cpu, vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::vec::Vec;

    /// An operation that was recorded.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Op {
        /// Hart and identity.
        Send(u64, u8),
        /// Register and value.
        Write(u64, u64),
        Claim,
        FenceAfter,
    }

    /// The interrupt files of harts 0 to 3.
    #[derive(Default)]
    struct Fake {
        log: RefCell<Vec<Op>>,
        /// The value of `stopei` that the next claim returns. Later claims return 0.
        top: Cell<u64>,
    }

    // SAFETY: a fake accesses no interrupt file.
    unsafe impl ImsicIo for &Fake {
        fn has_file(&self, cpu: PhysCpuId) -> bool {
            cpu.0 < 4
        }
        unsafe fn send(&self, cpu: PhysCpuId, identity: Identity) {
            assert!(self.has_file(cpu), "the hart has no file");
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
        // SAFETY: a fake accesses no interrupt file.
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
        assert_eq!(fake.log.take(), [], "check accesses nothing");
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
