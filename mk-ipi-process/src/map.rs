// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mapped parts of the machine's memory.

use crate::sys;
use mk_ipi_abi::PhysRange;
use mk_ipi_core::sync::AtomicU64;
use std::fs::File;
use std::io;
use std::ptr::NonNull;

const _: () = assert!(size_of::<AtomicU64>() == 8 && align_of::<AtomicU64>() == 8);

/// A mapped part of the machine's memory, as 64-bit words. It is unmapped when this value is dropped.
#[derive(Debug)]
pub struct Map {
    words: NonNull<[AtomicU64]>,
}

// SAFETY: any thread may use the words, and only `drop` unmaps them.
unsafe impl Send for Map {}
// SAFETY: as above; `words` gives out shared references only.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the pages of the file that contain `range`, which must begin on a page boundary. Gives access to the complete words
    /// in `range` only.
    pub(crate) fn new(file: &File, range: PhysRange, writable: bool) -> io::Result<Self> {
        let len = usize::try_from(range.len() & !7).map_err(|_| io::ErrorKind::InvalidInput)?;
        if range.end().0 > file.metadata()?.len() {
            // An access beyond the end of the file would fault.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let at = sys::map(file, range.start().0, len, writable)?;
        Ok(Self { words: NonNull::slice_from_raw_parts(at.cast(), len / 8) })
    }

    /// The words of the mapped part.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the words are mapped until `drop`, page-aligned, and inside of the file. Every u64 is a valid word. Other
        // processes can write them at any time, and atomics allow that. A store to words that are mapped read-only raises
        // SIGSEGV; it is not undefined behaviour.
        unsafe { self.words.as_ref() }
    }

    /// Returns the words, and leaves them mapped. [`from_raw`](Self::from_raw) makes a `Map` of them again.
    pub(crate) fn into_raw(self) -> NonNull<[AtomicU64]> {
        let words = self.words;
        std::mem::forget(self);
        words
    }

    /// Makes a `Map` again of words that [`into_raw`](Self::into_raw) returned.
    ///
    /// # Safety
    ///
    /// `words` came from a call of `into_raw`, and was not passed to this function before.
    pub(crate) const unsafe fn from_raw(words: NonNull<[AtomicU64]>) -> Self {
        Self { words }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: `new` mapped the words, and references to them cannot outlive this value.
        unsafe { sys::unmap(self.words.cast(), self.words.len() * 8) };
    }
}
