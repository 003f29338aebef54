// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mock machine for the tests, whose memory can be read as a dump.
#![allow(dead_code, reason = "no test uses all of this")]

use mk_ipi_abi::directory::{directory_size, EntryFlags, InstanceRecord, Layout, State};
use mk_ipi_abi::native::{receiver, Breach, Geometry};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::directory::{Directory, DirectoryWriter, WriteError};
use mk_ipi_core::platform::{Access, Mapping, PeerEvent, PhysMemory};
use mk_ipi_core::JoinError;
use mk_ipi_inspect::machine::{Kind, Region};
use mk_ipi_inspect::{native, Machine, Memory};
use mk_ipi_mock::{Callback, Link, MockWord, MEMORY_START};
use std::sync::Arc;

pub const TYPE: MessageType = MessageType(7);
pub const LINES: u32 = 8;

pub fn id(kernel: usize) -> InstanceId {
    InstanceId::new(u8::try_from(kernel).unwrap())
}

pub fn life(n: u32) -> Incarnation {
    Incarnation::new(n).unwrap()
}

/// A mock machine with native regions. The test boots its kernels.
pub struct World {
    pub machine: mk_ipi_mock::Machine,
    pub geometry: Geometry,
    pub regions: Vec<PhysRange>,
    pub links: Vec<Option<Arc<Link>>>,
}

impl World {
    /// Makes a machine with this many kernels, which do not run yet. Kernel `k` has one CPU, with the id 3 `k`.
    pub fn new(kernels: usize) -> Self {
        let cpus: Vec<_> = (0..kernels).map(|k| [k as u64 * 3]).collect();
        Self::with_cpus(&cpus.iter().map(|cpus| &cpus[..]).collect::<Vec<_>>())
    }

    /// Makes a machine whose kernels have these CPUs, and do not run yet.
    pub fn with_cpus(cpus: &[&[u64]]) -> Self {
        let builder = mk_ipi_mock::Machine::builder();
        let machine = cpus.iter().fold(builder, |b, cpus| b.kernel(cpus)).build();
        let geometry = Geometry::new(u32::try_from(cpus.len()).unwrap(), LINES, 256).unwrap();
        let regions = cpus.iter().map(|_| machine.native_region(geometry)).collect();
        Self { machine, geometry, regions, links: vec![None; cpus.len()] }
    }

    /// Makes a machine in which all kernels run and have attached each other.
    pub fn booted(kernels: usize) -> Self {
        Self::new(kernels).boot_all()
    }

    /// Boots all kernels, which attach each other.
    pub fn boot_all(self) -> Self {
        let mut world = self;
        let kernels = world.regions.len();
        (0..kernels).for_each(|k| world.boot(k, 1));
        world.settle();
        (0..kernels).for_each(|k| drop(world.machine.kernel(k).peer_events()));
        world
    }

    /// Boots life `incarnation` of kernel `k`, which attaches all kernels and registers a handler that does nothing.
    pub fn boot(&mut self, k: usize, incarnation: u32) {
        let link = self.machine.kernel(k).boot(id(k), life(incarnation));
        let _ = link.register(TYPE, Callback::new(|_| ())).unwrap();
        for (other, region) in self.regions.iter().enumerate() {
            let kernel = self.machine.kernel(other);
            link.attach_instance(&kernel.native_config(id(other), life(1)), Some(*region)).unwrap();
        }
        self.links[k] = Some(link);
    }

    pub fn link(&self, k: usize) -> &Link {
        self.links[k].as_ref().unwrap()
    }

    /// Lets every CPU take its interrupts and run its deferred work until none are left.
    pub fn settle(&self) {
        self.machine.run(|_| ()).unwrap();
    }

    /// Sends a message. Returns its number.
    pub fn send(&self, from: usize, to: usize, payload: &[u8]) -> u64 {
        self.link(from).send(id(to), TYPE, payload).unwrap()
    }

    /// True if kernel `k` got the event that the lane of `from` is in quarantine because of this breach.
    pub fn quarantined(&self, k: usize, from: usize, breach: Breach) -> bool {
        self.machine.kernel(k).peer_events().contains(&(id(from), PeerEvent::Quarantined(breach)))
    }

    /// The address of word `word` of the lane of `from` in the region of `to`.
    pub fn lane(&self, from: usize, to: usize, word: usize) -> PhysAddr {
        let at = self.geometry.lane_at(u32::try_from(from).unwrap()).unwrap() + 8 * word as u64;
        PhysAddr(self.regions[to].start().0 + at)
    }

    /// The address of word `word` of the control line for `from` in the region of `to`.
    pub fn control(&self, from: usize, to: usize, word: usize) -> PhysAddr {
        self.word(to, receiver::CONTROL + from * receiver::CONTROL_WORDS + word)
    }

    /// The address of word `word` of the region of `to`.
    pub fn word(&self, to: usize, word: usize) -> PhysAddr {
        PhysAddr(self.regions[to].start().0 + 8 * word as u64)
    }

    /// The address of the first word of the line at `position` in the lane of `from` in the region of `to`.
    pub fn tag(&self, from: usize, to: usize, position: u64) -> PhysAddr {
        self.lane(from, to, self.geometry.line_at(position))
    }

    /// Writes a directory that lists all kernels, with entries that `change` has changed. Returns the address of the directory.
    pub fn write_directory(&self, change: impl Fn(&mut InstanceRecord)) -> PhysAddr {
        self.make_directory(2, change).range.start()
    }

    /// As `write_directory`, with room for `room` CPUs of each kernel. If a kernel has more CPUs, the first ones are listed.
    pub fn make_directory(&self, room: u32, change: impl Fn(&mut InstanceRecord)) -> Listed {
        let kernels = u32::try_from(self.regions.len()).unwrap();
        let range = self.machine.reserve(directory_size(kernels, room));
        let host = self.machine.kernel(0).map(range, Access::ReadWrite).unwrap();
        // The mock fills memory with a pattern. A host must make it 0 first.
        (0..range.len()).step_by(8).for_each(|at| self.machine.poke(PhysAddr(range.start().0 + at), 0));
        let mut writer = DirectoryWriter::create(host.words(), kernels, room).unwrap().at(range.start());
        for k in 0..self.regions.len() {
            let mut record = self.record(k);
            change(&mut record);
            let cpus = self.machine.kernel(k).cpus().to_vec();
            writer.write(&record, &cpus[..cpus.len().min(room as usize)]).unwrap();
        }
        Listed { range, host }
    }

    /// An entry for kernel `k`: the state is running, and the doorbell CPU is the kernel's first one.
    pub fn record(&self, k: usize) -> InstanceRecord {
        InstanceRecord {
            instance: id(k),
            incarnation: life(1),
            state: State::Running,
            layout: Layout::Native,
            flags: EntryFlags::empty(),
            region: Some(self.regions[k]),
            doorbell_cpu: self.machine.kernel(k).cpus()[0],
            vector: Vector::RFC_V2,
            nr_cpus: 1,
        }
    }

    /// Makes kernel `k` follow the directory. From now on the kernel reads in it to which instance a CPU belongs.
    pub fn follow(&self, k: usize, listed: &Listed) -> Result<u32, JoinError> {
        let kernel = self.machine.kernel(k);
        kernel.read_directory(listed.range);
        let mapping = kernel.map(listed.range, Access::ReadOnly).unwrap();
        self.link(k).follow(&Directory::open(mapping.words()).unwrap(), |_, _| ())
    }

    /// The bytes of a raw dump of all memory.
    pub fn bytes(&self) -> Vec<u8> {
        let memory = self.machine.memory();
        let words = (memory.start().0..memory.end().0).step_by(8);
        words.flat_map(|at| self.machine.peek(PhysAddr(at)).to_le_bytes()).collect()
    }

    /// All memory, for the inspector.
    pub fn memory(&self) -> Memory {
        Memory::of_bytes(self.bytes(), Some(MEMORY_START.0)).unwrap()
    }

    /// What the inspector finds in the machine.
    pub fn inspect(&self) -> Machine {
        Machine::find(&self.memory(), 4).unwrap()
    }

    /// What the inspector finds in the region of kernel `k`.
    pub fn region(&self, k: usize) -> native::Region {
        let found = Machine::at(&self.memory(), self.regions[k].start().0, Kind::Native, 4).unwrap();
        match found.regions.into_iter().next().unwrap().region {
            Region::Native(region) => region,
            Region::RfcV2(_) => panic!("a native region"),
        }
    }
}

/// A directory that the host has mapped for writing.
pub struct Listed {
    pub range: PhysRange,
    host: Mapping<MockWord>,
}

impl Listed {
    /// Writes an entry, as the host.
    pub fn write(&self, record: InstanceRecord, cpus: &[u64]) -> Result<u32, WriteError> {
        let cpus: Vec<_> = cpus.iter().copied().map(PhysCpuId).collect();
        DirectoryWriter::take_over(self.host.words()).unwrap().write(&record, &cpus)
    }
}

/// An ELF core dump of memory that begins at address `start` and contains `bytes`, in two segments.
pub fn elf_core(bytes: &[u8], start: u64) -> Vec<u8> {
    let (near, far) = bytes.split_at(bytes.len() / 2);
    let headers = 64 + 2 * 56;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |elf: &mut Vec<u8>, n: u16| elf.extend(n.to_le_bytes());
    let word = |elf: &mut Vec<u8>, n: u32| elf.extend(n.to_le_bytes());
    let long = |elf: &mut Vec<u8>, n: u64| elf.extend(n.to_le_bytes());
    half(&mut elf, 4); // ET_CORE
    half(&mut elf, 62); // EM_X86_64
    word(&mut elf, 1);
    [0, 64, 0].iter().for_each(|n| long(&mut elf, *n)); // entry, program headers, sections
    word(&mut elf, 0);
    [64, 56, 2, 0, 0, 0].iter().for_each(|n| half(&mut elf, *n));
    for (offset, paddr, len) in
        [(headers + near.len(), start + near.len() as u64, far.len()), (headers, start, near.len())]
    {
        word(&mut elf, 1); // PT_LOAD
        word(&mut elf, 6);
        [offset as u64, 0, paddr, len as u64, len as u64, 0].iter().for_each(|n| long(&mut elf, *n));
    }
    elf.extend(bytes);
    elf
}
