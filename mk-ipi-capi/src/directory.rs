// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory: who is on the machine. The host writes it, all others read it.

use crate::instance::{at, code, count_of, id_of, mk_ipi, Instance, MK_IPI_MAX_CPUS};
use crate::life::{copy_cpus, region_of};
use crate::types::{mk_ipi_record, MK_IPI_EXCLUSIVE, MK_IPI_ONE_DOORBELL};
use core::ffi::{c_int, c_void};
use mk_ipi_core::abi::directory::{
    directory_size, DirectoryError, DirectoryHeader, EntryError, EntryFlags, Layout, State, MAX_ENTRY_CPUS,
};
use mk_ipi_core::abi::{Errno, Incarnation, PhysAddr, PhysCpuId, PhysRange, Vector, PAGE_SIZE};
use mk_ipi_core::directory::{Directory, DirectoryWriter, InstanceRecord};
use mk_ipi_core::platform::{Access, PhysMemory};
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_core::{config_of, JoinError};

/// What the host keeps to write its directory. Nobody else looks at it.
#[repr(C, align(8))]
pub struct mk_ipi_directory_writer {
    _opaque: [u8; 128],
}

type Writer = DirectoryWriter<'static, AtomicU64>;
const _: () = assert!(size_of::<Option<Writer>>() <= size_of::<mk_ipi_directory_writer>());
const _: () = assert!(align_of::<Option<Writer>>() <= align_of::<mk_ipi_directory_writer>());

const fn errno_of(error: DirectoryError) -> Errno {
    match error {
        DirectoryError::NoStamp(_) | DirectoryError::Version(_) => Errno::EPROTO,
        DirectoryError::Geometry | DirectoryError::TooSmall(_) => Errno::EINVAL,
    }
}

const fn errno_of_entry(error: EntryError) -> Errno {
    match error {
        EntryError::OutOfRange => Errno::EINVAL,
        EntryError::Absent => Errno::ENODEV,
        EntryError::Changing => Errno::EAGAIN,
        _ => Errno::EPROTO,
    }
}

/// The words at `memory`.
///
/// # Safety
///
/// `memory` is NULL or `len` bytes that stay mapped for `'a` and that this kernel touches through this
/// library only.
unsafe fn words_at<'a>(memory: *const c_void, len: usize) -> Result<&'a [AtomicU64], Errno> {
    let words = memory.cast::<AtomicU64>();
    if words.is_null() || !words.is_aligned() || isize::try_from(len).is_err() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: not NULL, so `len` bytes (the caller), aligned; atomics may be shared with whoever else writes them.
    Ok(unsafe { core::slice::from_raw_parts(words, len >> 3) })
}

/// Bytes of a directory with entries for `nr_instances` (1 to 256) of `cpus_per_instance` CPUs (1 to 1024); 0
/// beyond that.
///
/// Context: any.
#[no_mangle]
pub extern "C" fn mk_ipi_directory_size(nr_instances: u32, cpus_per_instance: u32) -> u64 {
    match DirectoryHeader::new(nr_instances, cpus_per_instance) {
        Some(_) => directory_size(nr_instances, cpus_per_instance),
        None => 0,
    }
}

/// Makes an empty directory in `len` bytes at `memory`, 8-byte aligned, which nobody reads yet, and a writer
/// for it. For the host.
///
/// Returns 0; -EINVAL for null pointers, counts out of bounds, or too few bytes. Context: any.
///
/// # Safety
///
/// `writer` is NULL or may be written; `memory` is NULL or `len` bytes that stay mapped as long as the writer
/// is used.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_directory_create(
    writer: *mut mk_ipi_directory_writer,
    memory: *mut c_void,
    len: usize,
    nr_instances: u32,
    cpus_per_instance: u32,
) -> c_int {
    // SAFETY: the caller.
    code(unsafe { words_at(memory, len) }.and_then(|words| {
        if writer.is_null() || !writer.is_aligned() {
            return Err(Errno::EINVAL);
        }
        let made = DirectoryWriter::create(words, nr_instances, cpus_per_instance).map_err(errno_of)?;
        // SAFETY: not NULL, so it may be written (the caller), and large enough (asserted above).
        unsafe { writer.cast::<Option<Writer>>().write(Some(made)) };
        Ok(0)
    }))
}

/// Writes the entry of `record->instance`, whose CPUs are `record->nr_cpus` at `cpus`. Readers see it whole
/// or not at all.
///
/// Returns 0; -EINVAL for null pointers and for what readers would refuse. Context: any; one caller at a
/// time.
///
/// # Safety
///
/// `writer` is NULL or from `mk_ipi_directory_create`; `record` is NULL or a record; `cpus` is NULL or holds
/// `record->nr_cpus`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_directory_write(
    writer: *mut mk_ipi_directory_writer,
    record: *const mk_ipi_record,
    cpus: *const u64,
) -> c_int {
    if writer.is_null() || !writer.is_aligned() || record.is_null() || !record.is_aligned() {
        return Errno::EINVAL.to_c();
    }
    // SAFETY: not NULL, so a writer that `mk_ipi_directory_create` made, used by one caller at a time, and a record (the caller).
    let (writer, record) = unsafe { (&mut *writer.cast::<Option<Writer>>(), &*record) };
    let mut listed = [PhysCpuId(0); MK_IPI_MAX_CPUS];
    // SAFETY: the caller.
    code(unsafe { copy_cpus(cpus, record.nr_cpus, &mut listed) }.and_then(|()| {
        let writer = writer.as_mut().ok_or(Errno::EINVAL)?;
        let listed = listed.get(..record.nr_cpus as usize).ok_or(Errno::EINVAL)?;
        writer.write(&to_rust(record)?, listed).map(|()| 0).map_err(|e| e.errno())
    }))
}

fn to_rust(record: &mk_ipi_record) -> Result<InstanceRecord, Errno> {
    Ok(InstanceRecord {
        instance: id_of(record.instance)?,
        incarnation: Incarnation::new(record.incarnation).ok_or(Errno::EINVAL)?,
        state: State::from_u32(record.state).ok_or(Errno::EINVAL)?,
        layout: Layout::from_u32(record.layout).ok_or(Errno::EINVAL)?,
        flags: EntryFlags::from_bits(record.flags).ok_or(Errno::EINVAL)?,
        region: region_of(record.region_start, record.region_len)?,
        doorbell_cpu: PhysCpuId(record.doorbell_cpu),
        vector: u8::try_from(record.vector).ok().and_then(Vector::new).ok_or(Errno::EINVAL)?,
        nr_cpus: record.nr_cpus,
    })
}

fn to_c(record: &InstanceRecord) -> mk_ipi_record {
    let (region_start, region_len) = record.region.map_or((0, 0), |r| (r.start().0, r.len()));
    mk_ipi_record {
        region_start,
        region_len,
        doorbell_cpu: record.doorbell_cpu.0,
        instance: record.instance.get().into(),
        incarnation: record.incarnation.get(),
        state: record.state as u32,
        layout: record.layout as u32,
        flags: record.flags.bits() & (MK_IPI_EXCLUSIVE | MK_IPI_ONE_DOORBELL),
        vector: record.vector.get().into(),
        nr_cpus: record.nr_cpus,
        reserved: 0,
    }
}

/// A checked copy of an instance's entry in the directory at `memory`, to `*record`, its CPUs to `cpus`,
/// which has room for `room`.
///
/// Returns 0; -EINVAL for null pointers, an id that the directory has no entry for, or too few bytes; -EPROTO
/// if there is no directory that this library can read, or the entry makes no sense or lists more CPUs than
/// there is room for; -ENODEV if no instance has that id; -EAGAIN while the host changes the entry. Context:
/// any.
///
/// # Safety
///
/// `memory` is NULL or `len` bytes; `record` is NULL or may be written; `cpus` is NULL or has room for
/// `room`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_directory_read(
    memory: *const c_void,
    len: usize,
    instance: c_int,
    record: *mut mk_ipi_record,
    cpus: *mut u64,
    room: u32,
) -> c_int {
    // SAFETY: the caller.
    code(unsafe { words_at(memory, len) }.and_then(|words| {
        if record.is_null() || cpus.is_null() {
            return Err(Errno::EINVAL);
        }
        let mut listed = [PhysCpuId(0); MK_IPI_MAX_CPUS];
        let directory = Directory::open(words).map_err(errno_of)?;
        let listed = listed.get_mut(..(room as usize).min(MK_IPI_MAX_CPUS)).ok_or(Errno::EINVAL)?;
        let found = directory.read(id_of(instance)?, listed).map_err(errno_of_entry)?;
        for (i, cpu) in (0..found.nr_cpus as usize).zip(listed) {
            // SAFETY: `nr_cpus` is at most `room` (`read` checked it), for which there is room (the caller).
            unsafe { cpus.add(i).write(cpu.0) };
        }
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { record.write(to_c(&found)) };
        Ok(0)
    }))
}

/// Adds the instance of a directory's entry: a peer that came later, or restarted (its former life destroyed
/// first).
///
/// Returns as `mk_ipi_attach_instance`. Context: may sleep.
///
/// # Safety
///
/// As `mk_ipi_identify`; `record` is NULL or a record; `cpus` is NULL or holds `record->nr_cpus`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_attach_record(
    mk: *mut mk_ipi,
    record: *const mk_ipi_record,
    cpus: *const u64,
) -> c_int {
    // SAFETY: the caller.
    code(unsafe { at(mk) }.and_then(|mk| {
        if record.is_null() || !record.is_aligned() {
            return Err(Errno::EINVAL);
        }
        let mut listed = [PhysCpuId(0); MK_IPI_MAX_CPUS];
        // SAFETY: not NULL, so a record, and `cpus` is as the caller promises.
        let record = unsafe {
            copy_cpus(cpus, (*record).nr_cpus, &mut listed)?;
            to_rust(&*record)?
        };
        let attached = mk.end.attach_instance(&config_of(&record, &listed), record.region);
        attached.map(|()| 0).map_err(|e| e.errno())
    }))
}

/// Takes the place of the instance whose region is at `shared`, and adds all instances that the directory
/// lists as alive. One that cannot be added, unless it is this kernel's own, is left out, as `left_out` tells.
///
/// Returns how many were added, itself included; else as `mk_ipi_start`. Context: may sleep. Every other CPU
/// of this kernel calls `mk_ipi_poll` once afterwards.
///
/// # Safety
///
/// As `mk_ipi_identify`; `memory` is NULL or `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_join(
    mk: *mut mk_ipi,
    shared: u64,
    memory: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: the caller.
    let (instance, words) = unsafe { (at(mk), words_at(memory, len)) };
    code(instance.and_then(|instance| {
        let directory = Directory::open(words?).map_err(errno_of)?;
        join(instance, PhysAddr(shared), &directory)
    }))
}

/// Takes our place, and tells of the instances that were left out.
pub(crate) fn join(
    instance: &Instance,
    shared: PhysAddr,
    directory: &Directory<'_, AtomicU64>,
) -> Result<c_int, Errno> {
    let left_out = |id, e: JoinError| instance.end.platform().left_out(id, e.errno());
    instance.end.join_and(shared, directory, left_out).map(count_of).map_err(|e| e.errno())
}

/// Maps the directory at `start`, as long as it says it is, and calls `f` with it.
pub(crate) fn with_directory<R>(
    instance: &Instance,
    start: PhysAddr,
    f: impl Fn(&Directory<'_, AtomicU64>) -> Result<R, Errno>,
) -> Result<R, Errno> {
    let mut len = PAGE_SIZE;
    // A second time if it is longer than a page.
    for _ in 0..2 {
        let range = PhysRange::new(start, len).ok_or(Errno::EINVAL)?;
        let platform = instance.end.platform();
        let mapping = platform.map(range, Access::ReadOnly).map_err(|e| e.errno())?;
        let opened = Directory::open(mapping.words());
        let done = match &opened {
            Ok(directory) => Some(f(directory)),
            Err(DirectoryError::TooSmall(needed)) if *needed > len => {
                len = needed.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?;
                None
            }
            Err(e) => Some(Err(errno_of(*e))),
        };
        // SAFETY: it came from `map` of this platform, and `f` has returned.
        unsafe { platform.unmap(mapping) };
        if let Some(done) = done {
            return done;
        }
    }
    Err(Errno::EINVAL)
}

const _: () = assert!(MAX_ENTRY_CPUS as usize >= MK_IPI_MAX_CPUS);
