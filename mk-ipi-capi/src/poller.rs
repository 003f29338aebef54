// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pollers: a CPU that polls all the time takes the exclusive right to read this kernel's lanes, and keeps it over many polls.

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

/// The content of a `struct mk_ipi_poller`.
struct Place {
    /// While there is a poller: [`READY`] or [`LOOKING`], XOR the address of the storage; otherwise another number.
    mark: AtomicU64,
    instance: MaybeUninit<&'static Instance>,
    poller: MaybeUninit<Held>,
}

const _: () = assert!(size_of::<Place>() <= MK_IPI_POLLER_SIZE);
const _: () = assert!(align_of::<Place>() <= align_of::<mk_ipi_poller>());
const _: () = assert!(size_of::<mk_ipi_poller>() == MK_IPI_POLLER_SIZE);

/// There is a poller, and no call uses it now.
const READY: u64 = u64::from_le_bytes(*b"MKIPIPOL");
/// A call uses the poller now.
const LOOKING: u64 = !READY;

/// Whether the poller of `instance` was made on this CPU.
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

/// The field `mark` of the storage at `poller`. `EINVAL` for NULL, and for a misaligned pointer.
///
/// # Safety
///
/// `poller` is NULL, or points to a `struct mk_ipi_poller` that exists for `'a`, and whose bytes are all initialized.
unsafe fn mark_at<'a>(poller: *mut mk_ipi_poller) -> Result<&'a AtomicU64, Errno> {
    place(poller)?;
    // SAFETY: not NULL and aligned, so there is storage of that size and alignment (the caller). Only its field `mark` is
    // accessed, which is an atomic.
    Ok(unsafe { &(*poller.cast::<Place>()).mark })
}

/// The values of `mark` for [`READY`] and for [`LOOKING`] in the storage at `poller`.
fn marks(poller: *const mk_ipi_poller) -> [u64; 2] {
    [READY, LOOKING].map(|mark| mark ^ poller.addr() as u64)
}

/// Calls `f` with the instance and the poller in the storage at `poller`. Meanwhile no other call can use this poller. If `stays`
/// is true, the poller still exists afterwards. If it is false, the storage is empty afterwards.
///
/// # Safety
///
/// As [`mark_at`]. If `stays` is false, `f` drops the poller.
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
    // SAFETY: the mark was `READY`, so `mk_ipi_poller_begin` has written both. This call has changed it to `LOOKING`, so no other
    // call uses them. While there is a poller, `mk_ipi_fini` does not end the instance.
    let done = unsafe {
        let place = poller.cast::<Place>();
        f((*place).instance.assume_init(), &mut (*place).poller)
    };
    // SYNC POINT: poller-ready (release)
    mark.store(if stays { ready } else { 0 }, Ordering::Release);
    Ok(done)
}

/// Makes a poller in `poller`, for a CPU that polls all the time. A poller has the exclusive right to read the lanes of this
/// kernel's native region.
///
/// While it exists, senders do not ring this kernel's doorbell, and the deferred work does not read the lanes. `size`:
/// `sizeof(struct mk_ipi_poller)`. Returns 0; -EINVAL if `mk` is not an instance of the library, `poller` is NULL, the size is
/// wrong, or this kernel's region is not native; -ENODEV if this kernel has no identity or no region; -EBUSY if there is a poller
/// in `poller` already, and while another CPU reads the lanes or has a poller: try again; -ERANGE on a CPU whose index is not
/// below `MK_IPI_MAX_CPUS`. Context: any but NMI. All calls for this poller, up to `mk_ipi_poller_end`, must be made on this CPU.
///
/// # Safety
///
/// As `mk_ipi_identify`. `poller` is NULL, or points to storage that is zeroed or whose poller `mk_ipi_poller_end` has ended. The
/// storage does not move until `mk_ipi_poller_end`.
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
            // SAFETY: the caller provides the storage, which is large enough (asserted above). There was no poller in it, and
            // this call has set the mark to `LOOKING`, so no other call uses it.
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
/// Returns the number of messages and of other events of peers; 0 if there were none; -EINVAL if `poller` is not a poller; -EBUSY
/// inside a handler that this poller called, and if another call uses the poller. Context: as `mk_ipi_run_deferred`, on the CPU
/// that made the poller.
///
/// Each call reads the lane from which the last message came. Some calls also read all lanes, and check whether the host tells
/// this kernel to stop, and whether our own lanes have got an answer or space.
///
/// # Safety
///
/// `poller` is NULL, or points to storage that is zeroed or was given to `mk_ipi_poller_begin`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_poller_poll(poller: *mut mk_ipi_poller) -> c_int {
    // SAFETY: the caller. `with_poller` passes the poller that `mk_ipi_poller_begin` wrote.
    code(unsafe { with_poller(poller, true, |_, poller| count_of(poller.assume_init_mut().poll())) })
}

/// Polls until a poll finds a message or an event, at most `looks` times, with a short pause after each poll that finds nothing.
/// This is faster than `looks` calls of `mk_ipi_poller_poll`. Otherwise it is the same as `mk_ipi_poller_poll`.
///
/// # Safety
///
/// As `mk_ipi_poller_poll`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_poller_wait(poller: *mut mk_ipi_poller, looks: usize) -> c_int {
    // SAFETY: the caller. `with_poller` passes the poller that `mk_ipi_poller_begin` wrote.
    code(unsafe { with_poller(poller, true, |_, poller| count_of(poller.assume_init_mut().wait(looks))) })
}

/// Ends a poller, and schedules the deferred work, which requests doorbells again. The storage can be used again.
///
/// Returns 0; -EINVAL if `poller` is not a poller; -EBUSY inside a handler that this poller called, and if another call uses the
/// poller. Context: any but NMI, on the CPU that made the poller.
///
/// # Safety
///
/// As `mk_ipi_poller_poll`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_poller_end(poller: *mut mk_ipi_poller) -> c_int {
    let end = |instance: &'static Instance, poller: &mut MaybeUninit<Held>| {
        instance.polling.store(0, Ordering::Relaxed);
        // SAFETY: `mk_ipi_poller_begin` wrote it. Afterwards the mark says that there is no poller.
        unsafe { poller.assume_init_drop() };
        0
    };
    // SAFETY: the caller.
    code(unsafe { with_poller(poller, false, end) })
}
