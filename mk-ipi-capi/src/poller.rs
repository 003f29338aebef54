// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pollers: the exclusive right to read the lanes of the native link, kept over many polls.

use crate::args::{call, code, count_of, place};
use crate::callback::CHandler;
use crate::instance::{at, mk_ipi, Instance};
use crate::limits::{MK_IPI_MAX_CPUS, MK_IPI_MAX_HANDLERS, MK_IPI_MAX_INSTANCES, MK_IPI_QUEUE};
use crate::ops::CPlatform;
use core::ffi::c_int;
use core::mem::MaybeUninit;
use mk_ipi_core::abi::directory::Layout;
use mk_ipi_core::abi::Errno;
use mk_ipi_core::platform::ThisCpu;
use mk_ipi_core::sync::{AtomicU64, Ordering};

/// Bytes of `struct mk_ipi_poller`.
pub const MK_IPI_POLLER_SIZE: usize = 128;

/// Storage for a poller: zeroed, 8-byte aligned. It must not move while the poller exists. It can be on a stack.
#[repr(C, align(8))]
pub struct mk_ipi_poller {
    _opaque: [u8; MK_IPI_POLLER_SIZE],
}

impl core::fmt::Debug for mk_ipi_poller {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("mk_ipi_poller").finish_non_exhaustive()
    }
}

type Held = mk_ipi_core::Poller<
    'static,
    CPlatform,
    CHandler,
    MK_IPI_MAX_CPUS,
    MK_IPI_MAX_HANDLERS,
    MK_IPI_QUEUE,
    MK_IPI_MAX_INSTANCES,
>;

/// The content of the storage.
struct Place {
    /// [`READY`] or [`LOOKING`], and the address, while there is a poller.
    mark: AtomicU64,
    instance: MaybeUninit<&'static Instance>,
    poller: MaybeUninit<Held>,
}

const _: () = assert!(size_of::<Place>() <= MK_IPI_POLLER_SIZE);
const _: () = assert!(align_of::<Place>() <= align_of::<mk_ipi_poller>());
const _: () = assert!(size_of::<mk_ipi_poller>() == MK_IPI_POLLER_SIZE);

/// There is a poller, and it is not in use.
const READY: u64 = u64::from_le_bytes(*b"MKIPIPOL");
/// A call uses the poller.
const LOOKING: u64 = !READY;

/// Whether this CPU has the poller of `instance`.
pub(crate) fn is_here(instance: &Instance) -> bool {
    match instance.polling.load(Ordering::Relaxed) {
        0 => false,
        polling => polling == here(instance),
    }
}

/// This CPU's index, plus one.
fn here(instance: &Instance) -> u32 {
    u32::try_from(instance.end.platform().index()).unwrap_or(u32::MAX).saturating_add(1)
}

/// The mark at `poller`; `EINVAL` if that is NULL.
///
/// # Safety
///
/// `poller` is NULL or a `struct mk_ipi_poller` whose bytes are all initialized, for `'a`.
unsafe fn mark_at<'a>(poller: *mut mk_ipi_poller) -> Result<&'a AtomicU64, Errno> {
    place(poller)?;
    // SAFETY: not NULL and aligned, so storage of that size and alignment (the caller), of which only this atomic is looked at.
    Ok(unsafe { &(*poller.cast::<Place>()).mark })
}

/// [`READY`] and [`LOOKING`] at that address.
fn marks(poller: *const mk_ipi_poller) -> [u64; 2] {
    [READY, LOOKING].map(|mark| mark ^ poller.addr() as u64)
}

/// Calls `f` with the poller at `poller`, which no other call uses meanwhile. If it `stays`, it can be used again.
///
/// # Safety
///
/// As [`mark_at`]; without `stays` `f` drops the poller.
unsafe fn with_poller(
    poller: *mut mk_ipi_poller,
    stays: bool,
    f: impl FnOnce(&'static Instance, &mut MaybeUninit<Held>) -> c_int,
) -> Result<c_int, Errno> {
    // SAFETY: the caller.
    let mark = unsafe { mark_at(poller) }?;
    let [ready, looking] = marks(poller);
    // SYNC POINT: poller-ready (acquire)
    mark.compare_exchange(ready, looking, Ordering::Acquire).map_err(|found| {
        if found == looking {
            Errno::EBUSY
        } else {
            Errno::EINVAL
        }
    })?;
    // SAFETY: the mark said that `mk_ipi_poller_begin` wrote both here, and says now that they are ours. The poller keeps
    // its instance from ending (`mk_ipi_fini`).
    let done = unsafe {
        let place = poller.cast::<Place>();
        f((*place).instance.assume_init(), &mut (*place).poller)
    };
    // SYNC POINT: poller-ready (release)
    mark.store(if stays { ready } else { 0 }, Ordering::Release);
    Ok(done)
}

/// Makes a poller in `poller`: the exclusive right to read the lanes of this kernel's native region, for a CPU that polls.
///
/// While it exists, senders do not ring, and the deferred work does not read the lanes. `size`: `sizeof(struct mk_ipi_poller)`.
/// Returns 0; -EINVAL if `mk` is not an instance of the library, `poller` is NULL, the size is wrong, or this kernel's region
/// is not native; -ENODEV without a region of its own; -EBUSY if a poller is in `poller`, or another CPU reads the lanes or has
/// a poller: try again; -ERANGE on a CPU whose index is not below `MK_IPI_MAX_CPUS`. Context: any but NMI. All calls up to
/// `mk_ipi_poller_end` must be on one CPU.
///
/// # Safety
///
/// As `mk_ipi_identify`; `poller` is NULL, or zeroed storage, or one given up by `mk_ipi_poller_end`, and stays
/// where it is until then.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_poller_begin(
    mk: *mut mk_ipi,
    poller: *mut mk_ipi_poller,
    size: usize,
) -> c_int {
    // SAFETY: the caller.
    let (instance, mark) = unsafe { (at(mk), mark_at(poller)) };
    code(call(instance, |instance| {
        let mark = mark?;
        if size != MK_IPI_POLLER_SIZE {
            return Err(Errno::EINVAL);
        }
        let [ready, looking] = marks(poller);
        let found = mark.load(Ordering::Relaxed);
        let taken = found == ready || found == looking;
        // SYNC POINT: poller-ready (acquire)
        if taken || mark.compare_exchange(found, looking, Ordering::Acquire).is_err() {
            return Err(Errno::EBUSY);
        }
        let made = make(instance).map(|made| {
            let place = poller.cast::<Place>();
            // SAFETY: the caller gives us the storage, which is large enough (asserted above). Its mark says that it is empty, and
            // is ours.
            unsafe {
                (&raw mut (*place).instance).write(MaybeUninit::new(instance));
                (&raw mut (*place).poller).write(MaybeUninit::new(made));
            }
        });
        // SYNC POINT: poller-ready (release)
        mark.store(if made.is_ok() { ready } else { 0 }, Ordering::Release);
        made.map(|()| 0)
    }))
}

fn make(instance: &'static Instance) -> Result<Held, Errno> {
    let here = here(instance);
    if here as usize > MK_IPI_MAX_CPUS {
        return Err(Errno::ERANGE);
    }
    let (me, _) = instance.end.identity().ok_or(Errno::ENODEV)?;
    let layout = instance.end.instance(me).ok().and_then(|own| own.layout()).ok_or(Errno::ENODEV)?;
    if layout != Layout::Native {
        return Err(Errno::EINVAL);
    }
    let made = instance.end.poller().ok_or(Errno::EBUSY)?;
    instance.polling.store(here, Ordering::Relaxed);
    Ok(made)
}

/// Delivers new messages to their handlers.
///
/// Returns the number of messages and other events of peers, 0 if there was nothing; -EINVAL if `poller` is not a poller;
/// -EBUSY inside a handler that it called, and if another call uses it. It looks at the lane that had a message last. Some
/// calls also look at all lanes, at the stop word, and for answers and space that our own lanes wait for. Context: as
/// `mk_ipi_run_deferred`, on the CPU that made it.
///
/// # Safety
///
/// `poller` is NULL, zeroed storage, or one that `mk_ipi_poller_begin` was called for.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_poller_poll(poller: *mut mk_ipi_poller) -> c_int {
    // SAFETY: the caller; `with_poller` gives what `mk_ipi_poller_begin` wrote.
    code(unsafe { with_poller(poller, true, |_, poller| count_of(poller.assume_init_mut().poll())) })
}

/// Polls until something has come, at most `looks` times, with a short pause after each poll that finds nothing. It is cheaper
/// than the same number of calls of `mk_ipi_poller_poll`, and otherwise does the same.
///
/// # Safety
///
/// As `mk_ipi_poller_poll`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_poller_wait(poller: *mut mk_ipi_poller, looks: usize) -> c_int {
    // SAFETY: the caller; `with_poller` gives what `mk_ipi_poller_begin` wrote.
    code(unsafe { with_poller(poller, true, |_, poller| count_of(poller.assume_init_mut().wait(looks))) })
}

/// Ends a poller, and schedules the deferred work, which requests doorbells again. Its storage can be used again.
///
/// Returns 0; -EINVAL if `poller` is not a poller; -EBUSY inside a handler that it called, and if another call uses it.
/// Context: any but NMI, on the CPU that made it.
///
/// # Safety
///
/// As `mk_ipi_poller_poll`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_poller_end(poller: *mut mk_ipi_poller) -> c_int {
    let end = |instance: &'static Instance, poller: &mut MaybeUninit<Held>| {
        instance.polling.store(0, Ordering::Relaxed);
        // SAFETY: `mk_ipi_poller_begin` wrote it, and the mark says afterwards that there is none.
        unsafe { poller.assume_init_drop() };
        0
    };
    // SAFETY: the caller.
    code(unsafe { with_poller(poller, false, end) })
}
