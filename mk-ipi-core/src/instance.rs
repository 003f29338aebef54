// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of instances: to which instances this kernel can send, where their regions lie, and how to ring them.

use crate::link::{AddError, Link, LinkConfig, Me};
use crate::native::{mapped_by, Sender, Unsettled};
use crate::platform::{MapError, PhysMemory, Platform};
use crate::published::{Published, Ref, TakeError};
use crate::rfc_v2::{Slot, SlotPolicy};
use crate::sync::{array_of, const_unless_loom, AtomicBool, AtomicU32, AtomicU64, Ordering, Word};
use mk_ipi_abi::directory::Layout;
use mk_ipi_abi::native::{Bell, Geometry, Life};
use mk_ipi_abi::rfc_v2::Claim;
use mk_ipi_abi::{Errno, Incarnation, InstanceId, PhysCpuId, PhysRange, Vector};

/// The description of an instance, which must be known before messages can be sent to the instance.
#[derive(Clone, Copy, Debug)]
pub struct InstanceConfig<'a> {
    /// The instance.
    pub id: InstanceId,
    /// The incarnation of its current or last life.
    pub incarnation: Incarnation,
    /// Physical ids of its CPUs, as far as they are known, including the doorbell CPU. They are checked when the instance is
    /// added, and are not stored. Later [`Observer::peer_has_cpu`](crate::platform::Observer::peer_has_cpu) says which CPUs the
    /// instance has.
    pub cpus: &'a [PhysCpuId],
    /// Physical id of the CPU to ring if the sender names no other CPU. It is below 2^48.
    pub doorbell_cpu: PhysCpuId,
    /// The vector to ring.
    pub vector: Vector,
    /// Whether only `doorbell_cpu` takes the doorbells of the instance. Then a sender can name no other CPU (SPEC S-7).
    pub one_doorbell: bool,
    /// The generation of its region, and the parameters of the region.
    pub link: LinkConfig,
}

/// Why an instance is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// The instance was never added.
    Unknown,
    /// The instance was destroyed, or is being destroyed.
    Destroyed,
}

impl core::fmt::Display for LookupError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Unknown => f.write_str("there is no such instance"),
            Self::Destroyed => f.write_str("the instance is destroyed"),
        }
    }
}

impl core::error::Error for LookupError {}

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
    /// This many senders or holders of an [`InstanceRef`] still use the instance. New users are refused from now on.
    /// Call again.
    InUse(u32),
    /// The region came from our pool, and this life of this other instance still has the region mapped. The instance stays in the
    /// table. Write into the directory that the region ends (SPEC D-8), and call again. Or state that the CPUs of that life have
    /// stopped ([`Endpoint::destroy_with`](crate::Endpoint::destroy_with)).
    Mapped(InstanceId, Incarnation),
    /// The region could not be mapped to read which instances use it. The instance stays in the table.
    Map(MapError),
}

impl core::fmt::Display for DestroyError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Unknown => f.write_str("there is no such instance"),
            Self::InUse(users) => write!(f, "the instance has {users} users"),
            Self::Mapped(id, life) => {
                write!(f, "instance {}, incarnation {}, still has the region mapped", id.get(), life.get())
            }
            Self::Map(e) => write!(f, "it is not known which instances have the region mapped: {e}"),
        }
    }
}

impl core::error::Error for DestroyError {}

impl DestroyError {
    /// `EINVAL`, `EBUSY` or `ENOMEM`.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Unknown => Errno::EINVAL,
            Self::InUse(_) | Self::Mapped(..) => Errno::EBUSY,
            Self::Map(_) => Errno::ENOMEM,
        }
    }
}

/// The place of a region, and where its memory came from.
#[derive(Clone, Copy, Debug)]
struct Region {
    range: PhysRange,
    /// Whether the memory came from the instance's pool. If so, it is given back to that pool.
    pooled: bool,
}

#[derive(Debug)]
pub(crate) struct Instance<W> {
    pub(crate) id: InstanceId,
    pub(crate) one_doorbell: bool,
    pub(crate) link: Link<W>,
    /// The incarnation in the directory. It may change.
    incarnation: AtomicU32,
    /// The doorbell in the directory, as a `BELL` word. It may change.
    doorbell: AtomicU64,
    /// Whether CPUs belong to the instance. A dead instance is not rung, because its former CPUs may belong to another instance.
    live: AtomicBool,
    /// The generation of the directory whose entry was applied last. 0: no entry was applied since the instance was added.
    applied: AtomicU32,
    region: Option<Region>,
}

impl<W: Word> Instance<W> {
    fn new(config: &InstanceConfig<'_>) -> Result<Self, AddError> {
        let &InstanceConfig { id, incarnation, cpus, doorbell_cpu, vector, one_doorbell, link } = config;
        if let Some(cpu) = link.unreachable(cpus) {
            return Err(AddError::BeyondRegion(cpu));
        }
        let doorbell = Bell { cpu: doorbell_cpu, vector }.to_word().filter(|_| cpus.contains(&doorbell_cpu));
        let doorbell = AtomicU64::new(doorbell.ok_or(AddError::BadCpus)?);
        let incarnation = AtomicU32::new(incarnation.get());
        let live = AtomicBool::new(true);
        let applied = AtomicU32::new(0);
        Ok(Self { id, one_doorbell, link: Link::None, incarnation, doorbell, live, applied, region: None })
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation::new(self.incarnation.load(Ordering::Relaxed)).unwrap_or(Incarnation::FIRST)
    }

    /// The doorbell in the directory.
    pub(crate) fn doorbell(&self) -> Bell {
        const NOWHERE: Bell = Bell { cpu: PhysCpuId(0), vector: Vector::RFC_V2 };
        // Only valid doorbell words are stored.
        Bell::from_word(self.doorbell.load(Ordering::Relaxed)).unwrap_or(NOWHERE)
    }

    /// Whether the life in the directory may have begun: the word `LIFE` of the region is not 0, and names no life that is older
    /// than the one in the directory. Before that, the instance must not be rung (SPEC N-12). An invalid `LIFE` counts as begun.
    pub(crate) fn may_listen(&self, sender: &Sender<W>) -> bool {
        sender.begun().is_some_and(|life| !life.is_some_and(|life| self.is_former(life.incarnation)))
    }

    /// Whether `life` is older than the life in the directory, as of the last time that the directory was followed.
    pub(crate) fn is_former(&self, life: Incarnation) -> bool {
        let listed = self.incarnation.load(Ordering::Relaxed);
        (1..=u32::MAX >> 1).contains(&listed.wrapping_sub(life.get()))
    }

    /// Whether CPUs belong to the instance, as of the last time that the directory was followed.
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    pub(crate) fn set_live(&self, live: bool) -> bool {
        self.live.swap(live, Ordering::Relaxed) != live
    }

    /// Notes that the entry of the directory's generation `generation` was applied.
    pub(crate) fn set_applied(&self, generation: u32) {
        self.applied.store(generation, Ordering::Relaxed);
    }

    /// Whether the entry of the directory's generation `generation` was applied.
    pub(crate) fn has_applied(&self, generation: u32) -> bool {
        self.applied.load(Ordering::Relaxed) == generation
    }

    /// Stores the incarnation and the doorbell that the directory has now for the same region. True if one of them changed.
    pub(crate) fn change(&self, incarnation: Incarnation, doorbell: Bell) -> bool {
        let changed = (self.incarnation(), self.doorbell()) != (incarnation, doorbell);
        if let Some(word) = doorbell.to_word() {
            self.incarnation.store(incarnation.get(), Ordering::Relaxed);
            self.doorbell.store(word, Ordering::Relaxed);
        }
        changed
    }

    /// Whether the region of the instance came from our pool.
    pub(crate) fn is_pooled(&self) -> bool {
        self.region.is_some_and(|region| region.pooled)
    }

    /// Whether the region was created again since we attached.
    pub(crate) fn is_gone(&self) -> bool {
        self.sender().is_some_and(Sender::is_gone)
    }

    pub(crate) fn region(&self) -> Option<PhysRange> {
        self.region.map(|region| region.range)
    }

    pub(crate) const fn has_region(&self) -> bool {
        self.region.is_some()
    }

    /// Our lane in the region of the instance; `None` if the region is not native.
    #[inline(always)]
    pub(crate) fn sender(&self) -> Option<&Sender<W>> {
        self.link.lane().map(|(sender, _)| sender)
    }

    /// Makes the link of `config` to the region at `range`. On an error nothing stays mapped.
    fn connect<P: PhysMemory<Word = W>, const N: usize>(
        &mut self,
        platform: &P,
        me: Option<Me<'_, N>>,
        config: LinkConfig,
        range: PhysRange,
    ) -> Result<PhysRange, AddError> {
        let (link, len) = Link::connect(platform, me, self.id, config, range)?;
        self.link = link;
        Ok(PhysRange::new(range.start(), len).unwrap_or(range))
    }

    /// Checks a native region that came from the pool: no instance has it mapped, except `me` and instances for which
    /// `has_stopped` returns true.
    fn check_unmapped<P: Platform<Word = W>>(
        &self,
        platform: &P,
        me: Option<InstanceId>,
        mut has_stopped: impl FnMut(InstanceId, Incarnation) -> bool,
    ) -> Result<(), DestroyError> {
        if self.sender().is_none() || !self.is_pooled() {
            return Ok(());
        }
        let mut first = None;
        self.mapped_by(platform, me, |id, incarnation| {
            if first.is_none() && !has_stopped(id, incarnation) {
                first = Some(DestroyError::Mapped(id, incarnation));
            }
        })?;
        first.map_or(Ok(()), Err)
    }

    /// Calls `each` for every instance except `me` that has the native region mapped.
    pub(crate) fn mapped_by<P: Platform<Word = W>>(
        &self,
        platform: &P,
        me: Option<InstanceId>,
        mut each: impl FnMut(InstanceId, Incarnation),
    ) -> Result<(), DestroyError> {
        let native = self.region().zip(self.sender());
        let (range, sender) = native.ok_or(DestroyError::Unknown)?;
        let mut theirs = |id, incarnation| {
            if Some(id) != me {
                each(id, incarnation);
            }
        };
        if let Some(life) = sender.lives() {
            theirs(self.id, life.unwrap_or_else(|| self.incarnation()));
        }
        mapped_by(platform, range, sender.geometry(), theirs).map_err(DestroyError::Map)
    }

    fn set_region<P: Platform>(&mut self, platform: &P, range: PhysRange, pooled: bool) {
        self.region = Some(Region { range, pooled });
        platform.region_added(self.id, range);
    }
}

/// A reference to an instance. While it exists, the instance cannot be destroyed.
#[derive(Debug)]
pub struct InstanceRef<'a, W>(pub(crate) Ref<'a, Instance<W>>);

impl<W: Word> InstanceRef<'_, W> {
    /// The life of the instance, as of the last time that the directory was followed.
    pub fn incarnation(&self) -> Incarnation {
        self.0.incarnation()
    }
    /// The CPU that is rung if the sender names no other CPU.
    pub fn doorbell_cpu(&self) -> PhysCpuId {
        self.0.doorbell().cpu
    }
    /// The vector to ring.
    pub fn vector(&self) -> Vector {
        self.0.doorbell().vector
    }
    /// Whether only the doorbell CPU takes the doorbells of the instance (SPEC S-7).
    pub fn one_doorbell(&self) -> bool {
        self.0.one_doorbell
    }
    /// The layout of its region; `None` if it has no region.
    pub fn layout(&self) -> Option<Layout> {
        self.0.link.layout()
    }
    /// The life of the instance's receiver, as its native region says now. `None` before the first life, and if the instance has
    /// no native region.
    pub fn life(&self) -> Option<Life> {
        self.0.sender().and_then(Sender::life)
    }
    /// Whether CPUs belong to the instance, as of the last time that the directory was [followed](crate::Endpoint::follow).
    pub fn is_live(&self) -> bool {
        self.0.is_live()
    }
    /// Whether the last [`tick`](crate::Endpoint::tick) found that the heartbeat of the instance has stopped.
    pub fn is_suspect(&self) -> bool {
        self.0.link.lane().is_some_and(|(_, watch)| watch.is_suspect())
    }
    /// The geometry of its native region; `None` if the instance has no native region.
    pub fn geometry(&self) -> Option<Geometry> {
        self.0.sender().map(Sender::geometry)
    }
    /// The policy of its slots; `None` if the instance has no slots.
    pub fn policy(&self) -> Option<SlotPolicy> {
        self.0.link.slots().map(|(_, policy)| policy)
    }
    /// The exact range of its region; `None` if the instance has no region.
    pub fn region(&self) -> Option<PhysRange> {
        self.0.region()
    }
    /// The words of its slots, for tests and tools. Peers write these words too. Empty if the instance has no slots.
    pub fn words(&self) -> &[W] {
        self.0.link.slots().map_or(&[], |(words, _)| words)
    }
}

/// A table with room for the instances whose id is below `N`.
#[derive(Debug)]
pub(crate) struct InstanceTable<W, const N: usize> {
    /// Counts how often an instance was added or removed.
    changes: AtomicU32,
    entries: [Published<Instance<W>>; N],
}

impl<W: Word, const N: usize> InstanceTable<W, N> {
    const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self { changes: AtomicU32::new(0), entries: array_of![Published::new(); N] }
        }
    }

    /// The same as `new`, but initializes the memory at `at`.
    ///
    /// # Safety
    ///
    /// `at` is valid for a write of a table.
    #[cfg(not(loom))]
    pub(crate) unsafe fn new_in(at: *mut Self) {
        // SAFETY: `at` is valid for a write (the caller). These are all fields.
        unsafe {
            (&raw mut (*at).changes).write(AtomicU32::new(0));
            crate::place::fill(&raw mut (*at).entries, Published::new);
            // A field that is added must be written above.
            let Self { changes: _, entries: _ } = &*at;
        }
    }

    /// A number, never 0, that changes whenever an instance is added or removed.
    #[inline(always)]
    pub(crate) fn version(&self) -> u32 {
        self.changes.load(Ordering::Relaxed) | 1 << 31
    }

    fn entry(&self, id: InstanceId) -> Result<&Published<Instance<W>>, LookupError> {
        self.entries.get(id.index()).ok_or(LookupError::Unknown)
    }

    pub(crate) fn get(&self, id: InstanceId) -> Result<Ref<'_, Instance<W>>, LookupError> {
        let entry = self.entry(id)?;
        let gone = if entry.was_used() { LookupError::Destroyed } else { LookupError::Unknown };
        entry.get().ok_or(gone)
    }

    /// Every instance in the table.
    pub(crate) fn all(&self) -> impl Iterator<Item = Ref<'_, Instance<W>>> {
        self.entries.iter().filter_map(Published::get)
    }

    /// Adds an instance. Calls `link`, which makes the link to the instance, while the entry is reserved.
    fn add(
        &self,
        config: &InstanceConfig<'_>,
        link: impl FnOnce(&mut Instance<W>) -> Result<(), AddError>,
    ) -> Result<(), AddError> {
        let mut instance = Instance::new(config)?;
        let entry = self.entry(config.id).map_err(|_| AddError::BeyondTable(config.id))?;
        let vacancy = entry.claim().ok_or(AddError::Exists)?;
        link(&mut instance)?;
        vacancy.publish(instance);
        self.changes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Adds an instance, and makes an empty region for it in memory from its pool (SPEC C-1, N-1).
    pub(crate) fn create<P: Platform<Word = W>>(
        &self,
        platform: &P,
        me: Option<Me<'_, N>>,
        config: &InstanceConfig<'_>,
    ) -> Result<PhysRange, AddError> {
        let mut made = None;
        self.add(config, |instance| {
            let len = config.link.region_len();
            let start = platform.alloc(config.id, len).map_err(AddError::Pool)?;
            // `None`: the address from the pool is invalid, which the pool's contract forbids. Such memory cannot be given back.
            let range = PhysRange::new(start, len).ok_or(AddError::Map(MapError::NotAllowed))?;
            let connected = Link::create(platform, config.link, range)
                .and_then(|()| instance.connect(platform, me, config.link, range));
            let range = connected.inspect_err(|_| {
                // SAFETY: `alloc` returned this memory above, and it is not mapped.
                unsafe { platform.free(config.id, range) };
            })?;
            instance.set_region(platform, range, true);
            made = Some(range);
            Ok(())
        })?;
        // `made` is always set here, because `add` succeeded.
        made.ok_or(AddError::Exists)
    }

    /// Adds an instance whose region lies at `range`. `None`: the instance has no region.
    pub(crate) fn attach<P: Platform<Word = W>>(
        &self,
        platform: &P,
        me: Option<Me<'_, N>>,
        config: &InstanceConfig<'_>,
        range: Option<PhysRange>,
    ) -> Result<(), AddError> {
        self.add(config, |instance| {
            let Some(given) = range else { return Ok(()) };
            let other = self.all().find(|other| other.region().is_some_and(|taken| taken.overlaps(given)));
            if let Some(other) = other {
                return Err(AddError::Overlaps(other.id));
            }
            let range = instance.connect(platform, me, config.link, config.link.region_in(given)?)?;
            instance.set_region(platform, range, false);
            Ok(())
        })
    }

    /// Removes an instance from the table, unmaps its region and gives pool memory back. Refused if an instance other than `me`
    /// has that memory mapped, and `has_stopped` is not true for it. Returns the messages of which it is not known whether they
    /// were handled.
    pub(crate) fn destroy<P: Platform<Word = W>>(
        &self,
        platform: &P,
        id: InstanceId,
        me: Option<InstanceId>,
        mut has_stopped: impl FnMut(InstanceId, Incarnation) -> bool,
    ) -> Result<Option<(Option<Incarnation>, Unsettled)>, DestroyError> {
        let entry = self.entry(id).map_err(|_| DestroyError::Unknown)?;
        if let Some(instance) = entry.get() {
            instance.check_unmapped(platform, me, &mut has_stopped)?;
        }
        entry.close(None);
        self.changes.fetch_add(1, Ordering::Relaxed);
        // The vacancy reserves the id until the memory was given back.
        let (instance, vacancy) = entry.take().map_err(|e| match e {
            TakeError::NotClosing => DestroyError::Unknown,
            TakeError::InUse(n) => DestroyError::InUse(n),
        })?;
        // Checked again, because another instance may have mapped the region meanwhile.
        if let Err(e) = instance.check_unmapped(platform, me, has_stopped) {
            vacancy.publish(instance);
            self.changes.fetch_add(1, Ordering::Relaxed);
            return Err(e);
        }
        let life = instance.sender().and_then(Sender::life).map(|life| life.incarnation);
        let unsettled = instance.sender().and_then(Sender::unsettled).map(|unsettled| (life, unsettled));
        if let Some(Region { range, pooled }) = instance.region {
            platform.region_removed(id, range);
            instance.link.disconnect(platform);
            if pooled {
                // SAFETY: `create` took the memory for this instance. It was unmapped above, and nothing here refers to it any
                // more.
                unsafe { platform.free(id, range) };
            }
        }
        drop(vacancy);
        Ok(unsettled)
    }

    /// Empties every slot with this claim, in every region of the table (SPEC X-5). Returns the number of slots emptied.
    pub(crate) fn clear_claims(&self, claim: Claim) -> usize {
        let mut cleared = 0usize;
        for instance in self.all() {
            if let Some((words, SlotPolicy::Exclusive)) = instance.link.slots() {
                // Not `count`, which adds with an overflow check.
                for slot in Slot::all(words) {
                    cleared = cleared.wrapping_add(slot.clear_claim(claim).into());
                }
            }
        }
        cleared
    }
}
