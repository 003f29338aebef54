// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's side of the directory. Before an entry is written, it is checked against all others (SPEC D-4, D-9).

use super::{lists, Directory, Entries, ENTRY_WORDS, GENERATION, HEADER_WORDS};
use crate::sync::{fence, Ordering, Word};
use core::mem::offset_of;
use mk_ipi_abi::directory::{DirectoryError, DirectoryHeader, EntryError, InstanceRecord, State};
use mk_ipi_abi::{Errno, InstanceId, PhysAddr, PhysCpuId, PhysRange};
use zerocopy::transmute;

/// Write access to the directory, for the host. A directory must have only one writer. Within a kernel `&mut` ensures this.
#[derive(Debug)]
pub struct DirectoryWriter<'a, W>(Entries<'a, W>);

/// Why the host could not write an entry. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// Readers would refuse the entry.
    Entry(EntryError),
    /// The list of CPUs is empty, or longer than the directory has room for.
    BadCpus,
    /// The doorbell CPU is not among those listed.
    DoorbellNotListed(PhysCpuId),
    /// The CPU is listed twice.
    CpuTwice(PhysCpuId),
    /// The CPU belongs to this live instance.
    CpuTaken(PhysCpuId, InstanceId),
    /// The region overlaps the region of this instance.
    RegionTaken(InstanceId),
    /// The region overlaps the directory.
    OnDirectory,
    /// The region, layout, flags and incarnation of a live instance cannot change, and it cannot become absent or ending. It must
    /// be dead first. This is its entry.
    Live(InstanceRecord),
    /// An incarnation that has ended cannot become live again. The next life needs another one.
    Over(InstanceId),
    /// The entry of this instance, which must be compared with the new one, cannot be read.
    Unreadable(InstanceId, EntryError),
}

impl core::fmt::Display for WriteError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Entry(e) => write!(f, "readers would refuse the entry: {e}"),
            Self::BadCpus => f.write_str("the entry has no CPU, or more than the directory has room for"),
            Self::DoorbellNotListed(cpu) => write!(f, "the doorbell CPU {:#x} is not listed", cpu.0),
            Self::CpuTwice(cpu) => write!(f, "CPU {:#x} is listed twice", cpu.0),
            Self::CpuTaken(cpu, id) => {
                write!(f, "CPU {:#x} belongs to the live instance {}", cpu.0, id.get())
            }
            Self::RegionTaken(id) => write!(f, "the region overlaps the region of instance {}", id.get()),
            Self::OnDirectory => f.write_str("the region overlaps the directory"),
            Self::Live(record) => write!(
                f,
                "instance {} is live: it must be dead before this entry can be written",
                record.instance.get()
            ),
            Self::Over(id) => write!(f, "this incarnation of instance {} has ended", id.get()),
            Self::Unreadable(id, e) => write!(f, "the entry of instance {} cannot be read: {e}", id.get()),
        }
    }
}

impl core::error::Error for WriteError {}

impl WriteError {
    /// `EBUSY` if another instance has the CPU or the region, or a live entry cannot change; `EPROTO` for an entry that cannot be
    /// read; else `EINVAL`.
    pub const fn errno(self) -> Errno {
        match self {
            Self::CpuTaken(..) | Self::RegionTaken(_) | Self::Live(_) => Errno::EBUSY,
            Self::Unreadable(..) => Errno::EPROTO,
            _ => Errno::EINVAL,
        }
    }
}

impl<'a, W: Word> DirectoryWriter<'a, W> {
    /// Makes an empty directory in `words`, which no kernel reads yet. The magic is written last (SPEC D-2).
    ///
    /// # Errors
    /// `Geometry` for counts that [`DirectoryHeader::new`] refuses, `TooSmall` if `words` are too few.
    pub fn create(words: &'a [W], nr_instances: u32, cpus_per_instance: u32) -> Result<Self, DirectoryError> {
        let header = DirectoryHeader::new(nr_instances, cpus_per_instance).ok_or(DirectoryError::Geometry)?;
        header.check((words.len() as u64).saturating_mul(8))?;
        for word in words {
            word.store(0, Ordering::Relaxed);
        }
        let stamp: [u64; HEADER_WORDS] = transmute!(header);
        for (word, value) in words.iter().zip(stamp).skip(1) {
            word.store(value, Ordering::Relaxed);
        }
        if let Some(magic) = words.first() {
            // SYNC POINT: directory-stamped (release)
            magic.store(header.magic, Ordering::Release);
        }
        Ok(Self(Entries { words, header }))
    }

    /// Takes over the directory at the start of `words`, which a former life of the host made. Its entries stay.
    ///
    /// # Errors
    /// The same as [`Directory::open`].
    pub fn take_over(words: &'a [W]) -> Result<Self, DirectoryError> {
        Directory::open(words).map(|Directory(entries)| Self(entries))
    }

    /// Stores the physical address of the directory. From then on no region may overlap it. Call it before any kernel reads the
    /// directory.
    #[must_use]
    pub fn at(mut self, address: PhysAddr) -> Self {
        self.0.header.address = address.0;
        self.store(offset_of!(DirectoryHeader, address), address.0)
    }

    /// Stores which CPU booted the machine. No kernel may stop that CPU (SPEC A-11). Call it before any kernel reads the
    /// directory.
    #[must_use]
    pub fn boot_cpu(mut self, cpu: PhysCpuId) -> Self {
        self.0.header.boot_cpu = cpu.0.wrapping_add(1);
        let value = self.0.header.boot_cpu;
        self.store(offset_of!(DirectoryHeader, boot_cpu), value)
    }

    fn store(self, at: usize, value: u64) -> Self {
        self.0.words.get(at >> 3).into_iter().for_each(|word| word.store(value, Ordering::Relaxed));
        self
    }

    /// Read access to the same directory.
    pub const fn reader(&self) -> Directory<'a, W> {
        Directory(self.0)
    }

    /// Writes the entry of `record.instance`, whose CPUs are `cpus` (SPEC D-4). Returns the new generation of the
    /// directory. A kernel that has followed this generation has done what the entry requires (SPEC D-7).
    ///
    /// # Errors
    /// [`WriteError`] if readers would refuse the entry, if another instance has its CPU or region, or if a live entry does not
    /// allow the change (SPEC D-9). Nothing is written then.
    pub fn write(&mut self, record: &InstanceRecord, cpus: &[PhysCpuId]) -> Result<u32, WriteError> {
        let (words, listed) = self.0.of(record.instance).map_err(WriteError::Entry)?;
        let nr_cpus = u32::try_from(cpus.len()).map_err(|_| WriteError::BadCpus)?;
        if cpus.is_empty() || cpus.len() > listed.len() {
            return Err(WriteError::BadCpus);
        }
        let entry = InstanceRecord { nr_cpus, ..*record }.to_entry(0);
        if record.state != State::Absent {
            entry.check(record.instance, self.0.header.cpus_per_instance).map_err(WriteError::Entry)?;
            self.check_cpus(record, cpus)?;
            self.check_region(record)?;
        }
        self.check_change(record)?;
        let entry: [u64; ENTRY_WORDS] = transmute!(entry);
        let [sequence, ..] = words;
        let before = sequence.load(Ordering::Relaxed) & !1;
        sequence.store(before | 1, Ordering::Relaxed);
        // SYNC POINT: directory-entry (release)
        fence(Ordering::Release);
        for (word, value) in words.iter().zip(entry).skip(1) {
            word.store(value, Ordering::Relaxed);
        }
        for (word, cpu) in listed.iter().zip(cpus) {
            word.store(cpu.0, Ordering::Relaxed);
        }
        sequence.store(before.wrapping_add(2), Ordering::Release);
        Ok(self.count_change())
    }

    fn count_change(&self) -> u32 {
        let Some(word) = self.0.words.get(GENERATION) else { return 0 };
        // Never 0: a kernel that has not followed the directory yet stores generation 0 in its lanes.
        #[expect(clippy::cast_possible_truncation, reason = "the generation has 32 bits")]
        let next = (word.load(Ordering::Relaxed) as u32).wrapping_add(1).max(1);
        // SYNC POINT: directory-generation (release)
        word.store(next.into(), Ordering::Release);
        next
    }

    /// The other entries that are not absent.
    fn others(
        &self,
        of: InstanceId,
    ) -> impl Iterator<Item = Result<InstanceRecord, WriteError>> + use<'_, 'a, W> {
        let reader = self.reader();
        reader.ids().filter(move |id| *id != of).filter_map(move |id| match reader.at_rest(id, |_, _| ()) {
            Err(EntryError::Absent) => None,
            record => Some(record.map_err(|e| WriteError::Unreadable(id, e))),
        })
    }

    fn check_cpus(&self, record: &InstanceRecord, cpus: &[PhysCpuId]) -> Result<(), WriteError> {
        let bell = record.doorbell_cpu;
        if !cpus.contains(&bell) {
            return Err(WriteError::DoorbellNotListed(bell));
        }
        let twice = cpus.iter().enumerate().find(|(n, cpu)| cpus.iter().take(*n).any(|other| other == *cpu));
        if let Some((_, cpu)) = twice {
            return Err(WriteError::CpuTwice(*cpu));
        }
        if !record.state.is_live() {
            return Ok(());
        }
        for other in self.others(record.instance) {
            let other = other?;
            let (words, listed) = self.0.of(other.instance).map_err(WriteError::Entry)?;
            let entry = transmute!(super::load(words));
            let taken = cpus.iter().find(|cpu| other.state.is_live() && lists(&entry, listed, **cpu));
            if let Some(cpu) = taken {
                return Err(WriteError::CpuTaken(*cpu, other.instance));
            }
        }
        Ok(())
    }

    /// Checks that the region of `record` overlaps neither the directory nor the region of another entry. A dead instance keeps
    /// its region for its next life.
    fn check_region(&self, record: &InstanceRecord) -> Result<(), WriteError> {
        let Some(region) = record.region else { return Ok(()) };
        let DirectoryHeader { address, total_size, .. } = self.0.header;
        let ours = PhysRange::new(PhysAddr(address), total_size).filter(|_| address != 0);
        if ours.is_some_and(|ours| ours.overlaps(region)) {
            return Err(WriteError::OnDirectory);
        }
        for other in self.others(record.instance) {
            let other = other?;
            if other.region.is_some_and(|taken| taken.overlaps(region)) {
                return Err(WriteError::RegionTaken(other.instance));
            }
        }
        Ok(())
    }

    /// Checks that the present entry allows the change. Between two lives everything may change. Within one life only the state,
    /// the CPUs and the doorbell may change.
    fn check_change(&self, record: &InstanceRecord) -> Result<(), WriteError> {
        let id = record.instance;
        let old = match self.reader().at_rest(id, |_, _| ()) {
            Ok(old) => old,
            // The entry is absent, or a former life of the host left it half-written. Both may be overwritten.
            Err(_) => return Ok(()),
        };
        let kept = |r: &InstanceRecord| (r.incarnation, r.layout, r.flags, r.region);
        let dies_first = matches!(record.state, State::Absent | State::Ending);
        if old.state.is_live() && (dies_first || kept(&old) != kept(record)) {
            return Err(WriteError::Live(old));
        }
        if !old.state.is_live() && record.state.is_live() && old.incarnation == record.incarnation {
            return Err(WriteError::Over(id));
        }
        Ok(())
    }
}
