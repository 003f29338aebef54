// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory in memory. The host writes it. Spawned kernels read their own entry and the entries of others (SPEC chapter D).

use crate::sync::{fence, Ordering, Word};
use core::mem::offset_of;
use mk_ipi_abi::directory::{DirectoryError, DirectoryHeader, EntryError, InstanceEntry, MAGIC};
use mk_ipi_abi::{InstanceId, PhysCpuId};
use zerocopy::transmute;

pub use mk_ipi_abi::directory::InstanceRecord;

const HEADER_WORDS: usize = size_of::<DirectoryHeader>() / 8;
const ENTRY_WORDS: usize = size_of::<InstanceEntry>() / 8;
/// Index of the word `generation` of the header, which changes with each change of an entry.
const GENERATION: usize = offset_of!(DirectoryHeader, generation) / 8;
/// Largest number of attempts to read an entry. A host writes an entry in less time than these attempts take. If all of them
/// fail, the host may have died while it wrote the entry.
const TRIES: usize = 64;

mod writer;
pub use writer::{DirectoryWriter, WriteError};

/// The words of a directory with a checked header.
struct Entries<'a, W> {
    words: &'a [W],
    header: DirectoryHeader,
}

impl<W> core::fmt::Debug for Entries<'_, W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Entries").field("header", &self.header).finish_non_exhaustive()
    }
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

/// Whether `cpu` is one of the `nr_cpus` CPUs that are listed after `entry`.
fn lists<W: Word>(entry: &InstanceEntry, listed: &[W], cpu: PhysCpuId) -> bool {
    listed.iter().take(entry.nr_cpus as usize).any(|word| word.load(Ordering::Relaxed) == cpu.0)
}

/// Read access to the directory, for any kernel.
#[derive(Debug)]
pub struct Directory<'a, W>(Entries<'a, W>);

impl<'a, W: Word> Directory<'a, W> {
    /// The directory at the start of `words`, if this build can read its version (SPEC D-2).
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

    /// Number of entries. All instance ids are below this number.
    pub const fn nr_instances(&self) -> u32 {
        self.0.header.nr_instances
    }

    /// The generation of the directory. It changes with every change of an entry (SPEC D-7).
    #[expect(clippy::cast_possible_truncation, reason = "the generation has 32 bits")]
    pub fn generation(&self) -> u32 {
        // SYNC POINT: directory-generation (acquire)
        self.0.words.get(GENERATION).map_or(0, |word| word.load(Ordering::Acquire) as u32)
    }

    /// The machine's boot CPU, if the host has named it. No kernel may stop it.
    pub const fn boot_cpu(&self) -> Option<PhysCpuId> {
        match self.0.header.boot_cpu {
            0 => None,
            next => Some(PhysCpuId(next.wrapping_sub(1))),
        }
    }

    /// A checked copy of the entry of `id`. Copies the ids of its CPUs into `cpus` (SPEC D-4).
    ///
    /// # Errors
    /// `Changing` if the host was writing the entry during all attempts: try again. `BadCpus` also if `cpus` is too short, or if
    /// the doorbell CPU is not listed. After an error the content of `cpus` is undefined.
    pub fn read(&self, id: InstanceId, cpus: &mut [PhysCpuId]) -> Result<InstanceRecord, EntryError> {
        let record = self.at_rest(id, |_, listed| {
            for (copy, word) in cpus.iter_mut().zip(listed) {
                *copy = PhysCpuId(word.load(Ordering::Relaxed));
            }
        })?;
        let cpus = cpus.get(..record.nr_cpus as usize).ok_or(EntryError::BadCpus)?;
        cpus.contains(&record.doorbell_cpu).then_some(record).ok_or(EntryError::BadCpus)
    }

    /// The same as [`read`](Self::read), but does not copy the ids of the CPUs. So it needs no buffer for them.
    pub fn record(&self, id: InstanceId) -> Result<InstanceRecord, EntryError> {
        let mut rings = false;
        let record =
            self.at_rest(id, |entry, listed| rings = lists(entry, listed, PhysCpuId(entry.doorbell_cpu)))?;
        rings.then_some(record).ok_or(EntryError::BadCpus)
    }

    /// Whether instance `id` is live and `cpu` is one of its CPUs now. False if the entry is not valid.
    ///
    /// # Errors
    /// `Changing` in the same case as [`read`](Self::read).
    pub fn has_cpu(&self, id: InstanceId, cpu: PhysCpuId) -> Result<bool, EntryError> {
        let mut has = false;
        match self.at_rest(id, |entry, listed| has = lists(entry, listed, cpu)) {
            Ok(record) => Ok(has && record.state.is_live()),
            Err(EntryError::Changing) => Err(EntryError::Changing),
            Err(_) => Ok(false),
        }
    }

    /// The checked entry of `id`. Calls `f` with each copy of the entry and the words of its CPUs. The last call of `f` saw the
    /// same state as the result.
    fn at_rest(
        &self,
        id: InstanceId,
        mut f: impl FnMut(&InstanceEntry, &[W]),
    ) -> Result<InstanceRecord, EntryError> {
        let (words, listed) = self.0.of(id)?;
        let [sequence, ..] = words;
        for _ in 0..TRIES {
            // SYNC POINT: directory-entry (acquire)
            let before = sequence.load(Ordering::Acquire);
            if before % 2 != 0 {
                crate::sync::spin_hint();
                continue;
            }
            let entry: InstanceEntry = transmute!(load(words));
            f(&entry, listed);
            fence(Ordering::Acquire);
            if sequence.load(Ordering::Relaxed) == before {
                return entry.check(id, self.0.header.cpus_per_instance);
            }
            crate::sync::spin_hint();
        }
        Err(EntryError::Changing)
    }

    /// All ids for which the directory has an entry.
    pub fn ids(&self) -> impl Iterator<Item = InstanceId> {
        (0..=u8::MAX).take(self.nr_instances() as usize).map(InstanceId::new)
    }
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
