// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory in memory: the host writes it, spawned kernels find themselves and the others (SPEC chapter D).

use crate::endpoint::Endpoint;
use crate::instance::{AddError, InstanceConfig, LinkConfig};
use crate::platform::Platform;
use crate::registry::Handler;
use crate::slot::Occupied;
use crate::sync::{fence, Ordering, Word};
use mk_ipi_abi::directory::{
    DirectoryError, DirectoryHeader, EntryError, EntryFlags, InstanceEntry, Layout, State, MAGIC,
};
use mk_ipi_abi::rfc_v2::{Claim, MK_MAX_INSTANCES, SLOT_SIZE};
use mk_ipi_abi::{Errno, InstanceId, PhysAddr, PhysCpuId};
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

/// Why a spawned kernel could not take its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// No live entry has its region at that address: the boot parameters contradict each other.
    NotListed(PhysAddr),
    /// An instance, ourselves or another, could not be added: who and why.
    Instance(InstanceId, AddError),
    /// The host was changing the entry of this instance: try again.
    Changing(InstanceId),
    /// No entry that can be read has its region at that address, and this one cannot be read: who and why.
    Entry(InstanceId, EntryError),
}

impl JoinError {
    /// `ENODEV`, `EAGAIN`, or that of the instance.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NotListed(_) | Self::Entry(..) => Errno::ENODEV,
            Self::Instance(_, e) => e.errno(),
            Self::Changing(_) => Errno::EAGAIN,
        }
    }
}

/// The config of an instance that the directory lists; slots fill its region, a native region's stamp says the rest.
pub fn config_of<'a>(record: &InstanceRecord, cpus: &'a [PhysCpuId]) -> InstanceConfig<'a> {
    let slots = || {
        record.region.map_or(u32::MAX, |r| {
            let slots = r.len().checked_div(SLOT_SIZE as u64).unwrap_or(0);
            u32::try_from(slots).unwrap_or(u32::MAX)
        })
    };
    let exclusive = record.flags.contains(EntryFlags::EXCLUSIVE);
    let policy = if exclusive { Occupied::Exclusive } else { Occupied::Overwrite };
    InstanceConfig {
        id: record.instance,
        incarnation: record.incarnation,
        cpus: cpus.get(..record.nr_cpus as usize).unwrap_or(&[]),
        doorbell_cpu: record.doorbell_cpu,
        vector: record.vector,
        one_doorbell: record.flags.contains(EntryFlags::ONE_DOORBELL),
        link: match record.layout {
            Layout::RfcV2 => LinkConfig::RfcV2 { slots: slots(), policy },
            Layout::Native => LinkConfig::Native(None),
        },
    }
}

impl<P: Platform, H: Handler, const CPUS: usize, const HANDLERS: usize, const QUEUE: usize>
    Endpoint<P, H, CPUS, HANDLERS, QUEUE>
{
    /// Takes the place of the instance whose region is at `shared` (`mk_ipi_shared=`), and adds every instance
    /// that the directory lists as starting or running, ourselves included. Gives how many. May sleep.
    ///
    /// On an error nothing that this call added stays. An entry that does not make sense, or that lists more than
    /// `CPUS` CPUs, is left out, unless it is our own. Afterwards every other CPU of this kernel calls
    /// [`poll`](Self::poll) once. A peer that comes or restarts later is added by itself: [`Directory::read`],
    /// [`config_of`], [`attach_instance`](Self::attach_instance), the former life destroyed first.
    pub fn join(&self, shared: PhysAddr, directory: &Directory<'_, P::Word>) -> Result<usize, JoinError> {
        let me = find_self::<_, CPUS>(shared, directory)?;
        let before = self.identity().map(|(instance, incarnation)| Claim { instance, incarnation });
        // A native link begins with who we are.
        self.set_identity(Some(Claim { instance: me.instance, incarnation: me.incarnation }));
        let mut added = [false; MK_MAX_INSTANCES];
        let joined = directory.ids().zip(&mut added).try_for_each(|(id, added)| {
            *added = self.join_one(id, &me, directory)?;
            Ok(())
        });
        let mut count = 0usize;
        for (id, _) in directory.ids().zip(added).filter(|(_, added)| *added) {
            count = count.wrapping_add(1);
            if joined.is_err() {
                // Ours alone, but for a sender that found it in this moment: then it is closed, and goes with the
                // next `destroy_instance`.
                let _ = self.destroy_instance(id);
            }
        }
        if joined.is_err() {
            self.set_identity(before);
        }
        joined?;
        self.identify(me.instance, me.incarnation);
        Ok(count)
    }

    /// Adds the instance `id` if it is alive; whether it was.
    fn join_one(
        &self,
        id: InstanceId,
        me: &InstanceRecord,
        directory: &Directory<'_, P::Word>,
    ) -> Result<bool, JoinError> {
        let mut cpus = [PhysCpuId(0); CPUS];
        let read = directory.read(id, &mut cpus);
        if read == Err(EntryError::Changing) {
            return Err(JoinError::Changing(id));
        }
        let record = read.ok().filter(is_alive);
        if id == me.instance && record.as_ref() != Some(me) {
            // It is not any more what it was when we recognised ourselves.
            return Err(JoinError::Changing(id));
        }
        let Some(record) = record else { return Ok(false) };
        let attached = self.attach_instance(&config_of(&record, &cpus), record.region);
        attached.map(|()| true).map_err(|e| JoinError::Instance(id, e))
    }
}

fn is_alive(record: &InstanceRecord) -> bool {
    matches!(record.state, State::Starting | State::Running)
}

/// The live entry whose region is at `shared`.
fn find_self<W: Word, const CPUS: usize>(
    shared: PhysAddr,
    directory: &Directory<'_, W>,
) -> Result<InstanceRecord, JoinError> {
    let mut cpus = [PhysCpuId(0); CPUS];
    let mut unread = JoinError::NotListed(shared);
    for id in directory.ids() {
        match directory.read(id, &mut cpus) {
            Ok(r) if is_alive(&r) && r.region.is_some_and(|region| region.start() == shared) => return Ok(r),
            Ok(_) | Err(EntryError::Absent) => {}
            Err(EntryError::Changing) => return Err(JoinError::Changing(id)),
            Err(e) => unread = JoinError::Entry(id, e),
        }
    }
    Err(unread)
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
