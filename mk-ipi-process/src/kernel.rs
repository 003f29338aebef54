// SPDX-License-Identifier: MIT OR Apache-2.0
//! This process as a kernel: [`Kernel`] implements the platform traits of mk-ipi-core by signals, futexes and the machine's file.

use crate::machine::Machine;
use crate::map::Map;
use crate::sys::{self, Thread};
use mk_ipi_abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector, PAGE_SIZE};
use mk_ipi_core::platform::{
    Access, DeferredWork, Doorbell, DoorbellError, InstancePool, LocalInterrupts, MapError, Mapping,
    Observer, Peer, PeerEvent, PhysMemory, PoolError, ThisCpu,
};
use mk_ipi_core::sync::{AtomicBool, AtomicU64, Ordering};
use mk_ipi_core::Message;
use std::cell::Cell;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// The longest sleep of the helper thread. If a peer is killed after it has set a bit, and before it wakes this process, the
/// helper thread finds the bit after this time at the latest.
const LOOK: Duration = Duration::from_millis(10);

/// The handler of a vector.
type Routine = Box<dyn Fn() + Send + Sync>;

thread_local! {
    /// True if this thread is the kernel's CPU.
    static IS_CPU: Cell<bool> = const { Cell::new(false) };
}

/// The kernel of this process. The signal handler finds it here.
static KERNEL: OnceLock<Arc<Shared>> = OnceLock::new();

struct Shared {
    machine: Machine,
    cpu: PhysCpuId,
    observer: Box<dyn Observer + Send + Sync>,
    vectors: [OnceLock<Routine>; 256],
    /// True while interrupts are off.
    off: AtomicBool,
    /// True if a signal came, and the vectors that were pending then were not taken yet. They are taken when interrupts are
    /// switched on.
    missed: AtomicBool,
    /// True if deferred work was requested, and `take_deferred` has not returned true since then.
    deferred: AtomicBool,
    /// How many interrupts were taken.
    taken: AtomicU64,
    /// The parts of the pools that `alloc` gave out, and that `free` has not taken back.
    pieces: Mutex<Vec<PhysRange>>,
}

/// Why a process cannot be a kernel.
#[derive(Debug)]
pub enum EnterError {
    /// The process is a kernel already.
    Again,
    /// The machine has no such CPU.
    NoSuchCpu(PhysCpuId),
    /// The signal handler could not be installed, or the helper thread could not be started.
    Io(io::Error),
}

impl std::fmt::Display for EnterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Again => f.write_str("this process is a kernel already"),
            Self::NoSuchCpu(cpu) => write!(f, "the machine has no CPU {}", cpu.0),
            Self::Io(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for EnterError {}

/// An observer that ignores all events.
struct Blind;

impl Observer for Blind {}

/// This process as a kernel: a platform for an `Endpoint`. A clone is another handle to the same kernel, and is cheap to make.
///
/// The thread that called [`enter`](Self::enter) is the kernel's CPU. A method that only a CPU can execute panics on any other
/// thread.
#[derive(Clone)]
pub struct Kernel(Arc<Shared>);

impl core::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Kernel").field("cpu", &self.0.cpu).finish_non_exhaustive()
    }
}

impl Kernel {
    /// Enters the machine: from now on the calling thread is the CPU `cpu`. No other process may enter as the same CPU. The
    /// thread must not end before the process does.
    ///
    /// # Errors
    ///
    /// See [`EnterError`].
    pub fn enter(machine: Machine, cpu: PhysCpuId) -> Result<Self, EnterError> {
        Self::enter_with(machine, cpu, Blind)
    }

    /// As [`enter`](Self::enter), with an observer. The observer's `peer_has_cpu` is not called: the kernel reads the directory
    /// instead. The observer's `stop` can be called in a signal handler.
    ///
    /// # Errors
    ///
    /// See [`EnterError`].
    pub fn enter_with(
        machine: Machine,
        cpu: PhysCpuId,
        observer: impl Observer + Send + Sync + 'static,
    ) -> Result<Self, EnterError> {
        if !machine.has_cpu(cpu) {
            return Err(EnterError::NoSuchCpu(cpu));
        }
        let shared = Arc::new(Shared {
            machine,
            cpu,
            observer: Box::new(observer),
            vectors: [const { OnceLock::new() }; 256],
            off: AtomicBool::new(false),
            missed: AtomicBool::new(false),
            deferred: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            pieces: Mutex::default(),
        });
        KERNEL.set(shared.clone()).map_err(|_| EnterError::Again)?;
        IS_CPU.set(true);
        sys::install(on_signal).map_err(EnterError::Io)?;
        let (helper, thread) = (shared.clone(), Thread::this());
        let spawned =
            std::thread::Builder::new().name("doorbell".into()).spawn(move || helper.listen(thread));
        spawned.map_err(EnterError::Io)?;
        Ok(Self(shared))
    }

    /// Sets the handler of `vector`. The handler is called with interrupts off, usually in a signal handler, so it must neither
    /// allocate nor lock. Returns false, and changes nothing, if the vector has a handler already.
    ///
    /// An interrupt whose vector has no handler has no effect.
    pub fn set_vector(&self, vector: Vector, handler: impl Fn() + Send + Sync + 'static) -> bool {
        let place = self.0.vectors.get(usize::from(vector.get()));
        place.is_some_and(|place| place.set(Box::new(handler)).is_ok())
    }

    /// Returns true if deferred work was requested since this method last returned true. Then call `Endpoint::run_deferred`.
    /// While interrupts are off this method returns false, and the request is kept.
    pub fn take_deferred(&self) -> bool {
        !self.0.off.load(Ordering::Relaxed) && self.0.deferred.swap(false, Ordering::AcqRel)
    }

    /// Sleeps until an interrupt is taken, for at most `at_most`. Does not sleep if deferred work was requested. Returns the same
    /// as [`take_deferred`](Self::take_deferred). While interrupts are off, a doorbell also ends the sleep, but its interrupt is
    /// not taken.
    pub fn idle(&self, at_most: Duration) -> bool {
        self.assert_cpu();
        let before = self.interrupts();
        sys::sleep(at_most, || {
            // An interrupt that was taken before `sleep` blocked the signal can have requested deferred work.
            let asked = self.0.deferred.load(Ordering::Acquire) && !self.0.off.load(Ordering::Relaxed);
            !asked && self.interrupts() == before
        });
        self.take_deferred()
    }

    /// Number of interrupts that this kernel has taken, also those whose vector has no handler.
    pub fn interrupts(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.0.machine
    }

    fn assert_cpu(&self) {
        assert!(IS_CPU.get(), "this thread is not the kernel's CPU: it did not call Kernel::enter");
    }
}

extern "C" fn on_signal(_: i32) {
    // The signal can also be sent to another thread of this process. Only the thread that called `enter` may use the kernel.
    if let Some(kernel) = KERNEL.get().filter(|_| IS_CPU.get()) {
        sys::with_errno_kept(|| kernel.interrupt());
    }
}

impl Shared {
    /// Takes the pending interrupts: calls their handlers, with interrupts off. If interrupts are off already, only sets
    /// `missed`: then the interrupts are taken when interrupts are switched on. Runs on the CPU's thread, in the signal handler
    /// or when interrupts are switched on.
    fn interrupt(&self) {
        self.missed.store(true, Ordering::Relaxed);
        while !self.off.load(Ordering::Relaxed) && self.missed.swap(false, Ordering::Relaxed) {
            self.off.store(true, Ordering::Relaxed);
            self.machine.take_pending(self.cpu, |vector| {
                self.taken.fetch_add(1, Ordering::Relaxed);
                let handler = self.vectors.get(usize::from(vector.get())).and_then(OnceLock::get);
                handler.into_iter().for_each(|handler| handler());
            });
            self.off.store(false, Ordering::Relaxed);
        }
    }

    /// The loop of the helper thread. In each turn it interrupts the thread `cpu` if a vector is pending. Then it sleeps until
    /// `ring` wakes it, `LOOK` at most.
    fn listen(&self, cpu: Thread) {
        let Some(futex) = self.machine.futex(self.cpu) else { return };
        loop {
            let seen = futex.load(Ordering::SeqCst);
            if self.machine.is_pending(self.cpu) {
                // SAFETY: the CPU's thread lives as long as the process (`enter`).
                unsafe { cpu.interrupt() };
            }
            sys::futex_wait(futex, seen, LOOK);
        }
    }
}

// SAFETY: the bit is set by a sequentially consistent read-modify-write, after all earlier stores. The receiver takes the bit by
// another such read-modify-write, before its handler runs. So the handler sees these stores. Only the line of the named CPU is
// written. The methods work with interrupts on and off.
unsafe impl Doorbell for Kernel {
    fn check(&self, cpu: PhysCpuId, _: Vector) -> Result<(), DoorbellError> {
        if self.0.machine.has_cpu(cpu) {
            Ok(())
        } else {
            Err(DoorbellError::Unreachable(cpu))
        }
    }

    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        if self.0.machine.ring(cpu, vector) {
            Ok(())
        } else {
            Err(DoorbellError::Unreachable(cpu))
        }
    }

    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        // `ring` may be interrupted at any instruction by another call of `ring`.
        self.ring(cpu, vector)
    }
}

// SAFETY: one thread is the kernel's CPU, and no other thread passes the assertion. The signal handler calls the kernel on this
// thread only.
unsafe impl ThisCpu for Kernel {
    fn physical_id(&self) -> PhysCpuId {
        self.assert_cpu();
        self.0.cpu
    }

    fn index(&self) -> usize {
        self.assert_cpu();
        0
    }
}

// SAFETY: `interrupt` calls no handler while `off` is set, on the only thread that calls handlers. `restore` sets `off` to the
// state before `disable`. The thread is the CPU, so it does not migrate in the sense of the trait.
unsafe impl LocalInterrupts for Kernel {
    type State = bool;

    fn disable(&self) -> bool {
        self.assert_cpu();
        self.0.off.swap(true, Ordering::SeqCst)
    }

    fn restore(&self, was_off: bool) {
        self.0.off.store(was_off, Ordering::SeqCst);
        if !was_off && self.0.missed.load(Ordering::SeqCst) {
            self.0.interrupt();
        }
    }
}

// SAFETY: until `unmap`, a mapping gives access to the words of the requested range of the machine's file, and to no others. Only
// the pools can be mapped, and this kernel stores no private data in them.
unsafe impl PhysMemory for Kernel {
    type Word = AtomicU64;

    fn map(&self, range: PhysRange, access: Access) -> Result<Mapping<AtomicU64>, MapError> {
        if !range.start().is_page_aligned() {
            return Err(MapError::Misaligned);
        }
        match self.0.machine.map(range, access == Access::ReadWrite) {
            // SAFETY: the words are mapped until `unmap`, and every thread of this process may use them.
            Ok(map) => Ok(unsafe { Mapping::new(map.into_raw()) }),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Err(MapError::NotAllowed),
            Err(_) => Err(MapError::NoMemory),
        }
    }

    unsafe fn unmap(&self, mapping: Mapping<AtomicU64>) {
        // SAFETY: the caller promises that the mapping came from `map`, and is unmapped only once.
        drop(unsafe { Map::from_raw(mapping.as_ptr()) });
    }

    fn peer_may_share(&self, page: PhysRange) -> bool {
        let pools = self.0.machine.pools();
        pools.start() <= page.start() && page.end() <= pools.end()
    }
}

// SAFETY: a piece consists of complete pages of the instance's own pool, and does not overlap another piece that is in use.
unsafe impl InstancePool for Kernel {
    fn alloc(&self, instance: InstanceId, len: u64) -> Result<PhysAddr, PoolError> {
        let pool = self.0.machine.pool(instance).ok_or(PoolError::NoPool)?;
        let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or(PoolError::Exhausted)?;
        let mut pieces = self.0.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut start = pool.start();
        loop {
            let piece = PhysRange::new(start, len).filter(|piece| piece.end() <= pool.end());
            let piece = piece.ok_or(PoolError::Exhausted)?;
            match pieces.iter().find(|taken| taken.overlaps(piece)) {
                Some(taken) => start = taken.end(),
                None => {
                    pieces.push(piece);
                    return Ok(start);
                }
            }
        }
    }

    unsafe fn free(&self, _: InstanceId, range: PhysRange) {
        let mut pieces = self.0.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.retain(|taken| taken.start() != range.start());
    }
}

impl DeferredWork for Kernel {
    fn schedule(&self) {
        self.0.deferred.store(true, Ordering::Release);
    }
}

impl Observer for Kernel {
    fn peer_event(&self, peer: Peer, event: PeerEvent) {
        self.0.observer.peer_event(peer, event);
    }

    fn peer_has_cpu(&self, peer: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        Some(self.0.machine.directory()?.has_cpu(peer, cpu).unwrap_or(false))
    }

    fn unhandled(&self, message: &Message<'_>) {
        self.0.observer.unhandled(message);
    }

    fn stop(&self) {
        self.0.observer.stop();
    }

    fn region_added(&self, instance: InstanceId, range: PhysRange) {
        self.0.observer.region_added(instance, range);
    }

    fn region_removed(&self, instance: InstanceId, range: PhysRange) {
        self.0.observer.region_removed(instance, range);
    }
}
