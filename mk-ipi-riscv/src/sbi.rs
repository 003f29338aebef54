// SPDX-License-Identifier: MIT OR Apache-2.0
//! The firmware's calls, and the trait through which they and the software interrupt are accessed.

use mk_ipi_abi::Errno;

/// The extensions of SBI that are used here, by their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Extension {
    /// Base: tells which extensions there are (SBI, "Base Extension").
    Base = 0x10,
    /// `sPI`: inter-processor interrupts (SBI, "IPI Extension").
    Ipi = 0x73_5049,
    /// `HSM`: hart state management (SBI, "Hart State Management Extension").
    Hsm = 0x48_534d,
}

impl Extension {
    /// The id, as A7 takes it.
    pub const fn id(self) -> u64 {
        self as u64
    }
}

/// `sbi_probe_extension` of [`Extension::Base`].
const PROBE: u64 = 3;

/// What a call returns: A0 and A1 (SBI, "Binary Encoding").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SbiReturn {
    /// 0, or an error.
    pub error: i64,
    /// The value. It means something only if `error` is 0.
    pub value: u64,
}

/// Why the firmware did not do what it was asked (SBI, "Standard SBI Errors").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SbiError {
    /// SBI_ERR_FAILED.
    Failed,
    /// SBI_ERR_NOT_SUPPORTED. Also for an extension that a probe does not find.
    NotSupported,
    /// SBI_ERR_INVALID_PARAM: no hart has this id.
    InvalidParam,
    /// SBI_ERR_DENIED.
    Denied,
    /// SBI_ERR_INVALID_ADDRESS: code cannot run at the entry address.
    InvalidAddress,
    /// SBI_ERR_ALREADY_AVAILABLE: the hart is started already.
    AlreadyAvailable,
    /// Another value: one that SBI 2.0 does not name, or that these calls do not return.
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
            Self::Other(value) => write!(f, "the SBI call returned {value}"),
        }
    }
}

impl core::error::Error for SbiError {}

impl SbiError {
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

    /// `EBUSY` for a hart that is started, `EACCES` for a call that is denied, else `EINVAL`.
    pub const fn errno(self) -> Errno {
        match self {
            Self::AlreadyAvailable => Errno::EBUSY,
            Self::Denied => Errno::EACCES,
            _ => Errno::EINVAL,
        }
    }
}

impl SbiReturn {
    /// The value, or the error.
    pub const fn ok(self) -> Result<u64, SbiError> {
        match self.error {
            0 => Ok(self.value),
            error => Err(SbiError::of(error)),
        }
    }
}

/// The instructions of the doorbell, on the hart that runs them.
///
/// # Implementation safety
///
/// Each method does what it says, on this hart and in program order. All of them are compiler barriers: no access to memory that
/// another hart can see moves across them, in either direction. An `asm!` block without `nomem` is one.
///
/// `fence_before_doorbell` is `fence w, o`: every store to memory before it is visible before any device output after
/// it (ISA, "FENCE instruction"). The firmware sends the interrupt by an output on this hart, and so after the fence.
/// Nothing else orders a store of this kernel before that output; `ecall` does not.
///
/// `fence_after_clear` is `fence o, rw`: the write of `sip` is an output, and no load or store after the fence is done
/// before it (ISA, "CSR Access Ordering"). Without it a load could be done before the clearing. It could miss a message
/// whose interrupt is then cleared.
pub unsafe trait SbiIo {
    /// Calls the firmware: `ecall`, with the extension's id in A7, the function's in A6, the arguments in A0 to A2.
    ///
    /// # Safety
    ///
    /// The caller may cause the effect.
    unsafe fn call(&self, extension: Extension, function: u64, args: [u64; 3]) -> SbiReturn;

    /// Makes all earlier stores visible before any later output: `fence w, o`.
    fn fence_before_doorbell(&self);

    /// Makes this hart's supervisor software interrupt not pending: `sip.SSIP` = 0 (privileged, "Supervisor Interrupt (sip and sie)
    /// Registers").
    fn clear_software_interrupt(&self);

    /// Keeps all later accesses to memory after the clearing: `fence o, rw`.
    fn fence_after_clear(&self);
}

/// Checks that the firmware has an extension; [`SbiError::NotSupported`] if it has not.
pub(crate) fn probe(io: &impl SbiIo, extension: Extension) -> Result<(), SbiError> {
    // SAFETY: it has no effect.
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
