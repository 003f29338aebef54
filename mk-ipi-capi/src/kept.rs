// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps the directory with which a kernel has joined. It stays mapped while calls may read it.

use core::mem::MaybeUninit;
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysCpuId};
use mk_ipi_core::directory::Directory;
use mk_ipi_core::platform::Mapping;
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering, UnsafeCell};

/// No directory is kept.
const EMPTY: u64 = 0;
/// A call is storing or removing a directory.
const CHANGING: u64 = 1;
/// A directory is kept.
const KEPT: u64 = 2;

/// A mapped directory.
#[derive(Debug)]
pub(crate) struct Held {
    /// The mapping of the directory.
    pub(crate) mapping: Mapping<AtomicU64>,
    /// The physical address of the directory if this library mapped it, and so must unmap it. `None` if the kernel mapped it.
    pub(crate) ours: Option<PhysAddr>,
}

/// A place for one directory.
///
/// INVARIANT: while `state` is [`KEPT`], `place` holds a directory. Only the call that has set [`CHANGING`] writes `place`.
/// Another call reads `place` only while it is counted in `users`, and only if it has loaded [`KEPT`] after it was counted.
#[derive(Debug)]
pub(crate) struct Kept {
    state: AtomicU64,
    /// Number of calls that may read the directory now.
    users: AtomicU32,
    place: UnsafeCell<MaybeUninit<Held>>,
}

// SAFETY: access to `place` follows the INVARIANT. Any CPU may use a mapping.
unsafe impl Sync for Kept {}
// SAFETY: as above.
unsafe impl Send for Kept {}

/// A reader of the directory. It is counted until it is dropped.
struct User<'a>(&'a Kept);

impl<'a> User<'a> {
    fn new(kept: &'a Kept) -> Self {
        // SYNC POINT: directory-used (both are SeqCst): either this reader sees that the directory is being removed, or the call
        // that removes it sees this reader.
        kept.users.fetch_add(1, Ordering::SeqCst);
        Self(kept)
    }

    fn held(&self) -> Option<&Held> {
        let kept = self.0;
        if kept.state.load(Ordering::SeqCst) != KEPT {
            return None;
        }
        // SAFETY: there is a directory, and it stays while this reader is counted (INVARIANT).
        kept.place.with(|place| Some(unsafe { (*place).assume_init_ref() }))
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        // SYNC POINT: directory-unused (release)
        self.0.users.fetch_sub(1, Ordering::Release);
    }
}

impl Kept {
    /// A place without a directory.
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU64::new(EMPTY),
            users: AtomicU32::new(0),
            place: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Keeps `held`. Returns it if a directory is kept already.
    pub(crate) fn keep(&self, held: Held) -> Result<(), Held> {
        if self.state.compare_exchange(EMPTY, CHANGING, Ordering::Acquire).is_err() {
            return Err(held);
        }
        // SAFETY: this call has set `CHANGING` (INVARIANT).
        self.place.with_mut(|place| _ = unsafe { (*place).write(held) });
        self.state.store(KEPT, Ordering::SeqCst);
        Ok(())
    }

    /// Removes the directory and returns it. Waits until it has no readers, and calls `relax` meanwhile. The caller must not be a
    /// reader. `None` if no directory is kept.
    pub(crate) fn take(&self, mut relax: impl FnMut()) -> Option<Held> {
        self.state.compare_exchange(KEPT, CHANGING, Ordering::SeqCst).ok()?;
        // SYNC POINT: directory-used (SeqCst), directory-unused (acquire)
        while self.users.load(Ordering::SeqCst) != 0 {
            relax();
        }
        // SAFETY: there was a directory, this call has set `CHANGING`, and there are no readers any more (INVARIANT).
        let held = self.place.with(|place| unsafe { (*place).assume_init_read() });
        self.state.store(EMPTY, Ordering::Release);
        Some(held)
    }

    /// Whether the directory has readers now.
    pub(crate) fn is_used(&self) -> bool {
        self.users.load(Ordering::SeqCst) != 0
    }

    /// Calls `f` with the kept mapping and the directory in it. `None` if no directory is kept.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&Held, &Directory<'_, AtomicU64>) -> R) -> Option<R> {
        let user = User::new(self);
        let held = user.held()?;
        let directory = Directory::open(held.mapping.words()).ok()?;
        Some(f(held, &directory))
    }

    /// Whether `cpu` belongs to `peer` now, according to the directory. `None` if no directory is kept, or if the host is
    /// changing the entry.
    pub(crate) fn has_cpu(&self, peer: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        if self.state.load(Ordering::Relaxed) != KEPT {
            return None;
        }
        self.with(|_, directory| directory.has_cpu(peer, cpu).ok())?
    }
}
