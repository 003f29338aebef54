// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file that is read into the kernel's memory as a whole.

use crate::failure::{check, refuse, Result, Text};
use crate::ffi;
use core::ffi::{c_int, CStr};
use core::fmt::Write;
use core::ptr;

/// Largest file that is read.
const MAX_FILE: usize = 512 << 20;
/// `READING_UNKNOWN` (linux/kernel_read_file.h).
const ANY_KIND: c_int = 0;

/// A file, read whole.
pub struct File {
    bytes: *mut u8,
    len: usize,
}

impl File {
    /// Reads the initramfs of a kernel at `path`. Security modules are asked as for kexec.
    pub fn initrd(path: &str) -> Result<Self> {
        // SAFETY: it is a constant of glue.c.
        Self::read(path, unsafe { ffi::mk_ipi_glue_initrd_kind })
    }

    /// Reads the kernel image at `path`. Security modules are asked as for kexec.
    pub fn image(path: &str) -> Result<Self> {
        // SAFETY: it is a constant of glue.c.
        Self::read(path, unsafe { ffi::mk_ipi_glue_image_kind })
    }

    /// Reads the file at `path`.
    pub fn any(path: &str) -> Result<Self> {
        Self::read(path, ANY_KIND)
    }

    fn read(path: &str, kind: c_int) -> Result<Self> {
        let mut name = Text::<256>::EMPTY;
        // A `Text` never fails. If the path is too long, it is cut off, and then the NUL is missing.
        let _ = write!(name, "{path}\0");
        let name = match CStr::from_bytes_with_nul(name.as_str().as_bytes()) {
            Ok(name) if !path.is_empty() => name,
            _ => return refuse!(EINVAL, "no usable file name: {path}"),
        };
        let mut bytes = ptr::null_mut();
        // SAFETY: a C string; the kernel allocates, and `drop` frees.
        let read = unsafe {
            let (name, size) = (name.as_ptr().cast(), ptr::null_mut());
            ffi::kernel_read_file_from_path(name, 0, &mut bytes, MAX_FILE, size, kind)
        };
        let read = i32::try_from(read).unwrap_or(i32::MAX);
        let len = check(read, format_args!("{path} cannot be read"))?;
        Ok(Self { bytes: bytes.cast(), len: len as usize })
    }

    /// The file's content.
    pub fn bytes(&self) -> &[u8] {
        if self.bytes.is_null() {
            return &[];
        }
        // SAFETY: `len` bytes were read to this place; only `drop` frees them.
        unsafe { core::slice::from_raw_parts(self.bytes, self.len) }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: it is the kernel's buffer, allocated by vmalloc.
        unsafe { ffi::vfree(self.bytes.cast()) };
    }
}
