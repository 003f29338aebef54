// SPDX-License-Identifier: MIT OR Apache-2.0
//! Life cycle: who this kernel is, instances and their regions, the start of a spawned kernel.

use crate::directory::{join, with_directory};
use crate::instance::{at, code, count_of, id_of, mk_ipi, Instance, MK_IPI_MAX_CPUS};
use crate::types::{mk_ipi_instance, mk_ipi_instance_info, mk_ipi_range, MK_IPI_NATIVE, MK_IPI_RFC_V2};
use core::ffi::{c_char, c_int};
use mk_ipi_core::abi::boot_param::{mk_ipi_directory, mk_ipi_shared, BootParamError};
use mk_ipi_core::abi::directory::Layout;
use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::rfc_v2::region_size;
use mk_ipi_core::abi::{Errno, Incarnation, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::{InstanceConfig, LinkConfig, Occupied};

/// Says who this kernel is: until then interrupts are ignored, sends refused, and native links not made.
///
/// Peers may have sent before: every other CPU of this kernel calls `mk_ipi_poll` once after this. Returns 0;
/// -EINVAL if `mk` is none, `instance` is not 0 to 255, or `incarnation` is 0. Context: any but NMI.
///
/// # Safety
///
/// `mk` is NULL, zeroed storage, or an instance of the library that is not given up meanwhile.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_identify(mk: *mut mk_ipi, instance: c_int, incarnation: u32) -> c_int {
    // SAFETY: the caller.
    code(unsafe { at(mk) }.and_then(|mk| {
        let incarnation = Incarnation::new(incarnation).ok_or(Errno::EINVAL)?;
        mk.end.identify(id_of(instance)?, incarnation);
        Ok(0)
    }))
}

/// Who this kernel is; which life of it, to `*incarnation`, unless that is NULL.
///
/// Returns 0 to 255; -EINVAL if `mk` is none; -ENODEV if nobody has said it. Context: any.
///
/// # Safety
///
/// As `mk_ipi_identify`; `incarnation` is NULL or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_identity(mk: *mut mk_ipi, incarnation: *mut u32) -> c_int {
    // SAFETY: the caller.
    code(unsafe { at(mk) }.and_then(|mk| {
        let (instance, life) = mk.end.identity().ok_or(Errno::ENODEV)?;
        if !incarnation.is_null() {
            // SAFETY: not NULL, so it may be written (the caller).
            unsafe { incarnation.write(life.get()) };
        }
        Ok(instance.get().into())
    }))
}

/// Checks a config and calls `f` with it.
///
/// # Safety
///
/// `config` is NULL or a config whose `cpus` is NULL or holds `nr_cpus`.
unsafe fn with_config<R>(
    config: *const mk_ipi_instance,
    f: impl FnOnce(&InstanceConfig<'_>) -> Result<R, Errno>,
) -> Result<R, Errno> {
    if config.is_null() || !config.is_aligned() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: not NULL, so a config (the caller).
    let config = unsafe { &*config };
    let mut cpus = [PhysCpuId(0); MK_IPI_MAX_CPUS];
    // SAFETY: `cpus` and `nr_cpus` are as the caller promises.
    unsafe { copy_cpus(config.cpus, config.nr_cpus, &mut cpus) }?;
    f(&InstanceConfig {
        id: id_of(config.id)?,
        incarnation: Incarnation::new(config.incarnation).ok_or(Errno::EINVAL)?,
        cpus: cpus.get(..config.nr_cpus as usize).ok_or(Errno::EINVAL)?,
        doorbell_cpu: PhysCpuId(config.doorbell_cpu),
        vector: u8::try_from(config.vector).ok().and_then(Vector::new).ok_or(Errno::EINVAL)?,
        one_doorbell: config.one_doorbell != 0,
        link: link_of(config)?,
    })
}

/// Copies the CPUs that C lists.
///
/// # Safety
///
/// `from` is NULL or holds `count`.
pub(crate) unsafe fn copy_cpus(from: *const u64, count: u32, to: &mut [PhysCpuId]) -> Result<(), Errno> {
    if from.is_null() || !from.is_aligned() || count as usize > to.len() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: not NULL, so it holds `count` (the caller).
    let from = unsafe { core::slice::from_raw_parts(from, count as usize) };
    to.iter_mut().zip(from).for_each(|(to, from)| *to = PhysCpuId(*from));
    Ok(())
}

fn link_of(config: &mk_ipi_instance) -> Result<LinkConfig, Errno> {
    match (config.layout, config.lanes, config.lines, config.max_len) {
        (MK_IPI_RFC_V2, ..) => {
            let policy = if config.exclusive != 0 { Occupied::Exclusive } else { Occupied::Overwrite };
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

/// Adds an instance and makes its region from its pool: zeroed, mapped, then published. Where it lies to
/// `*made`, unless that is NULL.
///
/// Returns 0; -EINVAL for null pointers, an id out of range and any other number that is not allowed, and on
/// the native link without `mk_ipi_identify`; -EEXIST if the id is there; -ENODEV without a pool; -ENOMEM if
/// the pool is exhausted or the mapping fails. Context: may sleep.
///
/// # Safety
///
/// As `mk_ipi_identify`; `config` is NULL or its `cpus` is NULL or holds `nr_cpus`; `made` is NULL or may be
/// written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_create_instance(
    mk: *mut mk_ipi,
    config: *const mk_ipi_instance,
    made: *mut mk_ipi_range,
) -> c_int {
    // SAFETY: the caller.
    code(unsafe { at(mk) }.and_then(|mk| {
        // SAFETY: the caller.
        let range =
            unsafe { with_config(config, |config| mk.end.create_instance(config).map_err(|e| e.errno())) }?;
        if !made.is_null() {
            // SAFETY: not NULL, so it may be written (the caller).
            unsafe { made.write(mk_ipi_range { start: range.start().0, len: range.len() }) };
        }
        Ok(0)
    }))
}

/// Adds an instance whose region another kernel made: `len` bytes at `start`, page-aligned; 0 and 0 if it has
/// none.
///
/// Returns 0; -EINVAL as `mk_ipi_create_instance`, and for a region that is misaligned, too small, without a
/// lane for us, or of another geometry than `config` says; -EPROTO if there is no native region that this
/// library can use; -EEXIST; -ENOMEM if the mapping fails. Context: may sleep.
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
    code(unsafe { at(mk) }.and_then(|mk| {
        let region = region_of(start, len)?;
        // SAFETY: the caller.
        unsafe { with_config(config, |config| mk.end.attach_instance(config, region).map_err(|e| e.errno())) }
            .map(|()| 0)
    }))
}

/// The region that C names; `None` for 0 and 0.
pub(crate) fn region_of(start: u64, len: u64) -> Result<Option<PhysRange>, Errno> {
    match (start, len) {
        (0, 0) => Ok(None),
        _ => PhysRange::new(PhysAddr(start), len).map(Some).ok_or(Errno::EINVAL),
    }
}

/// Takes an instance out of the table, unmaps its region and gives back what came from its pool.
///
/// Returns 0; -EINVAL if `mk` or the instance is none (nothing changed); -EBUSY while calls still use it: it
/// is closed to new ones, call again. Context: may sleep.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_destroy_instance(mk: *mut mk_ipi, id: c_int) -> c_int {
    // SAFETY: the caller.
    code(
        unsafe { at(mk) }
            .and_then(|mk| mk.end.destroy_instance(id_of(id)?).map(|()| 0).map_err(|e| e.errno())),
    )
}

/// What is known of an instance, to `*info`.
///
/// Returns 0; -EINVAL for null pointers and an unknown instance; -ESTALE for one that was destroyed. Context:
/// any.
///
/// # Safety
///
/// As `mk_ipi_identify`; `info` is NULL or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_get_instance(
    mk: *mut mk_ipi,
    id: c_int,
    info: *mut mk_ipi_instance_info,
) -> c_int {
    // SAFETY: the caller.
    code(unsafe { at(mk) }.and_then(|mk| {
        let found = mk.end.instance(id_of(id)?).map_err(|e| e.errno())?;
        if info.is_null() {
            return Err(Errno::EINVAL);
        }
        let (region_start, region_len) = found.region().map_or((0, 0), |r| (r.start().0, r.len()));
        let known = mk_ipi_instance_info {
            region_start,
            region_len,
            doorbell_cpu: found.doorbell_cpu().0,
            incarnation: found.incarnation().get(),
            layout: found.layout().map_or(0, |layout| layout as u32),
            exclusive: (found.policy() == Some(Occupied::Exclusive)).into(),
            vector: found.vector().get().into(),
            nr_cpus: u32::try_from(found.cpus().len()).unwrap_or(0),
            one_doorbell: found.one_doorbell().into(),
        };
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { info.write(known) };
        Ok(0)
    }))
}

/// Empties every exclusive slot that a dead kernel had claimed. For the host, when that incarnation's CPUs
/// have stopped for good.
///
/// Returns how many; -EINVAL as `mk_ipi_identify`. Context: any but NMI; looks at all slots.
///
/// # Safety
///
/// As `mk_ipi_identify`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_clear_claims(mk: *mut mk_ipi, dead: c_int, incarnation: u32) -> c_int {
    // SAFETY: the caller.
    code(unsafe { at(mk) }.and_then(|mk| {
        let incarnation = Incarnation::new(incarnation).ok_or(Errno::EINVAL)?;
        Ok(count_of(mk.end.clear_claims(id_of(dead)?, incarnation)))
    }))
}

/// The command line that C names.
///
/// # Safety
///
/// `cmdline` is NULL or holds `len` bytes for `'a`.
unsafe fn line_of<'a>(cmdline: *const c_char, len: usize) -> Result<&'a [u8], Errno> {
    if cmdline.is_null() || isize::try_from(len).is_err() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: not NULL, so it holds `len` bytes (the caller).
    Ok(unsafe { core::slice::from_raw_parts(cmdline.cast(), len) })
}

/// # Safety
///
/// As [`mk_ipi_boot_shared`].
unsafe fn parameter(
    cmdline: *const c_char,
    len: usize,
    address: *mut u64,
    find: impl FnOnce(&[u8]) -> Result<Option<PhysAddr>, BootParamError>,
) -> c_int {
    // SAFETY: the caller.
    code(unsafe { line_of(cmdline, len) }.and_then(|line| match find(line).map_err(|e| e.errno())? {
        Some(_) if address.is_null() => Err(Errno::EINVAL),
        Some(found) => {
            // SAFETY: not NULL, so it may be written (the caller).
            unsafe { address.write(found.0) };
            Ok(1)
        }
        None => Ok(0),
    }))
}

/// The value of `mk_ipi_shared=` on a command line of `len` bytes, which need not end with NUL: the address
/// of the kernel's own region.
///
/// Returns 1 and the address in `*address`; 0 if the parameter is absent; -EINVAL for null pointers, an empty
/// value, 0, what is no number, and garbage behind it; -ERANGE for what does not fit 52 bits. Context: any.
///
/// # Safety
///
/// `cmdline` is NULL or holds `len` bytes; `address` is NULL or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_boot_shared(cmdline: *const c_char, len: usize, address: *mut u64) -> c_int {
    // SAFETY: the caller.
    unsafe { parameter(cmdline, len, address, mk_ipi_shared) }
}

/// The value of `mk_ipi_directory=`: the address of the directory. Otherwise as `mk_ipi_boot_shared`.
///
/// # Safety
///
/// As `mk_ipi_boot_shared`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_boot_directory(
    cmdline: *const c_char,
    len: usize,
    address: *mut u64,
) -> c_int {
    // SAFETY: the caller.
    unsafe { parameter(cmdline, len, address, mk_ipi_directory) }
}

/// The start of a spawned kernel: finds itself by `mk_ipi_shared=` in the directory at `mk_ipi_directory=`,
/// and adds all instances that are alive. One that cannot be added is left out, as `left_out` tells.
///
/// Returns how many were added; 0 if `mk_ipi_shared=` is absent: the kernel has no region, and interrupts are
/// ignored. -EINVAL and -ERANGE for a value that is none; -ENODEV without a directory, or if no live entry
/// has that region; -EPROTO if there is no directory; -EAGAIN while the host changes it; -ENOMEM. After an
/// error nothing that this call added stays, and boot can go on. Context: may sleep.
///
/// # Safety
///
/// As `mk_ipi_identify`; `cmdline` is NULL or holds `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_start(mk: *mut mk_ipi, cmdline: *const c_char, len: usize) -> c_int {
    // SAFETY: the caller.
    let (instance, line) = unsafe { (at(mk), line_of(cmdline, len)) };
    code(instance.and_then(|instance| {
        let started = line.and_then(|line| start(instance, line));
        if started.is_err() {
            instance
                .end
                .platform()
                .log(c"mk_ipi: no link: mk_ipi_shared= or mk_ipi_directory= cannot be used");
        }
        started
    }))
}

fn start(instance: &Instance, line: &[u8]) -> Result<c_int, Errno> {
    let Some(shared) = mk_ipi_shared(line).map_err(|e| e.errno())? else { return Ok(0) };
    let directory = mk_ipi_directory(line).map_err(|e| e.errno())?.ok_or(Errno::ENODEV)?;
    with_directory(instance, directory, |directory| join(instance, shared, directory))
}

/// The start of a spawned kernel of generation RFC v2, without a directory: its own region is at
/// `mk_ipi_shared=` and has `me->slots` slots.
///
/// Returns 1; 0 if the parameter is absent: no region, and interrupts are ignored. -EINVAL and -ERANGE for a
/// value or a config that is none; -ENOMEM if the region cannot be mapped. After an error boot can go on
/// without a region. Context: may sleep.
///
/// # Safety
///
/// As `mk_ipi_start`; `me` as `config` of `mk_ipi_create_instance`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_start_rfc_v2(
    mk: *mut mk_ipi,
    cmdline: *const c_char,
    len: usize,
    me: *const mk_ipi_instance,
) -> c_int {
    // SAFETY: the caller.
    let (instance, line) = unsafe { (at(mk), line_of(cmdline, len)) };
    code(instance.and_then(|instance| {
        let started = line.and_then(|line| {
            // SAFETY: the caller.
            unsafe { with_config(me, |me| start_rfc_v2(instance, line, me)) }
        });
        if started.is_err() {
            instance.end.platform().log(c"mk_ipi: no region: mk_ipi_shared= cannot be used");
        }
        started
    }))
}

fn start_rfc_v2(instance: &Instance, line: &[u8], me: &InstanceConfig<'_>) -> Result<c_int, Errno> {
    let LinkConfig::RfcV2 { slots, .. } = me.link else { return Err(Errno::EINVAL) };
    let Some(shared) = mk_ipi_shared(line).map_err(|e| e.errno())? else { return Ok(0) };
    let region = PhysRange::new(shared, region_size(slots)).ok_or(Errno::EINVAL)?;
    instance.end.attach_instance(me, Some(region)).map_err(|e| e.errno())?;
    instance.end.identify(me.id, me.incarnation);
    Ok(1)
}

const _: () = assert!(Layout::RfcV2 as u32 == MK_IPI_RFC_V2 && Layout::Native as u32 == MK_IPI_NATIVE);
