// SPDX-License-Identifier: MIT OR Apache-2.0
//! The start of a kernel in one call: a host from a plan, a spawned kernel from its command line.
//!
//! Both leave the directory mapped for as long as the kernel lives, and give it as `'static`: the platform answers
//! [`peer_has_cpu`](mk_ipi_core::platform::Observer::peer_has_cpu) from it, and [`follow`](mk_ipi_core::Endpoint::follow) reads it. A kernel that is to unload, such as a
//! module of another kernel, maps the directory itself and calls [`Endpoint`](mk_ipi_core::Endpoint)'s own methods.
//!
//! What comes after the start, a death, a next life, a CPU that moves, is the host's to write with the
//! [`DirectoryWriter`](mk_ipi_core::directory::DirectoryWriter) that it gets here (SPEC.md, D-10).

pub(crate) mod host;
pub(crate) mod spawned;

pub use host::{HostError, HostPlan};
pub use spawned::{find_directory, Spawned, SpawnedError};

use mk_ipi_core::abi::PhysRange;
use mk_ipi_core::platform::{Access, MapError, Mapping, PhysMemory};

/// A mapping that is given back when this is dropped, unless it is [kept](Self::keep).
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

    /// The words, for what is to outlive this.
    ///
    /// # Safety
    ///
    /// If this is dropped and not kept, they are used no more.
    unsafe fn words_to_keep(&self) -> &'static [P::Word] {
        // SAFETY: the words are valid until the mapping is unmapped (`Mapping::new`). That happens in `drop` alone, behind which the caller does
        // not use them.
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
            // SAFETY: `new` mapped it by this very platform, and it goes once: it was taken out. What borrowed from it by `words` has ended,
            // for it borrowed `self`; the callers of `words_to_keep` promised the rest.
            unsafe { self.platform.unmap(mapping) };
        }
    }
}
