// SPDX-License-Identifier: MIT OR Apache-2.0
//! Firmware and a hart for tests. They record every operation in order.

use crate::sbi::{Extension, SbiIo, SbiReturn};
use std::cell::{Cell, RefCell};
use std::vec::Vec;

/// An operation that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A call of the firmware: extension, function and arguments.
    Call(Extension, u64, [u64; 3]),
    /// `fence w, o`.
    FenceBefore,
    /// `sip.SSIP` = 0.
    Clear,
    /// `fence o, rw`.
    FenceAfter,
}

/// The firmware, and one hart.
#[derive(Debug)]
pub struct Fake {
    pub log: RefCell<Vec<Op>>,
    /// True if `sbi_probe_extension` finds every extension, false if it finds none.
    pub has_extensions: bool,
    /// The error that each call returns. 0 is success.
    pub error: Cell<i64>,
    /// The value that each call returns, except `sbi_probe_extension`.
    pub value: Cell<u64>,
}

impl Fake {
    /// A firmware with every extension, in which each call succeeds.
    pub(crate) fn new() -> Self {
        Self { log: RefCell::default(), has_extensions: true, error: Cell::new(0), value: Cell::new(0) }
    }

    /// Returns the operations that were recorded since the last call.
    pub(crate) fn take(&self) -> Vec<Op> {
        self.log.take()
    }
}

// SAFETY: a fake does not call the firmware.
unsafe impl SbiIo for &Fake {
    unsafe fn call(&self, extension: Extension, function: u64, args: [u64; 3]) -> SbiReturn {
        self.log.borrow_mut().push(Op::Call(extension, function, args));
        let value = match extension {
            Extension::Base => self.has_extensions.into(),
            _ => self.value.get(),
        };
        SbiReturn { error: self.error.get(), value }
    }

    fn fence_before_doorbell(&self) {
        self.log.borrow_mut().push(Op::FenceBefore);
    }

    fn clear_software_interrupt(&self) {
        self.log.borrow_mut().push(Op::Clear);
    }

    fn fence_after_clear(&self) {
        self.log.borrow_mut().push(Op::FenceAfter);
    }
}
