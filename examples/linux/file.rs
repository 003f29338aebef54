// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads a complete file into the kernel's memory.

use crate::failure::{check, refuse, Result, Text};
use crate::ffi;
use core::ffi::{c_int, CStr};
use core::fmt::Write;
use core::ptr;

/// Size in bytes of the largest file that can be read.
const MAX_FILE: usize = 512 << 20;
/// `READING_UNKNOWN` (linux/kernel_read_file.h): the file is not a kind that security modules know.
const ANY_KIND: c_int = 0;

/// The content of a file, in memory of this kernel.
pub struct File {
    bytes: *mut u8,
    len: usize,
}

impl File {
    /// Reads the initramfs at `path`. Security modules check the read as they do for kexec.
    pub fn initrd(path: &str) -> Result<Self> {
        // SAFETY: it is a constant of glue.c.
        Self::read(path, unsafe { ffi::mk_ipi_glue_initrd_kind })
    }

    /// Reads the kernel image at `path`. Security modules check the read as they do for kexec.
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
        // Writing to a `Text` never fails. If the path is too long, it is cut off. Then the NUL is missing, and the check
        // below refuses the path.
        let _ = write!(name, "{path}\0");
        let name = match CStr::from_bytes_with_nul(name.as_str().as_bytes()) {
            Ok(name) if !path.is_empty() => name,
            _ => return refuse!(EINVAL, "no usable file name: {path}"),
        };
        let mut bytes = ptr::null_mut();
        // SAFETY: `name` is a C string. The call allocates the buffer, and `drop` frees it.
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
        // SAFETY: `bytes` points to `len` bytes, which only `drop` frees.
        unsafe { core::slice::from_raw_parts(self.bytes, self.len) }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: `kernel_read_file_from_path` allocated the buffer by vmalloc.
        unsafe { ffi::vfree(self.bytes.cast()) };
    }
}
