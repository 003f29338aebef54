// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine: functions that build it and run it, and functions by which a test changes it.

use crate::cpu::{with_current, Cpu};
use crate::fault::Fault;
use crate::kernel::KernelState;
use crate::memory::{Memory, MEMORY_START};
use crate::notes::Notes;
use crate::platform::MockPlatform;
use crate::report::{Failure, Mode, Report, Step};
use crate::sched::{CpuState, Shared};
use mk_ipi_abi::native::{Geometry, Stamp, STAMP_WORDS};
use mk_ipi_abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange, PAGE_SIZE};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};

/// Builds a machine. See [`Machine::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    mode: Mode,
    kernels: Vec<Vec<u64>>,
    pages: usize,
    pools: Vec<(InstanceId, u64)>,
    faults: Vec<Fault>,
    step_limit: Option<u64>,
    trace: bool,
}

/// A simulated machine. When it is dropped, the handlers of its kernels are dropped too.
pub struct Machine {
    shared: Arc<Shared>,
}

impl core::fmt::Debug for Machine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Machine").field("kernels", &self.kernels().count()).finish_non_exhaustive()
    }
}

impl Builder {
    /// Adds a kernel whose CPUs have these physical ids. Kernels get the numbers 0, 1, 2... in the order of the calls.
    pub fn kernel(mut self, cpus: &[u64]) -> Self {
        self.kernels.push(cpus.to_vec());
        self
    }

    /// Sets how the CPUs are scheduled. The default is [`Mode::Stepped`] with seed 0.
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the number of pages of physical memory. Memory begins at [`MEMORY_START`]. The default is 256 pages.
    pub const fn memory(mut self, pages: usize) -> Self {
        self.pages = pages;
        self
    }

    /// Reserves a pool of `pages` pages for the region of `instance`.
    pub fn pool(mut self, instance: InstanceId, pages: u64) -> Self {
        self.pools.push((instance, pages * PAGE_SIZE));
        self
    }

    /// Injects a fault into the machine from its start.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Makes a run fail when the machine has taken `steps` steps, in all its runs together. The default is 2 million in stepped
    /// mode, and no limit in free mode.
    pub const fn step_limit(mut self, steps: u64) -> Self {
        self.step_limit = Some(steps);
        self
    }

    /// Records stores, doorbells and interrupts, for [`Machine::chrome_trace`].
    pub const fn trace(mut self) -> Self {
        self.trace = true;
        self
    }

    /// Builds the machine.
    ///
    /// # Panics
    ///
    /// If there is no kernel, a kernel has no CPU, two CPUs have the same id, an instance has two pools, a pool has no pages, or
    /// the pools do not fit into the memory.
    pub fn build(self) -> Machine {
        let mut cpus: Vec<CpuState> = Vec::new();
        let mut kernels = Vec::new();
        for (kernel, ids) in self.kernels.iter().enumerate() {
            assert!(!ids.is_empty(), "kernel {kernel} has no CPU");
            kernels.push(KernelState::new(kernel, ids, cpus.len(), self.pages));
            for (index, &id) in ids.iter().enumerate() {
                assert!(cpus.iter().all(|cpu| cpu.id.0 != id), "two CPUs have the id {id}");
                cpus.push(CpuState::new(PhysCpuId(id), kernel, index));
            }
        }
        assert!(!kernels.is_empty(), "a machine without kernels");
        let memory = Memory::new(self.pages);
        self.pools.iter().for_each(|&(instance, len)| memory.add_pool(instance, len));
        let limit = self.step_limit.unwrap_or(match self.mode {
            Mode::Stepped { .. } => 2_000_000,
            Mode::Free => u64::MAX,
        });
        let notes = if self.trace { Notes::kept() } else { Notes::default() };
        let shared = Arc::new(Shared::new(self.mode, limit, memory, kernels, cpus, notes));
        self.faults.iter().for_each(|&fault| shared.order(fault));
        Machine { shared }
    }
}

impl Machine {
    /// Returns a builder without kernels. Add at least one with [`Builder::kernel`].
    pub const fn builder() -> Builder {
        Builder {
            mode: Mode::Stepped { seed: 0 },
            kernels: Vec::new(),
            pages: 256,
            pools: Vec::new(),
            faults: Vec::new(),
            step_limit: None,
            trace: false,
        }
    }

    /// Returns the platform of kernel number `kernel`. Kernels are numbered in the order of the calls of [`Builder::kernel`].
    ///
    /// # Panics
    ///
    /// If the machine has no kernel with this number.
    pub fn kernel(&self, kernel: usize) -> MockPlatform {
        assert!(kernel < self.shared.kernels.len(), "no kernel {kernel}");
        MockPlatform::new(self.shared.clone(), kernel)
    }

    /// Returns the platforms of all kernels, in the order of the calls of [`Builder::kernel`].
    pub fn kernels(&self) -> impl Iterator<Item = MockPlatform> + '_ {
        (0..self.shared.kernels.len()).map(|kernel| self.kernel(kernel))
    }

    /// Runs `code` on every CPU. Returns when `code` has returned on each CPU, and no interrupt or deferred work is pending.
    ///
    /// A CPU begins with interrupts on. If its kernel was started again, the CPU begins with interrupts off, because the kernel
    /// has no handlers yet. A CPU whose code has returned continues to take interrupts. If a kernel stops, the stacks of its CPUs
    /// unwind. Meanwhile their accesses have no effect. If the kernel is started again, its CPUs run `code` again. `run` can be
    /// called several times, one after another.
    ///
    /// # Errors
    ///
    /// A deadlock, too many steps, or a panic of a CPU's code. See [`Cause`](crate::Cause).
    ///
    /// # Panics
    ///
    /// If the calling thread is not the thread that built the machine.
    pub fn run(&self, code: impl Fn(&Cpu) + Sync) -> Result<Report, Failure> {
        assert!(
            std::thread::current().id() == self.shared.builder,
            "only the thread that built the machine may run it"
        );
        self.shared.begin();
        let together = Barrier::new(self.shared.cpus.len());
        std::thread::scope(|scope| {
            for (number, cpu) in self.shared.cpus.iter().enumerate() {
                let (shared, code, together) = (&self.shared, &code, &together);
                let thread =
                    std::thread::Builder::new().name(format!("kernel {} cpu {}", cpu.kernel, cpu.id.0));
                let spawned = thread.spawn_scoped(scope, move || {
                    together.wait();
                    Cpu::main(shared, number, code);
                });
                spawned.expect("no thread for a CPU");
            }
        });
        self.shared.finish()
    }

    /// Injects a fault. This can be called before a run and during a run.
    pub fn fault(&self, fault: Fault) {
        self.shared.order(fault);
    }

    /// Stops a kernel: nothing that its CPUs do later has an effect, until the kernel is started again. A CPU that stops its own
    /// kernel stops inside this call.
    pub fn stop_kernel(&self, kernel: usize) {
        self.shared.kill(kernel);
        with_current(|cpu| cpu.into_iter().for_each(Cpu::relax));
    }

    /// Returns true if the kernel was stopped and not started again.
    pub fn is_stopped(&self, kernel: usize) -> bool {
        self.shared.kernels[kernel].dead()
    }

    /// Starts a stopped kernel again, as its next incarnation, without handlers and mappings. This call waits until each CPU of
    /// the kernel has left the code of the former life. Then these CPUs run the code again.
    ///
    /// # Panics
    ///
    /// If the kernel is running.
    pub fn restart_kernel(&self, kernel: usize) {
        assert!(self.shared.kernels[kernel].dead(), "kernel {kernel} is running");
        while !self.shared.try_restart(kernel) {
            with_current(|cpu| cpu.into_iter().for_each(Cpu::relax));
        }
    }

    /// Reserves `len` bytes of memory, rounded up to whole pages. Nothing else uses this memory, and it is never given back.
    ///
    /// # Panics
    ///
    /// If `len` is 0, or the machine has too little memory left.
    pub fn reserve(&self, len: u64) -> PhysRange {
        self.shared.memory.reserve(len)
    }

    /// Reserves memory, and makes it an empty native region, as a host does: it has a stamp, and all other bytes are 0.
    pub fn native_region(&self, geometry: Geometry) -> PhysRange {
        let region = self.reserve(geometry.total_size());
        self.make_native_region(region, geometry);
        region
    }

    /// Makes this range an empty native region: it writes a stamp, and zeros after it. It does not check what the range was used
    /// for, or whether a kernel has it mapped.
    pub fn make_native_region(&self, region: PhysRange, geometry: Geometry) {
        let stamp: [u64; STAMP_WORDS] = zerocopy::transmute!(Stamp::new(geometry));
        let words = (0..region.len()).step_by(8).map(|at| PhysAddr(region.start().0 + at));
        words.zip(stamp.into_iter().chain(std::iter::repeat(0))).for_each(|(at, value)| self.poke(at, value));
    }

    /// Returns how often this CPU was rung, in all runs of the machine. Lost doorbells count too.
    ///
    /// # Panics
    ///
    /// If the machine has no CPU with this id.
    pub fn doorbells_at(&self, cpu: PhysCpuId) -> u64 {
        let found = self.shared.cpus.iter().find(|known| known.id == cpu).expect("a CPU of the machine");
        found.rung.load(Ordering::Relaxed)
    }

    /// Returns the range of all physical memory.
    pub fn memory(&self) -> PhysRange {
        let len = self.shared.memory.pages() as u64 * PAGE_SIZE;
        PhysRange::new(MEMORY_START, len).expect("a machine has memory")
    }

    /// Reads the word at physical address `at`, even if no kernel has mapped it, as a debugger or a hostile CPU can. If the code
    /// of a CPU calls this, it counts as a step of the machine and as an access of the CPU's kernel.
    ///
    /// # Panics
    ///
    /// If `at` is not a multiple of 8, or is not in the machine's memory.
    pub fn peek(&self, at: PhysAddr) -> u64 {
        let word = self.shared.memory.word(at);
        with_current(|cpu| cpu.map(|cpu| cpu.access(word, Step::Load, 0, false)));
        word.raw().load(Ordering::Acquire)
    }

    /// Writes the word at physical address `at`. Otherwise it is like [`peek`](Self::peek).
    pub fn poke(&self, at: PhysAddr, value: u64) {
        let word = self.shared.memory.word(at);
        if with_current(|cpu| cpu.is_none_or(|cpu| cpu.access(word, Step::Store, value, false))) {
            word.raw().store(value, Ordering::Release);
        }
    }

    /// Returns how many bytes of the pool of `instance` are allocated; 0 if that instance has no pool.
    pub fn pool_used(&self, instance: InstanceId) -> u64 {
        self.shared.memory.pool_used(instance)
    }

    /// If `exhausted` is true, each later allocation from the pool of `instance` fails. If it is false, allocations work again.
    ///
    /// # Panics
    ///
    /// If that instance has no pool.
    pub fn exhaust_pool(&self, instance: InstanceId, exhausted: bool) {
        self.shared.memory.exhaust_pool(instance, exhausted);
    }
}

impl Machine {
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // This breaks a cycle: handlers hold endpoints, endpoints hold platforms, and platforms hold the machine.
        self.shared.kernels.iter().for_each(KernelState::forget_code);
    }
}
