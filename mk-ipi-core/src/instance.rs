// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of instances: who can be sent to, where its region lies, how to ring it.

use crate::platform::{Access, InstancePool, MapError, Mapping, PhysMemory, Platform, PoolError};
use crate::published::{Published, Ref, TakeError};
use crate::slot::{Occupied, Slot};
use crate::sync::{array_of, const_unless_loom, Ordering, Word};
use mk_ipi_abi::rfc_v2::{region_size, Claim, MK_MAX_INSTANCES, SLOT_WORDS};
use mk_ipi_abi::{Errno, Incarnation, InstanceId, PhysCpuId, PhysRange, Vector};

/// What is to be known of an instance before messages can go to it.
#[derive(Clone, Copy, Debug)]
pub struct InstanceConfig<'a> {
    /// Who.
    pub id: InstanceId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Its CPUs, by physical id; any of them can be the target of a message.
    pub cpus: &'a [PhysCpuId],
    /// The CPU that a message goes to unless another is named; one of `cpus`.
    pub doorbell_cpu: PhysCpuId,
    /// The vector to ring.
    pub vector: Vector,
    /// Slots of its region: `NR_CPUS` of its kernel. Each of `cpus` is below it.
    pub slots: u32,
    /// What becomes of an unread message.
    pub policy: Occupied,
}

/// Why an instance was not added to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// The id is in the table already.
    Exists,
    /// No CPU, more than the table has room for, or a doorbell CPU that is not among them.
    BadCpus,
    /// This CPU has no slot in a region of that size (SPEC H-6).
    BeyondRegion(PhysCpuId),
    /// The region does not begin on a page boundary.
    Misaligned,
    /// The region is too small for its slots: the bytes it would need.
    TooSmall(u64),
    /// The pool gave no memory.
    Pool(PoolError),
    /// The memory could not be mapped.
    Map(MapError),
}

impl AddError {
    /// As the C calls (SPEC C-1): `EEXIST`, `EINVAL`; `ENODEV` without a pool, `ENOMEM` for the rest.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Exists => Errno::EEXIST,
            Self::BadCpus | Self::BeyondRegion(_) | Self::Misaligned | Self::TooSmall(_) => Errno::EINVAL,
            Self::Pool(e) => e.errno(),
            Self::Map(_) => Errno::ENOMEM,
        }
    }
}

/// Why an instance is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// It never was.
    Unknown,
    /// It was destroyed, or is being destroyed.
    Destroyed,
}

impl LookupError {
    /// `EINVAL` for an unknown instance (SPEC C-2), `ESTALE` for a destroyed one.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Unknown => Errno::EINVAL,
            Self::Destroyed => Errno::ESTALE,
        }
    }
}

/// Why an instance was not destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestroyError {
    /// No such instance.
    Unknown,
    /// That many senders or holders of an [`InstanceRef`] still use it. New ones are refused from now on:
    /// call again.
    InUse(u32),
}

impl DestroyError {
    /// `EINVAL` or `EBUSY`.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Unknown => Errno::EINVAL,
            Self::InUse(_) => Errno::EBUSY,
        }
    }
}

#[derive(Debug)]
struct Region<W> {
    mapping: Mapping<W>,
    range: PhysRange,
    /// Whether the memory came from the instance's pool and goes back there.
    pooled: bool,
}

#[derive(Debug)]
pub(crate) struct Instance<W, const CPUS: usize> {
    pub(crate) incarnation: Incarnation,
    pub(crate) doorbell_cpu: PhysCpuId,
    pub(crate) vector: Vector,
    pub(crate) policy: Occupied,
    slots: u32,
    cpus: [PhysCpuId; CPUS],
    nr_cpus: usize,
    region: Option<Region<W>>,
}

impl<W: Word, const CPUS: usize> Instance<W, CPUS> {
    fn new(config: &InstanceConfig<'_>) -> Result<Self, AddError> {
        let &InstanceConfig { incarnation, doorbell_cpu, vector, policy, slots, .. } = config;
        if let Some(&cpu) = config.cpus.iter().find(|c| c.0 >= u64::from(slots)) {
            return Err(AddError::BeyondRegion(cpu));
        }
        let mut cpus = [PhysCpuId(0); CPUS];
        let room = cpus.get_mut(..config.cpus.len()).ok_or(AddError::BadCpus)?;
        // Not `copy_from_slice`, whose check of the lengths is a panic that not every level of optimisation removes.
        room.iter_mut().zip(config.cpus).for_each(|(copy, cpu)| *copy = *cpu);
        if !config.cpus.contains(&doorbell_cpu) {
            return Err(AddError::BadCpus);
        }
        let nr_cpus = config.cpus.len();
        Ok(Self { incarnation, doorbell_cpu, vector, policy, slots, cpus, nr_cpus, region: None })
    }

    pub(crate) fn cpus(&self) -> &[PhysCpuId] {
        self.cpus.get(..self.nr_cpus).unwrap_or(&[])
    }

    /// The words of its region's slots, if it has a region.
    pub(crate) fn words(&self) -> Option<&[W]> {
        let words = (self.slots as usize).checked_mul(SLOT_WORDS)?;
        self.region.as_ref()?.mapping.words().get(..words)
    }
}

/// A hold on an instance: while it exists the instance cannot be destroyed.
#[derive(Debug)]
pub struct InstanceRef<'a, W, const CPUS: usize>(pub(crate) Ref<'a, Instance<W, CPUS>>);

impl<W: Word, const CPUS: usize> InstanceRef<'_, W, CPUS> {
    /// Which life of the kernel this is.
    pub fn incarnation(&self) -> Incarnation {
        self.0.incarnation
    }
    /// Its CPUs, by physical id.
    pub fn cpus(&self) -> &[PhysCpuId] {
        self.0.cpus()
    }
    /// The CPU that a message goes to unless another is named.
    pub fn doorbell_cpu(&self) -> PhysCpuId {
        self.0.doorbell_cpu
    }
    /// The vector to ring.
    pub fn vector(&self) -> Vector {
        self.0.vector
    }
    /// What becomes of an unread message.
    pub fn policy(&self) -> Occupied {
        self.0.policy
    }
    /// Where its region lies: exactly its slots; `None` if it has no region.
    pub fn region(&self) -> Option<PhysRange> {
        self.0.region.as_ref().map(|r| r.range)
    }
    /// The words of its region, for tests and tools; peers write them too. Empty if it has no region.
    pub fn words(&self) -> &[W] {
        self.0.words().unwrap_or(&[])
    }
}

/// Up to 256 instances with up to `CPUS` CPUs each.
#[derive(Debug)]
pub(crate) struct InstanceTable<W, const CPUS: usize> {
    entries: [Published<Instance<W, CPUS>>; MK_MAX_INSTANCES],
}

impl<W: Word, const CPUS: usize> InstanceTable<W, CPUS> {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self { entries: array_of![Published::new(); MK_MAX_INSTANCES] }
        }
    }

    fn entry(&self, id: InstanceId) -> Result<&Published<Instance<W, CPUS>>, LookupError> {
        // An id is below 256 (`InstanceId`), so there always is one.
        self.entries.get(id.index()).ok_or(LookupError::Unknown)
    }

    pub(crate) fn get(&self, id: InstanceId) -> Result<Ref<'_, Instance<W, CPUS>>, LookupError> {
        let entry = self.entry(id)?;
        let gone = if entry.was_used() { LookupError::Destroyed } else { LookupError::Unknown };
        entry.get().ok_or(gone)
    }

    /// Adds an instance whose region is made by `region`, while the entry is kept for it.
    fn add(
        &self,
        config: &InstanceConfig<'_>,
        region: impl FnOnce() -> Result<Option<Region<W>>, AddError>,
    ) -> Result<(), AddError> {
        let mut instance = Instance::new(config)?;
        let entry = self.entry(config.id).map_err(|_| AddError::BadCpus)?;
        let vacancy = entry.claim().ok_or(AddError::Exists)?;
        instance.region = region()?;
        vacancy.publish(instance);
        Ok(())
    }

    /// Adds an instance with a region from its pool, zeroed (SPEC C-1).
    pub(crate) fn create<P: Platform<Word = W>>(
        &self,
        platform: &P,
        config: &InstanceConfig<'_>,
    ) -> Result<PhysRange, AddError> {
        let mut made = Err(AddError::Pool(PoolError::Exhausted));
        self.add(config, || {
            let region = allocate(platform, config.id, region_size(config.slots))?;
            made = Ok(region.range);
            platform.region_added(config.id, region.range);
            Ok(Some(region))
        })?;
        made
    }

    /// Adds an instance whose region lies at `range`, or that has none.
    pub(crate) fn attach<P: Platform<Word = W>>(
        &self,
        platform: &P,
        config: &InstanceConfig<'_>,
        range: Option<PhysRange>,
    ) -> Result<(), AddError> {
        self.add(config, || {
            let Some(given) = range else { return Ok(None) };
            let needed = region_size(config.slots);
            if !given.start().is_page_aligned() {
                return Err(AddError::Misaligned);
            }
            let range = PhysRange::new(given.start(), needed).filter(|_| needed <= given.len());
            let range = range.ok_or(AddError::TooSmall(needed))?;
            let mapping = map_whole(platform, range).map_err(AddError::Map)?;
            platform.region_added(config.id, range);
            Ok(Some(Region { mapping, range, pooled: false }))
        })
    }

    /// Takes an instance out of the table, unmaps its region and gives pool memory back.
    pub(crate) fn destroy<P: Platform<Word = W>>(
        &self,
        platform: &P,
        id: InstanceId,
    ) -> Result<(), DestroyError> {
        let entry = self.entry(id).map_err(|_| DestroyError::Unknown)?;
        entry.close(None);
        // The vacancy keeps the id until its memory has been given back.
        let (instance, _vacancy) = entry.take().map_err(|e| match e {
            TakeError::NotClosing => DestroyError::Unknown,
            TakeError::InUse(n) => DestroyError::InUse(n),
        })?;
        if let Some(Region { mapping, range, pooled }) = instance.region {
            platform.region_removed(id, range);
            // SAFETY: it came from `map` of this platform; its entry had no users and none can come.
            unsafe { platform.unmap(mapping) };
            if pooled {
                // SAFETY: `allocate` took it for this instance; it was unmapped just now, and is gone from here.
                unsafe { platform.free(id, range) };
            }
        }
        Ok(())
    }

    /// Empties every slot that bears `claim`, in every region of the table (SPEC X-5); gives how many.
    pub(crate) fn clear_claims(&self, claim: Claim) -> usize {
        let mut cleared = 0usize;
        for instance in self.entries.iter().filter_map(Published::get) {
            if instance.policy == Occupied::Exclusive {
                // Not `count`, which adds with an overflow check.
                for slot in Slot::all(instance.words().unwrap_or(&[])) {
                    cleared = cleared.wrapping_add(slot.clear_claim(claim).into());
                }
            }
        }
        cleared
    }
}

/// A zeroed region of `len` bytes from the pool of `id`, mapped; all given back if a step fails.
fn allocate<P: InstancePool + PhysMemory>(
    platform: &P,
    id: InstanceId,
    len: u64,
) -> Result<Region<P::Word>, AddError> {
    let start = platform.alloc(id, len).map_err(AddError::Pool)?;
    // A pool that names memory beyond the machine has broken its duty; there is nothing to give back.
    let range = PhysRange::new(start, len).ok_or(AddError::Map(MapError::NotAllowed))?;
    match map_whole(platform, range) {
        Ok(mapping) => {
            for word in mapping.words() {
                word.store(0, Ordering::Relaxed);
            }
            Ok(Region { mapping, range, pooled: true })
        }
        Err(e) => {
            // SAFETY: `alloc` gave it just now, and it is not mapped.
            unsafe { platform.free(id, range) };
            Err(AddError::Map(e))
        }
    }
}

/// A mapping of the whole range, which is a multiple of 8 bytes long.
fn map_whole<P: PhysMemory>(platform: &P, range: PhysRange) -> Result<Mapping<P::Word>, MapError> {
    let mapping = platform.map(range, Access::ReadWrite)?;
    if (mapping.words().len() as u64).checked_mul(8) == Some(range.len()) {
        return Ok(mapping);
    }
    // SAFETY: it came from `map` just now, and nothing was borrowed from it.
    unsafe { platform.unmap(mapping) };
    Err(MapError::Misaligned)
}
