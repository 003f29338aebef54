// SPDX-License-Identifier: MIT OR Apache-2.0
//! Buffers of terminals and channels, charged to whoever has them made.

use crate::ffi;

/// Memory of the kernel's, zeroed at first; freed when it is dropped, which may sleep.
pub struct Buffer {
    bytes: *mut u8,
    len: usize,
}

// SAFETY: it is nobody else's.
unsafe impl Send for Buffer {}

impl Buffer {
    /// `len` bytes. May sleep.
    pub fn new(len: usize) -> Option<Self> {
        // SAFETY: process context; `drop` frees it.
        let bytes = unsafe { ffi::mk_ipi_glue_alloc(len) }.cast::<u8>();
        (!bytes.is_null()).then_some(Self { bytes, len })
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `len` bytes, initialised, ours.
        unsafe { core::slice::from_raw_parts(self.bytes, self.len) }
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(self.bytes, self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: from `new`, once.
        unsafe { ffi::mk_ipi_glue_free(self.bytes.cast()) };
    }
}
