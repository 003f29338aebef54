// SPDX-License-Identifier: MIT OR Apache-2.0
//! A platform that passes all calls to a `MockPlatform`, and logs some of them. A test can make it return errors, another CPU id,
//! or another answer of the directory.

use mk_ipi_abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::platform::*;
use mk_ipi_core::sync::{AtomicBool, AtomicU64, Ordering::Relaxed};
use mk_ipi_mock::{MockPlatform, MockWord};
use std::sync::{Arc, Mutex};

/// A function that is called with the name of each logged call.
type Watcher = Arc<dyn Fn(&'static str) + Send + Sync>;

/// The platform. See the module's documentation.
pub struct Odd {
    inner: MockPlatform,
    log: Mutex<Vec<&'static str>>,
    watcher: Mutex<Watcher>,
    /// The result of `physical_id`. With `NOBODY` it is the real id.
    cpu: AtomicU64,
    /// The result of `index` while interrupts are on, when a task can be moved to another CPU. With `NOBODY` it is the real
    /// index.
    before_move: AtomicU64,
    /// How many calls of `disable` have no `restore` yet.
    off: AtomicU64,
    /// True if `check` must fail.
    check_fails: AtomicBool,
    /// True if `ring` must fail.
    ring_fails: AtomicBool,
    /// The CPUs of each instance according to `peer_has_cpu`. With `None` it returns `None`, as without a directory.
    given: Mutex<Option<Vec<(InstanceId, PhysCpuId)>>>,
    /// How often `peer_has_cpu` was called.
    asked: AtomicU64,
    /// How often `compare_exchange_alone` was called.
    alone: AtomicU64,
}

/// A value that is not the id or the index of any CPU.
const NOBODY: u64 = 0xdead_0000_0000;

impl Odd {
    pub fn new(inner: MockPlatform) -> Self {
        Self {
            inner,
            log: Mutex::default(),
            watcher: Mutex::new(Arc::new(|_| ())),
            cpu: AtomicU64::new(NOBODY),
            before_move: AtomicU64::new(NOBODY),
            off: AtomicU64::new(0),
            check_fails: AtomicBool::new(false),
            ring_fails: AtomicBool::new(false),
            given: Mutex::default(),
            asked: AtomicU64::new(0),
            alone: AtomicU64::new(0),
        }
    }

    /// Logs a call.
    fn note(&self, call: &'static str) {
        self.log.lock().unwrap().push(call);
        let watcher = self.watcher.lock().unwrap().clone();
        watcher(call);
    }

    /// Returns the calls that were logged since the last call of this: those of `PhysMemory`, `InstancePool` and `Observer`.
    pub fn log(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// Makes each later call that is logged also call `watcher`.
    pub fn at_each_call(&self, watcher: impl Fn(&'static str) + Send + Sync + 'static) {
        *self.watcher.lock().unwrap() = Arc::new(watcher);
    }

    /// Makes `physical_id` return this id.
    pub fn pretend_cpu(&self, id: u64) {
        self.cpu.store(id, Relaxed);
    }

    /// Makes `index` return this index while interrupts are on, as if a task had read its CPU's index and had then been moved to
    /// another CPU.
    pub fn move_from(&self, index: u64) {
        self.before_move.store(index, Relaxed);
    }

    /// Makes `peer_has_cpu` return true only for these instances and CPUs. With `None` it returns `None`.
    pub fn directory_gives(&self, given: Option<Vec<(InstanceId, PhysCpuId)>>) {
        *self.given.lock().unwrap() = given;
    }

    /// Returns how often `peer_has_cpu` was called.
    pub fn times_asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }

    /// Returns how often `compare_exchange_alone` was called.
    pub fn times_alone(&self) -> u64 {
        self.alone.load(Relaxed)
    }

    /// Makes `check` fail, or work again.
    pub fn break_check(&self, fails: bool) {
        self.check_fails.store(fails, Relaxed);
    }

    /// Makes `ring` fail, or work again.
    pub fn break_ring(&self, fails: bool) {
        self.ring_fails.store(fails, Relaxed);
    }
}

// SAFETY: the calls are passed to the mock's platform, which keeps the contract. If this platform returns an error, nothing is
// rung.
unsafe impl Doorbell for Odd {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        match self.check_fails.load(Relaxed) {
            true => Err(DoorbellError::Unreachable(cpu)),
            false => self.inner.check(cpu, vector),
        }
    }
    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        match self.ring_fails.load(Relaxed) {
            true => Err(DoorbellError::Stuck),
            false => self.inner.ring(cpu, vector),
        }
    }
    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.ring(cpu, vector)
    }
}

// SAFETY: the calls are passed to the mock's platform, which keeps the contract. A test that sets another id or index has only
// one CPU, so two CPUs never have the same one.
unsafe impl ThisCpu for Odd {
    fn physical_id(&self) -> PhysCpuId {
        match self.cpu.load(Relaxed) {
            NOBODY => self.inner.physical_id(),
            id => PhysCpuId(id),
        }
    }
    fn index(&self) -> usize {
        match self.before_move.load(Relaxed) {
            index if index != NOBODY && self.off.load(Relaxed) == 0 => usize::try_from(index).unwrap(),
            _ => self.inner.index(),
        }
    }
    fn compare_exchange_alone(&self, word: &AtomicU64, current: u64, new: u64) -> bool {
        self.alone.fetch_add(1, Relaxed);
        self.inner.compare_exchange_alone(word, current, new)
    }
}

// SAFETY: each call is passed to the mock's platform, which keeps the contract.
unsafe impl LocalInterrupts for Odd {
    type State = bool;
    fn disable(&self) -> bool {
        self.off.fetch_add(1, Relaxed);
        self.inner.disable()
    }
    fn restore(&self, state: bool) {
        self.off.fetch_sub(1, Relaxed);
        self.inner.restore(state);
    }
}

// SAFETY: each call is passed to the mock's platform, which keeps the contract.
unsafe impl PhysMemory for Odd {
    type Word = MockWord;
    fn map(&self, range: PhysRange, access: Access) -> Result<Mapping<MockWord>, MapError> {
        self.note("map");
        self.inner.map(range, access)
    }
    unsafe fn unmap(&self, mapping: Mapping<MockWord>) {
        self.note("unmap");
        // SAFETY: the caller keeps the contract, and the call is passed on unchanged.
        unsafe { self.inner.unmap(mapping) }
    }
    fn peer_may_share(&self, page: PhysRange) -> bool {
        self.inner.peer_may_share(page)
    }
}

// SAFETY: each call is passed to the mock's platform, which keeps the contract.
unsafe impl InstancePool for Odd {
    fn alloc(&self, instance: InstanceId, len: u64) -> Result<PhysAddr, PoolError> {
        self.note("alloc");
        self.inner.alloc(instance, len)
    }
    unsafe fn free(&self, instance: InstanceId, range: PhysRange) {
        self.note("free");
        // SAFETY: the caller keeps the contract, and the call is passed on unchanged.
        unsafe { self.inner.free(instance, range) }
    }
}

impl DeferredWork for Odd {
    fn schedule(&self) {
        self.inner.schedule();
    }
}

impl Observer for Odd {
    fn region_added(&self, instance: InstanceId, range: PhysRange) {
        self.note("added");
        self.inner.region_added(instance, range);
    }
    fn region_removed(&self, instance: InstanceId, range: PhysRange) {
        self.note("removed");
        self.inner.region_removed(instance, range);
    }
    fn peer_event(&self, peer: Peer, event: PeerEvent) {
        self.inner.peer_event(peer, event);
    }
    fn peer_has_cpu(&self, peer: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        self.asked.fetch_add(1, Relaxed);
        let given = self.given.lock().unwrap();
        given.as_ref().map(|given| given.contains(&(peer, cpu)))
    }
    fn stop(&self) {
        self.inner.stop();
    }
}
