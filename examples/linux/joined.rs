// SPDX-License-Identifier: MIT OR Apache-2.0
//! This Linux as a kernel that a host started. It finds itself and the others by the directory, and follows the
//! directory.

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

/// How many milliseconds a directory is read again and again while its host is writing it.
const CHANGING_MS: u32 = 1_000;

/// This kernel's place among the others. Dropping it says goodbye.
pub struct Joined {
    mapping: Option<Mapping<AtomicU64>>,
}

/// The directory, for the code that follows it.
// SAFETY: the only `Locked` with 3.
static FOLLOWED: Locked<Option<Directory<'static, AtomicU64>>> = unsafe { Locked::new(3, None) };

/// Maps memory that the host wrote.
fn map(at: PhysAddr, len: u64) -> Result<Mapping<AtomicU64>> {
    let range = PhysRange::new(at, len.next_multiple_of(8));
    let mapped = range.and_then(|range| Linux.map(range, Access::ReadOnly).ok());
    mapped.map_or_else(
        || refuse!(ENOMEM, "{:#x}, {len} bytes, cannot be mapped, or is no reserved memory", at.0),
        Ok,
    )
}

/// The words of a mapping.
///
/// # Safety
///
/// Nothing uses them after the mapping is unmapped.
unsafe fn words(mapping: &Mapping<AtomicU64>) -> &'static [AtomicU64] {
    // SAFETY: it is mapped; the caller promises the rest.
    unsafe { &*mapping.as_ptr().as_ptr() }
}

/// The length of the directory at `at`, in bytes.
fn len_of(at: PhysAddr) -> Result<u64> {
    let head = map(at, size_of::<DirectoryHeader>() as u64)?;
    // SAFETY: unmapped below, after the last use.
    let found = Directory::open(unsafe { words(&head) }).map(drop);
    // SAFETY: it is not used any more.
    unsafe { Linux.unmap(head) };
    match found {
        Err(DirectoryError::TooSmall(len)) => Ok(len),
        Ok(()) => Ok(size_of::<DirectoryHeader>() as u64),
        Err(e) => refuse!(ENODEV, "the directory at {:#x}: {e:?}", at.0),
    }
}

impl Joined {
    /// Takes this kernel's place, as the host has told it. Peers ring `bell`.
    pub fn new(told: Told, bell: Vector) -> Result<Self> {
        let mapping = map(told.directory, len_of(told.directory)?)?;
        // SAFETY: `drop` unmaps it, when nothing follows it and the endpoint knows no instance.
        let words = unsafe { words(&mapping) };
        let joined = Self { mapping: Some(mapping) };
        let open = || Directory::open(words).map_err(|e| failure!(ENODEV, "the directory: {e:?}"));
        let directory = open()?;
        // SAFETY: the endpoint knows no instance yet.
        unsafe { set_reader(Some(open()?)) };
        let Some(cpu) = cpus::apic_id(vector::DOORBELL_CPU) else {
            return refuse!(ENODEV, "no CPU for the doorbell");
        };
        ENDPOINT.begin_at(cpu, bell).map_err(|e| failure!(ENODEV, "the doorbell at CPU {}: {e:?}", cpu.0))?;
        let kernels = join(told.shared, &directory)?;
        let Some((me, life)) = ENDPOINT.identity() else {
            return refuse!(ENODEV, "joined without an identity");
        };
        let ours = directory.record(me).map_err(|e| failure!(ENODEV, "our entry: {e:?}"))?;
        if ours.layout != Layout::Native {
            return refuse!(
                ENODEV,
                "our region is not native: RFC v2 rings vector {:#x}, which Linux does not have",
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

/// Returns whether the directory gives the CPU to this kernel. Waits while the host is writing.
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

/// Returns whether the directory says that `id` lives. False while that entry is being written.
fn is_live(directory: &Directory<'_, AtomicU64>, id: InstanceId) -> bool {
    let state = directory.record(id).map(|record| record.state);
    !matches!(state, Ok(State::Absent | State::Dead | State::Ending))
}

/// Joins. Waits while the host is writing.
fn join(shared: PhysAddr, directory: &Directory<'_, AtomicU64>) -> Result<usize> {
    let left_out = |id: InstanceId, e| pr_err!("instance {} cannot be added: {e:?}\n", id.get());
    let mut waited = 0;
    loop {
        match ENDPOINT.join_and(shared, directory, left_out) {
            Ok(kernels) => return Ok(kernels),
            Err(JoinError::Changing(_)) if waited < CHANGING_MS => waited += 1,
            Err(e) => return refuse!(ENODEV, "joining the others: {e:?}"),
        }
        // SAFETY: process context.
        unsafe { ffi::msleep(1) };
    }
}

/// Follows the directory. The tick calls it, in process context.
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
        // The next tick tries it again.
        Ok(_) | Err(JoinError::Changing(_) | JoinError::InUse(_) | JoinError::Ringing | JoinError::Busy) => {}
        Err(e) => pr_err!("the directory cannot be followed: {e:?}\n"),
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        FOLLOWED.with(|place| *place = None);
        ENDPOINT.goodbye();
        for id in (0..MAX_INSTANCES as u8).map(InstanceId::new) {
            // Senders leave it soon, because they hold it with interrupts off.
            while let Err(DestroyError::InUse(_)) = ENDPOINT.destroy_instance(id) {
                // SAFETY: process context.
                unsafe { ffi::msleep(1) };
            }
        }
        // SAFETY: the endpoint knows no instance.
        unsafe { set_reader(None) };
        if let Some(mapping) = self.mapping.take() {
            // SAFETY: nothing uses it any more.
            unsafe { Linux.unmap(mapping) };
        }
    }
}
