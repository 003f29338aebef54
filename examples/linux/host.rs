// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host: makes instances, starts and stops their kernels, and writes the directory. One caller at a time.
//!
//! Each step undoes what it did if it fails. A later step wants the earlier ones: give CPUs, create, start; and back: stop
//! or kill, destroy, take the CPUs.

use crate::failure::{refuse, Result};
use crate::image::{self, File};
use crate::listed::{set_reader, write};
use crate::lock::Locked;
use crate::memory::{self, Owner};
use crate::peers::{self, MAX_INSTANCES};
use crate::platform::{Linux, ENDPOINT, MAX_CPUS};
use crate::{cpus, ffi, start, traffic};
use mk_ipi_core::abi::boot_param::{MK_IPI_DIRECTORY, MK_IPI_SHARED};
use mk_ipi_core::abi::directory::{directory_size, EntryFlags, InstanceRecord, Layout, State};
use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::rfc_v2::SLOT_SIZE;
use mk_ipi_core::abi::{Incarnation, InstanceId, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::directory::DirectoryWriter;
use mk_ipi_core::platform::{Access, Mapping, PhysMemory};
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_core::{config_of, AddError, DestroyError, InstanceConfig, LinkConfig, Occupied};
use mk_ipi_x86::Microseconds;

/// Most CPUs of one instance, Linux apart.
pub const MAX_INSTANCE_CPUS: usize = 8;
/// Pool of an instance for which none is asked.
pub const DEFAULT_POOL: u64 = 1 << 20;
/// Fewest slots of a region (RFC v2).
const MIN_SLOTS: u32 = 8;
/// How many milliseconds kernels are given to let go of a region that ends.
const DETACH_MS: u32 = 2_000;
/// How long a kernel is given to say goodbye.
const GOODBYE: Microseconds = Microseconds(2_000_000);

/// What all regions speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The native link.
    Native,
    /// RFC v2, exclusive slots.
    RfcV2,
}

/// How far an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has a region; nothing runs.
    Created,
    /// Its kernel was started.
    Running,
    /// Its kernel was stopped.
    Stopped,
}

/// An instance other than Linux.
#[derive(Clone, Copy)]
pub struct Instance {
    /// How far it is.
    pub phase: Phase,
    /// Linux's numbers of its CPUs.
    cpus: [u32; MAX_INSTANCE_CPUS],
    nr_cpus: usize,
    /// Its life, or the one to come if it was never started.
    pub incarnation: Incarnation,
}

impl Instance {
    /// Linux's numbers of its CPUs, the first of which is started.
    pub fn cpus(&self) -> &[u32] {
        self.cpus.get(..self.nr_cpus).unwrap_or(&[])
    }

    /// The life in which it runs, if it does.
    pub fn life(&self) -> Option<Incarnation> {
        (self.phase == Phase::Running).then_some(self.incarnation)
    }

    /// Their physical ids.
    fn ids(&self) -> ([PhysCpuId; MAX_INSTANCE_CPUS], usize) {
        let mut ids = [PhysCpuId(0); MAX_INSTANCE_CPUS];
        let known = self.cpus().iter().filter_map(|cpu| cpus::apic_id(*cpu));
        let count = ids.iter_mut().zip(known).map(|(to, id)| *to = id).count();
        (ids, count)
    }
}

/// The host's books.
pub struct Host {
    generation: Generation,
    /// The directory's mapping, and who writes it.
    directory: Option<(Mapping<AtomicU64>, DirectoryWriter<'static, AtomicU64>)>,
    instances: [Option<Instance>; MAX_INSTANCES],
    /// Where Linux is rung: the vector, and the CPU that it is good at.
    bell: Option<(Vector, PhysCpuId)>,
    /// Room for a list of CPUs, which a stack has not.
    listed: [PhysCpuId; MAX_CPUS],
    /// The machine is about to restart or to sleep: nothing is started.
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

// SAFETY: the only one with 0.
static HOST: Locked<Host> = unsafe { Locked::new(0, Host::NEW) };

/// Calls `f` with the host's books, alone.
pub fn with<R>(f: impl FnOnce(&mut Host) -> R) -> R {
    HOST.with(f)
}

/// All physical ids below this: slots of a region, which each CPU's id indexes.
fn slots() -> u32 {
    let ids = (0..MAX_CPUS as u32).filter_map(cpus::apic_id);
    let highest = ids.map(|id| id.0).max().unwrap_or(0);
    // No APIC id is as large; a region for it would find no memory.
    u32::try_from(highest.saturating_add(1)).unwrap_or(u32::MAX).max(MIN_SLOTS)
}

impl Generation {
    /// As the module's parameter names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::RfcV2 => "rfc-v2",
        }
    }

    fn link(self) -> LinkConfig {
        match self {
            Self::Native => LinkConfig::Native(Geometry::default_for(MAX_INSTANCES as u32)),
            Self::RfcV2 => LinkConfig::RfcV2 { slots: slots(), policy: Occupied::Exclusive },
        }
    }

    /// Bytes of a region.
    fn region_len(self) -> u64 {
        match self.link() {
            LinkConfig::Native(geometry) => geometry.map_or(u64::MAX, |g| g.total_size()),
            LinkConfig::RfcV2 { slots, .. } => u64::from(slots).saturating_mul(SLOT_SIZE as u64),
        }
    }
}

/// Linux's own end: region, identity and entry in the directory; dropping it takes them away. No instance exists then.
pub struct Own(());

impl Own {
    /// Makes them. Peers ring `vector` at `doorbell_cpu`.
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
            ENDPOINT.goodbye();
            // No instance is left, so nobody runs who could have it mapped.
            let _ = destroy_region(InstanceId::HOST, |_, _| true);
            host.bell = None;
            host.close_directory();
        });
    }
}

/// Takes an instance out of the endpoint's table, with its region, which nobody has mapped of whom `has_stopped` is not true: or
/// who has? Senders leave it soon: they hold it with interrupts off. Those who have it mapped are given a while to let go of it.
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
            // It is gone, or was never there.
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
                // SAFETY: there is no instance yet, and we have the books.
                unsafe { set_reader(Some(writer.reader())) };
                self.directory = Some((mapping, writer));
            }
            Err(e) => {
                // SAFETY: mapped just now, and nobody uses it.
                unsafe { Linux.unmap(mapping) };
                memory::give_back(Owner::Directory);
                return refuse!(EINVAL, "the directory: {e:?}");
            }
        }
        Ok(())
    }

    fn close_directory(&mut self) {
        // SAFETY: all instances are destroyed, our own last, and we have the books.
        unsafe { set_reader(None) };
        // The writer goes at once, before what it writes to.
        if let Some(mapping) = self.directory.take().map(|(mapping, _)| mapping) {
            mapping.words().iter().for_each(|w| w.store(0, mk_ipi_core::sync::Ordering::Relaxed));
            // SAFETY: mapped by `open_directory`; its writer is gone.
            unsafe { Linux.unmap(mapping) };
        }
        memory::give_back(Owner::Directory);
    }

    /// Its entry lists the CPUs that Linux has not given away; the vector is good at one of them.
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

    /// Writes Linux's own entry, with the CPUs that it has now.
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
        flags.set(EntryFlags::ONE_DOORBELL, instance == InstanceId::HOST);
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

    /// Makes the region of `record.instance` from its pool, and lists it by `list`.
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
            // Nobody was told of it.
            let _ = destroy_region(record.instance, |_, _| true);
        }
        listed
    }

    /// Says in the directory how far `id` is.
    fn list(&mut self, id: InstanceId, instance: &Instance, state: State) -> Result {
        let (ids, count) = instance.ids();
        let ids = ids.get(..count).unwrap_or(&[]);
        let Some(bell) = ids.first() else { return refuse!(ENODEV, "instance {} has no CPU", id.get()) };
        let record = self.record(id, instance.incarnation, state, *bell, Vector::RFC_V2);
        self.write(&record, ids)
    }

    /// The instances, with their ids.
    pub fn instances(&self) -> impl Iterator<Item = (InstanceId, &Instance)> {
        (0..=u8::MAX).zip(&self.instances).filter_map(|(id, i)| Some((InstanceId::new(id), i.as_ref()?)))
    }

    /// What the regions speak.
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

    /// Takes `cpu` from Linux.
    pub fn give(&mut self, cpu: u32) -> Result {
        cpus::give(cpu)?;
        // Peers ring Linux at its doorbell alone, so that none has to follow before the CPU is another's.
        self.list_own()
    }

    /// Gives `cpu` back to Linux.
    pub fn take(&mut self, cpu: u32) -> Result {
        if let Some((id, _)) = self.instances().find(|(_, i)| i.cpus().contains(&cpu)) {
            return refuse!(EBUSY, "CPU {cpu} belongs to instance {}", id.get());
        }
        cpus::take(cpu)?;
        self.list_own()
    }

    /// Makes instance `id` of CPUs that were given away, with a pool of `pool` bytes and a region in it.
    pub fn create(&mut self, id: InstanceId, wanted: &[u32], pool: u64) -> Result {
        if id == InstanceId::HOST || id.index() >= MAX_INSTANCES {
            return refuse!(EINVAL, "instances are 1 to {}", MAX_INSTANCES - 1);
        }
        if self.find(id).is_some() {
            return refuse!(EEXIST, "instance {} exists", id.get());
        }
        let mut instance = Instance {
            phase: Phase::Created,
            cpus: [0; MAX_INSTANCE_CPUS],
            nr_cpus: wanted.len(),
            incarnation: Incarnation::FIRST,
        };
        instance.cpus.iter_mut().zip(wanted).for_each(|(to, cpu)| *to = *cpu);
        self.check_cpus(wanted)?;
        // SAFETY: undone below, or by `destroy`.
        if !unsafe { ffi::mk_ipi_glue_hold_module() } {
            return refuse!(ENODEV, "the module is going");
        }
        let made = self.furnish(id, &instance, pool);
        match made {
            Ok(()) => self.set(id, Some(instance)),
            Err(_) => Self::clear_out(id),
        }
        made
    }

    fn check_cpus(&self, wanted: &[u32]) -> Result {
        if wanted.is_empty() || wanted.len() > MAX_INSTANCE_CPUS {
            return refuse!(EINVAL, "an instance has 1 to {MAX_INSTANCE_CPUS} CPUs");
        }
        for (n, cpu) in wanted.iter().enumerate() {
            if !cpus::is_given(*cpu) {
                return refuse!(EBUSY, "CPU {cpu} is Linux's: give it away first");
            }
            if wanted.iter().take(n).any(|other| other == cpu) {
                return refuse!(EINVAL, "CPU {cpu} is named twice");
            }
            if let Some((other, _)) = self.instances().find(|(_, i)| i.cpus().contains(cpu)) {
                return refuse!(EBUSY, "CPU {cpu} belongs to instance {}", other.get());
            }
        }
        Ok(())
    }

    /// Pool, start page, region, entry. Whatever fails, `clear_out` undoes it.
    fn furnish(&mut self, id: InstanceId, instance: &Instance, pool: u64) -> Result {
        let needed = self.generation.region_len();
        if pool < needed {
            return refuse!(EINVAL, "a pool of {pool} bytes has no room for a region of {needed}");
        }
        memory::take(Owner::StartPage(id), mk_ipi_core::abi::PAGE_SIZE)?;
        memory::take(Owner::Pool(id), pool)?;
        peers::forget_all_of(id);
        let (ids, count) = instance.ids();
        let ids = ids.get(..count).unwrap_or(&[]);
        let Some(bell) = ids.first() else { return refuse!(ENODEV, "no CPU") };
        let record = self.record(id, instance.incarnation, State::Starting, *bell, Vector::RFC_V2);
        self.make_region(&record, ids, |host| host.list(id, instance, State::Starting))
    }

    /// Gives back all that an instance without a region has.
    fn clear_out(id: InstanceId) {
        for owner in [Owner::Pool(id), Owner::StartPage(id), Owner::Image(id)] {
            memory::give_back(owner);
        }
        // SAFETY: `create` has taken it.
        unsafe { ffi::mk_ipi_glue_release_module() };
    }

    /// Starts the kernel of `id` from `file`, with `words` on its command line: its first life, or the next. What a start that
    /// fails takes is a number of its lives, and the image of the former one.
    pub fn start(&mut self, id: InstanceId, file: &File, words: &str) -> Result {
        let mut instance = self.get(id)?;
        let (Some(page), Some(region), Some(directory)) =
            (memory::of(Owner::StartPage(id)), self.region_of(id), memory::of(Owner::Directory))
        else {
            return refuse!(ENODEV, "instance {} has no region", id.get());
        };
        if instance.phase == Phase::Running || self.ending {
            return refuse!(EBUSY, "instance {} runs, or the machine is about to end", id.get());
        }
        let [shared, directory] = [region, directory].map(|range| range.start().0);
        let line = format_args!("{MK_IPI_SHARED}={shared:#x} {MK_IPI_DIRECTORY}={directory:#x} {words}");
        // SAFETY: its CPUs were stopped, or never started.
        let entry = unsafe { image::load(id, file)? };
        // SAFETY: as above; the page is its own.
        let mut done = unsafe { start::write_start_page(id, page, line) };
        if done.is_ok() {
            if instance.phase == Phase::Stopped {
                instance.incarnation = instance.incarnation.next();
            }
            done = self.enter(id, &instance, entry, page);
            instance.phase = Phase::Running;
            self.set(id, Some(instance));
            // Where that fails too, the CPU may be in the image: the kernel counts as running, and can be killed again.
            let listed = if done.is_ok() { self.list(id, &instance, State::Running) } else { self.kill(id) };
            done = done.and(listed);
            instance = self.get(id)?;
        }
        if instance.phase != Phase::Running {
            memory::give_back(Owner::Image(id));
        }
        done
    }

    /// Lists the life to come, and has the first CPU enter it.
    fn enter(&mut self, id: InstanceId, instance: &Instance, entry: u32, page: PhysRange) -> Result {
        peers::forget(id);
        if self.generation == Generation::RfcV2 {
            traffic::peer_restarts(id);
        }
        self.list(id, instance, State::Starting)?;
        let (ids, _) = instance.ids();
        let [first, ..] = ids;
        // SAFETY: the CPU is the instance's; its image was loaded just now.
        unsafe { start::enter(first, entry, page) }
    }

    fn region_of(&self, id: InstanceId) -> Option<PhysRange> {
        ENDPOINT.instance(id).ok()?.region()
    }

    /// Asks the kernel of `id` to stop, waits a while for its goodbye, and stops its CPUs in any case. Whether it said
    /// goodbye; with slots no kernel can be asked.
    pub fn stop(&mut self, id: InstanceId) -> Result<bool> {
        let instance = self.get(id)?;
        if instance.phase != Phase::Running {
            return refuse!(EINVAL, "instance {} does not run", id.get());
        }
        let is_gone = || peers::is_gone(id, instance.incarnation);
        if self.generation == Generation::Native && ENDPOINT.stop(id, instance.incarnation).is_ok() {
            start::wait_until(GOODBYE, is_gone);
        }
        self.kill(id)?;
        Ok(is_gone())
    }

    /// Stops the CPUs of `id` wherever they are.
    pub fn kill(&mut self, id: InstanceId) -> Result {
        let mut instance = self.get(id)?;
        if instance.phase != Phase::Running {
            return refuse!(EINVAL, "instance {} does not run", id.get());
        }
        let (ids, count) = instance.ids();
        for cpu in ids.iter().take(count) {
            // SAFETY: the CPU is the instance's, which is to end.
            unsafe { start::stop(*cpu)? };
        }
        instance.phase = Phase::Stopped;
        self.set(id, Some(instance));
        traffic::on_death(id);
        ENDPOINT.clear_claims(id, instance.incarnation);
        self.list(id, &instance, State::Dead)
    }

    /// Whether the kernel of any instance runs.
    pub fn any_runs(&self) -> bool {
        self.instances().any(|(_, i)| i.phase == Phase::Running)
    }

    /// Stops the CPUs of all instances.
    fn kill_all(&mut self) {
        for id in (0..MAX_INSTANCES as u8).map(InstanceId::new) {
            if self.find(id).is_some_and(|i| i.phase == Phase::Running) {
                // If that fails, the log says so.
                let _ = self.kill(id);
            }
        }
    }

    /// Takes instance `id` away. Its kernel does not run; those that have its region mapped let go of it first (SPEC D-10).
    pub fn destroy(&mut self, id: InstanceId) -> Result {
        let instance = self.get(id)?;
        if instance.phase == Phase::Running {
            return refuse!(EBUSY, "instance {} runs: stop it first", id.get());
        }
        // With slots nobody can say that it has let go of a region.
        if self.generation == Generation::RfcV2 && self.any_runs() {
            return refuse!(EBUSY, "another instance runs, and may have the region of {} mapped", id.get());
        }
        if instance.phase == Phase::Created {
            self.list(id, &instance, State::Dead)?;
        }
        self.list(id, &instance, State::Ending)?;
        let lives = |id, incarnation| self.find(id).and_then(|i| i.life()) == Some(incarnation);
        if let Err(by) = destroy_region(id, |id, incarnation| !lives(id, incarnation)) {
            return refuse!(
                EBUSY,
                "instance {} has the region of {} mapped, and does not let go",
                by.get(),
                id.get()
            );
        }
        self.list(id, &instance, State::Absent)?;
        self.set(id, None);
        Self::clear_out(id);
        Ok(())
    }
}

/// The machine is about to restart, or another kernel to take its place: nobody else may run.
#[no_mangle]
extern "C" fn mk_ipi_rs_end() {
    HOST.with(|host| {
        host.ending = true;
        host.kill_all();
    });
}

/// The machine is about to sleep: not while a kernel runs, which would not survive it. Or it does not sleep any more.
#[no_mangle]
extern "C" fn mk_ipi_rs_sleep(sleep: bool) -> bool {
    HOST.with(|host| {
        host.ending = sleep && !host.any_runs();
        host.ending == sleep
    })
}
