// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory in memory: the host writes it, spawned kernels find themselves and the others (SPEC chapter D).

use crate::sync::{fence, Ordering, Word};
use mk_ipi_abi::directory::{DirectoryError, DirectoryHeader, EntryError, InstanceEntry, State, MAGIC};
use mk_ipi_abi::{Errno, InstanceId, PhysCpuId};
use zerocopy::transmute;

pub use mk_ipi_abi::directory::InstanceRecord;

const HEADER_WORDS: usize = size_of::<DirectoryHeader>() / 8;
const ENTRY_WORDS: usize = size_of::<InstanceEntry>() / 8;
/// A host writes an entry in less time than this many readings; one that died in the middle is not waited for.
const TRIES: usize = 64;

/// The words of the directory, once the header was accepted.
#[derive(Debug)]
struct Entries<'a, W> {
    words: &'a [W],
    header: DirectoryHeader,
}

impl<W> Clone for Entries<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<W> Copy for Entries<'_, W> {}

impl<'a, W: Word> Entries<'a, W> {
    /// Entry `id`: its own words and those of its CPUs.
    fn of(&self, id: InstanceId) -> Result<(&'a [W; ENTRY_WORDS], &'a [W]), EntryError> {
        if u32::from(id.get()) >= self.header.nr_instances {
            return Err(EntryError::OutOfRange);
        }
        let stride = self.header.entry_words();
        let (entry, cpus) = (id.index().checked_mul(stride))
            .and_then(|at| self.words.get(HEADER_WORDS..)?.get(at..)?.get(..stride))
            .and_then(|entry| entry.split_at_checked(ENTRY_WORDS))
            .ok_or(EntryError::OutOfRange)?;
        Ok((entry.try_into().map_err(|_| EntryError::OutOfRange)?, cpus))
    }
}

fn load<W: Word, const N: usize>(words: &[W; N]) -> [u64; N] {
    core::array::from_fn(|i| words.get(i).map_or(0, |w| w.load(Ordering::Relaxed)))
}

/// The directory, as any kernel reads it.
#[derive(Debug)]
pub struct Directory<'a, W>(Entries<'a, W>);

impl<'a, W: Word> Directory<'a, W> {
    /// The directory at the start of `words`, if its stamp is one that this build can read (SPEC D-2).
    pub fn open(words: &'a [W]) -> Result<Self, DirectoryError> {
        let (stamp, _) = words.split_at_checked(HEADER_WORDS).ok_or(DirectoryError::TooSmall(64))?;
        let stamp: &[W; HEADER_WORDS] = stamp.try_into().map_err(|_| DirectoryError::TooSmall(64))?;
        let [magic, ..] = stamp;
        // SYNC POINT: directory-stamped (acquire)
        let found = magic.load(Ordering::Acquire);
        if found != MAGIC {
            return Err(DirectoryError::NoStamp(found));
        }
        let header: DirectoryHeader = transmute!(load(stamp));
        let available = (words.len() as u64).saturating_mul(8);
        Ok(Self(Entries { words, header: header.check(available)? }))
    }

    /// Ids that the directory has entries for: `0..` this.
    pub const fn nr_instances(&self) -> u32 {
        self.0.header.nr_instances
    }

    /// A checked copy of the entry of `id`, its CPUs copied into `cpus` (SPEC D-4).
    ///
    /// On an error `cpus` holds nothing of use. `Changing` if the host does not come to rest: try again. `BadCpus` also if `cpus` is too short, or the
    /// doorbell CPU is not listed.
    pub fn read(&self, id: InstanceId, cpus: &mut [PhysCpuId]) -> Result<InstanceRecord, EntryError> {
        let (words, listed) = self.0.of(id)?;
        let [sequence, ..] = words;
        for _ in 0..TRIES {
            // SYNC POINT: directory-entry (acquire)
            let before = sequence.load(Ordering::Acquire);
            let entry: InstanceEntry = transmute!(load(words));
            for (copy, word) in cpus.iter_mut().zip(listed) {
                *copy = PhysCpuId(word.load(Ordering::Relaxed));
            }
            fence(Ordering::Acquire);
            if before % 2 == 0 && sequence.load(Ordering::Relaxed) == before {
                let record = entry.check(id, self.0.header.cpus_per_instance)?;
                let cpus = cpus.get(..record.nr_cpus as usize).ok_or(EntryError::BadCpus)?;
                return cpus.contains(&record.doorbell_cpu).then_some(record).ok_or(EntryError::BadCpus);
            }
            crate::sync::spin_hint();
        }
        Err(EntryError::Changing)
    }

    /// Ids that the directory has entries for.
    pub fn ids(&self) -> impl Iterator<Item = InstanceId> {
        (0..=u8::MAX).take(self.nr_instances() as usize).map(InstanceId::new)
    }
}

/// The directory, as the host writes it. There is one writer: `&mut` sees to that within a kernel.
#[derive(Debug)]
pub struct DirectoryWriter<'a, W>(Entries<'a, W>);

/// Why the host could not write an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The entry would be refused by its readers.
    Entry(EntryError),
    /// No CPU, more than the directory has room for, or no doorbell CPU among them.
    BadCpus,
}

impl WriteError {
    /// `EINVAL`.
    pub const fn errno(self) -> Errno {
        Errno::EINVAL
    }
}

impl<'a, W: Word> DirectoryWriter<'a, W> {
    /// Makes an empty directory in `words`, which nobody reads yet; the stamp's magic comes last (SPEC D-2).
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

    /// The same directory for reading.
    pub const fn reader(&self) -> Directory<'a, W> {
        Directory(self.0)
    }

    /// Writes the entry of `record.instance` (SPEC D-4).
    pub fn write(&mut self, record: &InstanceRecord, cpus: &[PhysCpuId]) -> Result<(), WriteError> {
        let (words, listed) = self.0.of(record.instance).map_err(WriteError::Entry)?;
        let nr_cpus = u32::try_from(cpus.len()).map_err(|_| WriteError::BadCpus)?;
        if cpus.len() > listed.len() || !cpus.contains(&record.doorbell_cpu) {
            return Err(WriteError::BadCpus);
        }
        let entry = InstanceRecord { nr_cpus, ..*record }.to_entry(0);
        if record.state != State::Absent {
            entry.check(record.instance, self.0.header.cpus_per_instance).map_err(WriteError::Entry)?;
        }
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
        Ok(())
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
