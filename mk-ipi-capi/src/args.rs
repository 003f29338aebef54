// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks of arguments from C (numbers, lists, pointers to results), and the return values of C calls.

use crate::instance::Instance;
use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use mk_ipi_core::abi::directory::{DirectoryError, MAX_ENTRY_CPUS};
use mk_ipi_core::abi::{Errno, InstanceId, PhysAddr, PhysCpuId, PhysRange};
use mk_ipi_core::sync::AtomicU64;

/// Turns a result into the return value of a C call: the number, or the negated error number.
pub(crate) fn code(result: Result<c_int, Errno>) -> c_int {
    result.unwrap_or_else(Errno::to_c)
}

/// This bit is set in an error number if the failure is already stored for `mk_ipi_last_error` ([`Instance::because`]).
pub(crate) const TOLD: c_int = 1 << 16;

/// Calls `f` with the instance of the library. If `f` fails, stores the error for `mk_ipi_last_error`, unless [`TOLD`] says that
/// it is already stored. The returned error number does not have the bit `TOLD`. If `at` is an error, returns it, and stores
/// nothing.
pub(crate) fn call<'a, T>(
    at: Result<&'a Instance, Errno>,
    f: impl FnOnce(&'a Instance) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let instance = at?;
    f(instance).map_err(|e| instance.keep_number(e))
}

/// Turns a result into the 64-bit return value of a C call: the 32-bit number, or the negated error number.
pub(crate) fn wide_code(result: Result<u32, Errno>) -> i64 {
    result.map_or_else(|e| e.to_c().into(), i64::from)
}

/// The error number of a C call that could not create, take over or open a directory.
pub(crate) const fn errno_of(error: DirectoryError) -> Errno {
    match error {
        DirectoryError::NoStamp(_) | DirectoryError::Version(_) => Errno::EPROTO,
        DirectoryError::Geometry | DirectoryError::TooSmall(_) => Errno::EINVAL,
    }
}

/// Checks an instance id from C. `EINVAL` if it is not 0 to 255.
pub(crate) fn id_of(id: c_int) -> Result<InstanceId, Errno> {
    InstanceId::try_from(id).map_err(|e| e.errno())
}

/// Turns a count into the return value of a C call. A count that does not fit becomes `c_int::MAX`.
pub(crate) fn count_of(count: usize) -> c_int {
    c_int::try_from(count).unwrap_or(c_int::MAX)
}

/// Checks a pointer to which a call writes a result. `EINVAL` for NULL, and for a misaligned pointer.
pub(crate) fn place<T>(at: *mut T) -> Result<NonNull<T>, Errno> {
    NonNull::new(at).filter(|place| place.is_aligned()).ok_or(Errno::EINVAL)
}

/// The same as [`place`], but NULL is no error. It means that the caller does not want the result. Returns `None` for NULL.
pub(crate) fn place_if_wanted<T>(at: *mut T) -> Result<Option<NonNull<T>>, Errno> {
    if at.is_null() {
        return Ok(None);
    }
    place(at).map(Some)
}

/// Writes a result. Does nothing if `place` is `None`.
///
/// # Safety
///
/// If `place` is not `None`, it comes from [`place_if_wanted`], and points to memory that this function is allowed to write.
pub(crate) unsafe fn put<T>(place: Option<NonNull<T>>, value: T) {
    if let Some(place) = place {
        // SAFETY: the caller promises that the memory can be written. `place_if_wanted` has checked the alignment.
        unsafe { place.write(value) };
    }
}

/// A reference to the struct at `from`. `EINVAL` for NULL, and for a misaligned pointer.
///
/// # Safety
///
/// `from` is NULL, or points to a `T` that is not written during `'a`.
pub(crate) unsafe fn given<'a, T>(from: *const T) -> Result<&'a T, Errno> {
    let from = place(from.cast_mut())?;
    // SAFETY: `from` is not NULL, and is aligned. So it points to a `T`, as the caller promises.
    Ok(unsafe { from.as_ref() })
}

/// The list of `count` CPUs at `from`. `EINVAL` for NULL, for a misaligned pointer, and for more CPUs than an entry of the
/// directory can have.
///
/// # Safety
///
/// `from` is NULL, or points to `count` ids that are not written during `'a`.
pub(crate) unsafe fn cpus_at<'a>(from: *const u64, count: u32) -> Result<&'a [PhysCpuId], Errno> {
    let from = place(from.cast_mut().cast::<PhysCpuId>())?;
    if count > MAX_ENTRY_CPUS {
        return Err(Errno::EINVAL);
    }
    // SAFETY: `from` is not NULL, and is aligned. So it points to `count` ids, as the caller promises. A `PhysCpuId` is a `u64`.
    Ok(unsafe { core::slice::from_raw_parts(from.as_ptr(), count as usize) })
}

/// The first `room` ids at `to`, but at most [`MAX_ENTRY_CPUS`]. This function sets these ids to 0.
/// `EINVAL` for NULL, and for a misaligned pointer.
///
/// # Safety
///
/// `to` is NULL, or points to an array of `room` ids that only the caller uses during `'a`.
pub(crate) unsafe fn room_at<'a>(to: *mut u64, room: u32) -> Result<&'a mut [PhysCpuId], Errno> {
    let to = place(to.cast::<PhysCpuId>())?.as_ptr();
    let room = room.min(MAX_ENTRY_CPUS) as usize;
    // SAFETY: `to` is not NULL, and is aligned. So it points to at least `room` ids, as the caller promises. A `PhysCpuId` is a
    // `u64`, and 0 is a valid value of it.
    unsafe {
        to.write_bytes(0, room);
        Ok(core::slice::from_raw_parts_mut(to, room))
    }
}

/// The complete 64-bit words in the `len` bytes at `memory`. `EINVAL` for NULL, for a misaligned pointer, and if `len` is above
/// `isize::MAX`.
///
/// # Safety
///
/// `memory` is NULL, or points to `len` bytes that stay mapped for `'a`, and that this kernel accesses only through this
/// library.
pub(crate) unsafe fn words_at<'a>(memory: *const c_void, len: usize) -> Result<&'a [AtomicU64], Errno> {
    let words = place(memory.cast_mut().cast::<AtomicU64>())?;
    if isize::try_from(len).is_err() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: `memory` is not NULL. So it points to `len` bytes, as the caller promises. They are aligned. Other kernels can
    // write the words at the same time. This is allowed, because the words are atomics.
    Ok(unsafe { core::slice::from_raw_parts(words.as_ptr(), len >> 3) })
}

/// The region that C describes by its address and length. `None` if both are 0. `EINVAL` if only the length is 0, or if the
/// region ends above [`PhysAddr::LIMIT`].
pub(crate) fn region_of(start: u64, len: u64) -> Result<Option<PhysRange>, Errno> {
    match (start, len) {
        (0, 0) => Ok(None),
        _ => PhysRange::new(PhysAddr(start), len).map(Some).ok_or(Errno::EINVAL),
    }
}

const _: () = assert!(size_of::<PhysCpuId>() == size_of::<u64>());
