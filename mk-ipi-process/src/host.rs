// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host of a machine: it makes regions, and writes the directory (SPEC D-10).
//!
//! The host need not be a kernel. It may be a program that only starts, watches and restarts the kernels.

use crate::machine::Machine;
use mk_ipi_abi::directory::{DirectoryError, EntryFlags, InstanceRecord, Layout, State};
use mk_ipi_abi::native::{Geometry, Stamp, STAMP_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::directory::{DirectoryWriter, WriteError};
use mk_ipi_core::sync::{AtomicU64, Ordering};
use std::io;

/// Why a call of the host failed.
#[derive(Debug)]
pub enum HostError {
    /// The memory cannot be mapped, or the region does not fit into its pool.
    Io(io::Error),
    /// This process did not create the machine.
    NotTheHost,
    /// The directory cannot be created.
    Directory(DirectoryError),
    /// The directory refuses this entry.
    Write(WriteError),
    /// There is no such instance.
    Unknown(InstanceId),
}

impl std::fmt::Display for HostError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::NotTheHost => f.write_str("this process has not made the machine"),
            Self::Directory(e) => write!(f, "the directory: {e}"),
            Self::Write(e) => write!(f, "the directory's entry: {e}"),
            Self::Unknown(id) => write!(f, "there is no instance {}", id.get()),
        }
    }
}

impl std::error::Error for HostError {}

/// The host of a machine.
pub struct Host<'a> {
    machine: &'a Machine,
    writer: DirectoryWriter<'a, AtomicU64>,
}

impl core::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Host").field("writer", &self.writer).finish_non_exhaustive()
    }
}

impl<'a> Host<'a> {
    /// The host of a machine that this process has created. The directory is empty.
    ///
    /// # Errors
    ///
    /// `NotTheHost` for a machine that was opened, not created: its directory is mapped read-only.
    pub fn new(machine: &'a Machine) -> Result<Self, HostError> {
        let Some(words) = machine.directory_to_write() else { return Err(HostError::NotTheHost) };
        let shape = machine.shape();
        let writer = DirectoryWriter::create(words, shape.instances, shape.cpus);
        Ok(Self { machine, writer: writer.map_err(HostError::Directory)?.at(machine.directory_at()) })
    }

    /// Makes an empty native region for `id` at the start of its pool, and lists the instance as starting, with these CPUs. Its doorbell CPU
    /// is the first of them.
    ///
    /// # Errors
    ///
    /// If the region does not fit into the pool, or the directory refuses the entry.
    pub fn create(
        &mut self,
        id: InstanceId,
        cpus: &[PhysCpuId],
        geometry: Geometry,
    ) -> Result<PhysRange, HostError> {
        let pool = self.machine.pool(id).ok_or(HostError::Unknown(id))?;
        let region = PhysRange::new(pool.start(), geometry.total_size()).filter(|r| r.end() <= pool.end());
        let region = region.ok_or(HostError::Io(io::ErrorKind::OutOfMemory.into()))?;
        let map = self.machine.map(region, true).map_err(HostError::Io)?;
        let stamp: [u64; STAMP_WORDS] = zerocopy::transmute!(Stamp::new(geometry));
        map.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
        // The magic is written last: a kernel that sees it sees the whole stamp (SPEC N-1).
        for (word, value) in map.words().iter().zip(stamp).rev() {
            word.store(value, Ordering::Release);
        }
        let [doorbell_cpu, ..] = *cpus else { return Err(HostError::Write(WriteError::BadCpus)) };
        let record = InstanceRecord {
            instance: id,
            incarnation: Incarnation::FIRST,
            state: State::Starting,
            layout: Layout::Native,
            flags: EntryFlags::empty(),
            region: Some(region),
            doorbell_cpu,
            vector: Vector::RFC_V2,
            nr_cpus: 0,
        };
        self.writer.write(&record, cpus).map_err(HostError::Write)?;
        Ok(region)
    }

    /// Marks the instance as dead: its process has ended, or does nothing any more. Unread messages wait for its next life.
    ///
    /// # Errors
    ///
    /// If there is no such instance.
    pub fn died(&mut self, id: InstanceId) -> Result<(), HostError> {
        self.change(id, |record| record.state = State::Dead)
    }

    /// Begins the next life of a dead instance: it is listed as starting, with another incarnation.
    ///
    /// # Errors
    ///
    /// If there is no such instance, or it has not died.
    pub fn next_life(&mut self, id: InstanceId) -> Result<(), HostError> {
        self.change(id, |record| {
            record.state = State::Starting;
            record.incarnation = record.incarnation.next();
        })
    }

    /// Marks the instance as running.
    ///
    /// # Errors
    ///
    /// If there is no such instance.
    pub fn runs(&mut self, id: InstanceId) -> Result<(), HostError> {
        self.change(id, |record| record.state = State::Running)
    }

    fn change(&mut self, id: InstanceId, change: impl FnOnce(&mut InstanceRecord)) -> Result<(), HostError> {
        let mut cpus = vec![PhysCpuId(0); self.machine.shape().cpus as usize];
        let mut record = self.writer.reader().read(id, &mut cpus).map_err(|_| HostError::Unknown(id))?;
        change(&mut record);
        let listed = cpus.get(..record.nr_cpus as usize).unwrap_or_default();
        self.writer.write(&record, listed).map_err(HostError::Write)?;
        Ok(())
    }

    /// The command line for a kernel, as on a real machine: `mk_ipi_shared=` and `mk_ipi_directory=` (SPEC chapter B).
    ///
    /// # Errors
    ///
    /// If there is no such instance.
    pub fn command_line(&self, id: InstanceId) -> Result<String, HostError> {
        let pool = self.machine.pool(id).ok_or(HostError::Unknown(id))?;
        let (shared, directory) = (pool.start().0, self.machine.directory_at().0);
        Ok(format!("mk_ipi_shared={shared:#x} mk_ipi_directory={directory:#x}"))
    }
}
