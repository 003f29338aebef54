// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes of the directory while this kernel runs: `mk_ipi_follow` applies them, and `mk_ipi_behind` finds the kernels that have
//! not applied them yet.

use crate::args::{call, code, count_of, wide_code};
use crate::instance::{at, mk_ipi};
use crate::types::{
    mk_ipi_behind_callback_t, mk_ipi_followed_callback_t, MK_IPI_FOLLOWED_ADDED, MK_IPI_FOLLOWED_CHANGED,
    MK_IPI_FOLLOWED_LEFT_OUT, MK_IPI_FOLLOWED_REMOVED, MK_IPI_FOLLOWED_TAKEN_FOR_DEAD,
};
use core::ffi::{c_int, c_void};
use mk_ipi_core::abi::Errno;
use mk_ipi_core::Followed;

/// Applies the changes of the directory since the last call, or since `mk_ipi_start` or `mk_ipi_join`: adds new instances,
/// removes instances whose region ends, and uses the doorbells that the directory names now. Calls `callback`, unless it is NULL,
/// with `ctx` for every change.
///
/// Returns the generation of the directory, after it has stored this number in all our lanes. There the host reads it
/// (`mk_ipi_behind`). It tells the host that this kernel does not use older entries any more: if a CPU or a region is named only
/// in an older entry, this kernel does not ring that CPU, and does not use that region.
///
/// Returns -EINVAL if `mk` is not an instance of the library; -ENODEV if there is no directory, or the entry of an instance in
/// the table is invalid; -EAGAIN while the host changes an entry, while a CPU of ours is ringing a doorbell of a former entry,
/// while another CPU runs `mk_ipi_follow`, and if another CPU added an instance during the call; -EBUSY while calls use an
/// instance that must be removed. After -EAGAIN, -EBUSY and an invalid entry, call again. If another CPU runs `mk_ipi_follow`,
/// this call has applied nothing. Otherwise it has applied all other changes.
///
/// Context: may sleep; one caller at a time. Call it periodically: if the host counts its changes, and nothing has changed, it
/// reads only one word of the directory. Call it also after
/// `MK_IPI_EVENT_READ_DIRECTORY`, but not from the operation that reports this event. `callback` may send and register, and must
/// not call `mk_ipi_fini`.
///
/// # Safety
///
/// As `mk_ipi_identify`. `callback` may be called with `ctx`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_follow(
    mk: *mut mk_ipi,
    callback: mk_ipi_followed_callback_t,
    ctx: *mut c_void,
) -> i64 {
    // SAFETY: the caller.
    wide_code(call(unsafe { at(mk) }, |instance| {
        let platform = instance.end.platform();
        let followed = platform.directory.with(|_, directory| {
            instance.end.follow(directory, |id, followed| {
                let (what, error) = match followed {
                    Followed::Added => (MK_IPI_FOLLOWED_ADDED, None),
                    Followed::Changed => (MK_IPI_FOLLOWED_CHANGED, None),
                    Followed::Removed => (MK_IPI_FOLLOWED_REMOVED, None),
                    Followed::TakenForDead => (MK_IPI_FOLLOWED_TAKEN_FOR_DEAD, None),
                    Followed::LeftOut(e) => (MK_IPI_FOLLOWED_LEFT_OUT, Some(e.errno())),
                };
                match (callback, error) {
                    // SAFETY: the caller promises that `callback` may be called with `ctx`.
                    (Some(f), _) => unsafe { f(id.get().into(), what, error.map_or(0, Errno::to_c), ctx) },
                    (None, Some(error)) => platform.left_out(id, error),
                    (None, None) => {}
                }
            })
        });
        followed.ok_or(Errno::ENODEV)?.map_err(|e| instance.because(e))
    }))
}

/// Finds instances whose lanes in our native region say that they have this region mapped, and that they have not followed the
/// directory to `generation`. Such an instance can still ring a CPU, or use a region, that only an older generation named. The
/// host calls this before it gives a CPU or a region to another instance. Calls `callback`, unless it is NULL, with `ctx` for
/// each such instance. This kernel's own instance is never among them.
///
/// A life that was killed is found too, because its lane in our region still says that it has the region mapped. Only the host
/// knows whether the CPUs of that life have stopped. Returns the number of instances found; -EINVAL if `mk` is not an instance of
/// the library, or has no native region of its own. Context: any but NMI. It reads all lanes.
///
/// # Safety
///
/// As `mk_ipi_follow`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_behind(
    mk: *mut mk_ipi,
    generation: u32,
    callback: mk_ipi_behind_callback_t,
    ctx: *mut c_void,
) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |instance| {
        let mut count = 0usize;
        let looked = instance.end.behind(generation, |id, incarnation| {
            count = count.wrapping_add(1);
            if let Some(f) = callback {
                // SAFETY: the caller promises that `callback` may be called with `ctx`.
                unsafe { f(id.get().into(), incarnation.get(), ctx) };
            }
        });
        looked.map(|()| count_of(count)).map_err(|e| e.errno())
    }))
}
