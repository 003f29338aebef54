// SPDX-License-Identifier: MIT OR Apache-2.0
//! This Linux as a kernel that a host started. It finds its own entry and the other kernels in the directory, which the
//! host writes. Each tick reads the directory again, and adds or removes the kernels that have changed.

use crate::failure::{failure, refuse, Result};
use crate::listed::set_reader;
use crate::lock::Locked;
use crate::peers::MAX_INSTANCES;
use crate::platform::{Linux, ENDPOINT};
use crate::role::Told;
use crate::{cpus, ffi, moves, services, vector};
use kernel::prelude::*;
use mk_ipi_core::abi::directory::{DirectoryError, DirectoryHeader, Layout, State};
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::directory::Directory;
use mk_ipi_core::platform::{Access, Mapping, PhysMemory};
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_core::{DestroyError, Followed, JoinError};

/// How long this kernel tries again to read the directory while the host is writing it, in milliseconds.
const CHANGING_MS: u32 = 1_000;

/// This kernel's connection to the other kernels. Dropping this says goodbye to them.
pub struct Joined {
    mapping: Option<Mapping<AtomicU64>>,
}

/// The directory, for the function `follow`; `None` before this kernel has joined and after it has left.
// SAFETY: no other `Locked` has the number 3.
static FOLLOWED: Locked<Option<Directory<'static, AtomicU64>>> = unsafe { Locked::new(3, None) };

/// Maps memory of the host, to read it. `len` is in bytes.
fn map(at: PhysAddr, len: u64) -> Result<Mapping<AtomicU64>> {
    let range = PhysRange::new(at, len.next_multiple_of(8));
    let mapped = range.and_then(|range| Linux.map(range, Access::ReadOnly).ok());
    mapped.map_or_else(
        || refuse!(ENOMEM, "{len} bytes at {:#x} cannot be mapped, or the memory map does not say that they are reserved", at.0),
        Ok,
    )
}

/// The words of a mapping.
///
/// # Safety
///
/// The words must not be used after `mapping` is unmapped.
unsafe fn words(mapping: &Mapping<AtomicU64>) -> &'static [AtomicU64] {
    // SAFETY: the memory is mapped as long as the words are used (the caller promises it).
    unsafe { &*mapping.as_ptr().as_ptr() }
}

/// The length of the directory at `at`, in bytes.
fn len_of(at: PhysAddr) -> Result<u64> {
    let head = map(at, size_of::<DirectoryHeader>() as u64)?;
    // SAFETY: the memory is unmapped below, after the last use of the words.
    let found = Directory::open(unsafe { words(&head) }).map(drop);
    // SAFETY: the mapping is not used any more.
    unsafe { Linux.unmap(head) };
    match found {
        Err(DirectoryError::TooSmall(len)) => Ok(len),
        Ok(()) => Ok(size_of::<DirectoryHeader>() as u64),
        Err(e) => refuse!(ENODEV, "the directory at {:#x}: {e:?}", at.0),
    }
}

impl Joined {
    /// Joins the other kernels, with the region and the directory that the command line names. Peers ring the vector `bell`.
    pub fn new(told: Told, bell: Vector) -> Result<Self> {
        let mapping = map(told.directory, len_of(told.directory)?)?;
        // SAFETY: `drop` unmaps the directory after `FOLLOWED` is empty and the endpoint knows no instance. After that nothing
        // uses the words.
        let words = unsafe { words(&mapping) };
        let joined = Self { mapping: Some(mapping) };
        let open = || Directory::open(words).map_err(|e| failure!(ENODEV, "the directory: {e:?}"));
        let directory = open()?;
        // SAFETY: the endpoint knows no instance yet.
        unsafe { set_reader(Some(open()?)) };
        let Some(cpu) = cpus::apic_id(vector::DOORBELL_CPU) else {
            return refuse!(ENODEV, "there is no CPU for the doorbell");
        };
        ENDPOINT.begin_at(cpu, bell).map_err(|e| failure!(ENODEV, "the doorbell at CPU {}: {e:?}", cpu.0))?;
        let kernels = join(told.shared, &directory)?;
        let Some((me, life)) = ENDPOINT.identity() else {
            return refuse!(ENODEV, "this kernel has joined, but has no identity");
        };
        let ours =
            directory.record(me).map_err(|e| failure!(ENODEV, "this kernel's directory entry: {e:?}"))?;
        if ours.layout != Layout::Native {
            return refuse!(
                ENODEV,
                "this kernel's region is not native: peers of RFC v2 ring vector {:#x}, which Linux cannot receive",
                ours.vector.get()
            );
        }
        cpus::forbid(|id| !is_listed(&directory, me, id));
        FOLLOWED.with(|place| *place = Some(directory));
        moves::guard()?;
        pr_info!("joined as instance {}, life {}; {kernels} kernels known\n", me.get(), life.get());
        Ok(joined)
    }
}

/// Returns whether the directory lists `cpu` as a CPU of instance `me`. While the host is writing the directory, waits up to
/// `CHANGING_MS`.
fn is_listed(directory: &Directory<'_, AtomicU64>, me: InstanceId, cpu: PhysCpuId) -> bool {
    for _ in 0..CHANGING_MS {
        match directory.has_cpu(me, cpu) {
            Ok(has) => return has,
            // SAFETY: process context.
            Err(_) => unsafe { ffi::msleep(1) },
        }
    }
    false
}

/// Returns false if the directory says that `id` has ended or does not exist. Returns true otherwise, also if its entry is
/// being written.
fn is_live(directory: &Directory<'_, AtomicU64>, id: InstanceId) -> bool {
    let state = directory.record(id).map(|record| record.state);
    !matches!(state, Ok(State::Absent | State::Dead | State::Ending))
}

/// Joins the kernels of the directory. Returns how many there are. While the host is writing the directory, waits up to
/// `CHANGING_MS`.
fn join(shared: PhysAddr, directory: &Directory<'_, AtomicU64>) -> Result<usize> {
    let left_out = |id: InstanceId, e| pr_err!("instance {} cannot be added: {e:?}\n", id.get());
    let mut waited = 0;
    loop {
        match ENDPOINT.join_and(shared, directory, left_out) {
            Ok(kernels) => return Ok(kernels),
            Err(JoinError::Changing(_)) if waited < CHANGING_MS => waited += 1,
            Err(e) => return refuse!(ENODEV, "the other kernels cannot be joined: {e:?}"),
        }
        // SAFETY: process context.
        unsafe { ffi::msleep(1) };
    }
}

/// Reads the directory, and adds or removes the instances that have changed. The tick calls this, in process context.
pub fn follow() {
    let followed = FOLLOWED.with(|directory| {
        let directory = directory.as_ref()?;
        Some(ENDPOINT.follow(directory, |id, followed| match followed {
            Followed::LeftOut(e) => pr_err!("instance {} cannot be added: {e:?}\n", id.get()),
            followed => {
                if !is_live(directory, id) {
                    services::on_death(id);
                }
                pr_info!("the directory: instance {}: {followed:?}\n", id.get());
            }
        }))
    });
    match followed.unwrap_or(Ok(0)) {
        // After these errors the next tick tries again.
        Ok(_) | Err(JoinError::Changing(_) | JoinError::InUse(_) | JoinError::Ringing | JoinError::Busy) => {}
        Err(e) => pr_err!("the directory cannot be followed: {e:?}\n"),
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        FOLLOWED.with(|place| *place = None);
        ENDPOINT.goodbye();
        for id in (0..MAX_INSTANCES as u8).map(InstanceId::new) {
            // Waits until no sender of this kernel uses the region. This is short, because senders use it with interrupts
            // off.
            while let Err(DestroyError::InUse(_)) = ENDPOINT.destroy_instance(id) {
                // SAFETY: process context.
                unsafe { ffi::msleep(1) };
            }
        }
        // SAFETY: the endpoint knows no instance.
        unsafe { set_reader(None) };
        if let Some(mapping) = self.mapping.take() {
            // SAFETY: nothing uses the mapping any more.
            unsafe { Linux.unmap(mapping) };
        }
    }
}
