// SPDX-License-Identifier: MIT OR Apache-2.0
//! Brings a kernel up in one call: a host from a plan, or a spawned kernel from its command line.
//!
//! Both calls leave the directory mapped as long as the kernel runs, and return it with the lifetime `'static`. The kernel
//! needs it to implement [`peer_has_cpu`](mk_ipi_core::platform::Observer::peer_has_cpu) and to call
//! [`follow`](mk_ipi_core::Endpoint::follow). Code that can be unloaded, such as a module of another kernel, must not use these
//! calls. It must map the directory itself and call the methods of [`Endpoint`](mk_ipi_core::Endpoint).
//!
//! After the start, the host must write each change into the directory: a kernel that died or was restarted, or a CPU that was
//! moved. It does this by the [`DirectoryWriter`](mk_ipi_core::directory::DirectoryWriter) that the call returned (SPEC D-10).

pub(crate) mod host;
pub(crate) mod spawned;

pub use host::{HostError, HostPlan};
pub use spawned::{find_directory, Spawned, SpawnedError};

use mk_ipi_core::abi::PhysRange;
use mk_ipi_core::platform::{Access, MapError, Mapping, PhysMemory};

/// A mapping that is unmapped when this object is dropped. [`keep`](Self::keep) prevents this.
struct Mapped<'a, P: PhysMemory> {
    platform: &'a P,
    mapping: Option<Mapping<P::Word>>,
}

impl<'a, P: PhysMemory> Mapped<'a, P> {
    fn new(platform: &'a P, range: PhysRange, access: Access) -> Result<Self, MapError> {
        platform.map(range, access).map(|mapping| Self { platform, mapping: Some(mapping) })
    }

    fn words(&self) -> &[P::Word] {
        self.mapping.as_ref().map_or(&[], Mapping::words)
    }

    /// The words, with the lifetime `'static`.
    ///
    /// # Safety
    ///
    /// If this object is dropped without a call of [`keep`](Self::keep), the caller must not use the words after that.
    unsafe fn words_to_keep(&self) -> &'static [P::Word] {
        // SAFETY: the words are valid until the mapping is unmapped (`Mapping::new`). Only `drop` unmaps it, and the caller
        // promises not to use the words after that.
        self.mapping.as_ref().map_or(&[], |mapping| unsafe { mapping.as_ptr().as_ref() })
    }

    /// Consumes this object, and leaves the memory mapped for ever.
    fn keep(mut self) {
        self.mapping = None;
    }
}

impl<P: PhysMemory> Drop for Mapped<'_, P> {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            // SAFETY: `new` made the mapping by this platform. It is unmapped only once, because `take` has removed it from
            // `self`. Borrows from `words` have ended, because they borrowed `self`. The callers of `words_to_keep` promised
            // not to use its words any more.
            unsafe { self.platform.unmap(mapping) };
        }
    }
}
