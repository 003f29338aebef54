// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory of instances. The host writes it. All kernels read it.

use crate::args::{
    call, code, cpus_at, errno_of, given, id_of, place, region_of, room_at, wide_code, words_at,
};
use crate::instance::{at, mk_ipi};
use crate::types::{
    mk_ipi_conflict, mk_ipi_record, MK_IPI_CONFLICT_CPU, MK_IPI_CONFLICT_CPU_TWICE, MK_IPI_CONFLICT_DOORBELL,
    MK_IPI_CONFLICT_ENTRY, MK_IPI_CONFLICT_LIVE, MK_IPI_CONFLICT_NONE, MK_IPI_CONFLICT_NR_CPUS,
    MK_IPI_CONFLICT_ON_DIRECTORY, MK_IPI_CONFLICT_OVER, MK_IPI_CONFLICT_REGION, MK_IPI_CONFLICT_UNREADABLE,
    MK_IPI_EXCLUSIVE, MK_IPI_ONE_DOORBELL,
};
use core::ffi::{c_int, c_void};
use mk_ipi_core::abi::directory::{directory_size, DirectoryHeader, EntryError, EntryFlags, Layout, State};
use mk_ipi_core::abi::{Errno, Incarnation, InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector, PAGE_SIZE};
use mk_ipi_core::config_of;
use mk_ipi_core::directory::{Directory, DirectoryWriter, InstanceRecord, WriteError};
use mk_ipi_core::sync::AtomicU64;

/// Storage of the host's directory writer. Its content is private to the library.
#[repr(C, align(8))]
pub struct mk_ipi_directory_writer {
    _opaque: [u8; 128],
}

impl core::fmt::Debug for mk_ipi_directory_writer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("mk_ipi_directory_writer").finish_non_exhaustive()
    }
}

type Writer = DirectoryWriter<'static, AtomicU64>;

/// The content of a `struct mk_ipi_directory_writer`.
struct Place {
    writer: Option<Writer>,
    /// Why the last write was refused.
    conflict: mk_ipi_conflict,
}

const _: () = assert!(size_of::<Place>() <= size_of::<mk_ipi_directory_writer>());
const _: () = assert!(align_of::<Place>() <= align_of::<mk_ipi_directory_writer>());

const fn errno_of_entry(error: EntryError) -> Errno {
    match error {
        EntryError::OutOfRange => Errno::EINVAL,
        EntryError::Absent => Errno::ENODEV,
        EntryError::Changing => Errno::EAGAIN,
        _ => Errno::EPROTO,
    }
}

/// Returns how many bytes a directory needs for `nr_instances` entries (1 to 256), each with room for `cpus_per_instance` CPUs (1
/// to 1024); 0 if a number is out of bounds. Context: any.
#[no_mangle]
pub extern "C" fn mk_ipi_directory_size(nr_instances: u32, cpus_per_instance: u32) -> u64 {
    match DirectoryHeader::new(nr_instances, cpus_per_instance) {
        Some(_) => directory_size(nr_instances, cpus_per_instance),
        None => 0,
    }
}

/// Calls `make` with the words at `memory`, and stores the writer that it returns in `writer`.
///
/// # Safety
///
/// As [`mk_ipi_directory_create`].
unsafe fn make_writer(
    writer: *mut mk_ipi_directory_writer,
    memory: *mut c_void,
    len: usize,
    make: impl FnOnce(&'static [AtomicU64]) -> Result<Writer, Errno>,
) -> c_int {
    // SAFETY: the caller.
    code(unsafe { words_at(memory, len) }.and_then(|words| {
        let place = place(writer)?.cast::<Place>();
        let made = Place { writer: Some(make(words)?), conflict: NO_CONFLICT };
        // SAFETY: not NULL, so it may be written (the caller), and large enough (asserted above).
        unsafe { place.write(made) };
        Ok(0)
    }))
}

/// Makes an empty directory in the `len` bytes at `memory`, and a writer for it. `memory` is 8-byte aligned, and no kernel reads
/// it yet. For the host.
///
/// Returns 0; -EINVAL for null and misaligned pointers, counts out of bounds, or too few bytes. Context: any.
///
/// # Safety
///
/// `writer` is NULL, or may be written. `memory` is NULL, or points to `len` bytes that stay mapped as long as the writer
/// is used.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_directory_create(
    writer: *mut mk_ipi_directory_writer,
    memory: *mut c_void,
    len: usize,
    nr_instances: u32,
    cpus_per_instance: u32,
) -> c_int {
    let create = |words| DirectoryWriter::create(words, nr_instances, cpus_per_instance).map_err(errno_of);
    // SAFETY: the caller.
    unsafe { make_writer(writer, memory, len, create) }
}

/// Makes a writer for the directory at `memory`, which a former life of the host made. The entries of the directory stay.
///
/// Returns 0; -EINVAL for null and misaligned pointers, or too few bytes; -EPROTO if the memory holds no directory that this
/// library can read. Context: any.
///
/// # Safety
///
/// As `mk_ipi_directory_create`. No other writer uses the directory any more.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_directory_take_over(
    writer: *mut mk_ipi_directory_writer,
    memory: *mut c_void,
    len: usize,
) -> c_int {
    // SAFETY: the caller.
    unsafe { make_writer(writer, memory, len, |words| DirectoryWriter::take_over(words).map_err(errno_of)) }
}

/// The content of the storage at `writer`. `EINVAL` for NULL, and for a misaligned pointer.
///
/// # Safety
///
/// `writer` is NULL, or points to a writer that `make_writer` stored. Only this call uses it during `'a`.
unsafe fn writer_at<'a>(writer: *mut mk_ipi_directory_writer) -> Result<&'a mut Place, Errno> {
    let mut place = place(writer)?.cast::<Place>();
    // SAFETY: not NULL, so it holds a writer, and only this call uses it (the caller).
    Ok(unsafe { place.as_mut() })
}

/// Calls `change` with the writer at `writer`, and stores the writer that it returns in its place.
///
/// # Safety
///
/// As [`mk_ipi_directory_write`].
unsafe fn change_writer(
    writer: *mut mk_ipi_directory_writer,
    change: impl FnOnce(Writer) -> Writer,
) -> Result<c_int, Errno> {
    // SAFETY: the caller.
    let place = unsafe { writer_at(writer) }?;
    place.writer = Some(change(place.writer.take().ok_or(Errno::EINVAL)?));
    Ok(0)
}

/// Writes the physical address of the directory into the directory's header. From then on `mk_ipi_directory_write` refuses
/// regions that overlap the directory. Call it before any kernel reads the directory.
///
/// Returns 0; -EINVAL for null and misaligned pointers, and for an address that is 0, not on a page boundary, or not below 2^52.
/// Context: any; one caller at a time.
///
/// # Safety
///
/// `writer` is NULL, or points to a writer that `mk_ipi_directory_create` or `mk_ipi_directory_take_over` made.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_directory_set_address(
    writer: *mut mk_ipi_directory_writer,
    phys: u64,
) -> c_int {
    let phys = PhysAddr(phys);
    if phys.0 == 0 || !phys.is_page_aligned() || PhysRange::new(phys, PAGE_SIZE).is_none() {
        return Errno::EINVAL.to_c();
    }
    // SAFETY: the caller.
    code(unsafe { change_writer(writer, |writer| writer.at(phys)) })
}

/// Writes the physical id of the CPU that booted the machine into the directory's header. No kernel may stop that CPU. Call it
/// before any kernel reads the directory.
///
/// Returns 0; -EINVAL for null and misaligned pointers, and for the id 2^64 - 1. Context: any; one caller at a time.
///
/// # Safety
///
/// As `mk_ipi_directory_set_address`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_directory_set_boot_cpu(
    writer: *mut mk_ipi_directory_writer,
    cpu: u64,
) -> c_int {
    if cpu == u64::MAX {
        return Errno::EINVAL.to_c();
    }
    // SAFETY: the caller.
    code(unsafe { change_writer(writer, |writer| writer.boot_cpu(PhysCpuId(cpu))) })
}

/// Writes the entry of `record->instance`. `cpus` points to the physical ids of its `record->nr_cpus` CPUs, at most as many as an
/// entry has room for. A reader gets either the old entry or the new one.
///
/// Returns 0; -EBUSY if a CPU or the region belongs to another instance, and for a change that is not allowed while the instance
/// is live; -EPROTO if the entry of another instance cannot be read; -EINVAL for null and misaligned pointers, and for every
/// other conflict. After an error nothing was written, and `mk_ipi_directory_conflict` says why.
///
/// After success `mk_ipi_directory_generation` returns the new generation. Pass it to `mk_ipi_behind`, which finds the instances
/// that have not followed the directory to this generation. Context: any; one caller at a time.
///
/// # Safety
///
/// As `mk_ipi_directory_set_address`. `record` is NULL, or points to a record. `cpus` is NULL, or points to `record->nr_cpus`
/// ids.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_directory_write(
    writer: *mut mk_ipi_directory_writer,
    record: *const mk_ipi_record,
    cpus: *const u64,
) -> c_int {
    // SAFETY: the caller.
    let (place, record) = unsafe { (writer_at(writer), given(record)) };
    code(place.and_then(|place| {
        place.conflict = conflict(MK_IPI_CONFLICT_ENTRY);
        let record = record?;
        // SAFETY: the caller.
        let listed = unsafe { cpus_at(cpus, record.nr_cpus) }?;
        let written = place.writer.as_mut().ok_or(Errno::EINVAL)?.write(&to_rust(record)?, listed);
        place.conflict = written.err().map_or(NO_CONFLICT, conflict_of);
        written.map(|_| 0).map_err(|e| e.errno())
    }))
}

const NO_CONFLICT: mk_ipi_conflict = conflict(MK_IPI_CONFLICT_NONE);

const fn conflict(why: u32) -> mk_ipi_conflict {
    mk_ipi_conflict { cpu: 0, why, instance: -1, incarnation: 0, reserved: 0 }
}

fn conflict_of(error: WriteError) -> mk_ipi_conflict {
    let with_cpu = |why, cpu: PhysCpuId| mk_ipi_conflict { cpu: cpu.0, ..conflict(why) };
    let with = |why, id: InstanceId| mk_ipi_conflict { instance: id.get().into(), ..conflict(why) };
    match error {
        WriteError::Entry(_) => conflict(MK_IPI_CONFLICT_ENTRY),
        WriteError::BadCpus => conflict(MK_IPI_CONFLICT_NR_CPUS),
        WriteError::DoorbellNotListed(cpu) => with_cpu(MK_IPI_CONFLICT_DOORBELL, cpu),
        WriteError::CpuTwice(cpu) => with_cpu(MK_IPI_CONFLICT_CPU_TWICE, cpu),
        WriteError::CpuTaken(cpu, id) => mk_ipi_conflict { cpu: cpu.0, ..with(MK_IPI_CONFLICT_CPU, id) },
        WriteError::RegionTaken(id) => with(MK_IPI_CONFLICT_REGION, id),
        WriteError::OnDirectory => conflict(MK_IPI_CONFLICT_ON_DIRECTORY),
        WriteError::Live(old) => {
            let incarnation = old.incarnation.get();
            mk_ipi_conflict { incarnation, ..with(MK_IPI_CONFLICT_LIVE, old.instance) }
        }
        WriteError::Over(id) => with(MK_IPI_CONFLICT_OVER, id),
        WriteError::Unreadable(id, _) => with(MK_IPI_CONFLICT_UNREADABLE, id),
    }
}

/// Stores in `*conflict` why the last `mk_ipi_directory_write` was refused; `MK_IPI_CONFLICT_NONE` if it was not refused.
///
/// Returns 0; -EINVAL for null and misaligned pointers. Context: any; one caller at a time.
///
/// # Safety
///
/// As `mk_ipi_directory_set_address`. `conflict` is NULL, or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_directory_conflict(
    writer: *mut mk_ipi_directory_writer,
    conflict: *mut mk_ipi_conflict,
) -> c_int {
    // SAFETY: the caller.
    code(unsafe { writer_at(writer) }.and_then(|found| {
        let place = place(conflict)?;
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { place.write(found.conflict) };
        Ok(0)
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

/// Calls `f` with the directory at `memory`.
///
/// # Safety
///
/// As [`mk_ipi_directory_read`].
unsafe fn read<R>(
    memory: *const c_void,
    len: usize,
    f: impl FnOnce(&Directory<'_, AtomicU64>) -> Result<R, Errno>,
) -> Result<R, Errno> {
    // SAFETY: the caller.
    let words = unsafe { words_at(memory, len) }?;
    f(&Directory::open(words).map_err(errno_of)?)
}

/// Copies the entry of an instance from the directory at `memory`, and checks the copy. Stores the entry in `*record`, and the
/// physical ids of its CPUs in `cpus`, which has room for `room` ids. `record->nr_cpus` is the number of CPUs, at most
/// `MK_IPI_MAX_ENTRY_CPUS`. If `cpus` is NULL and `room` is 0, the CPUs are not copied.
///
/// Returns 0; -EINVAL for null and misaligned pointers, for an id that is too large for this directory, and for too few bytes;
/// -EPROTO if the memory holds no directory that this library can read, and if the entry is invalid or lists more CPUs than
/// `room`; -ENODEV if the state of the entry is absent; -EAGAIN while the host changes the entry. After an error the content of
/// `cpus` is undefined. Context: any.
///
/// # Safety
///
/// `memory` is NULL, or points to `len` bytes. `record` is NULL, or may be written. `cpus` is NULL, or has room for `room` ids.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_directory_read(
    memory: *const c_void,
    len: usize,
    instance: c_int,
    record: *mut mk_ipi_record,
    cpus: *mut u64,
    room: u32,
) -> c_int {
    let find = |directory: &Directory<'_, AtomicU64>| {
        let (place, id) = (place(record)?, id_of(instance)?);
        let found = if cpus.is_null() && room == 0 {
            directory.record(id)
        } else {
            // SAFETY: the caller.
            directory.read(id, unsafe { room_at(cpus, room) }?)
        };
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { place.write(to_c(&found.map_err(errno_of_entry)?)) };
        Ok(0)
    };
    // SAFETY: the caller.
    code(unsafe { read(memory, len, find) })
}

/// Reads the generation of the directory at `memory`: a 32-bit number, which the host changes after each change of an entry.
///
/// Returns the generation; -EINVAL and -EPROTO as `mk_ipi_directory_read`. Context: any.
///
/// # Safety
///
/// `memory` is NULL, or points to `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_directory_generation(memory: *const c_void, len: usize) -> i64 {
    // SAFETY: the caller.
    wide_code(unsafe { read(memory, len, |directory| Ok(directory.generation())) })
}

/// Stores in `*cpu` the physical id of the CPU that booted the machine. No kernel may stop this CPU.
///
/// Returns 1; 0 if the directory does not contain that id, and then `*cpu` is unchanged; -EINVAL and -EPROTO as
/// `mk_ipi_directory_read`. Context: any.
///
/// # Safety
///
/// `memory` is NULL, or points to `len` bytes. `cpu` is NULL, or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_directory_boot_cpu(
    memory: *const c_void,
    len: usize,
    cpu: *mut u64,
) -> c_int {
    let find = |directory: &Directory<'_, AtomicU64>| {
        let place = place(cpu)?;
        let Some(found) = directory.boot_cpu() else { return Ok(0) };
        // SAFETY: not NULL, so it may be written (the caller).
        unsafe { place.write(found.0) };
        Ok(1)
    };
    // SAFETY: the caller.
    code(unsafe { read(memory, len, find) })
}

/// Checks in the directory at `memory` whether the instance is live and has the CPU with physical id `cpu`. The operation
/// `peer_has_cpu` can call it.
///
/// Returns 1 if it has the CPU, otherwise 0. The result is also 0 if the directory has no such entry, or the entry is invalid.
/// Returns -EINVAL for null and misaligned pointers, an id that is not 0 to 255, or too few bytes; -EPROTO and -EAGAIN as
/// `mk_ipi_directory_read`. Context: any.
///
/// # Safety
///
/// `memory` is NULL, or points to `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_directory_has_cpu(
    memory: *const c_void,
    len: usize,
    instance: c_int,
    cpu: u64,
) -> c_int {
    let find = |directory: &Directory<'_, AtomicU64>| {
        directory.has_cpu(id_of(instance)?, PhysCpuId(cpu)).map(c_int::from).map_err(errno_of_entry)
    };
    // SAFETY: the caller.
    code(unsafe { read(memory, len, find) })
}

/// Adds an instance with the description in an entry of the directory. A kernel that calls `mk_ipi_follow` does not need this
/// call. If the instance is in the table already, call `mk_ipi_destroy_instance` first.
///
/// Returns as `mk_ipi_attach_instance`. Context: may sleep.
///
/// # Safety
///
/// As `mk_ipi_identify`. `record` is NULL, or points to a record. `cpus` is NULL, or points to `record->nr_cpus` ids.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_attach_record(
    mk: *mut mk_ipi,
    record: *const mk_ipi_record,
    cpus: *const u64,
) -> c_int {
    // SAFETY: the caller.
    let (mk, record) = unsafe { (at(mk), given(record)) };
    code(call(mk, |mk| {
        let record = record?;
        // SAFETY: the caller.
        let listed = unsafe { cpus_at(cpus, record.nr_cpus) }?;
        let record = to_rust(record)?;
        let attached = mk.end.attach_instance(&config_of(&record, listed), record.region);
        attached.map(|()| 0).map_err(|e| mk.because(e))
    }))
}
