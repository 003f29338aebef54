// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host of a machine: it makes regions, and writes the directory (SPEC D-10).
//!
//! On a machine of processes, the host can be a program that only starts, watches and restarts the kernels. It need not be a
//! kernel itself.

use crate::machine::Machine;
use mk_ipi_abi::directory::{DirectoryError, EntryError, EntryFlags, InstanceRecord, Layout, State};
use mk_ipi_abi::native::{Geometry, Stamp, STAMP_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::directory::{DirectoryWriter, WriteError};
use mk_ipi_core::sync::{AtomicU64, Ordering};
use std::io;

/// Why a method of [`Host`] failed.
#[derive(Debug)]
pub enum HostError {
    /// The memory cannot be mapped, or the region does not fit into its pool.
    Io(io::Error),
    /// This process did not create the machine.
    NotTheHost,
    /// The directory cannot be created.
    Directory(DirectoryError),
    /// The entry was not written, because it breaks a rule of the directory (SPEC D-9).
    Write(WriteError),
    /// The machine has no instance with this id, or the directory has no entry for it.
    Unknown(InstanceId),
    /// The instance exists already. Its region can hold messages.
    Exists(InstanceId),
}

impl std::fmt::Display for HostError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::NotTheHost => {
                f.write_str("this process did not create the machine, so it cannot be its host")
            }
            Self::Directory(e) => write!(f, "cannot create the directory: {e}"),
            Self::Write(e) => write!(f, "cannot write the entry of the directory: {e}"),
            Self::Unknown(id) => write!(f, "there is no instance {}", id.get()),
            Self::Exists(id) => write!(f, "instance {} exists already", id.get()),
        }
    }
}

impl std::error::Error for HostError {}

/// The host of a machine: the only writer of its directory.
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
    /// Makes this process the host of `machine`, which it must have created. Writes a new directory without entries.
    ///
    /// # Errors
    ///
    /// `NotTheHost` if this process did not create the machine. It has then opened the machine, with the directory mapped
    /// read-only. `Directory` if the directory cannot be created.
    pub fn new(machine: &'a Machine) -> Result<Self, HostError> {
        let Some(words) = machine.directory_to_write() else { return Err(HostError::NotTheHost) };
        let shape = machine.shape();
        let writer = DirectoryWriter::create(words, shape.instances, shape.cpus);
        Ok(Self { machine, writer: writer.map_err(HostError::Directory)?.at(machine.directory_at()) })
    }

    /// Makes an empty native region at the start of the pool of instance `id`. Then writes the entry of this instance, with the
    /// state starting, the first incarnation, and the CPUs `cpus`. The first CPU in `cpus` is the doorbell CPU. Returns the range
    /// of the region.
    ///
    /// # Errors
    ///
    /// If the machine has no instance `id`, if the instance exists already, if the region does not fit into the pool or cannot be
    /// mapped, or if the directory does not allow the entry. The region of an instance that exists is not changed.
    pub fn create(
        &mut self,
        id: InstanceId,
        cpus: &[PhysCpuId],
        geometry: Geometry,
    ) -> Result<PhysRange, HostError> {
        let pool = self.machine.pool(id).ok_or(HostError::Unknown(id))?;
        let [doorbell_cpu, ..] = *cpus else { return Err(HostError::Write(WriteError::BadCpus)) };
        if self.writer.reader().record(id) != Err(EntryError::Absent) {
            return Err(HostError::Exists(id));
        }
        let region = PhysRange::new(pool.start(), geometry.total_size()).filter(|r| r.end() <= pool.end());
        let region = region.ok_or(HostError::Io(io::ErrorKind::OutOfMemory.into()))?;
        let map = self.machine.map(region, true).map_err(HostError::Io)?;
        let stamp: [u64; STAMP_WORDS] = zerocopy::transmute!(Stamp::new(geometry));
        map.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
        // The magic is written last: a kernel that reads the magic also sees the rest of the stamp (SPEC N-1).
        for (word, value) in map.words().iter().zip(stamp).rev() {
            word.store(value, Ordering::Release);
        }
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

    /// Marks the instance as dead. Call this only when its process has ended, or cannot execute any more instructions. Before
    /// that, the process can still write into regions (SPEC D-10). Unread messages stay in the region for the instance's next
    /// life.
    ///
    /// # Errors
    ///
    /// If there is no such instance.
    pub fn died(&mut self, id: InstanceId) -> Result<(), HostError> {
        self.change(id, |record| record.state = State::Dead)
    }

    /// Begins the next life of a dead instance: writes its entry with the state starting and the next incarnation.
    ///
    /// # Errors
    ///
    /// If there is no such instance, or if it is not marked as dead.
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
    /// If there is no such instance, or if it is marked as dead.
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

    /// Returns the command line for the kernel of instance `id`, with `mk_ipi_shared=` and `mk_ipi_directory=` as on a real
    /// machine (SPEC chapter B and D-1).
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
