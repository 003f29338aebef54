// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instances of the library: their storage, and the default one.

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

/// Storage for one instance of the library: a kernel's end of all its links. It is large: make it `static`,
/// zeroed. It must not move.
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

/// The content of the storage.
#[derive(Debug)]
pub(crate) struct Instance {
    /// [`MARK`] and the address, while the endpoint exists.
    mark: AtomicU64,
    /// Distinguishes instances, and successive instances in one storage. It is in each handle.
    pub(crate) tag: u32,
    /// Number of the CPU that has the poller, plus one; 0 if there is no poller.
    pub(crate) polling: AtomicU32,
    pub(crate) end: End,
    /// The last failure on each CPU.
    pub(crate) last_errors: [LastError; MK_IPI_MAX_CPUS],
}

const _: () = assert!(size_of::<Instance>() <= MK_IPI_SIZE && align_of::<Instance>() <= align_of::<mk_ipi>());
// Unneeded bytes would cost every kernel memory.
const _: () = assert!(MK_IPI_SIZE - size_of::<Instance>() < SLACK);

const SLACK: usize = 512;

/// Whether [`size`] is large enough for these limits, and not much too large.
#[expect(clippy::arithmetic_side_effects, reason = "while it is compiled")]
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
    // The smallest kernels have less than 64 KiB for this.
    assert!(fits::<1, 16, 16, 16>() && size(1, 16, 16, 16) < 64 << 10);
    assert!(fits::<1, 1, 1, 1>() && fits::<7, 99, 64, 77>() && fits::<1024, 128, 4, 256>());
    assert!(fits::<2, 2, 2, 2>() && fits::<512, 32, 32, 64>() && fits::<3, 3, 8, 255>());
    assert!(fits::<1, 128, 16, 128>() && fits::<1, 64, 1, 33>() && fits::<4, 17, 1024, 200>());
};
const _: () = assert!(size_of::<mk_ipi>() == MK_IPI_SIZE);

const MARK: u64 = u64::from_le_bytes(*b"MKIPICAP");

/// The default instance's address; 0 if there is none.
static DEFAULT: AtomicUsize = AtomicUsize::new(0);
/// How many instances were made.
static MADE: AtomicU32 = AtomicU32::new(0);

fn mark_of(at: *const mk_ipi) -> u64 {
    MARK ^ at.addr() as u64
}

/// The instance at `mk`; `EINVAL` if `mk` is NULL or not an instance.
///
/// # Safety
///
/// `mk` is NULL or a `struct mk_ipi` whose bytes are all initialized, and an instance that `mk_ipi_init` made there
/// stays for `'a`.
pub(crate) unsafe fn at<'a>(mk: *const mk_ipi) -> Result<&'a Instance, Errno> {
    if mk.is_null() || !mk.is_aligned() {
        return Err(Errno::EINVAL);
    }
    let instance = mk.cast::<Instance>();
    // SAFETY: storage of that size and alignment (the caller). Only this atomic of it is accessed.
    let mark = unsafe { &(*instance).mark };
    // SYNC POINT: instance-made (acquire)
    if mark.load(Ordering::Acquire) != mark_of(mk) {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the mark says that `mk_ipi_init` wrote an `Instance` here. It stays while it is used (the caller).
    Ok(unsafe { &*instance })
}

/// The default instance; `ENODEV` if there is none.
pub(crate) fn default<'a>() -> Result<&'a Instance, Errno> {
    // SYNC POINT: instance-default (acquire)
    let address = DEFAULT.load(Ordering::SeqCst);
    // SAFETY: `mk_ipi_set_default` was promised that the instance stays while it is the default one.
    unsafe { at(core::ptr::with_exposed_provenance(address)) }.map_err(|_| Errno::ENODEV)
}

/// Makes an instance of the library in `mk`, which is not in use yet.
///
/// `size`: `sizeof(struct mk_ipi)`. It shows whether header and library have the same version and limits.
/// Returns 0; -EINVAL if `mk` or `ops` is NULL, a required operation is NULL (the operation `log` is called with its name), or a
/// size is wrong; -EPROTO if `ops->version` is wrong; -EBUSY if there is an instance in `mk` already.
///
/// Context: any but NMI, while no other call uses `mk`. Does not sleep. It writes all of `mk`, and uses little stack.
///
/// # Safety
///
/// `mk` is NULL, or zeroed storage, or one given up by `mk_ipi_fini`; `ops` is NULL or a table whose
/// operations do what their comments require.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_init(mk: *mut mk_ipi, size: usize, ops: *const mk_ipi_ops) -> c_int {
    if size != MK_IPI_SIZE || mk.is_null() || !mk.is_aligned() {
        keep_init(
            c"mk_ipi: mk is NULL, or its size is that of another version of the library, or of other limits",
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
    // SAFETY: the caller gives us exclusive access to the storage. It is large enough and aligned (asserted above).
    unsafe {
        (&raw mut (*instance).tag).write(tag);
        (&raw mut (*instance).polling).write(AtomicU32::new(0));
        // Zero means "no failure". The zeros are written in place, because an array may not fit on a small stack.
        (&raw mut (*instance).last_errors).write_bytes(0, 1);
        Endpoint::new_in(&mut *(&raw mut (*instance).end).cast::<MaybeUninit<End>>(), platform);
        // SYNC POINT: instance-made (release)
        (*instance).mark.store(mark_of(mk), Ordering::Release);
    }
    0
}

/// Ends an instance of the library: says goodbye, unmaps all that it has mapped, and gives memory back to the pools. Its
/// storage can be used again.
///
/// Returns 0; -EINVAL if there is no instance; -EBUSY while a call, or a poller, still uses an instance or the directory, and
/// while another kernel has a region mapped that came from our pools (`mk_ipi_destroy_stopped`): call again; -ENOMEM if
/// such a region cannot be mapped to read what the kernels say. If it is the default instance, there is no default instance
/// afterwards. Context: may sleep; no other call may use `mk` any more, and its doorbell must have stopped.
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

/// Sets the default instance, which is used by calls that name no instance (`multikernel_...`, `mk_send_pfn` and so on). NULL:
/// there is none. Handlers that `multikernel_register_handler` registered while there was none become handlers of `mk`.
///
/// Returns 0; -EINVAL if `mk` is neither NULL nor an instance; -ENOMEM if `mk` is the default instance now, but has no room for
/// all of those handlers. The others wait for the next call of this. Context: any but NMI.
///
/// # Safety
///
/// As `mk_ipi_identify`; the instance stays while it is the default one.
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
