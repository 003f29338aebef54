// SPDX-License-Identifier: MIT OR Apache-2.0
//! A CPU interface for tests. It records every operation in order. It panics if the access would be undefined on a real CPU.

use crate::psci::Conduit;
use crate::regs::{GicIo, SystemRegister as Reg};
use std::cell::{Cell, RefCell};
use std::vec::Vec;

/// An operation that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Read(Reg),
    Write(Reg, u64),
    /// `dsb ishst`.
    Fence,
    /// `isb`.
    Synchronize,
    /// `dsb sy`.
    Settle,
    /// A call of the firmware: function and arguments.
    Call(u32, [u64; 3]),
}

/// One CPU.
#[derive(Debug)]
pub struct Fake {
    pub log: RefCell<Vec<Op>>,
    /// `MPIDR_EL1`.
    pub mpidr: u64,
    /// `ICC_SRE_EL1`.
    pub sre: Cell<u64>,
    /// True if a write changes `sre`.
    pub sre_can_change: bool,
    /// `ICC_CTLR_EL1`.
    pub control: u64,
    /// The INTIDs that the next acknowledgements return, the last entry first. If it is empty, they return 1023.
    pub pending: RefCell<Vec<u64>>,
    /// The value that each call of the firmware returns.
    pub answer: u64,
}

impl Fake {
    /// A CPU interface whose system registers are enabled. It can send SGIs to CPUs with any Aff3 and any Aff0.
    pub(crate) fn new() -> Self {
        Self {
            log: RefCell::default(),
            mpidr: 0x8000_0000,
            sre: Cell::new(7),
            sre_can_change: true,
            control: 1 << 18 | 1 << 15,
            pending: RefCell::default(),
            answer: 0,
        }
    }

    /// Returns the operations that were recorded since the last call.
    pub(crate) fn take(&self) -> Vec<Op> {
        self.log.take()
    }

    fn record(&self, op: Op) {
        self.log.borrow_mut().push(op);
    }

    fn must_be_on(&self, register: Reg) {
        assert!(self.sre.get() & 1 != 0, "undefined: {register:?} without SRE");
    }
}

// SAFETY: a fake accesses no GIC.
unsafe impl GicIo for &Fake {
    unsafe fn read(&self, register: Reg) -> u64 {
        self.record(Op::Read(register));
        match register {
            Reg::Mpidr => self.mpidr,
            Reg::SystemRegisterEnable => self.sre.get(),
            _ => {
                self.must_be_on(register);
                match register {
                    Reg::Control => self.control,
                    // Bits 63:24 are reserved. Some are set here, so that a test fails if they become part of the INTID.
                    Reg::Acknowledge => 0xab << 24 | self.pending.borrow_mut().pop().unwrap_or(1023),
                    _ => panic!("undefined: read of {register:?}"),
                }
            }
        }
    }

    unsafe fn write(&self, register: Reg, value: u64) {
        self.record(Op::Write(register, value));
        match register {
            Reg::Mpidr | Reg::Acknowledge => panic!("undefined: write of {register:?}"),
            Reg::SystemRegisterEnable if self.sre_can_change => self.sre.set(value),
            Reg::SystemRegisterEnable => {}
            _ => {
                self.must_be_on(register);
                // The value of PRIbits with which the register exists. PRIbits is the number of priority bits minus 1.
                let least = match register {
                    Reg::ActivePriorities1 => 5,
                    Reg::ActivePriorities2 | Reg::ActivePriorities3 => 6,
                    _ => 0,
                };
                assert!(self.control >> 8 & 7 >= least, "undefined: {register:?}");
            }
        }
    }

    fn fence_before_doorbell(&self) {
        self.record(Op::Fence);
    }

    fn synchronize(&self) {
        self.record(Op::Synchronize);
    }

    fn settle(&self) {
        self.record(Op::Settle);
    }
}

// SAFETY: a fake does not call the firmware.
unsafe impl Conduit for &Fake {
    unsafe fn call(&self, function: u32, args: [u64; 3]) -> u64 {
        self.record(Op::Call(function, args));
        self.answer
    }
}
