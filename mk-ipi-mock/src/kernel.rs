// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's record of a kernel: whether it lives, what it has mapped, which handlers it has set.

use crate::memory::{lock, pages_of, MEMORY_START};
use crate::report::Step;
use mk_ipi_abi::{InstanceId, MessageType, PhysAddr, PhysCpuId, PhysRange, Vector, PAGE_SIZE};
use mk_ipi_core::platform::{Access, Peer, PeerEvent};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

type Routine = Arc<dyn Fn() + Send + Sync>;

/// A region that a kernel's observer saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionEvent {
    /// It was added.
    Added(InstanceId, PhysRange),
    /// It was removed.
    Removed(InstanceId, PhysRange),
}

/// The machine's record of a kernel.
pub(crate) struct KernelState {
    number: usize,
    pub cpus: Vec<PhysCpuId>,
    /// The number of its first CPU in the machine.
    pub first_cpu: usize,
    dead: AtomicBool,
    incarnation: AtomicU32,
    /// The instance that it booted as, plus one; 0 if none.
    pub instance: AtomicU32,
    /// The range of the directory that it reads, if it reads one.
    pub directory: Mutex<Option<PhysRange>>,
    /// How many accesses it has made, and how many of them others can see.
    pub clocks: [AtomicU64; 2],
    /// How many accesses it has made with interrupts off.
    pub masked: AtomicU64,
    stop_at: [AtomicU64; 2],
    /// How many mappings each page has: for reading only, and for reading and writing.
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

/// A message that no handler took: its sender if that is known, its type and its payload.
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

    /// Makes the kernel stop at this access, or at this store.
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

    /// Resets the kernel, as power off and on does: only the contents of memory are left from the former life.
    pub fn reset(&self) {
        self.forget_code();
        lock(&self.mappings).clear();
        lock(&self.regions).clear();
        self.pages.iter().flatten().for_each(|count| count.store(0, Ordering::Relaxed));
        self.clocks.iter().for_each(|clock| clock.store(0, Ordering::Relaxed));
        self.forget_stop();
        self.incarnation.fetch_add(1, Ordering::Relaxed);
        self.set_dead(false);
    }

    /// Drops the handlers. They can hold a reference to the machine itself.
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

    /// Panics if this kernel may not do `what` at `at`.
    pub fn check_access(&self, at: PhysAddr, what: Step) {
        let page = usize::try_from((at.0 - MEMORY_START.0) / PAGE_SIZE).expect("LP64");
        let [read, both] = &self.pages[page];
        let (read, both) = (read.load(Ordering::Relaxed), both.load(Ordering::Relaxed));
        assert!(read + both != 0, "kernel {}: {what:?} at {:#x}, which it has not mapped", self.number, at.0);
        let only_loads = what == Step::Load || both != 0;
        assert!(only_loads, "kernel {}: {what:?} at {:#x}, which it mapped read-only", self.number, at.0);
    }

    pub fn count_pages(&self, range: PhysRange, access: Access, change: impl Fn(&AtomicU32) -> u32) {
        for counts in &self.pages[pages_of(range)] {
            change(&counts[usize::from(access == Access::ReadWrite)]);
        }
    }
}
