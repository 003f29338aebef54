// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's record of a kernel: whether it is stopped, which memory it has mapped, and which handlers it has set.

use crate::memory::{lock, pages_of, MEMORY_START};
use crate::report::Step;
use mk_ipi_abi::{InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange, Vector, PAGE_SIZE};
use mk_ipi_core::platform::{Access, Peer, PeerEvent};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

type Routine = Arc<dyn Fn() + Send + Sync>;

/// A call of `Observer` about a region, with the instance to which the region belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionEvent {
    /// A call of `region_added`.
    Added(InstanceId, PhysRange),
    /// A call of `region_removed`.
    Removed(InstanceId, PhysRange),
}

/// The machine's record of a kernel.
pub(crate) struct KernelState {
    number: usize,
    pub cpus: Vec<PhysCpuId>,
    /// The number that the kernel's first CPU has in the machine.
    pub first_cpu: usize,
    dead: AtomicBool,
    incarnation: AtomicU32,
    /// The instance id with which the kernel booted, plus 1; 0 if it has not booted.
    pub instance: AtomicU32,
    /// The range of the directory that the kernel reads, if it reads one.
    pub directory: Mutex<Option<PhysRange>>,
    /// The number of accesses that this incarnation has made, and the number of those that other kernels can see.
    pub clocks: [AtomicU64; 2],
    /// The number of accesses that the kernel has made with interrupts off, in all its incarnations.
    pub masked: AtomicU64,
    /// The kernel stops when a counter in `clocks` reaches the number at the same place here.
    stop_at: [AtomicU64; 2],
    /// For each page of memory: the number of this kernel's read-only mappings, and of its mappings for reading and writing.
    pages: Vec<[AtomicU32; 2]>,
    pub mappings: Mutex<Vec<(PhysRange, Access)>>,
    pub private: Mutex<Vec<PhysRange>>,
    pub maps_refused: AtomicBool,
    pub vectors: Mutex<BTreeMap<u8, Routine>>,
    pub deferred: Mutex<Option<Routine>>,
    pub regions: Mutex<Vec<RegionEvent>>,
    pub peers: Mutex<Vec<(Peer, PeerEvent)>>,
    pub stops: AtomicU64,
    pub unhandled: Mutex<Vec<Unhandled>>,
}

/// A message for whose type no handler was registered: its sender if that is known, its type and its payload.
pub type Unhandled = (Option<InstanceId>, MessageType, Vec<u8>);

impl KernelState {
    pub fn new(number: usize, ids: &[u64], first_cpu: usize, pages: usize) -> Self {
        Self {
            number,
            cpus: ids.iter().copied().map(PhysCpuId).collect(),
            first_cpu,
            dead: AtomicBool::new(false),
            incarnation: AtomicU32::new(0),
            instance: AtomicU32::new(0),
            directory: Mutex::default(),
            clocks: Default::default(),
            masked: AtomicU64::new(0),
            stop_at: [const { AtomicU64::new(u64::MAX) }; 2],
            pages: std::iter::repeat_with(Default::default).take(pages).collect(),
            mappings: Mutex::default(),
            private: Mutex::default(),
            maps_refused: AtomicBool::new(false),
            vectors: Mutex::default(),
            deferred: Mutex::default(),
            regions: Mutex::default(),
            peers: Mutex::default(),
            stops: AtomicU64::new(0),
            unhandled: Mutex::default(),
        }
    }

    pub fn dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    pub fn set_dead(&self, dead: bool) {
        self.dead.store(dead, Ordering::Release);
    }

    pub fn incarnation(&self) -> u32 {
        self.incarnation.load(Ordering::Relaxed)
    }

    /// Makes the kernel stop at this access or at this store, whichever comes first.
    pub fn stop_at(&self, access: u64, store: u64) {
        [access, store].iter().zip(&self.stop_at).for_each(|(n, at)| _ = at.fetch_min(*n, Ordering::Relaxed));
    }

    pub fn forget_stop(&self) {
        self.stop_at.iter().for_each(|at| at.store(u64::MAX, Ordering::Relaxed));
    }

    /// Counts an access. Returns true if the kernel must stop at it.
    pub fn count_access(&self, what: Step) -> bool {
        let seen = if what == Step::Load { 1 } else { 2 };
        let hits = |(clock, at): (&AtomicU64, &AtomicU64)| {
            clock.fetch_add(1, Ordering::Relaxed) + 1 >= at.load(Ordering::Relaxed)
        };
        self.clocks.iter().zip(&self.stop_at).take(seen).filter(|pair| hits(*pair)).count() != 0
    }

    /// Begins the next incarnation of the kernel: drops its handlers, its mappings and its directory, and clears its list of
    /// regions, its counters of accesses and the faults that stop it. It keeps the settings of the test: private memory and
    /// refused maps. It also keeps what the test can still fetch: events, unhandled messages, `stops` and `masked`.
    pub fn reset(&self) {
        self.forget_code();
        lock(&self.mappings).clear();
        *lock(&self.directory) = None;
        lock(&self.regions).clear();
        self.pages.iter().flatten().for_each(|count| count.store(0, Ordering::Relaxed));
        self.clocks.iter().for_each(|clock| clock.store(0, Ordering::Relaxed));
        self.forget_stop();
        self.incarnation.fetch_add(1, Ordering::Relaxed);
        self.set_dead(false);
    }

    /// Drops the handlers. A handler can hold a reference to the machine, so the machine would otherwise never be dropped.
    pub fn forget_code(&self) {
        let vectors = std::mem::take(&mut *lock(&self.vectors));
        let deferred = lock(&self.deferred).take();
        drop((vectors, deferred));
    }

    pub fn handle(&self, vector: Vector) {
        let handler = lock(&self.vectors).get(&vector.get()).cloned();
        match handler {
            Some(handler) => handler(),
            None => panic!("kernel {} has no handler for vector {:#x}", self.number, vector.get()),
        }
    }

    pub fn run_deferred(&self) {
        let routine = lock(&self.deferred).clone();
        match routine {
            Some(routine) => routine(),
            None => panic!("kernel {} has no deferred routine", self.number),
        }
    }

    /// Panics if this kernel has not mapped the page at `at`, or has mapped it read-only and `what` is not a load.
    pub fn check_access(&self, at: PhysAddr, what: Step) {
        let page = usize::try_from((at.0 - MEMORY_START.0) / PAGE_SIZE).expect("LP64");
        let [read, both] = &self.pages[page];
        let (read, both) = (read.load(Ordering::Relaxed), both.load(Ordering::Relaxed));
        assert!(read + both != 0, "kernel {}: {what:?} at {:#x}, which it has not mapped", self.number, at.0);
        let only_loads = what == Step::Load || both != 0;
        assert!(only_loads, "kernel {}: {what:?} at {:#x}, which it mapped read-only", self.number, at.0);
    }

    /// Applies `change` to the number of mappings of each page of `range`.
    pub fn count_pages(&self, range: PhysRange, access: Access, change: impl Fn(&AtomicU32) -> u32) {
        for counts in &self.pages[pages_of(range)] {
            change(&counts[usize::from(access == Access::ReadWrite)]);
        }
    }
}
