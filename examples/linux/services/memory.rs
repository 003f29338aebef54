// SPDX-License-Identifier: MIT OR Apache-2.0
//! Buffers of terminals and channels. The memory is charged to the memory cgroup of the task that allocates it.

use crate::ffi;

/// Memory of this kernel, which contains zeros at first. Dropping this frees the memory, and can sleep.
pub struct Buffer {
    bytes: *mut u8,
    len: usize,
}

// SAFETY: nothing else uses the memory.
unsafe impl Send for Buffer {}

impl Buffer {
    /// Allocates `len` bytes. Can sleep.
    pub fn new(len: usize) -> Option<Self> {
        // SAFETY: process context; `drop` frees it.
        let bytes = unsafe { ffi::mk_ipi_glue_alloc(len) }.cast::<u8>();
        (!bytes.is_null()).then_some(Self { bytes, len })
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `bytes` points to `len` initialised bytes, which belong to this value.
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
        // SAFETY: `new` allocated it, and it is freed once.
        unsafe { ffi::mk_ipi_glue_free(self.bytes.cast()) };
    }
}
