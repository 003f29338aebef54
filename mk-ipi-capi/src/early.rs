// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handlers that are registered before there is a default instance. They wait in a table until there is one.

use crate::handlers::{is_of, register_data, unregister_own};
use crate::instance::{default, Instance};
use crate::limits::MK_IPI_MAX_HANDLERS;
use crate::types::{mk_ipi_callback_t, mk_ipi_data, mk_ipi_handler};
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use mk_ipi_core::abi::Errno;
use mk_ipi_core::sync::{spin_hint, AtomicU64, AtomicUsize, Ordering, UnsafeCell};

// The states of an entry. They are in bits 7..0 of its word. Bits 63..8 count how often the entry was freed.

/// The entry holds no handler.
const FREE: u64 = 0;
/// A call writes or reads the waiting handler.
const CHANGING: u64 = 1;
/// The entry holds a handler that waits for a default instance.
const WAITING: u64 = 2;
/// The handler of the entry is registered with an instance of the library.
const REGISTERED: u64 = 3;
/// The bits of the state.
const STATE: u64 = 0xff;

/// A handle of this table is a number: bits 63..16 are the count of the entry, 9..2 its index, and 1..0 have this value. Handles
/// that an instance of the library made are odd.
const KIND: u64 = 2;
const COUNT_SHIFT: u32 = 16;
/// The bits of the count that fit into a handle.
const COUNT_MASK: u64 = u64::MAX >> COUNT_SHIFT;

/// The arguments of `multikernel_register_handler`.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    ty: u32,
    callback: unsafe extern "C" fn(*mut mk_ipi_data, *mut c_void),
    ctx: *mut c_void,
}

/// A place for one handler.
///
/// INVARIANT: only the call that has set [`CHANGING`] writes and reads `waiting`. In the state [`WAITING`] it is initialized.
struct Entry {
    word: AtomicU64,
    waiting: UnsafeCell<MaybeUninit<Waiting>>,
    /// In the state [`REGISTERED`]: the handle that the instance of the library made. It is a number, not an address.
    handle: AtomicUsize,
}

// SAFETY: access to `waiting` follows the INVARIANT. Any CPU may call the callback with its context, as the header requires.
unsafe impl Sync for Entry {}

static TABLE: [Entry; MK_IPI_MAX_HANDLERS] = [const {
    Entry {
        word: AtomicU64::new(FREE),
        waiting: UnsafeCell::new(MaybeUninit::uninit()),
        handle: AtomicUsize::new(0),
    }
}; MK_IPI_MAX_HANDLERS];

const _: () = assert!(MK_IPI_MAX_HANDLERS <= 0x100 && size_of::<usize>() == 8);

impl Entry {
    /// Sets the state if the word is still `word`. Returns true if the state was set.
    fn change(&self, word: u64, state: u64) -> bool {
        // SYNC POINT: early-handler (acquire and release); SeqCst: either a registration sees the default instance, or
        // `mk_ipi_set_default` sees the registration.
        self.word.compare_exchange(word, (word & !STATE) | state, Ordering::SeqCst).is_ok()
    }

    /// Replaces the state [`CHANGING`] by `state`.
    fn leave(&self, word: u64, state: u64) {
        // SYNC POINT: early-handler (release)
        self.word.store((word & !STATE) | state, Ordering::SeqCst);
    }

    /// Frees the entry if its word is still `word`. Returns true if the entry was freed. Then the handle of its former handler is
    /// not valid any more, because the count has changed.
    fn free(&self, word: u64) -> bool {
        // SYNC POINT: early-handler (release)
        self.word.compare_exchange(word, (word & !STATE).wrapping_add(STATE + 1), Ordering::SeqCst).is_ok()
    }
}

/// Keeps a handler until there is a default instance.
pub(crate) fn register(
    ty: u32,
    callback: mk_ipi_callback_t,
    ctx: *mut c_void,
) -> Result<*mut mk_ipi_handler, Errno> {
    let callback = callback.ok_or(Errno::EINVAL)?;
    for (index, entry) in (0u64..).zip(&TABLE) {
        let word = entry.word.load(Ordering::Relaxed);
        if word & STATE != FREE || !entry.change(word, CHANGING) {
            continue;
        }
        // SAFETY: this call has set `CHANGING` (INVARIANT).
        entry.waiting.with_mut(|at| _ = unsafe { (*at).write(Waiting { ty, callback, ctx }) });
        entry.leave(word, WAITING);
        // Meanwhile another CPU may have set a default instance, before this handler was in the table.
        if let Ok(instance) = default() {
            _ = hand_over(instance);
        }
        let number = ((word >> 8) & COUNT_MASK) << COUNT_SHIFT | index << 2 | KIND;
        return Ok(core::ptr::without_provenance_mut(usize::try_from(number).unwrap_or(0)));
    }
    Err(Errno::ENOMEM)
}

/// Registers all waiting handlers with `instance`. `ENOMEM` if it has no room for some of them. These continue to wait.
pub(crate) fn hand_over(instance: &Instance) -> Result<(), Errno> {
    let mut done = Ok(());
    for entry in &TABLE {
        // SYNC POINT: early-handler (SeqCst: see `change`)
        let word = entry.word.load(Ordering::SeqCst);
        if word & STATE != WAITING || !entry.change(word, CHANGING) {
            continue;
        }
        // SAFETY: the state was `WAITING`, so it is initialized, and this call has set `CHANGING` (INVARIANT).
        let Waiting { ty, callback, ctx } = entry.waiting.with(|at| unsafe { (*at).assume_init_read() });
        match register_data(instance, ty, Some(callback), ctx) {
            Ok(handle) => {
                entry.handle.store(handle.addr(), Ordering::Relaxed);
                entry.leave(word, REGISTERED);
            }
            Err(e) => {
                entry.leave(word, WAITING);
                done = Err(e);
            }
        }
    }
    done
}

/// Whether this table made the handle.
pub(crate) fn is_early(handler: *mut mk_ipi_handler) -> bool {
    handler.addr() as u64 & 3 == KIND
}

/// Ends the registration of a handle that this table made. If the handler is registered with an instance of the library by now,
/// `instance` must be that instance, and the handler is unregistered there.
pub(crate) fn unregister(instance: Option<&Instance>, handler: *mut mk_ipi_handler) -> Result<c_int, Errno> {
    let number = handler.addr() as u64;
    let entry = TABLE.get(((number >> 2) & 0x3fff) as usize).ok_or(Errno::EINVAL)?;
    loop {
        // SYNC POINT: early-handler (acquire)
        let word = entry.word.load(Ordering::Acquire);
        if (word >> 8) & COUNT_MASK != number >> COUNT_SHIFT || word & STATE == FREE {
            return Err(Errno::ESTALE);
        }
        match word & STATE {
            WAITING if entry.free(word) => return Ok(0),
            REGISTERED => {
                let handle = core::ptr::without_provenance_mut(entry.handle.load(Ordering::Relaxed));
                let ended = unregister_own(instance.ok_or(Errno::ENODEV)?, handle)?;
                entry.free(word);
                return Ok(ended);
            }
            // Another CPU is registering the handler with an instance.
            _ => spin_hint(),
        }
    }
}

/// Frees the entries whose handlers are registered with `instance`, which ends.
pub(crate) fn forget(instance: &Instance) {
    for entry in &TABLE {
        // SYNC POINT: early-handler (acquire)
        let word = entry.word.load(Ordering::Acquire);
        let handle = core::ptr::without_provenance_mut(entry.handle.load(Ordering::Relaxed));
        if word & STATE == REGISTERED && is_of(instance, handle) {
            entry.free(word);
        }
    }
}
