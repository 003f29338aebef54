// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors. The caller gets an error number, and the kernel's log gets a sentence that says the reason.

use core::fmt::{self, Write};
use kernel::prelude::*;
use mk_ipi_core::abi::Errno;

/// Text of bounded length. Longer text is cut off.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    /// No text.
    pub const EMPTY: Self = Self { bytes: [0; N], len: 0 };

    /// Formats `args`.
    pub fn of(args: fmt::Arguments<'_>) -> Self {
        let mut text = Self::EMPTY;
        // This never fails, because `write_str` cuts off text that is too long.
        let _ = text.write_fmt(args);
        text
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or(&[]);
        // If the cut is inside a character, the text ends before that character.
        core::str::from_utf8(bytes).unwrap_or_else(|e| {
            bytes.get(..e.valid_up_to()).and_then(|good| core::str::from_utf8(good).ok()).unwrap_or("")
        })
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..).unwrap_or(&mut []);
        let n = s.len().min(room.len());
        room.iter_mut().zip(s.as_bytes()).for_each(|(to, from)| *to = *from);
        self.len += n;
        Ok(())
    }
}

/// The error of an operation that failed. The operation has undone what it had done before the failure, and has written
/// the reason to the log.
pub struct Failure(Errno);

/// The result of an operation that can fail.
pub type Result<T = ()> = core::result::Result<T, Failure>;

impl Failure {
    /// Makes a failure with the error number `errno`, and writes `words` to the log.
    #[cold]
    pub fn new(errno: Errno, words: fmt::Arguments<'_>) -> Self {
        pr_err!("{}\n", Text::<200>::of(words).as_str());
        Self(errno)
    }

    /// The negative error number, as a system call returns it.
    pub fn to_c(&self) -> i32 {
        self.0.to_c()
    }
}

/// The error numbers that this module uses.
pub mod errno {
    #![allow(missing_docs)]
    use mk_ipi_core::abi::Errno;
    pub const EPERM: Errno = Errno(1);
    pub const ENOENT: Errno = Errno(2);
    pub const EINTR: Errno = Errno(4);
    pub const EIO: Errno = Errno(5);
    pub const ENXIO: Errno = Errno::ENXIO;
    pub const ENOMEM: Errno = Errno::ENOMEM;
    pub const EACCES: Errno = Errno::EACCES;
    pub const EBUSY: Errno = Errno::EBUSY;
    pub const EEXIST: Errno = Errno::EEXIST;
    pub const ENODEV: Errno = Errno::ENODEV;
    pub const EINVAL: Errno = Errno::EINVAL;
    pub const ENOSPC: Errno = Errno::ENOSPC;
    pub const ETIMEDOUT: Errno = Errno(110);
}

/// Makes a failure from an error number and words: `failure!(EBUSY, "CPU {cpu} is busy")`.
macro_rules! failure {
    ($errno:ident, $($words:tt)*) => {
        $crate::failure::Failure::new($crate::failure::errno::$errno, format_args!($($words)*))
    };
}
pub(crate) use failure;

/// Makes an `Err` that contains a failure. Takes the same arguments as `failure!`.
macro_rules! refuse {
    ($($failure:tt)*) => {
        Err($crate::failure::failure!($($failure)*))
    };
}
pub(crate) use refuse;

/// Checks the value that a function of Linux returned. A negative value is an error number; `what` says in the log what has
/// failed. Any other value is returned.
pub fn check(returned: i32, what: fmt::Arguments<'_>) -> Result<u32> {
    u32::try_from(returned).map_err(|_| {
        let errno = returned.saturating_neg();
        Failure::new(Errno(errno), format_args!("{what}: error {errno}"))
    })
}
