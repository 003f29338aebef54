// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host. It makes instances, starts and stops their kernels, and writes the directory. A lock allows one caller at a
//! time.
//!
//! To start a kernel, give CPUs away (`lend.rs`), create an instance with them (`make.rs`), and start its kernel
//! (`lives.rs`). To remove it, stop or kill the kernel, destroy the instance, and take the CPUs back. A step that fails
//! undoes what it has done. `lend.rs` also moves CPUs to and from a kernel that runs.

mod lend;
mod lives;
mod make;

pub use lend::{give, give_to, take, take_from};
pub use lives::{stop, Files};

use crate::cpus;
use crate::failure::{refuse, Result};
use crate::ffi;
use crate::listed::{set_reader, write};
use crate::lock::Locked;
use crate::memory::{self, Owner};
use crate::peers::MAX_INSTANCES;
use crate::platform::{Linux, ENDPOINT, MAX_CPUS};
use mk_ipi_core::abi::directory::{directory_size, EntryFlags, InstanceRecord, Layout, State};
use mk_ipi_core::abi::native::{Geometry, MAX_LEN};
use mk_ipi_core::abi::rfc_v2::SLOT_SIZE;
use mk_ipi_core::abi::{Incarnation, InstanceId, PhysCpuId, Vector};
use mk_ipi_core::directory::DirectoryWriter;
use mk_ipi_core::platform::{Access, Mapping, PhysMemory};
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_core::{config_of, AddError, DestroyError, InstanceConfig, LinkConfig, SlotPolicy};

/// The largest number of CPUs of one instance. Linux itself (instance 0) can have more.
pub const MAX_INSTANCE_CPUS: usize = 8;
/// Size in bytes of the pool of an instance, if the command does not name a size.
pub const DEFAULT_POOL: u64 = 1 << 20;
/// Number of cache lines of each lane. This is room for six messages of the largest length.
const LINES: u32 = 512;
/// The smallest number of slots of a region (RFC v2).
const MIN_SLOTS: u32 = 8;
/// How many milliseconds to wait until all kernels have unmapped a region that is removed.
const DETACH_MS: u32 = 2_000;

/// The layout of all regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The native link.
    Native,
    /// RFC v2, exclusive slots.
    RfcV2,
}

/// The phase of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The instance has a region. Its kernel was never started.
    Created,
    /// The kernel was started.
    Running,
    /// The kernel was stopped.
    Stopped,
}

/// CPUs of an instance, by Linux's numbers.
#[derive(Clone, Copy)]
pub struct CpuList {
    cpus: [u32; MAX_INSTANCE_CPUS],
    count: usize,
}

impl CpuList {
    /// No CPUs.
    pub const NONE: Self = Self { cpus: [0; MAX_INSTANCE_CPUS], count: 0 };

    /// Adds `cpu`. Returns false if there is no room.
    pub fn add(&mut self, cpu: u32) -> bool {
        let place = self.cpus.get_mut(self.count);
        let is_room = place.is_some();
        place.map(|place| *place = cpu);
        self.count += usize::from(is_room);
        is_room
    }

    /// Removes `cpu`. The other CPUs keep their order.
    fn remove(&mut self, cpu: u32) {
        let before = *self;
        *self = Self::NONE;
        before.get().iter().filter(|other| **other != cpu).for_each(|other| _ = self.add(*other));
    }

    /// The numbers of the CPUs.
    pub fn get(&self) -> &[u32] {
        self.cpus.get(..self.count).unwrap_or(&[])
    }

    /// Returns whether `cpu` is in the list.
    pub fn has(&self, cpu: u32) -> bool {
        self.get().contains(&cpu)
    }
}

/// An instance other than Linux.
#[derive(Clone, Copy)]
pub struct Instance {
    /// The phase of the instance.
    pub phase: Phase,
    /// The CPUs of the instance. The host starts the first CPU; the kernel itself starts the others.
    pub cpus: CpuList,
    /// The CPUs that the instance can get while its kernel runs. The kernel is told of them at its start.
    may_get: CpuList,
    /// The incarnation of the kernel that was started last. If none was started, the incarnation of the first one.
    pub incarnation: Incarnation,
}

impl Instance {
    /// The incarnation of the kernel, if the kernel runs.
    pub fn life(&self) -> Option<Incarnation> {
        (self.phase == Phase::Running).then_some(self.incarnation)
    }

    /// Returns the physical ids of the instance's CPUs, followed by those of the CPUs that it can get; the number of its own
    /// CPUs; and the number of all these CPUs.
    fn ids(&self) -> ([PhysCpuId; 2 * MAX_INSTANCE_CPUS], usize, usize) {
        let mut ids = [PhysCpuId(0); 2 * MAX_INSTANCE_CPUS];
        let known = |list: &[u32]| list.iter().filter_map(|cpu| cpus::apic_id(*cpu)).count();
        let all = self.cpus.get().iter().chain(self.may_get.get().iter().filter(|cpu| !self.cpus.has(**cpu)));
        let count =
            ids.iter_mut().zip(all.filter_map(|cpu| cpus::apic_id(*cpu))).map(|(to, id)| *to = id).count();
        (ids, known(self.cpus.get()), count)
    }
}

/// The state of the host.
pub struct Host {
    generation: Generation,
    /// The mapping of the directory, and the writer that uses this mapping.
    directory: Option<(Mapping<AtomicU64>, DirectoryWriter<'static, AtomicU64>)>,
    instances: [Option<Instance>; MAX_INSTANCES],
    /// Linux's doorbell: the vector, and the CPU at which peers send it.
    bell: Option<(Vector, PhysCpuId)>,
    /// A buffer for the list of Linux's own CPUs. It is too large for the stack.
    listed: [PhysCpuId; MAX_CPUS],
    /// True if the machine is about to restart or to sleep. Then no kernel is started.
    ending: bool,
}

impl Host {
    const NEW: Self = Self {
        generation: Generation::Native,
        directory: None,
        instances: [None; MAX_INSTANCES],
        bell: None,
        listed: [PhysCpuId(0); MAX_CPUS],
        ending: false,
    };
}

// SAFETY: no other `Locked` has the number 0.
static HOST: Locked<Host> = unsafe { Locked::new(0, Host::NEW) };

/// Calls `f` with the state of the host, while the host's lock is held.
pub fn with<R>(f: impl FnOnce(&mut Host) -> R) -> R {
    HOST.with(f)
}

/// The number of slots of a region (RFC v2). The physical id of a CPU is the index of its slot, so the number is larger than
/// all ids.
fn slots() -> u32 {
    let ids = (0..MAX_CPUS as u32).filter_map(cpus::apic_id);
    let highest = ids.map(|id| id.0).max().unwrap_or(0);
    // If the number does not fit, the largest number is used. No memory is large enough for such a region, so making the
    // region fails.
    u32::try_from(highest.saturating_add(1)).unwrap_or(u32::MAX).max(MIN_SLOTS)
}

impl Generation {
    /// The name of the layout, as in the module parameter `generation=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::RfcV2 => "rfc-v2",
        }
    }

    fn link(self) -> LinkConfig {
        match self {
            Self::Native => LinkConfig::Native(Geometry::new(MAX_INSTANCES as u32, LINES, MAX_LEN as u32)),
            Self::RfcV2 => LinkConfig::RfcV2 { slots: slots(), policy: SlotPolicy::Exclusive },
        }
    }

    /// Size of a region in bytes.
    fn region_len(self) -> u64 {
        match self.link() {
            LinkConfig::Native(geometry) => geometry.map_or(u64::MAX, |g| g.total_size()),
            LinkConfig::RfcV2 { slots, .. } => u64::from(slots).saturating_mul(SLOT_SIZE as u64),
        }
    }
}

/// Linux's own region, identity and directory entry, and the directory itself. Dropping this removes them. All other
/// instances must have been destroyed before.
pub struct Own(());

impl Own {
    /// Makes the directory, and Linux's own region, identity and directory entry. Peers ring `vector` at `doorbell_cpu`.
    pub fn new(generation: Generation, vector: Vector, doorbell_cpu: u32) -> Result<Self> {
        HOST.with(|host| {
            host.generation = generation;
            host.open_directory()?;
            let made = host.create_own(vector, doorbell_cpu);
            if made.is_err() {
                host.close_directory();
            }
            made
        })?;
        Ok(Self(()))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        HOST.with(|host| {
            cpus::take_all();
            ENDPOINT.goodbye();
            // No other instance exists, so no other kernel has Linux's region mapped.
            let _ = destroy_region(InstanceId::HOST, |_, _| true);
            host.bell = None;
            host.close_directory();
        });
    }
}

/// Removes instance `id` from the endpoint's table, and frees its region and its pool. Waits until no sender of this kernel
/// uses the region; this is short, because senders use it with interrupts off. Also waits up to `DETACH_MS` until all
/// other kernels have unmapped the region. Kernels for which `has_stopped` returns true do not count. If another kernel
/// still has the region mapped after that time, fails, and returns the instance of that kernel.
fn destroy_region(
    id: InstanceId,
    has_stopped: impl Fn(InstanceId, Incarnation) -> bool,
) -> core::result::Result<(), InstanceId> {
    let mut mapped = 0;
    loop {
        match ENDPOINT.destroy_with(id, &has_stopped) {
            Err(DestroyError::Mapped(by, _)) if mapped >= DETACH_MS => return Err(by),
            Err(DestroyError::Mapped(..)) => mapped += 1,
            Err(DestroyError::InUse(_)) => {}
            // The instance is removed, or there was none.
            Ok(()) | Err(_) => break,
        }
        // SAFETY: process context.
        unsafe { ffi::msleep(1) };
    }
    memory::give_back(Owner::Pool(id));
    Ok(())
}

impl Host {
    fn open_directory(&mut self) -> Result {
        let len = directory_size(MAX_INSTANCES as u32, MAX_CPUS as u32);
        let range = memory::take(Owner::Directory, len)?;
        let mapping = match Linux.map(range, Access::ReadWrite) {
            Ok(mapping) => mapping,
            Err(e) => {
                memory::give_back(Owner::Directory);
                return refuse!(ENOMEM, "the directory: {e:?}");
            }
        };
        // SAFETY: the mapping lasts until `close_directory`, which drops the writer first.
        let words: &'static [AtomicU64] = unsafe { &*mapping.as_ptr().as_ptr() };
        match DirectoryWriter::create(words, MAX_INSTANCES as u32, MAX_CPUS as u32) {
            Ok(writer) => {
                let writer = writer.at(range.start());
                let writer = match cpus::boot_cpu() {
                    Some(cpu) => writer.boot_cpu(cpu),
                    None => writer,
                };
                // SAFETY: the endpoint knows no instance yet, and the host's lock is held.
                unsafe { set_reader(Some(writer.reader())) };
                self.directory = Some((mapping, writer));
            }
            Err(e) => {
                // SAFETY: the directory was just mapped, and nothing uses the mapping.
                unsafe { Linux.unmap(mapping) };
                memory::give_back(Owner::Directory);
                return refuse!(EINVAL, "the directory: {e:?}");
            }
        }
        Ok(())
    }

    fn close_directory(&mut self) {
        // SAFETY: all instances are destroyed, including Linux's own, and the host's lock is held.
        unsafe { set_reader(None) };
        // The writer is dropped here, before the memory that it writes to.
        if let Some(mapping) = self.directory.take().map(|(mapping, _)| mapping) {
            mapping.words().iter().for_each(|w| w.store(0, mk_ipi_core::sync::Ordering::Relaxed));
            // SAFETY: `open_directory` mapped it, and its writer was dropped.
            unsafe { Linux.unmap(mapping) };
        }
        memory::give_back(Owner::Directory);
    }

    /// Makes Linux's own region and directory entry. The entry lists the CPUs that Linux has not given away. Peers ring
    /// `vector` at `doorbell_cpu` only.
    fn create_own(&mut self, vector: Vector, doorbell_cpu: u32) -> Result {
        let Some(bell) = cpus::apic_id(doorbell_cpu) else { return refuse!(ENODEV, "no CPU {doorbell_cpu}") };
        memory::take(Owner::Pool(InstanceId::HOST), self.generation.region_len())?;
        ENDPOINT.identify(InstanceId::HOST, Incarnation::FIRST);
        self.bell = Some((vector, bell));
        let config = self.record(InstanceId::HOST, Incarnation::FIRST, State::Running, bell, vector);
        let made = self.make_region(&config, &[bell], |host| host.list_own());
        if made.is_err() {
            memory::give_back(Owner::Pool(InstanceId::HOST));
        }
        made
    }

    /// Writes Linux's own directory entry, with the CPUs that Linux has now.
    fn list_own(&mut self) -> Result {
        let Some((vector, bell)) = self.bell else { return refuse!(ENODEV, "there is no doorbell") };
        let record = self.record(InstanceId::HOST, Incarnation::FIRST, State::Running, bell, vector);
        let count = self.listed.iter_mut().zip(cpus::kept()).map(|(to, id)| *to = id).count();
        let Self { directory, listed, .. } = self;
        write(directory.as_mut().map(|(_, writer)| writer), &record, listed.get(..count).unwrap_or(&[]))
    }

    fn write(&mut self, record: &InstanceRecord, cpus: &[PhysCpuId]) -> Result {
        write(self.directory.as_mut().map(|(_, writer)| writer), record, cpus)
    }

    fn record(
        &self,
        instance: InstanceId,
        incarnation: Incarnation,
        state: State,
        doorbell_cpu: PhysCpuId,
        vector: Vector,
    ) -> InstanceRecord {
        let native = self.generation == Generation::Native;
        let mut flags = if native { EntryFlags::empty() } else { EntryFlags::EXCLUSIVE };
        // In Linux an interrupt vector is valid for one CPU only. On the native link a spawned kernel can be a Linux, too.
        // With slots (RFC v2) it cannot (joined.rs).
        flags.set(EntryFlags::ONE_DOORBELL, native || instance == InstanceId::HOST);
        InstanceRecord {
            instance,
            incarnation,
            state,
            layout: if native { Layout::Native } else { Layout::RfcV2 },
            flags,
            region: ENDPOINT.instance(instance).ok().and_then(|i| i.region()),
            doorbell_cpu,
            vector,
            nr_cpus: 1,
        }
    }

    /// Makes the region of `record.instance` in its pool, and calls `list`, which writes the directory entry.
    fn make_region(
        &mut self,
        record: &InstanceRecord,
        cpus: &[PhysCpuId],
        list: impl FnOnce(&mut Self) -> Result,
    ) -> Result {
        let whole = InstanceRecord { nr_cpus: cpus.len() as u32, ..*record };
        let config = InstanceConfig { link: self.generation.link(), ..config_of(&whole, cpus) };
        ENDPOINT.create_instance(&config).or_else(|e| {
            let words = format_args!("no region for instance {}: {e:?}", record.instance.get());
            match e {
                AddError::Exists => refuse!(EEXIST, "{words}"),
                AddError::Pool(_) | AddError::Map(_) => refuse!(ENOMEM, "{words}"),
                _ => refuse!(EINVAL, "{words}"),
            }
        })?;
        let listed = list(self);
        if listed.is_err() {
            // The directory does not list the region, so no other kernel has it mapped.
            let _ = destroy_region(record.instance, |_, _| true);
        }
        listed
    }

    /// Writes the directory entry of `id`, with this state.
    fn list(&mut self, id: InstanceId, instance: &Instance, state: State) -> Result {
        let (ids, count, _) = instance.ids();
        let ids = ids.get(..count).unwrap_or(&[]);
        let Some(bell) = ids.first() else { return refuse!(ENODEV, "instance {} has no CPU", id.get()) };
        let record = self.record(id, instance.incarnation, state, *bell, Vector::RFC_V2);
        self.write(&record, ids)
    }

    /// All instances except Linux, with their ids.
    pub fn instances(&self) -> impl Iterator<Item = (InstanceId, &Instance)> {
        (0..=u8::MAX).zip(&self.instances).filter_map(|(id, i)| Some((InstanceId::new(id), i.as_ref()?)))
    }

    /// The layout of the regions.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    fn find(&self, id: InstanceId) -> Option<Instance> {
        self.instances.get(id.index()).copied().flatten()
    }

    fn get(&self, id: InstanceId) -> Result<Instance> {
        match self.find(id) {
            Some(instance) => Ok(instance),
            None => refuse!(ENOENT, "there is no instance {}", id.get()),
        }
    }

    fn set(&mut self, id: InstanceId, instance: Option<Instance>) {
        if let Some(place) = self.instances.get_mut(id.index()) {
            *place = instance;
        }
    }
}
