// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine with a directory. A test can change the directory while the kernels run.

use mk_ipi_abi::directory::{directory_size, EntryFlags, InstanceRecord, Layout, State};
use mk_ipi_abi::native::Geometry;
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::directory::{Directory, DirectoryWriter};
use mk_ipi_core::platform::{Access, Mapping, PeerEvent, PhysMemory};
use mk_ipi_core::{Followed, InstanceConfig, JoinError, LinkConfig, SendError};
use mk_ipi_mock::{Callback, Link, Machine, MockPlatform, MockWord, Mode};
use std::sync::{Arc, Mutex};

pub const TYPE: MessageType = MessageType(7);
pub const LINES: u32 = 8;
pub const BELL: Vector = Vector::RFC_V2;

pub fn id(kernel: usize) -> InstanceId {
    InstanceId::new(kernel as u8)
}

pub fn life(n: u32) -> Incarnation {
    Incarnation::new(n).unwrap()
}

/// The sender and the first byte of each message that a kernel got.
pub type Seen = Arc<Mutex<Vec<(usize, u8)>>>;

/// Kernels that find each other in a directory. Kernel 0 is the host, which writes the directory.
pub struct World {
    pub machine: Machine,
    pub geometry: Geometry,
    /// The native region of each kernel.
    pub regions: Vec<PhysRange>,
    /// The range of the directory.
    pub range: PhysRange,
    /// The host's mapping of the directory.
    pub host: Mapping<MockWord>,
    /// The endpoint of each kernel that has joined.
    pub links: Vec<Arc<Link>>,
    /// The messages that each kernel got.
    pub seen: Vec<Seen>,
}

impl World {
    /// Makes kernels with these CPUs, and a directory with space for `room` CPUs in each entry. Kernel `k` is instance `k` in the
    /// directory, and is rung at its first CPU. No kernel has joined yet.
    pub fn new(cpus: &[&[u64]], room: u32) -> Self {
        Self::on(Machine::builder(), cpus, room)
    }

    fn on(builder: mk_ipi_mock::Builder, cpus: &[&[u64]], room: u32) -> Self {
        let builder = cpus.iter().fold(builder, |b, k| b.kernel(k));
        let machine = builder.memory(4096).pool(id(1), 64).build();
        let geometry = Geometry::new(cpus.len() as u32 + 1, LINES, 256).unwrap();
        let regions: Vec<_> = cpus.iter().map(|_| machine.native_region(geometry)).collect();
        let nr = cpus.len() as u32 + 1;
        let range = machine.reserve(directory_size(nr, room));
        let host = machine.kernel(0).map(range, Access::ReadWrite).unwrap();
        DirectoryWriter::create(host.words(), nr, room).unwrap();
        let seen = cpus.iter().map(|_| Arc::default()).collect();
        let world = Self { machine, geometry, regions, range, host, links: Vec::new(), seen };
        for (k, cpus) in cpus.iter().enumerate() {
            world.write(world.record(k), cpus);
        }
        world
    }

    /// Does the same as `new`. Then all kernels join, and answer each other's HELLO.
    pub fn joined(cpus: &[&[u64]]) -> Self {
        Self::joined_with(0, cpus)
    }

    /// Does the same as `joined`, on a machine in stepped mode with this seed.
    pub fn joined_with(seed: u64, cpus: &[&[u64]]) -> Self {
        let mut world = Self::on(Machine::builder().mode(Mode::Stepped { seed }), cpus, 8);
        (0..cpus.len()).for_each(|k| world.join(k, None));
        world.settle();
        (0..cpus.len()).for_each(|k| drop(world.events(k)));
        world
    }

    /// Lets kernel `k` join. `k` must be the number of kernels that have joined so far. If `own` has a CPU and a vector, the
    /// kernel begins its life with its doorbell there.
    pub fn join(&mut self, k: usize, own: Option<(PhysCpuId, Vector)>) {
        let (kernel, link) = (self.machine.kernel(k), Arc::new(Link::new(self.machine.kernel(k))));
        let (interrupt, deferred) = (link.clone(), link.clone());
        kernel.set_vector(own.map_or(BELL, |(_, vector)| vector), move || interrupt.on_interrupt());
        kernel.set_deferred(move || _ = deferred.run_deferred());
        kernel.read_directory(self.range);
        let seen = self.seen[k].clone();
        let note = move |m: &mk_ipi_core::Message<'_>| {
            seen.lock().unwrap().push((m.sender().unwrap().index(), m.payload()[0]));
        };
        let _ = link.register(TYPE, Callback::new(note)).unwrap();
        if let Some((cpu, vector)) = own {
            link.begin_at(cpu, vector).unwrap();
        }
        self.with_directory(k, |d| link.join(self.regions[k].start(), d)).unwrap();
        self.links.push(link);
    }

    /// The host destroys instance 1 and creates it again, with a region from its pool. Returns the region.
    pub fn pooled(&self) -> PhysRange {
        let (host, one) = (&self.links[0], self.kernel(1));
        host.destroy_instance(id(1)).unwrap();
        let link = LinkConfig::Native(Some(self.geometry));
        host.create_instance(&InstanceConfig { link, ..one.native_config(id(1), life(1)) }).unwrap()
    }
    pub fn kernel(&self, k: usize) -> MockPlatform {
        self.machine.kernel(k)
    }
    /// Returns a directory entry of kernel `k` in its first life, with its region and its first CPU as the doorbell CPU.
    pub fn record(&self, k: usize) -> InstanceRecord {
        InstanceRecord {
            instance: id(k),
            incarnation: life(1),
            state: State::Running,
            layout: Layout::Native,
            flags: EntryFlags::empty(),
            region: Some(self.regions[k]),
            doorbell_cpu: self.kernel(k).cpus()[0],
            vector: BELL,
            nr_cpus: 0,
        }
    }
    /// The host writes an entry of the directory. Returns the directory's new generation.
    pub fn write(&self, record: InstanceRecord, cpus: &[u64]) -> u32 {
        let cpus: Vec<_> = cpus.iter().copied().map(PhysCpuId).collect();
        DirectoryWriter::take_over(self.host.words()).unwrap().write(&record, &cpus).unwrap()
    }
    /// Kernel `k` maps the directory, calls `f` with it, and unmaps it.
    pub fn with_directory<R>(&self, k: usize, f: impl FnOnce(&Directory<'_, MockWord>) -> R) -> R {
        let mapping = self.kernel(k).map(self.range, Access::ReadOnly).unwrap();
        let result = f(&Directory::open(mapping.words()).unwrap());
        // SAFETY: mapped above, and nothing is borrowed from it any more.
        unsafe { self.kernel(k).unmap(mapping) };
        result
    }
    /// Kernel `k` calls `follow`. Returns the result, and the changes that `follow` reported.
    pub fn follow(&self, k: usize) -> (Result<u32, JoinError>, Vec<(InstanceId, Followed)>) {
        let mut news = Vec::new();
        let followed = self.with_directory(k, |d| self.links[k].follow(d, |id, what| news.push((id, what))));
        (followed, news)
    }
    /// Returns the kernels that have the region of kernel `k` mapped and have not followed the directory up to this generation.
    pub fn behind(&self, k: usize, generation: u32) -> Vec<InstanceId> {
        let mut behind = Vec::new();
        self.links[k].behind(generation, |id, _| behind.push(id)).unwrap();
        behind
    }
    /// Runs the machine until nothing is pending.
    pub fn settle(&self) {
        self.machine.run(|_| ()).unwrap();
    }
    pub fn send(&self, from: usize, to: usize, n: u8) -> Result<(), SendError> {
        self.links[from].send(id(to), TYPE, &[n]).map(drop)
    }
    /// Returns the messages that kernel `k` got since the last call.
    pub fn seen(&self, k: usize) -> Vec<(usize, u8)> {
        std::mem::take(&mut *self.seen[k].lock().unwrap())
    }
    pub fn events(&self, k: usize) -> Vec<(InstanceId, PeerEvent)> {
        self.kernel(k).peer_events()
    }
    /// Calls `tick` at kernel `k`. Returns the events that were reported there since they were last fetched.
    pub fn tick(&self, k: usize) -> Vec<(InstanceId, PeerEvent)> {
        self.links[k].tick(1, 10);
        self.events(k)
    }
}
