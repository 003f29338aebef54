// SPDX-License-Identifier: MIT OR Apache-2.0
//! An APIC for tests. It records every operation in order, and a test can set its fields so that it behaves like a faulty APIC.
//! It panics if a real APIC would cause a fault or ignore the access.

use crate::icr::DELIVERY_PENDING;
use crate::regs::{ApicIo, Register, IA32_APIC_BASE};
use mk_ipi_core::platform::LocalInterrupts;
use std::cell::{Cell, RefCell};
use std::vec::Vec;

/// `IA32_APIC_BASE` of a CPU in xAPIC mode.
pub const XAPIC: u64 = 0xfee0_0800;
/// `IA32_APIC_BASE` of a CPU in x2APIC mode.
pub const X2APIC: u64 = 0xfee0_0c00;

/// An operation that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    RdMsr(u32),
    WrMsr(u32, u64),
    Read(Register),
    Write(Register, u32),
    Fence,
    Pause,
    Disable,
    /// Interrupts were switched back to on (true) or off (false).
    Restore(bool),
    /// A delay, in microseconds. The tests record it themselves.
    Delay(u32),
}

/// One CPU's APIC.
#[derive(Debug)]
pub struct Fake {
    pub log: RefCell<Vec<Op>>,
    pub base: Cell<u64>,
    pub icr_high: Cell<u32>,
    /// True if interrupts are on.
    pub interrupts: Cell<bool>,
    /// The number of reads of ICR low that still show a pending delivery. With `u32::MAX` all reads show it.
    pub busy: Cell<u32>,
    /// Each send in xAPIC mode sets `busy` to this value.
    pub busy_after_send: u32,
    /// The errors that were recorded. A write of the error status register moves them to `shown_errors`.
    pub errors: Cell<u32>,
    /// The errors that a read of the error status register returns.
    pub shown_errors: Cell<u32>,
    /// Each send adds these bits to `errors`.
    pub errors_of_send: u32,
    /// The bits of the interrupts in service. An EOI clears the highest bit.
    pub in_service: Cell<[u32; 8]>,
    /// False if an EOI has no effect.
    pub ends: bool,
    /// The APIC id of the CPU that runs the code.
    pub id: u32,
    /// True if the code was moved to another CPU, whose id is `id + 1`.
    pub moved: Cell<bool>,
    /// True if CPUID reports an x2APIC.
    pub x2apic: bool,
    /// The 32-bit id that CPUID reports, if any.
    pub long_id: Option<u32>,
    /// True if the xAPIC's page is mapped.
    pub mmio: bool,
}

impl Fake {
    pub(crate) fn new(base: u64) -> Self {
        Self {
            log: RefCell::default(),
            base: Cell::new(base),
            icr_high: Cell::new(0),
            interrupts: Cell::new(true),
            busy: Cell::new(0),
            busy_after_send: 0,
            errors: Cell::new(0),
            shown_errors: Cell::new(0),
            errors_of_send: 0,
            in_service: Cell::default(),
            ends: true,
            id: 0,
            moved: Cell::new(false),
            x2apic: true,
            long_id: None,
            mmio: true,
        }
    }

    /// Returns the operations that were recorded since the last call.
    pub(crate) fn take(&self) -> Vec<Op> {
        self.log.take()
    }

    pub(crate) fn record(&self, op: Op) {
        let mut log = self.log.borrow_mut();
        assert!(log.len() < 1_000_000, "a loop does not end");
        log.push(op);
    }

    fn delivery_status(&self) -> u32 {
        match self.busy.get() {
            0 => return 0,
            u32::MAX => (),
            n => self.busy.set(n.saturating_sub(1)),
        }
        DELIVERY_PENDING
    }

    fn latch_errors(&self) {
        self.shown_errors.set(self.errors.take());
    }

    fn id(&self) -> u32 {
        self.id.wrapping_add(self.moved.get().into())
    }

    fn sent(&self) {
        self.errors.set(self.errors.get() | self.errors_of_send);
    }

    fn end_of_interrupt(&self) {
        let mut words = self.in_service.get();
        if let Some(word) = words.iter_mut().rev().find(|word| self.ends && **word != 0) {
            *word ^= 1 << word.ilog2();
        }
        self.in_service.set(words);
    }

    fn is_x2apic(&self) -> bool {
        self.base.get() & X2APIC == X2APIC
    }
}

// SAFETY: a fake has no interrupts.
unsafe impl LocalInterrupts for &Fake {
    type State = bool;
    fn disable(&self) -> bool {
        self.record(Op::Disable);
        self.interrupts.replace(false)
    }
    fn restore(&self, state: bool) {
        self.record(Op::Restore(state));
        self.interrupts.set(state);
    }
}

// SAFETY: a fake accesses no APIC.
unsafe impl ApicIo for &Fake {
    unsafe fn rdmsr(&self, msr: u32) -> u64 {
        self.record(Op::RdMsr(msr));
        match msr {
            IA32_APIC_BASE => self.base.get(),
            0x800..=0x8ff => {
                assert!(self.is_x2apic(), "#GP: MSR {msr:#x} outside x2APIC mode");
                match msr {
                    0x802 => self.id().into(),
                    0x810..=0x817 => self.in_service.get()[msr as usize & 7].into(),
                    0x828 => self.shown_errors.get().into(),
                    _ => panic!("#GP: read of MSR {msr:#x}"),
                }
            }
            _ => panic!("#GP: read of MSR {msr:#x}"),
        }
    }

    unsafe fn wrmsr(&self, msr: u32, value: u64) {
        self.record(Op::WrMsr(msr, value));
        if msr == IA32_APIC_BASE {
            let step = (self.base.replace(value) & 0xc00, value & 0xc00);
            assert!(matches!(step, (0x800, 0xc00)), "#GP: illegal change of mode {step:x?}");
            return;
        }
        assert!(self.is_x2apic(), "#GP: MSR {msr:#x} outside x2APIC mode");
        let reserved = match msr {
            0x808 => !0xff,
            0x80b | 0x828 => !0,
            0x80f => !0x13ff,
            0x830 => 0xfff3_3000,
            _ => panic!("#GP: write of MSR {msr:#x}"),
        };
        assert_eq!(value & reserved, 0, "#GP: reserved bits in MSR {msr:#x}");
        match msr {
            0x80b => self.end_of_interrupt(),
            0x828 => self.latch_errors(),
            0x830 => self.sent(),
            _ => (),
        }
    }

    fn has_mmio(&self) -> bool {
        self.mmio
    }

    unsafe fn mmio_read(&self, register: Register) -> u32 {
        assert!(self.mmio && !self.is_x2apic(), "the xAPIC's page is not mapped, or the mode is x2APIC");
        self.record(Op::Read(register));
        match register {
            // Bits 23:0 are reserved. Some are set here, so that a test fails if the code uses them as part of the id.
            Register::Id => self.id() << 24 | 0x00ab_cdef,
            Register::ErrorStatus => self.shown_errors.get(),
            Register::IcrHigh => self.icr_high.get(),
            in_service if Register::IN_SERVICE.contains(&in_service) => {
                self.in_service.get()[in_service.msr() as usize & 7]
            }
            // All bits except the delivery status are set, so that a test fails if the code looks at another bit.
            Register::IcrLow => !DELIVERY_PENDING | self.delivery_status(),
            _ => panic!("read of {register:?}"),
        }
    }

    unsafe fn mmio_write(&self, register: Register, value: u32) {
        assert!(self.mmio && !self.is_x2apic(), "the xAPIC's page is not mapped, or the mode is x2APIC");
        self.record(Op::Write(register, value));
        match register {
            Register::ErrorStatus => self.latch_errors(),
            Register::Eoi => self.end_of_interrupt(),
            Register::IcrHigh => self.icr_high.set(value),
            Register::IcrLow => {
                assert_eq!(
                    self.busy.replace(self.busy_after_send),
                    0,
                    "the interrupt is lost: an earlier one has not left the APIC"
                );
                self.sent();
            }
            Register::TaskPriority | Register::SpuriousVector => (),
            _ => panic!("write of {register:?}, which is read only"),
        }
    }

    fn has_x2apic(&self) -> bool {
        self.x2apic
    }

    fn long_id(&self) -> Option<u32> {
        self.long_id
    }

    fn fence_before_doorbell(&self) {
        self.record(Op::Fence);
    }

    fn pause(&self) {
        self.record(Op::Pause);
    }
}
