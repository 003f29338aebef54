// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls of the firmware, and the trait for these calls and for the software interrupt.

use mk_ipi_abi::Errno;

/// The extensions of SBI that this crate uses. The value is the id of the extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Extension {
    /// Base: tells which extensions the firmware has (SBI, "Base Extension").
    Base = 0x10,
    /// `sPI`: inter-processor interrupts (SBI, "IPI Extension").
    Ipi = 0x73_5049,
    /// `HSM`: hart state management (SBI, "Hart State Management Extension").
    Hsm = 0x48_534d,
}

impl Extension {
    /// The id of the extension. A call has it in A7.
    pub const fn id(self) -> u64 {
        self as u64
    }
}

/// The number of the function `sbi_probe_extension` in [`Extension::Base`].
const PROBE: u64 = 3;

/// The result of a call: A0 and A1 (SBI, "Binary Encoding").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SbiReturn {
    /// A0: 0 for success, else the number of an error.
    pub error: i64,
    /// A1: the value of the call. If `error` is not 0, it has no meaning.
    pub value: u64,
}

/// Why a call of the firmware failed (SBI, "Standard SBI Errors").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SbiError {
    /// SBI_ERR_FAILED. [`Hsm::stop`](crate::Hsm::stop) also returns this if its call returns and the firmware reports success.
    Failed,
    /// SBI_ERR_NOT_SUPPORTED, or the firmware does not have the extension.
    NotSupported,
    /// SBI_ERR_INVALID_PARAM: no hart has this id.
    InvalidParam,
    /// SBI_ERR_DENIED: the firmware does not allow the call.
    Denied,
    /// SBI_ERR_INVALID_ADDRESS: a hart cannot start at the entry address.
    InvalidAddress,
    /// SBI_ERR_ALREADY_AVAILABLE: the hart is started already.
    AlreadyAvailable,
    /// Another error number, or an unknown state of a hart.
    Other(i64),
}

impl core::fmt::Display for SbiError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Failed => f.write_str("the SBI call failed"),
            Self::NotSupported => f.write_str("the firmware does not support the SBI call"),
            Self::InvalidParam => f.write_str("no hart has this id"),
            Self::Denied => f.write_str("the firmware denied the SBI call"),
            Self::InvalidAddress => f.write_str("the entry address is not allowed"),
            Self::AlreadyAvailable => f.write_str("the hart is started already"),
            Self::Other(value) => write!(f, "the SBI call returned an unexpected number: {value}"),
        }
    }
}

impl core::error::Error for SbiError {}

impl SbiError {
    /// Converts the number of an error. It must not be 0.
    const fn of(error: i64) -> Self {
        match error {
            -1 => Self::Failed,
            -2 => Self::NotSupported,
            -3 => Self::InvalidParam,
            -4 => Self::Denied,
            -5 => Self::InvalidAddress,
            -6 => Self::AlreadyAvailable,
            other => Self::Other(other),
        }
    }

    /// `EBUSY` for [`AlreadyAvailable`](Self::AlreadyAvailable), `EACCES` for [`Denied`](Self::Denied), else `EINVAL`.
    pub const fn errno(self) -> Errno {
        match self {
            Self::AlreadyAvailable => Errno::EBUSY,
            Self::Denied => Errno::EACCES,
            _ => Errno::EINVAL,
        }
    }
}

impl SbiReturn {
    /// Converts the result: `Ok` with the value if `error` is 0, else the error.
    pub const fn ok(self) -> Result<u64, SbiError> {
        match self.error {
            0 => Ok(self.value),
            error => Err(SbiError::of(error)),
        }
    }
}

/// The instructions that call the firmware and access the software interrupt of the hart that runs them.
///
/// # Implementation safety
///
/// Each method does what its documentation says, on the hart that runs it, and in program order. All methods are compiler
/// barriers: the compiler moves no access to memory that another hart can access across them, in either direction. An `asm!`
/// block without `nomem` is such a barrier.
///
/// `fence_before_doorbell` is `fence w, o`: every store to memory before the fence is visible before any device output after it
/// (ISA, "FENCE instruction"). The firmware sends the interrupt by an output of this hart, after the fence. Without the fence,
/// the stores of this kernel are not ordered before that output: `ecall` does not order them.
///
/// `fence_after_clear` is `fence o, rw`: the write of `sip` counts as an output, and no load or store after the fence is done
/// before this output (ISA, "CSR Access Ordering"). Without the fence, a load of a message could be done before the clearing. If
/// the message and its interrupt then came between the two, the interrupt would be cleared and the message would stay unread.
pub unsafe trait SbiIo {
    /// Calls the firmware by `ecall`: the id of the extension is in A7, the number of the function in A6, and the arguments are
    /// in A0 to A2.
    ///
    /// # Safety
    ///
    /// The caller has the right to cause the effect of the function.
    unsafe fn call(&self, extension: Extension, function: u64, args: [u64; 3]) -> SbiReturn;

    /// Makes all earlier stores visible before any later device output: `fence w, o`.
    fn fence_before_doorbell(&self);

    /// Makes this hart's supervisor software interrupt not pending: `sip.SSIP` = 0 (privileged, "Supervisor Interrupt (sip and
    /// sie) Registers").
    fn clear_software_interrupt(&self);

    /// Keeps all later accesses to memory after the clearing: `fence o, rw`.
    fn fence_after_clear(&self);
}

/// Checks that the firmware has an extension. It fails with [`SbiError::NotSupported`] if the firmware does not have it.
pub(crate) fn probe(io: &impl SbiIo, extension: Extension) -> Result<(), SbiError> {
    // SAFETY: the call has no effect.
    match unsafe { io.call(Extension::Base, PROBE, [extension.id(), 0, 0]) }.ok()? {
        0 => Err(SbiError::NotSupported),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_have_their_names_as_ids() {
        let name = |text: &[u8]| text.iter().fold(0, |id, c| id << 8 | u64::from(*c));
        assert_eq!(Extension::Ipi.id(), name(b"sPI"));
        assert_eq!(Extension::Hsm.id(), name(b"HSM"));
        assert_eq!(Extension::Base.id(), 0x10);
    }

    #[test]
    fn each_error_has_the_manuals_number() {
        use SbiError::*;
        let errors =
            [Failed, NotSupported, InvalidParam, Denied, InvalidAddress, AlreadyAvailable, Other(-7)];
        for (error, number) in errors.into_iter().zip((-7..0).rev()) {
            assert_eq!(SbiReturn { error: number, value: 5 }.ok(), Err(error));
        }
        for other in [1, i64::MAX, i64::MIN] {
            assert_eq!(SbiReturn { error: other, value: 5 }.ok(), Err(Other(other)));
        }
        assert_eq!(SbiReturn { error: 0, value: 5 }.ok(), Ok(5));
        let numbers = [AlreadyAvailable, Denied, InvalidParam].map(SbiError::errno);
        assert_eq!(numbers, [Errno::EBUSY, Errno::EACCES, Errno::EINVAL]);
    }
}
