// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why something was refused: a number for the caller, words for the kernel's log.

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

    /// The formatted arguments.
    pub fn of(args: fmt::Arguments<'_>) -> Self {
        let mut text = Self::EMPTY;
        // It never fails, because it cuts off what is too long.
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

/// Something was refused, and all that had been done for it was undone. The reason was written to the log.
pub struct Failure(Errno);

/// `Ok`, or why not.
pub type Result<T = ()> = core::result::Result<T, Failure>;

impl Failure {
    /// A failure with this number. Writes the words to the log.
    #[cold]
    pub fn new(errno: Errno, words: fmt::Arguments<'_>) -> Self {
        pr_err!("{}\n", Text::<200>::of(words).as_str());
        Self(errno)
    }

    /// The number as a system call returns it: negative.
    pub fn to_c(&self) -> i32 {
        self.0.to_c()
    }
}

/// The numbers that this module refuses with.
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

/// `Err` with such a failure.
macro_rules! refuse {
    ($($failure:tt)*) => {
        Err($crate::failure::failure!($($failure)*))
    };
}
pub(crate) use refuse;

/// Checks what a call of the kernel returned: 0 and above is success, below 0 is an error number.
pub fn check(returned: i32, what: fmt::Arguments<'_>) -> Result<u32> {
    u32::try_from(returned).map_err(|_| {
        let errno = returned.saturating_neg();
        Failure::new(Errno(errno), format_args!("{what}: error {errno}"))
    })
}
