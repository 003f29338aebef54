// SPDX-License-Identifier: MIT OR Apache-2.0
//! The start of a spawned kernel: it reads its boot parameters, and adds itself and the instances of the directory.

use crate::args::{call, code, count_of, errno_of, place, words_at};
use crate::instance::{at, mk_ipi, Instance};
use crate::kept::Held;
use crate::life::with_config;
use crate::ops::CPlatform;
use crate::types::mk_ipi_instance;
use core::ffi::{c_char, c_int, c_void};
use core::ptr::NonNull;
use mk_ipi_core::abi::boot_param::{mk_ipi_directory, mk_ipi_shared, parse_address, BootParamError};
use mk_ipi_core::abi::directory::DirectoryError;
use mk_ipi_core::abi::rfc_v2::region_size;
use mk_ipi_core::abi::{Errno, PhysAddr, PhysRange, PAGE_SIZE};
use mk_ipi_core::directory::Directory;
use mk_ipi_core::platform::{Access, Mapping, PhysMemory};
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_core::{InstanceConfig, JoinError, LinkConfig};

/// The command line from C. `EINVAL` if it is NULL or too long.
///
/// # Safety
///
/// `cmdline` is NULL, or points to `len` bytes that are not written during `'a`.
unsafe fn line_of<'a>(cmdline: *const c_char, len: usize) -> Result<&'a [u8], Errno> {
    if cmdline.is_null() || isize::try_from(len).is_err() {
        return Err(Errno::EINVAL);
    }
    // SAFETY: not NULL, so it holds `len` bytes (the caller).
    Ok(unsafe { core::slice::from_raw_parts(cmdline.cast(), len) })
}

/// The address in `line`, which is a command line or only the value of a parameter. It is a value if it is one word that begins
/// with a digit, because no name of a parameter begins with a digit. In a command line, `find` finds the address.
fn alone_or(
    line: &[u8],
    find: impl FnOnce(&[u8]) -> Result<Option<PhysAddr>, BootParamError>,
) -> Result<Option<PhysAddr>, BootParamError> {
    let value = line.split(|&c| c == 0).next().unwrap_or(line);
    let is_alone =
        value.first().is_some_and(u8::is_ascii_digit) && value.iter().all(u8::is_ascii_alphanumeric);
    if is_alone {
        return parse_address(value).map(Some);
    }
    find(line)
}

/// The address of the kernel's own region, from a command line or from the value of `mk_ipi_shared=` alone.
fn shared_of(line: &[u8]) -> Result<Option<PhysAddr>, BootParamError> {
    alone_or(line, mk_ipi_shared)
}

/// Stores the address that `find` finds in the command line in `*address`. Returns 1; 0 if there is no such parameter.
///
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
        Some(found) => {
            let place = place(address)?;
            // SAFETY: not NULL, so it may be written (the caller).
            unsafe { place.write(found.0) };
            Ok(1)
        }
        None => Ok(0),
    }))
}

/// Reads the value of `mk_ipi_shared=` on a command line, the physical address of the kernel's own region, and stores it in
/// `*address`. The command line has `len` bytes, and need not end with NUL. The value alone is also accepted: one word that
/// begins with a digit. This is for kernels with a parser of their own that returns only the value.
///
/// Returns 1; 0 if the parameter is absent; -EINVAL for null and misaligned pointers, for an empty value, for 0, for an address
/// that is not on a page boundary, for a value that is not a number, and for other characters after the number; -ERANGE for an
/// address that is not below 2^52. Context: any.
///
/// # Safety
///
/// `cmdline` is NULL, or points to `len` bytes. `address` is NULL, or may be written.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_boot_shared(cmdline: *const c_char, len: usize, address: *mut u64) -> c_int {
    // SAFETY: the caller.
    unsafe { parameter(cmdline, len, address, shared_of) }
}

/// Reads the value of `mk_ipi_directory=`, the physical address of the directory. Otherwise the same as `mk_ipi_boot_shared`.
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
    unsafe { parameter(cmdline, len, address, |line| alone_or(line, mk_ipi_directory)) }
}

/// Starts a spawned kernel. It maps the directory at the address in `mk_ipi_directory=`. The entry whose region is at the address
/// in `mk_ipi_shared=` describes this kernel, and gives it its identity. Then it adds this kernel's own instance and all other
/// live instances. An instance that cannot be added is left out, and the operation `left_out` reports it.
///
/// The directory stays mapped until `mk_ipi_fini`, because `mk_ipi_follow` reads it. It also says which CPUs belong to a peer, if
/// the operation `peer_has_cpu` does not.
///
/// Returns the number of added instances, including this kernel's own; 0 if `mk_ipi_shared=` is absent: then the kernel has no
/// region, and `mk_ipi_interrupt` reads no message. -EINVAL if `mk` is not an instance of the library, for an invalid value of a
/// parameter, and if this kernel's own region cannot be used; -ERANGE for an address that is not below 2^52; -ENODEV if
/// `mk_ipi_directory=` is absent, or no valid live entry has that region; -EPROTO if there is no directory at its address, or if
/// this kernel's own region is not a native region that this library can use; -EACCES if `map` refuses the directory; -EAGAIN
/// while the host changes an entry; -EBUSY while another CPU makes this call; -EEXIST if this kernel is in the table already, or
/// keeps another directory; -ENOMEM if `map` fails, or the id of this kernel is not below `MK_IPI_MAX_INSTANCES`. After an error
/// everything that this call added or mapped was removed again, and boot can continue. Context: may sleep. Every other CPU of
/// this kernel must call `mk_ipi_poll` once afterwards.
///
/// # Safety
///
/// As `mk_ipi_identify`. `cmdline` is NULL, or points to `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_start(mk: *mut mk_ipi, cmdline: *const c_char, len: usize) -> c_int {
    // SAFETY: the caller.
    let (instance, line) = unsafe { (at(mk), line_of(cmdline, len)) };
    code(call(instance, |instance| {
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
    let Some(shared) = shared_of(line).map_err(|e| instance.because(e))? else { return Ok(0) };
    let start = mk_ipi_directory(line).map_err(|e| instance.because(e))?.ok_or(Errno::ENODEV)?;
    let platform = instance.end.platform();
    let is_same = |held: &Held| held.ours == Some(start);
    join_by(instance, shared, is_same, || {
        Ok(Held { mapping: map_directory(platform, start)?, ours: Some(start) })
    })
}

/// Maps the directory at `start`, with the length in its header.
fn map_directory(platform: &CPlatform, start: PhysAddr) -> Result<Mapping<AtomicU64>, Errno> {
    let mut len = PAGE_SIZE;
    // The header says how long the directory is. If it is longer than a page, it is mapped a second time with that length.
    for _ in 0..2 {
        let range = PhysRange::new(start, len).ok_or(Errno::EINVAL)?;
        let mapping = platform.map(range, Access::ReadOnly).map_err(|e| e.errno())?;
        let opened = Directory::open(mapping.words()).map(|_| ());
        let error = match opened {
            Ok(()) => return Ok(mapping),
            Err(e) => e,
        };
        // SAFETY: `map` of this platform returned it just now, and nothing is borrowed from it any more.
        unsafe { platform.unmap(mapping) };
        match error {
            DirectoryError::TooSmall(needed) if needed > len => {
                len = needed.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?;
            }
            e => return Err(errno_of(e)),
        }
    }
    Err(Errno::EINVAL)
}

/// The same as `mk_ipi_start`, for a kernel that has parsed its command line and mapped the directory itself: the directory is in
/// the `len` bytes at `memory`, and this kernel's own region is at the physical address `shared`.
///
/// Returns the number of added instances, including this kernel's own; or an error as `mk_ipi_start`. Context: may sleep.
///
/// # Safety
///
/// As `mk_ipi_identify`. `memory` is NULL, or points to `len` bytes. If this call succeeds, they stay mapped until `mk_ipi_fini`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_join(
    mk: *mut mk_ipi,
    shared: u64,
    memory: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: the caller.
    let (instance, words) = unsafe { (at(mk), words_at(memory, len)) };
    code(call(instance, |instance| {
        let words = words?;
        let is_same = |held: &Held| core::ptr::eq(held.mapping.words(), words) && held.ours.is_none();
        join_by(instance, PhysAddr(shared), is_same, || {
            // SAFETY: the words are aligned, and stay mapped while they are kept (the caller). Other kernels may write them.
            let mapping = unsafe { Mapping::new(NonNull::from(words)) };
            Directory::open(mapping.words()).map_err(errno_of)?;
            Ok(Held { mapping, ours: None })
        })
    }))
}

/// Adds the instances of a directory, and reports those that were left out. If no directory is kept yet, uses the directory that
/// `map` returns, and keeps it. If one is kept already, uses that one, but returns `EEXIST` if `is_same` is false for it.
fn join_by(
    instance: &Instance,
    shared: PhysAddr,
    is_same: impl FnOnce(&Held) -> bool,
    map: impl FnOnce() -> Result<Held, Errno>,
) -> Result<c_int, Errno> {
    let (end, platform) = (&instance.end, instance.end.platform());
    let left_out = |id, e: JoinError| platform.left_out(id, e.errno());
    let join = |directory: &Directory<'_, AtomicU64>| {
        end.join_and(shared, directory, left_out).map(count_of).map_err(|e| instance.because(e))
    };
    let by_kept = |held: &Held, directory: &Directory<'_, AtomicU64>| {
        if is_same(held) {
            join(directory)
        } else {
            Err(Errno::EEXIST)
        }
    };
    if let Some(joined) = platform.directory.with(by_kept) {
        return joined;
    }
    if let Err(held) = platform.directory.keep(map()?) {
        // Another CPU has stored a directory first.
        if held.ours.is_some() {
            // SAFETY: `map` of this platform returned it just now.
            unsafe { platform.unmap(held.mapping) };
        }
        return Err(Errno::EBUSY);
    }
    let joined = platform.directory.with(|_, directory| join(directory)).unwrap_or(Err(Errno::EPROTO));
    if joined.is_err() {
        platform.let_directory_go();
    }
    joined
}

/// Starts a spawned kernel of generation RFC v2 without a directory. Its own region is at the address in `mk_ipi_shared=`, and
/// has `me->slots` slots. `cmdline` is a command line, or the value of `mk_ipi_shared=` alone.
///
/// Returns 1; 0 if the parameter is absent: then the kernel has no region, and `mk_ipi_interrupt` reads no message. -EINVAL and
/// -ERANGE for an invalid value or config; -EEXIST if the instance is in the table already; -ENOMEM if the region cannot be
/// mapped. After an error boot can continue without a region. Context: may sleep.
///
/// # Safety
///
/// As `mk_ipi_start`. For `me` the same holds as for `config` of `mk_ipi_create_instance`.
#[no_mangle]
pub unsafe extern "C" fn mk_ipi_start_rfc_v2(
    mk: *mut mk_ipi,
    cmdline: *const c_char,
    len: usize,
    me: *const mk_ipi_instance,
) -> c_int {
    // SAFETY: the caller.
    let (instance, line) = unsafe { (at(mk), line_of(cmdline, len)) };
    code(call(instance, |instance| {
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
    let Some(shared) = shared_of(line).map_err(|e| instance.because(e))? else { return Ok(0) };
    let region = PhysRange::new(shared, region_size(slots)).ok_or(Errno::EINVAL)?;
    instance.end.attach_instance(me, Some(region)).map_err(|e| instance.because(e))?;
    instance.end.identify(me.id, me.incarnation);
    Ok(1)
}
