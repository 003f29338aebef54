// SPDX-License-Identifier: MIT OR Apache-2.0
//! The start of a kernel in one call: a host from a plan, a spawned kernel from its command line.
//!
//! Both leave the directory mapped for as long as the kernel lives, and return it as `'static`. The platform answers
//! [`peer_has_cpu`](mk_ipi_core::platform::Observer::peer_has_cpu) from it, and [`follow`](mk_ipi_core::Endpoint::follow) reads
//! it. Code that can be unloaded, such as a module of another kernel, must map the directory itself and call
//! [`Endpoint`](mk_ipi_core::Endpoint)'s own methods.
//!
//! After the start, the host writes each change into the directory (a death, a next life, a CPU that moves). It uses the
//! [`DirectoryWriter`](mk_ipi_core::directory::DirectoryWriter) that it gets here (SPEC.md, D-10).

pub(crate) mod host;
pub(crate) mod spawned;

pub use host::{HostError, HostPlan};
pub use spawned::{find_directory, Spawned, SpawnedError};

use mk_ipi_core::abi::PhysRange;
use mk_ipi_core::platform::{Access, MapError, Mapping, PhysMemory};

/// A mapping that is unmapped when this is dropped, unless it is [kept](Self::keep).
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

    /// The words, with a lifetime that is longer than this object's.
    ///
    /// # Safety
    ///
    /// If this is dropped and not kept, the caller must not use the words any more.
    unsafe fn words_to_keep(&self) -> &'static [P::Word] {
        // SAFETY: the words are valid until the mapping is unmapped (`Mapping::new`). Only `drop` unmaps it, and after that the
        // caller does not use them.
        self.mapping.as_ref().map_or(&[], |mapping| unsafe { mapping.as_ptr().as_ref() })
    }

    /// Leaves the memory mapped for ever.
    fn keep(mut self) {
        self.mapping = None;
    }
}

impl<P: PhysMemory> Drop for Mapped<'_, P> {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            // SAFETY: `new` mapped it by this platform. It is unmapped only once, because it was taken out. Borrows from
            // `words` have ended, because they borrowed `self`; for `words_to_keep` the callers promised that.
            unsafe { self.platform.unmap(mapping) };
        }
    }
}
