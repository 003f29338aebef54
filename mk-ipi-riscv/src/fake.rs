// SPDX-License-Identifier: MIT OR Apache-2.0
//! Firmware for tests: it records every operation in order.

use crate::sbi::{Extension, SbiIo, SbiReturn};
use std::cell::{Cell, RefCell};
use std::vec::Vec;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
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
    /// True if a probe finds the extension.
    pub has_extensions: bool,
    /// What calls return.
    pub error: Cell<i64>,
    pub value: Cell<u64>,
}

impl Fake {
    /// A firmware that does all that it is asked for.
    pub(crate) fn new() -> Self {
        Self { log: RefCell::default(), has_extensions: true, error: Cell::new(0), value: Cell::new(0) }
    }

    /// What was done since the last call.
    pub(crate) fn take(&self) -> Vec<Op> {
        self.log.take()
    }
}

// SAFETY: it makes no call.
unsafe impl SbiIo for &Fake {
    unsafe fn call(&self, extension: Extension, function: u64, args: [u64; 3]) -> SbiReturn {
        self.log.borrow_mut().push(Op::Call(extension, function, args));
        let value = match extension {
            Extension::Base => self.has_extensions.into(),
            // Any value may be there. It must not be taken for an error.
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
