// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of instances: who can be sent to, where its region lies, how to ring it.

use crate::link::{AddError, Link, LinkConfig, Me};
use crate::native::Sender;
use crate::platform::{MapError, PhysMemory, Platform};
use crate::published::{Published, Ref, TakeError};
use crate::rfc_v2::{Occupied, Slot};
use crate::sync::{array_of, const_unless_loom, AtomicU32, Ordering, Word};
use mk_ipi_abi::directory::Layout;
use mk_ipi_abi::native::Geometry;
use mk_ipi_abi::rfc_v2::{Claim, MK_MAX_INSTANCES};
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
    /// Whether the vector is good at `doorbell_cpu` alone: then no other CPU can be the target (SPEC S-7).
    pub one_doorbell: bool,
    /// What its region speaks.
    pub link: LinkConfig,
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

/// Where a region lies.
#[derive(Clone, Copy, Debug)]
struct Region {
    range: PhysRange,
    /// Whether the memory came from the instance's pool and goes back there.
    pooled: bool,
}

#[derive(Debug)]
pub(crate) struct Instance<W, const CPUS: usize> {
    pub(crate) id: InstanceId,
    pub(crate) incarnation: Incarnation,
    pub(crate) doorbell_cpu: PhysCpuId,
    pub(crate) vector: Vector,
    pub(crate) one_doorbell: bool,
    pub(crate) link: Link<W>,
    cpus: [PhysCpuId; CPUS],
    nr_cpus: usize,
    region: Option<Region>,
}

impl<W: Word, const CPUS: usize> Instance<W, CPUS> {
    fn new(config: &InstanceConfig<'_>) -> Result<Self, AddError> {
        let &InstanceConfig { id, incarnation, doorbell_cpu, vector, one_doorbell, link, .. } = config;
        if let Some(cpu) = link.unreachable(config.cpus) {
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
        let link = Link::None;
        Ok(Self { id, incarnation, doorbell_cpu, vector, one_doorbell, link, cpus, nr_cpus, region: None })
    }

    pub(crate) fn cpus(&self) -> &[PhysCpuId] {
        self.cpus.get(..self.nr_cpus).unwrap_or(&[])
    }

    /// Whether a sender may name `cpu` as the target.
    pub(crate) fn is_target(&self, cpu: PhysCpuId) -> bool {
        self.cpus().contains(&cpu) && (!self.one_doorbell || cpu == self.doorbell_cpu)
    }

    pub(crate) const fn has_region(&self) -> bool {
        self.region.is_some()
    }

    /// Our lane in its region, if that is native.
    #[inline(always)]
    pub(crate) fn sender(&self) -> Option<&Sender<W>> {
        self.link.lane().map(|(sender, _)| sender)
    }

    /// Makes the link of `config` to the region at `range`; nothing stays mapped if that fails.
    fn connect<P: PhysMemory<Word = W>>(
        &mut self,
        platform: &P,
        me: Option<Me<'_>>,
        config: LinkConfig,
        range: PhysRange,
    ) -> Result<PhysRange, AddError> {
        let (link, len) = Link::connect(platform, me, self.id, config, range)?;
        self.link = link;
        Ok(PhysRange::new(range.start(), len).unwrap_or(range))
    }

    fn set_region<P: Platform>(&mut self, platform: &P, range: PhysRange, pooled: bool) {
        self.region = Some(Region { range, pooled });
        platform.region_added(self.id, range);
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
    /// Whether the vector is good at the doorbell CPU alone (SPEC S-7).
    pub fn one_doorbell(&self) -> bool {
        self.0.one_doorbell
    }
    /// What its region speaks; `None` if it has no region.
    pub fn layout(&self) -> Option<Layout> {
        self.0.link.layout()
    }
    /// How large its native region is, and how long a message to it may be; `None` if it has none.
    pub fn geometry(&self) -> Option<Geometry> {
        self.0.sender().map(Sender::geometry)
    }
    /// What becomes of an unread message in its slots; `None` if it has none.
    pub fn policy(&self) -> Option<Occupied> {
        self.0.link.slots().map(|(_, policy)| policy)
    }
    /// Where its region lies, exactly; `None` if it has no region.
    pub fn region(&self) -> Option<PhysRange> {
        self.0.region.map(|r| r.range)
    }
    /// The words of its slots, for tests and tools; peers write them too. Empty if it has none.
    pub fn words(&self) -> &[W] {
        self.0.link.slots().map_or(&[], |(words, _)| words)
    }
}

/// Up to 256 instances with up to `CPUS` CPUs each.
#[derive(Debug)]
pub(crate) struct InstanceTable<W, const CPUS: usize> {
    /// How often an instance has come or gone.
    changes: AtomicU32,
    entries: [Published<Instance<W, CPUS>>; MK_MAX_INSTANCES],
}

impl<W: Word, const CPUS: usize> InstanceTable<W, CPUS> {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self { changes: AtomicU32::new(0), entries: array_of![Published::new(); MK_MAX_INSTANCES] }
        }
    }

    /// As `new`, in place.
    ///
    /// # Safety
    ///
    /// `at` is valid for a write of a table.
    #[cfg(not(loom))]
    pub(crate) unsafe fn new_in(at: *mut Self) {
        // SAFETY: the caller; these are all fields (`new`).
        unsafe {
            (&raw mut (*at).changes).write(AtomicU32::new(0));
            crate::place::fill(&raw mut (*at).entries, Published::new);
            // A field that is added must be written above.
            let Self { changes: _, entries: _ } = &*at;
        }
    }

    /// Another number, never 0, whenever an instance has come or gone.
    #[inline(always)]
    pub(crate) fn version(&self) -> u32 {
        self.changes.load(Ordering::Relaxed) | 1 << 31
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

    /// Every instance that is there.
    pub(crate) fn all(&self) -> impl Iterator<Item = Ref<'_, Instance<W, CPUS>>> {
        self.entries.iter().filter_map(Published::get)
    }

    /// Adds an instance whose link is made by `link`, while the entry is kept for it.
    fn add(
        &self,
        config: &InstanceConfig<'_>,
        link: impl FnOnce(&mut Instance<W, CPUS>) -> Result<(), AddError>,
    ) -> Result<(), AddError> {
        let mut instance = Instance::new(config)?;
        let entry = self.entry(config.id).map_err(|_| AddError::BadCpus)?;
        let vacancy = entry.claim().ok_or(AddError::Exists)?;
        link(&mut instance)?;
        vacancy.publish(instance);
        self.changes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Adds an instance with a region from its pool, empty (SPEC C-1, N-1).
    pub(crate) fn create<P: Platform<Word = W>>(
        &self,
        platform: &P,
        me: Option<Me<'_>>,
        config: &InstanceConfig<'_>,
    ) -> Result<PhysRange, AddError> {
        let mut made = None;
        self.add(config, |instance| {
            let len = config.link.region_len();
            let start = platform.alloc(config.id, len).map_err(AddError::Pool)?;
            // A pool that names memory beyond the machine has broken its duty; there is nothing to give back.
            let range = PhysRange::new(start, len).ok_or(AddError::Map(MapError::NotAllowed))?;
            let connected = Link::create(platform, config.link, range)
                .and_then(|()| instance.connect(platform, me, config.link, range));
            let range = connected.inspect_err(|_| {
                // SAFETY: `alloc` gave it just now, and it is not mapped.
                unsafe { platform.free(config.id, range) };
            })?;
            instance.set_region(platform, range, true);
            made = Some(range);
            Ok(())
        })?;
        // Not reached without one.
        made.ok_or(AddError::Exists)
    }

    /// Adds an instance whose region lies at `range`, or that has none.
    pub(crate) fn attach<P: Platform<Word = W>>(
        &self,
        platform: &P,
        me: Option<Me<'_>>,
        config: &InstanceConfig<'_>,
        range: Option<PhysRange>,
    ) -> Result<(), AddError> {
        self.add(config, |instance| {
            let Some(given) = range else { return Ok(()) };
            let range = instance.connect(platform, me, config.link, config.link.region_in(given)?)?;
            instance.set_region(platform, range, false);
            Ok(())
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
        self.changes.fetch_add(1, Ordering::Relaxed);
        // The vacancy keeps the id until its memory has been given back.
        let (instance, _vacancy) = entry.take().map_err(|e| match e {
            TakeError::NotClosing => DestroyError::Unknown,
            TakeError::InUse(n) => DestroyError::InUse(n),
        })?;
        if let Some(Region { range, pooled }) = instance.region {
            platform.region_removed(id, range);
            instance.link.disconnect(platform);
            if pooled {
                // SAFETY: `create` took it for this instance; it was unmapped just now, and is gone from here.
                unsafe { platform.free(id, range) };
            }
        }
        Ok(())
    }

    /// Empties every slot that bears `claim`, in every region of the table (SPEC X-5); gives how many.
    pub(crate) fn clear_claims(&self, claim: Claim) -> usize {
        let mut cleared = 0usize;
        for instance in self.all() {
            if let Some((words, Occupied::Exclusive)) = instance.link.slots() {
                // Not `count`, which adds with an overflow check.
                for slot in Slot::all(words) {
                    cleared = cleared.wrapping_add(slot.clear_claim(claim).into());
                }
            }
        }
        cleared
    }
}
