// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory that a kernel has joined by, kept for as long as it may be asked.

use core::mem::MaybeUninit;
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysCpuId};
use mk_ipi_core::directory::Directory;
use mk_ipi_core::platform::Mapping;
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering, UnsafeCell};

/// Nothing is kept.
const EMPTY: u64 = 0;
/// Somebody puts a directory there, or takes it away.
const CHANGING: u64 = 1;
/// A directory is kept.
const KEPT: u64 = 2;

/// A mapped directory.
#[derive(Debug)]
pub(crate) struct Held {
    /// Where it is mapped.
    pub(crate) mapping: Mapping<AtomicU64>,
    /// Its physical address, if we mapped it; then we also unmap it.
    pub(crate) ours: Option<PhysAddr>,
}

/// At most one directory.
///
/// INVARIANT: `place` holds one exactly while `state` is [`KEPT`]; who has set [`CHANGING`] may write it, others read it
/// while they are counted in `users` and have seen [`KEPT`] since.
#[derive(Debug)]
pub(crate) struct Kept {
    state: AtomicU64,
    /// Calls that look at it now.
    users: AtomicU32,
    place: UnsafeCell<MaybeUninit<Held>>,
}

// SAFETY: `place` is shared by the rule above; a mapping may be used by any CPU.
unsafe impl Sync for Kept {}
// SAFETY: as above.
unsafe impl Send for Kept {}

/// A call that looks at the directory, until it is dropped.
struct User<'a>(&'a Kept);

impl<'a> User<'a> {
    fn new(kept: &'a Kept) -> Self {
        // SYNC POINT: directory-used (both are SeqCst): we see that it goes, or who takes it sees us.
        kept.users.fetch_add(1, Ordering::SeqCst);
        Self(kept)
    }

    fn held(&self) -> Option<&Held> {
        let kept = self.0;
        if kept.state.load(Ordering::SeqCst) != KEPT {
            return None;
        }
        // SAFETY: it is there, and stays while we are counted (INVARIANT).
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
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU64::new(EMPTY),
            users: AtomicU32::new(0),
            place: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Keeps `held`; gives it back if there is one already.
    pub(crate) fn keep(&self, held: Held) -> Result<(), Held> {
        if self.state.compare_exchange(EMPTY, CHANGING, Ordering::Acquire).is_err() {
            return Err(held);
        }
        // SAFETY: we have set `CHANGING` (INVARIANT).
        self.place.with_mut(|place| _ = unsafe { (*place).write(held) });
        self.state.store(KEPT, Ordering::SeqCst);
        Ok(())
    }

    /// Takes the directory away, and waits by `relax` for calls that look at it. A caller must not be one of those.
    pub(crate) fn take(&self, mut relax: impl FnMut()) -> Option<Held> {
        self.state.compare_exchange(KEPT, CHANGING, Ordering::SeqCst).ok()?;
        // SYNC POINT: directory-used (SeqCst), directory-unused (acquire)
        while self.users.load(Ordering::SeqCst) != 0 {
            relax();
        }
        // SAFETY: it was there, we have set `CHANGING`, and nobody looks at it any more (INVARIANT).
        let held = self.place.with(|place| unsafe { (*place).assume_init_read() });
        self.state.store(EMPTY, Ordering::Release);
        Some(held)
    }

    /// Whether a call looks at it now.
    pub(crate) fn is_used(&self) -> bool {
        self.users.load(Ordering::SeqCst) != 0
    }

    /// Calls `f` with what is kept, and the directory there; `None` if there is none.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&Held, &Directory<'_, AtomicU64>) -> R) -> Option<R> {
        let user = User::new(self);
        let held = user.held()?;
        let directory = Directory::open(held.mapping.words()).ok()?;
        Some(f(held, &directory))
    }

    /// Whether the directory gives `cpu` to `peer` now; `None` if there is none, or if its host does not come to rest.
    pub(crate) fn has_cpu(&self, peer: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        if self.state.load(Ordering::Relaxed) != KEPT {
            return None;
        }
        self.with(|_, directory| directory.has_cpu(peer, cpu).ok())?
    }
}
