// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instances of the library: their storage, and the default instance.

use crate::callback::CHandler;
use crate::limits::{
    size, MK_IPI_MAX_CPUS, MK_IPI_MAX_HANDLERS, MK_IPI_MAX_INSTANCES, MK_IPI_QUEUE, MK_IPI_SIZE,
};
use crate::ops::{mk_ipi_ops, CPlatform};
use crate::reason::{keep_init, LastError};
use core::ffi::c_int;
use core::mem::MaybeUninit;
use mk_ipi_core::abi::{Errno, InstanceId};
use mk_ipi_core::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use mk_ipi_core::{DestroyError, Endpoint};

/// Storage for one instance of the library: everything that a kernel needs for its links to all other kernels. It is large: make
/// it `static` and zeroed. It must not move.
#[repr(C, align(128))]
pub struct mk_ipi {
    _opaque: [u8; MK_IPI_SIZE],
}

impl core::fmt::Debug for mk_ipi {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("mk_ipi").finish_non_exhaustive()
    }
}

/// The endpoint that the C calls use.
pub type End =
    Endpoint<CPlatform, CHandler, MK_IPI_MAX_CPUS, MK_IPI_MAX_HANDLERS, MK_IPI_QUEUE, MK_IPI_MAX_INSTANCES>;

/// The content of a `struct mk_ipi`.
#[derive(Debug)]
pub(crate) struct Instance {
    /// [`MARK`] XOR the address of the storage, while the instance exists; otherwise another number.
    mark: AtomicU64,
    /// A number that differs for each instance that `mk_ipi_init` makes, also for later instances in the same storage. It is a
    /// part of each handle.
    pub(crate) tag: u32,
    /// Index of the CPU that has the poller, plus one; 0 if there is no poller.
    pub(crate) polling: AtomicU32,
    pub(crate) end: End,
    /// The last failure on each CPU.
    pub(crate) last_errors: [LastError; MK_IPI_MAX_CPUS],
}

const _: () = assert!(size_of::<Instance>() <= MK_IPI_SIZE && align_of::<Instance>() <= align_of::<mk_ipi>());
// `MK_IPI_SIZE` must not be much too large: the surplus would be wasted in every kernel.
const _: () = assert!(MK_IPI_SIZE - size_of::<Instance>() < SLACK);

/// `MK_IPI_SIZE` may exceed the needed size by less than this number of bytes.
const SLACK: usize = 512;

/// Returns true if [`size`] is large enough for these limits, and less than [`SLACK`] bytes too large.
#[expect(clippy::arithmetic_side_effects, reason = "evaluated at compile time")]
const fn fits<const CPUS: usize, const HANDLERS: usize, const QUEUE: usize, const INSTANCES: usize>() -> bool
{
    // The other fields of `Instance` are before and after the endpoint.
    let real = size_of::<Endpoint<CPlatform, CHandler, CPUS, HANDLERS, QUEUE, INSTANCES>>()
        + core::mem::offset_of!(Instance, end)
        + size_of::<LastError>() * CPUS;
    let said = size(CPUS, HANDLERS, QUEUE, INSTANCES);
    real <= said && said - real < SLACK
}
const _: () = {
    assert!(fits::<64, 64, 16, 256>());
    // The smallest kernels have less than 64 KiB for a `struct mk_ipi`.
    assert!(fits::<1, 16, 16, 16>() && size(1, 16, 16, 16) < 64 << 10);
    assert!(fits::<1, 1, 1, 1>() && fits::<7, 99, 64, 77>() && fits::<1024, 128, 4, 256>());
    assert!(fits::<2, 2, 2, 2>() && fits::<512, 32, 32, 64>() && fits::<3, 3, 8, 255>());
    assert!(fits::<1, 128, 16, 128>() && fits::<1, 64, 1, 33>() && fits::<4, 17, 1024, 200>());
};
const _: () = assert!(size_of::<mk_ipi>() == MK_IPI_SIZE);

const MARK: u64 = u64::from_le_bytes(*b"MKIPICAP");

/// The address of the default instance; 0 if there is none.
static DEFAULT: AtomicUsize = AtomicUsize::new(0);
/// How many instances `mk_ipi_init` has made.
static MADE: AtomicU32 = AtomicU32::new(0);

fn mark_of(at: *const mk_ipi) -> u64 {
    MARK ^ at.addr() as u64
}

/// The instance at `mk`. `EINVAL` if `mk` is NULL or misaligned, or there is no instance.
///
/// # Safety
///
/// `mk` is NULL, or points to a `struct mk_ipi` whose bytes are all initialized. If `mk_ipi_init` has made an instance there, it
/// exists for `'a`.
pub(crate) unsafe fn at<'a>(mk: *const mk_ipi) -> Result<&'a Instance, Errno> {
    if mk.is_null() || !mk.is_aligned() {
        return Err(Errno::EINVAL);
    }
    let instance = mk.cast::<Instance>();
    // SAFETY: there is storage of that size and alignment (the caller). Only its field `mark` is accessed, which is an atomic.
    let mark = unsafe { &(*instance).mark };
    // SYNC POINT: instance-made (acquire)
    if mark.load(Ordering::Acquire) != mark_of(mk) {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the mark says that `mk_ipi_init` wrote an `Instance` here. It exists while it is used (the caller).
    Ok(unsafe { &*instance })
}

/// The default instance; `ENODEV` if there is none.
pub(crate) fn default<'a>() -> Result<&'a Instance, Errno> {
    // SYNC POINT: instance-default (acquire)
    let address = DEFAULT.load(Ordering::SeqCst);
    // SAFETY: the caller of `mk_ipi_set_default` has promised that the instance exists while it is the default instance.
    unsafe { at(core::ptr::with_exposed_provenance(address)) }.map_err(|_| Errno::ENODEV)
}

/// Makes an instance of the library in `mk`.
///
/// `size`: `sizeof(struct mk_ipi)`. A wrong size means that the header and the library have different versions or limits.
/// Returns 0; -EINVAL if `mk` or `ops` is NULL or misaligned, a required operation is NULL (the operation `log` prints its name),
/// `size` or `ops->size` is wrong, or `ops->reserved` is not 0; -EPROTO if `ops->version` is wrong; -EBUSY if there is an
/// instance in `mk` already.
///
/// Context: any but NMI, while no other call uses `mk`. Does not sleep. It writes all of `mk`, and needs little stack.
///
/// # Safety
///
/// `mk` is NULL, or points to storage that is zeroed or whose instance `mk_ipi_fini` has ended. `ops` is NULL, or points to a
/// table whose operations do what their comments require.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_init(mk: *mut mk_ipi, size: usize, ops: *const mk_ipi_ops) -> c_int {
    if size != MK_IPI_SIZE || mk.is_null() || !mk.is_aligned() {
        keep_init(
            c"mk_ipi: mk is NULL or misaligned, or size is not the size of struct mk_ipi in this library",
        );
        return Errno::EINVAL.to_c();
    }
    // SAFETY: the caller.
    if unsafe { at(mk) }.is_ok() {
        return Errno::EBUSY.to_c();
    }
    // SAFETY: the caller.
    let platform = match unsafe { CPlatform::new(ops) } {
        Ok(platform) => platform,
        Err(e) => return e.to_c(),
    };
    let tag = MADE.fetch_add(1, Ordering::Relaxed);
    let instance = mk.cast::<Instance>();
    // SAFETY: the caller gives this call exclusive access to the storage. It is large enough and aligned (asserted above).
    unsafe {
        (&raw mut (*instance).tag).write(tag);
        (&raw mut (*instance).polling).write(AtomicU32::new(0));
        // Zero means "no failure". The zeros are written in place: a copy of the array on the stack would be too large.
        (&raw mut (*instance).last_errors).write_bytes(0, 1);
        Endpoint::new_in(&mut *(&raw mut (*instance).end).cast::<MaybeUninit<End>>(), platform);
        // SYNC POINT: instance-made (release)
        (*instance).mark.store(mark_of(mk), Ordering::Release);
    }
    0
}

/// Ends an instance of the library: tells all peers that this life ends (`mk_ipi_goodbye`), unmaps all that it has mapped, and
/// gives memory back to the pools. The storage can be used again.
///
/// Returns 0; -EINVAL if `mk` is not an instance of the library; -EBUSY while a call or a poller still uses an instance or the
/// directory: call again. -EBUSY also while another kernel has a region mapped that came from our pools: call again later. If the
/// CPUs of that kernel have stopped, call `mk_ipi_destroy_stopped` first. -ENOMEM: to find out which kernels have such a region
/// mapped, this call must read the region, and could not map it.
///
/// If `mk` is the default instance, there is no default instance afterwards. Context: may sleep. No other call may use `mk` any
/// more, also not the interrupt handler.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_fini(mk: *mut mk_ipi) -> c_int {
    // SAFETY: the caller.
    let instance = match unsafe { at(mk) } {
        Ok(instance) => instance,
        Err(e) => return e.to_c(),
    };
    let platform = instance.end.platform();
    if platform.directory.is_used() || instance.polling.load(Ordering::Relaxed) != 0 {
        return Errno::EBUSY.to_c();
    }
    instance.end.goodbye();
    for id in 0..=u8::MAX {
        match instance.end.destroy_instance(InstanceId::new(id)) {
            Ok(()) | Err(DestroyError::Unknown) => {}
            Err(e) => return e.errno().to_c(),
        }
    }
    platform.let_directory_go();
    crate::early::forget(instance);
    if DEFAULT.load(Ordering::Relaxed) == mk.addr() {
        DEFAULT.store(0, Ordering::Relaxed);
    }
    instance.mark.store(0, Ordering::Release);
    0
}

/// Sets the default instance of the library. Calls without an argument `mk` use it (`multikernel_...`, `mk_send_pfn` and so on).
/// NULL: from now on there is no default instance. Handlers that `multikernel_register_handler` registered while there was no
/// default instance become handlers of `mk`.
///
/// Returns 0; -EINVAL if `mk` is neither NULL nor an instance of the library; -ENOMEM if `mk` has become the default instance,
/// but has no room for all of those handlers. The others wait until the next `mk_ipi_set_default`. Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`. The instance exists while it is the default instance.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_set_default(mk: *mut mk_ipi) -> c_int {
    // SAFETY: the caller.
    let instance = unsafe { at(mk) };
    if !mk.is_null() && instance.is_err() {
        return Errno::EINVAL.to_c();
    }
    // SYNC POINT: instance-default (release); SeqCst: either this call sees a waiting handler, or the registration of that
    // handler sees the instance.
    DEFAULT.store(mk.expose_provenance(), Ordering::SeqCst);
    match instance.map(crate::early::hand_over) {
        Ok(Err(e)) => e.to_c(),
        _ => 0,
    }
}
