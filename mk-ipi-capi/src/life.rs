// SPDX-License-Identifier: MIT OR Apache-2.0
//! The identity of this kernel, and the instances in its table with their regions.

use crate::args::{call, code, count_of, cpus_at, given, id_of, place, place_if_wanted, put, region_of};
use crate::instance::{at, mk_ipi};
use crate::types::{
    mk_ipi_has_stopped_callback_t, mk_ipi_instance, mk_ipi_instance_info, mk_ipi_range, MK_IPI_NATIVE,
    MK_IPI_RFC_V2,
};
use core::ffi::{c_int, c_void};
use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::{Errno, Incarnation, PhysCpuId, Vector};
use mk_ipi_core::{InstanceConfig, LinkConfig, SlotPolicy};

/// Sets the identity of this kernel: its instance id and its incarnation. Before this call `mk_ipi_interrupt` reads no message,
/// sends into exclusive slots are refused, and no native link can be made.
///
/// Peers may have sent messages before. So every other CPU of this kernel must call `mk_ipi_poll` once after this call. Returns
/// 0; -EINVAL if `mk` is not an instance of the library, `instance` is not 0 to 255, or `incarnation` is 0. Context: any but NMI.
///
/// # Safety
///
/// `mk` is NULL, or points to zeroed storage, or is an instance of the library that `mk_ipi_fini` does not end meanwhile.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_identify(mk: *mut mk_ipi, instance: c_int, incarnation: u32) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |mk| {
        let incarnation = Incarnation::new(incarnation).ok_or(Errno::EINVAL)?;
        mk.end.identify(id_of(instance)?, incarnation);
        Ok(0)
    }))
}

/// Returns the instance id of this kernel. Stores its incarnation in `*incarnation`, unless `incarnation` is NULL.
///
/// The id is 0 to 255. Returns -EINVAL if `mk` is not an instance of the library, or `incarnation` is misaligned; -ENODEV if this
/// kernel has no identity yet (`mk_ipi_identify`). Context: any.
///
/// # Safety
///
/// As `mk_ipi_identify`. `incarnation` is NULL, or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_identity(mk: *mut mk_ipi, incarnation: *mut u32) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |mk| {
        let place = place_if_wanted(incarnation)?;
        let (instance, life) = mk.end.identity().ok_or(Errno::ENODEV)?;
        // SAFETY: it may be written (the caller).
        unsafe { put(place, life.get()) };
        Ok(instance.get().into())
    }))
}

/// Checks a config from C, and calls `f` with it.
///
/// # Safety
///
/// `config` is NULL, or points to a config. Its `cpus` is NULL, or points to `nr_cpus` ids.
pub(crate) unsafe fn with_config<R>(
    config: *const mk_ipi_instance,
    f: impl FnOnce(&InstanceConfig<'_>) -> Result<R, Errno>,
) -> Result<R, Errno> {
    // SAFETY: the caller.
    let config = unsafe { given(config) }?;
    // SAFETY: `cpus` and `nr_cpus` are as the caller promises.
    let cpus = unsafe { cpus_at(config.cpus, config.nr_cpus) }?;
    f(&InstanceConfig {
        id: id_of(config.id)?,
        incarnation: Incarnation::new(config.incarnation).ok_or(Errno::EINVAL)?,
        cpus,
        doorbell_cpu: PhysCpuId(config.doorbell_cpu),
        vector: u8::try_from(config.vector).ok().and_then(Vector::new).ok_or(Errno::EINVAL)?,
        one_doorbell: config.one_doorbell != 0,
        link: link_of(config)?,
    })
}

fn link_of(config: &mk_ipi_instance) -> Result<LinkConfig, Errno> {
    match (config.layout, config.lanes, config.lines, config.max_len) {
        (MK_IPI_RFC_V2, ..) => {
            let policy = if config.exclusive != 0 { SlotPolicy::Exclusive } else { SlotPolicy::Overwrite };
            Ok(LinkConfig::RfcV2 { slots: config.slots, policy })
        }
        (MK_IPI_NATIVE, 0, 0, 0) => Ok(LinkConfig::Native(None)),
        (MK_IPI_NATIVE, lanes, lines, max_len) => {
            let geometry = match (lines, max_len) {
                (0, 0) => Geometry::default_for(lanes),
                _ => Geometry::new(lanes, lines, max_len),
            };
            Ok(LinkConfig::Native(Some(geometry.ok_or(Errno::EINVAL)?)))
        }
        _ => Err(Errno::EINVAL),
    }
}

/// Adds an instance to the table, and makes its region from memory of its pool. The region is zeroed and mapped before other
/// calls can use it. Stores the range of the region in `*made`, unless `made` is NULL.
///
/// Returns 0; -EINVAL for null and misaligned pointers, for an id that is not 0 to 255, for any other number that is not allowed,
/// and on the native link if this kernel has no identity yet (`mk_ipi_identify`); -EEXIST if the id is in the table; -ENODEV if
/// the instance has no pool; -ENOMEM if the id is not below `MK_IPI_MAX_INSTANCES`, the pool has not enough memory, or the
/// mapping fails. Context: may sleep.
///
/// # Safety
///
/// As `mk_ipi_identify`. `config` is NULL, or points to a config, whose `cpus` is NULL or points to `nr_cpus` ids. `made` is
/// NULL, or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_create_instance(
    mk: *mut mk_ipi,
    config: *const mk_ipi_instance,
    made: *mut mk_ipi_range,
) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |mk| {
        let place = place_if_wanted(made)?;
        // SAFETY: the caller.
        let range = unsafe {
            with_config(config, |config| mk.end.create_instance(config).map_err(|e| mk.because(e)))
        }?;
        // SAFETY: it may be written (the caller).
        unsafe { put(place, mk_ipi_range { start: range.start().0, len: range.len() }) };
        Ok(0)
    }))
}

/// Adds an instance to the table. Another kernel made its region: `len` bytes at physical address `start`, page-aligned. Both are
/// 0 if the instance has no region.
///
/// Returns 0; -EINVAL as `mk_ipi_create_instance`, and for a region that is misaligned or too small, overlaps the region of
/// another instance, has no lane for this kernel, or does not have the numbers of lanes and lines and the longest message that
/// `config` gives; -EINVAL also if the numbers in the stamp of a native region contradict each other; -EPROTO if the memory is
/// not a native region that this library can use; -EEXIST if the id is in the table; -ENOMEM if the id is not below
/// `MK_IPI_MAX_INSTANCES`, or the mapping fails. Context: may sleep.
///
/// # Safety
///
/// As `mk_ipi_create_instance`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_attach_instance(
    mk: *mut mk_ipi,
    config: *const mk_ipi_instance,
    start: u64,
    len: u64,
) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |mk| {
        let region = region_of(start, len)?;
        // SAFETY: the caller.
        unsafe {
            with_config(config, |config| mk.end.attach_instance(config, region).map_err(|e| mk.because(e)))
        }
        .map(|()| 0)
    }))
}

/// Removes an instance from the table, and unmaps its region. If the region came from the pool of the instance, gives the memory
/// back. Messages that the instance has not confirmed as handled are reported by `MK_IPI_EVENT_UNSETTLED`. Before you destroy
/// this kernel's own instance, call `mk_ipi_goodbye`. Otherwise the kernel that created the region believes that this kernel
/// still uses it.
///
/// Returns 0; -EINVAL if `mk` is not an instance of the library, or the instance is not in the table; -EBUSY while calls still
/// use the instance: new calls that use it are refused from now on, and you must call again.
///
/// A native region from our pool is not unmapped while another kernel says that it has the region mapped. Then the result is also
/// -EBUSY, and nothing has changed. Write `MK_IPI_ENDING` into the directory, and call again, or call `mk_ipi_destroy_stopped`.
/// To find out which kernels have the region mapped, this call must read the region: it returns -ENOMEM if it cannot map it.
/// Context: may sleep.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_destroy_instance(mk: *mut mk_ipi, id: c_int) -> c_int {
    // SAFETY: the caller.
    unsafe { mk_ipi_destroy_stopped(mk, id, None, core::ptr::null_mut()) }
}

/// The same as `mk_ipi_destroy_instance`, for the host. Calls `has_stopped` with `ctx` for each life of a kernel that says that
/// it has the region mapped. If `has_stopped` returns 0, the result is -EBUSY. Otherwise this life is ignored. `has_stopped` must
/// return 0 if a CPU of this life may still run: the CPU could write into memory that has another owner by then. If `has_stopped`
/// is NULL, no life is ignored.
///
/// # Safety
///
/// As `mk_ipi_identify`. `has_stopped` may be called with `ctx`, and does what its comment requires.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_destroy_stopped(
    mk: *mut mk_ipi,
    id: c_int,
    has_stopped: mk_ipi_has_stopped_callback_t,
    ctx: *mut c_void,
) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |mk| {
        let destroyed = mk.end.destroy_with(id_of(id)?, |id, incarnation| {
            // SAFETY: the kernel's own function and context.
            has_stopped.is_some_and(|f| unsafe { f(id.get().into(), incarnation.get(), ctx) } != 0)
        });
        destroyed.map(|()| 0).map_err(|e| mk.because(e))
    }))
}

/// Stores the description of an instance in the table in `*info`.
///
/// Returns 0; -EINVAL for null and misaligned pointers, and for an unknown instance; -ESTALE for an instance that was destroyed.
/// Context: any.
///
/// # Safety
///
/// As `mk_ipi_identify`. `info` is NULL, or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_get_instance(
    mk: *mut mk_ipi,
    id: c_int,
    info: *mut mk_ipi_instance_info,
) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |mk| {
        let place = place(info)?;
        let found = mk.end.instance(id_of(id)?).map_err(|e| mk.because(e))?;
        let (region_start, region_len) = found.region().map_or((0, 0), |r| (r.start().0, r.len()));
        let known = mk_ipi_instance_info {
            region_start,
            region_len,
            doorbell_cpu: found.doorbell_cpu().0,
            incarnation: found.incarnation().get(),
            layout: found.layout().map_or(0, |layout| layout as u32),
            exclusive: (found.policy() == Some(SlotPolicy::Exclusive)).into(),
            vector: found.vector().get().into(),
            one_doorbell: found.one_doorbell().into(),
            reserved: 0,
        };
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { place.write(known) };
        Ok(0)
    }))
}

/// Empties every exclusive slot that the incarnation `incarnation` of the instance `dead` had claimed for a message. For the
/// host, after the CPUs of that incarnation have stopped for good.
///
/// Returns the number of slots that it emptied; -EINVAL as `mk_ipi_identify`. Context: any but NMI. It reads all slots.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_clear_claims(mk: *mut mk_ipi, dead: c_int, incarnation: u32) -> c_int {
    // SAFETY: the caller.
    code(call(unsafe { at(mk) }, |mk| {
        let incarnation = Incarnation::new(incarnation).ok_or(Errno::EINVAL)?;
        Ok(count_of(mk.end.clear_claims(id_of(dead)?, incarnation)))
    }))
}
