// SPDX-License-Identifier: MIT OR Apache-2.0
//! Brings up a host from a plan: see [`bring_up_host`](crate::EndpointExt::bring_up_host).

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

/// How often `undo` tries to destroy an instance while another context uses it. After these tries the instance stays.
const TURNS: u32 = 1000;

/// What the host must set up on the machine.
#[derive(Clone, Copy, Debug)]
pub struct HostPlan<'a> {
    /// The physical memory of the directory. It must begin on a page boundary, and must not be used for anything else, also not
    /// by a pool. [`directory_size`] returns the number of bytes that are needed.
    pub directory: PhysRange,
    /// The number of entries in the directory, 1 to 256. The directory can list only instances with ids below this number.
    pub max_instances: u32,
    /// The number of CPUs for which each entry has room, 1 to 1,024.
    pub cpus_per_instance: u32,
    /// The CPU that booted the machine, which must not be stopped. `None` if it is not known.
    pub boot_cpu: Option<PhysCpuId>,
    /// The instance of the kernel that makes the call. By convention it is [`InstanceId::HOST`].
    pub me: InstanceId,
    /// All instances, also the host: each with its CPUs, the CPU and vector of its doorbell, and the layout of its region. Each
    /// region is allocated from the pool of its instance.
    pub instances: &'a [InstanceConfig<'a>],
}

/// Why this kernel did not become the host. The steps that were done are undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The endpoint has an identity already: it is this instance.
    HasIdentity(InstanceId),
    /// The plan's instances do not contain the host, which is this instance.
    HostNotPlanned(InstanceId),
    /// The memory of the directory, at this address, does not begin on a page boundary.
    Misaligned(PhysAddr),
    /// `max_instances` or `cpus_per_instance` is not within its limits, or the memory is too small for a directory of this size.
    Directory(DirectoryError),
    /// The plan contains the instance twice.
    Twice(InstanceId),
    /// The directory has no entry for this instance, because its id is not below `max_instances`.
    BeyondDirectory(InstanceId),
    /// The endpoint has no room for an instance with this id.
    BeyondTable(InstanceId),
    /// The instance is in the endpoint's table already.
    Exists(InstanceId),
    /// The instance has no CPU, or more than `cpus_per_instance` CPUs.
    CpuCount(InstanceId),
    /// The plan contains the CPU twice: for these two instances, or twice for one instance.
    CpuTaken(PhysCpuId, InstanceId, InstanceId),
    /// The doorbell CPU of the instance is not one of its CPUs, or its id has more than 48 bits.
    Doorbell(InstanceId, PhysCpuId),
    /// The CPU that makes the call is not one of the host's CPUs in the plan.
    NotOurCpu(PhysCpuId),
    /// The RFC v2 region of the instance has no slot for this CPU.
    NoSlot(InstanceId, PhysCpuId),
    /// The native region of the instance has too few lanes. The number says how many lanes the highest id in the plan needs.
    TooFewLanes(InstanceId, u32),
    /// This CPU cannot send doorbells to the instance.
    Unreachable(InstanceId, DoorbellError),
    /// The memory of the directory could not be mapped.
    Map(MapError),
    /// The region of the instance could not be created.
    Region(InstanceId, AddError),
    /// The entry of the instance could not be written into the directory.
    Entry(InstanceId, WriteError),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HasIdentity(id) => write!(f, "this kernel is instance {} already", id.get()),
            Self::HostNotPlanned(id) => write!(f, "the plan has no instance {}, the host", id.get()),
            Self::Misaligned(at) => {
                write!(f, "the memory of the directory does not begin on a page boundary: {:#x}", at.0)
            }
            Self::Directory(e) => write!(f, "the directory cannot be created: {e}"),
            Self::Twice(id) => write!(f, "the plan contains instance {} twice", id.get()),
            Self::BeyondDirectory(id) => write!(f, "the directory has no entry for instance {}", id.get()),
            Self::BeyondTable(id) => write!(f, "the endpoint has no room for instance {}", id.get()),
            Self::Exists(id) => write!(f, "the endpoint has instance {} already", id.get()),
            Self::CpuCount(id) => {
                write!(f, "instance {} has no CPU, or more than an entry can list", id.get())
            }
            Self::CpuTaken(cpu, a, b) => {
                write!(f, "CPU {:#x} is planned for instance {} and for instance {}", cpu.0, a.get(), b.get())
            }
            Self::Doorbell(id, cpu) => {
                write!(f, "CPU {:#x} cannot be the doorbell CPU of instance {}", cpu.0, id.get())
            }
            Self::NotOurCpu(cpu) => {
                write!(f, "this call runs on CPU {:#x}, which the plan does not give to the host", cpu.0)
            }
            Self::NoSlot(id, cpu) => {
                write!(f, "the region of instance {} has no slot for CPU {:#x}", id.get(), cpu.0)
            }
            Self::TooFewLanes(id, needed) => {
                write!(f, "the region of instance {} needs {needed} lanes", id.get())
            }
            Self::Unreachable(id, e) => write!(f, "no doorbell can be sent to instance {}: {e}", id.get()),
            Self::Map(e) => write!(f, "the directory cannot be mapped: {e}"),
            Self::Region(id, e) => write!(f, "the region of instance {} cannot be created: {e}", id.get()),
            Self::Entry(id, e) => {
                write!(f, "the directory entry of instance {} cannot be written: {e}", id.get())
            }
        }
    }
}

impl core::error::Error for HostError {}

impl HostPlan<'_> {
    /// Checks the plan. The check changes nothing on the machine, so it cannot find every error. The time grows with the square
    /// of the number of CPUs.
    ///
    /// # Errors
    /// The first error that is found. `Map`, `Region` and `Entry` of [`HostError`] cannot be found by this check.
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

    /// Checks the memory and the size of the directory.
    fn check_directory(&self) -> Result<(), HostError> {
        if !self.directory.start().is_page_aligned() {
            return Err(HostError::Misaligned(self.directory.start()));
        }
        let header = DirectoryHeader::new(self.max_instances, self.cpus_per_instance);
        let header = header.ok_or(HostError::Directory(DirectoryError::Geometry))?;
        header.check(self.directory.len()).map(drop).map_err(HostError::Directory)
    }

    /// Checks the id of instance number `n` of the plan.
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

    /// Checks the CPUs of instance number `n` of the plan.
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

    /// Checks that the region of the instance is large enough: RFC v2 needs a slot for each CPU of the instance, and the native
    /// link needs a lane for each id up to the highest id in the plan.
    fn check_link(&self, instance: &InstanceConfig<'_>) -> Result<(), HostError> {
        match instance.link {
            LinkConfig::RfcV2 { slots, .. } => {
                let beyond = instance.cpus.iter().find(|cpu| cpu.0 >= u64::from(slots));
                beyond.map_or(Ok(()), |cpu| Err(HostError::NoSlot(instance.id, *cpu)))
            }
            LinkConfig::Native(geometry) => {
                let highest = self.instances.iter().map(|other| other.id.get()).max().unwrap_or(0);
                let needed = u32::from(highest).saturating_add(1);
                // Without a geometry, `create_instance` makes 16 lanes.
                let lanes = geometry.map_or(16, Geometry::lanes);
                (lanes >= needed).then_some(()).ok_or(HostError::TooFewLanes(instance.id, needed))
            }
        }
    }

    /// The part of [`directory`](Self::directory) that the directory uses.
    fn directory_range(&self) -> PhysRange {
        let len = directory_size(self.max_instances, self.cpus_per_instance);
        PhysRange::new(self.directory.start(), len).unwrap_or(self.directory)
    }
}

/// Implements [`bring_up_host`](crate::EndpointExt::bring_up_host).
pub(crate) fn start<E: AnyEndpoint + ?Sized>(
    endpoint: &E,
    plan: &HostPlan<'_>,
) -> Result<DirectoryWriter<'static, WordOf<E>>, HostError> {
    plan.check(endpoint)?;
    let incarnation = plan.instances.iter().find(|i| i.id == plan.me).map(|host| host.incarnation);
    let incarnation = incarnation.ok_or(HostError::HostNotPlanned(plan.me))?;
    let mapped = Mapped::new(endpoint.platform(), plan.directory_range(), Access::ReadWrite);
    let mapped = mapped.map_err(HostError::Map)?;
    // SAFETY: if `make` succeeds, the mapping is kept. If it fails, the words are not used any more.
    let words = unsafe { mapped.words_to_keep() };
    // A native link can be made only by a kernel with an identity.
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

/// Writes the directory, and creates the regions.
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

/// Undoes what [`start`] and [`make`] have done. If another CPU uses an instance for too long, that instance and our identity
/// stay.
fn undo<E: AnyEndpoint + ?Sized>(endpoint: &E, plan: &HostPlan<'_>, directory: Mapped<'_, E::Platform>) {
    // Clear the directory first, so that no kernel can find the regions that are removed below.
    directory.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
    drop(directory);
    let mut all_gone = true;
    for instance in plan.instances.iter().rev() {
        // If another CPU uses the instance in an interrupt handler, try again.
        let destroyed = (0..TURNS).find_map(|_| match endpoint.destroy_instance(instance.id) {
            Err(DestroyError::InUse(_)) => {
                endpoint.platform().relax();
                None
            }
            done => Some(done),
        });
        // An instance that was not created is unknown.
        all_gone &= matches!(destroyed, Some(Ok(()) | Err(DestroyError::Unknown)));
    }
    // With an instance in the table, the identity must stay.
    if all_gone {
        endpoint.forget_identity();
    }
}

/// Returns the directory entry of an instance whose region was created.
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
