// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host, from a plan: see [`bring_up_host`](crate::EndpointExt::bring_up_host).

use super::Mapped;
use crate::ext::{AnyEndpoint, WordOf};
use core::fmt;
use mk_ipi_core::abi::directory::{
    directory_size, DirectoryError, DirectoryHeader, EntryFlags, InstanceRecord, Layout, State,
};
use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange};
use mk_ipi_core::directory::{DirectoryWriter, WriteError};
use mk_ipi_core::platform::{Access, Doorbell, DoorbellError, MapError, ThisCpu};
use mk_ipi_core::sync::{Ordering, Word};
use mk_ipi_core::{AddError, DestroyError, InstanceConfig, LinkConfig, SlotPolicy};

/// How often `undo` tries to destroy an instance that another context is using.
const TURNS: u32 = 1000;

/// What the host must set up on the machine.
#[derive(Clone, Copy, Debug)]
pub struct HostPlan<'a> {
    /// The memory of the directory. It begins on a page boundary, and nothing else may use it, also no pool.
    /// [`directory_size`] says how many bytes are needed.
    pub directory: PhysRange,
    /// The number of entries in the directory, at most 256. Only instances with ids below it can ever be listed.
    pub max_instances: u32,
    /// How many CPUs an entry has room for, at most 1,024.
    pub cpus_per_instance: u32,
    /// The CPU that booted the machine, which must not be stopped; `None` if it is not known.
    pub boot_cpu: Option<PhysCpuId>,
    /// The instance of the kernel that makes the call; [`InstanceId::HOST`] by convention.
    pub me: InstanceId,
    /// All instances, the host included: each with its CPUs, the CPU and vector of its doorbell, and the layout of its
    /// region. The regions come from the instances' pools.
    pub instances: &'a [InstanceConfig<'a>],
}

/// Why this kernel did not become the host. Everything that was done is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The endpoint already has an identity: this instance.
    HasIdentity(InstanceId),
    /// The host itself is not among the instances.
    HostNotPlanned(InstanceId),
    /// The directory's memory does not begin on a page boundary.
    Misaligned(PhysAddr),
    /// The counts are out of bounds, or the memory is too small for them.
    Directory(DirectoryError),
    /// The instance is planned twice.
    Twice(InstanceId),
    /// The directory has no entry for this instance, because its id is not below `max_instances`.
    BeyondDirectory(InstanceId),
    /// The endpoint has no room for an instance with this id.
    BeyondTable(InstanceId),
    /// The instance is in the endpoint's table already.
    Exists(InstanceId),
    /// The instance has no CPU, or more than `cpus_per_instance`.
    CpuCount(InstanceId),
    /// The CPU is listed twice, for these two instances, which may be the same.
    CpuTaken(PhysCpuId, InstanceId, InstanceId),
    /// The instance's doorbell CPU is not one of its CPUs, or has more than 48 bits.
    Doorbell(InstanceId, PhysCpuId),
    /// The CPU that runs the call is not one of the host's.
    NotOurCpu(PhysCpuId),
    /// The instance's region of RFC v2 has no slot for this CPU.
    NoSlot(InstanceId, PhysCpuId),
    /// The instance's native region has too few lanes. The number is how many are needed for the highest id of the plan.
    TooFewLanes(InstanceId, u32),
    /// The instance's doorbell cannot be rung from this CPU.
    Unreachable(InstanceId, DoorbellError),
    /// The directory's memory could not be mapped.
    Map(MapError),
    /// The instance's region could not be made.
    Region(InstanceId, AddError),
    /// The directory refuses the entry of the instance.
    Entry(InstanceId, WriteError),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HasIdentity(id) => write!(f, "this kernel is instance {} already", id.get()),
            Self::HostNotPlanned(id) => write!(f, "the host, instance {}, is not in its own plan", id.get()),
            Self::Misaligned(at) => {
                write!(f, "the directory at {:#x} does not begin on a page boundary", at.0)
            }
            Self::Directory(e) => write!(f, "the directory cannot be made: {e}"),
            Self::Twice(id) => write!(f, "instance {} is planned twice", id.get()),
            Self::BeyondDirectory(id) => write!(f, "the directory has no entry for instance {}", id.get()),
            Self::BeyondTable(id) => write!(f, "this kernel has no room for instance {}", id.get()),
            Self::Exists(id) => write!(f, "instance {} exists already", id.get()),
            Self::CpuCount(id) => {
                write!(f, "instance {} has no CPU, or more than an entry can list", id.get())
            }
            Self::CpuTaken(cpu, a, b) => {
                write!(f, "CPU {:#x} is planned for instance {} and for instance {}", cpu.0, a.get(), b.get())
            }
            Self::Doorbell(id, cpu) => {
                write!(f, "instance {} cannot have its doorbell at CPU {:#x}", id.get(), cpu.0)
            }
            Self::NotOurCpu(cpu) => write!(f, "CPU {:#x}, which runs the host, is not planned for it", cpu.0),
            Self::NoSlot(id, cpu) => {
                write!(f, "the region of instance {} has no slot for CPU {:#x}", id.get(), cpu.0)
            }
            Self::TooFewLanes(id, needed) => {
                write!(f, "the region of instance {} needs {needed} lanes", id.get())
            }
            Self::Unreachable(id, e) => write!(f, "instance {} cannot be rung: {e}", id.get()),
            Self::Map(e) => write!(f, "the directory cannot be mapped: {e}"),
            Self::Region(id, e) => write!(f, "the region of instance {} cannot be made: {e}", id.get()),
            Self::Entry(id, e) => write!(f, "the directory refuses instance {}: {e}", id.get()),
        }
    }
}

impl core::error::Error for HostError {}

impl HostPlan<'_> {
    /// Checks everything that can be checked before anything is done. The time grows with the square of the number of CPUs.
    ///
    /// # Errors
    /// The first thing that is wrong. [`HostError`]'s `Map`, `Region` and `Entry` are found later.
    pub fn check<E: AnyEndpoint + ?Sized>(&self, endpoint: &E) -> Result<(), HostError> {
        if let Some((id, _)) = endpoint.identity() {
            return Err(HostError::HasIdentity(id));
        }
        self.check_directory()?;
        // `enumerate` is not used: it counts with an overflow check.
        for (n, instance) in (0..self.instances.len()).zip(self.instances) {
            self.check_id(n, instance.id, endpoint)?;
            self.check_cpus(n, instance)?;
            self.check_link(instance)?;
        }
        let (platform, cpu) = (endpoint.platform(), endpoint.platform().physical_id());
        let host = self.instances.iter().find(|instance| instance.id == self.me);
        let host = host.ok_or(HostError::HostNotPlanned(self.me))?;
        if !host.cpus.contains(&cpu) {
            return Err(HostError::NotOurCpu(cpu));
        }
        self.instances.iter().filter(|instance| instance.id != self.me).try_for_each(|instance| {
            let reachable = platform.check(instance.doorbell_cpu, instance.vector);
            reachable.map_err(|e| HostError::Unreachable(instance.id, e))
        })
    }

    fn check_directory(&self) -> Result<(), HostError> {
        if !self.directory.start().is_page_aligned() {
            return Err(HostError::Misaligned(self.directory.start()));
        }
        let header = DirectoryHeader::new(self.max_instances, self.cpus_per_instance);
        let header = header.ok_or(HostError::Directory(DirectoryError::Geometry))?;
        header.check(self.directory.len()).map(drop).map_err(HostError::Directory)
    }

    fn check_id<E: AnyEndpoint + ?Sized>(
        &self,
        n: usize,
        id: InstanceId,
        endpoint: &E,
    ) -> Result<(), HostError> {
        if self.instances.iter().take(n).any(|before| before.id == id) {
            return Err(HostError::Twice(id));
        }
        if u32::from(id.get()) >= self.max_instances {
            return Err(HostError::BeyondDirectory(id));
        }
        if id.index() >= endpoint.max_instances() {
            return Err(HostError::BeyondTable(id));
        }
        endpoint.instance(id).map_or(Ok(()), |_| Err(HostError::Exists(id)))
    }

    fn check_cpus(&self, n: usize, instance: &InstanceConfig<'_>) -> Result<(), HostError> {
        let &InstanceConfig { id, cpus, doorbell_cpu, .. } = instance;
        let room = usize::try_from(self.cpus_per_instance).unwrap_or(usize::MAX);
        if cpus.is_empty() || cpus.len() > room {
            return Err(HostError::CpuCount(id));
        }
        for (i, cpu) in (0..cpus.len()).zip(cpus) {
            if cpus.iter().take(i).any(|before| before == cpu) {
                return Err(HostError::CpuTaken(*cpu, id, id));
            }
            if let Some(other) = self.instances.iter().take(n).find(|other| other.cpus.contains(cpu)) {
                return Err(HostError::CpuTaken(*cpu, other.id, id));
            }
        }
        if !cpus.contains(&doorbell_cpu) || doorbell_cpu.0 >> 48 != 0 {
            return Err(HostError::Doorbell(id, doorbell_cpu));
        }
        Ok(())
    }

    fn check_link(&self, instance: &InstanceConfig<'_>) -> Result<(), HostError> {
        match instance.link {
            LinkConfig::RfcV2 { slots, .. } => {
                let beyond = instance.cpus.iter().find(|cpu| cpu.0 >= u64::from(slots));
                beyond.map_or(Ok(()), |cpu| Err(HostError::NoSlot(instance.id, *cpu)))
            }
            LinkConfig::Native(geometry) => {
                let highest = self.instances.iter().map(|other| other.id.get()).max().unwrap_or(0);
                let needed = u32::from(highest).saturating_add(1);
                // The default of `create_instance`.
                let lanes = geometry.map_or(16, Geometry::lanes);
                (lanes >= needed).then_some(()).ok_or(HostError::TooFewLanes(instance.id, needed))
            }
        }
    }

    /// The bytes of [`directory`](Self::directory) that are used.
    fn directory_range(&self) -> PhysRange {
        let len = directory_size(self.max_instances, self.cpus_per_instance);
        PhysRange::new(self.directory.start(), len).unwrap_or(self.directory)
    }
}

/// See [`bring_up_host`](crate::EndpointExt::bring_up_host).
pub(crate) fn start<E: AnyEndpoint + ?Sized>(
    endpoint: &E,
    plan: &HostPlan<'_>,
) -> Result<DirectoryWriter<'static, WordOf<E>>, HostError> {
    plan.check(endpoint)?;
    let incarnation = plan.instances.iter().find(|i| i.id == plan.me).map(|host| host.incarnation);
    let incarnation = incarnation.ok_or(HostError::HostNotPlanned(plan.me))?;
    let mapped = Mapped::new(endpoint.platform(), plan.directory_range(), Access::ReadWrite);
    let mapped = mapped.map_err(HostError::Map)?;
    // SAFETY: `make` returns a directory on these words only if it succeeds, and then the mapping is kept.
    let words = unsafe { mapped.words_to_keep() };
    // A native link needs our identity first.
    endpoint.identify(plan.me, incarnation);
    match make(endpoint, plan, words) {
        Ok(directory) => {
            mapped.keep();
            Ok(directory)
        }
        Err(e) => {
            undo(endpoint, plan, mapped);
            Err(e)
        }
    }
}

/// Writes the directory, and makes the regions.
fn make<W: Word, E: AnyEndpoint + ?Sized>(
    endpoint: &E,
    plan: &HostPlan<'_>,
    words: &'static [W],
) -> Result<DirectoryWriter<'static, W>, HostError> {
    let directory = DirectoryWriter::create(words, plan.max_instances, plan.cpus_per_instance);
    let directory = directory.map_err(HostError::Directory)?.at(plan.directory.start());
    let mut directory = match plan.boot_cpu {
        Some(cpu) => directory.boot_cpu(cpu),
        None => directory,
    };
    for instance in plan.instances {
        let region = endpoint.create_instance(instance).map_err(|e| HostError::Region(instance.id, e))?;
        let state = if instance.id == plan.me { State::Running } else { State::Starting };
        let written = directory.write(&record_of(instance, state, region), instance.cpus);
        written.map_err(|e| HostError::Entry(instance.id, e))?;
    }
    Ok(directory)
}

/// Undoes what [`make`] has done.
fn undo<E: AnyEndpoint + ?Sized>(endpoint: &E, plan: &HostPlan<'_>, directory: Mapped<'_, E::Platform>) {
    // Erase the stamp first, so that no kernel reads of regions that will be removed.
    directory.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
    drop(directory);
    for instance in plan.instances.iter().rev() {
        // An instance that was not made yet is unknown, which is no problem. If an interrupt on another CPU uses the instance,
        // try again.
        for _ in 0..TURNS {
            match endpoint.destroy_instance(instance.id) {
                Err(DestroyError::InUse(_)) => endpoint.platform().relax(),
                _ => break,
            }
        }
    }
    endpoint.forget_identity();
}

/// The directory's entry of an instance whose region was made.
fn record_of(instance: &InstanceConfig<'_>, state: State, region: PhysRange) -> InstanceRecord {
    let (layout, mut flags) = match instance.link {
        LinkConfig::Native(_) => (Layout::Native, EntryFlags::empty()),
        LinkConfig::RfcV2 { policy: SlotPolicy::Exclusive, .. } => (Layout::RfcV2, EntryFlags::EXCLUSIVE),
        LinkConfig::RfcV2 { policy: SlotPolicy::Overwrite, .. } => (Layout::RfcV2, EntryFlags::empty()),
    };
    if instance.one_doorbell {
        flags |= EntryFlags::ONE_DOORBELL;
    }
    InstanceRecord {
        instance: instance.id,
        incarnation: instance.incarnation,
        state,
        layout,
        flags,
        region: Some(region),
        doorbell_cpu: instance.doorbell_cpu,
        vector: instance.vector,
        nr_cpus: 0,
    }
}
