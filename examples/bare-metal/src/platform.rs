// SPDX-License-Identifier: MIT OR Apache-2.0
//! The platform traits of mk-ipi-core, implemented for this kernel: doorbell, memory, pools, deferred work.

use crate::arch::{self, interrupts, without_interrupts, Controller, Mode};
use crate::boot::Boot;
use crate::conformance::{self, SUITE};
use crate::control::control;
use crate::layout;
use crate::pools::Pools;
use crate::serve::SERVER;
use crate::{drains, hand_over, inbox, own, second, serve, stream};
use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;
use core::slice;
use mk_ipi_abi::{InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::directory::Directory;
use mk_ipi_core::platform::{
    Access, DeferredWork, Doorbell, DoorbellError, InstancePool, LocalInterrupts, MapError, Mapping,
    Observer, Peer, PeerEvent, PhysMemory, PoolError, ThisCpu,
};
use mk_ipi_core::sync::{AtomicBool, AtomicU64, Ordering};
use mk_ipi_core::{Endpoint, Message};
use spin::Once;

/// The type of this kernel's message handlers: static references to functions.
pub type HandlerFn = &'static (dyn Fn(&Message) + Send + Sync);

/// The type of this kernel's endpoint. This kernel has at most `CPUS` CPUs. Other kernels can have any number of CPUs.
pub type End<const CPUS: usize> = Endpoint<Kernel, HandlerFn, CPUS, 32, BUDGET>;
/// The largest number of CPUs of this kernel.
pub const OWN_CPUS: usize = if cfg!(feature = "second-cpu") { 2 } else { 1 };
/// This kernel's endpoint in the demo.
pub static ENDPOINT: End<OWN_CPUS> = Endpoint::new(Kernel);
/// The largest number of messages that one run of the deferred work passes to handlers.
pub const BUDGET: usize = 64;
/// The state of this kernel. All its endpoints share it.
static KERNEL: State = State::new();

/// The platform of this kernel's endpoints.
pub struct Kernel;

/// What this kernel does. It says which endpoint gets the doorbells and the deferred work, and which code gets the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The demo. A kernel has this role until [`State::play`] is called.
    Demo,
    /// The conformance suite.
    Suite,
    /// The kernel serves a host of another kind, to which the machine belongs (serve.rs).
    Serve,
}

impl Deref for Kernel {
    type Target = State;
    fn deref(&self) -> &State {
        &KERNEL
    }
}

/// The state of deferred work on one CPU of this kernel.
struct OwnCpu {
    /// True if deferred work is due.
    due: AtomicBool,
    /// True while deferred work runs.
    running: AtomicBool,
    /// How often deferred work has run.
    runs: AtomicU64,
}

impl OwnCpu {
    const fn new() -> Self {
        Self { due: AtomicBool::new(false), running: AtomicBool::new(false), runs: AtomicU64::new(0) }
    }
}

/// The state of this kernel.
pub struct State {
    boot: Once<Boot>,
    controller: Once<(Controller, PhysCpuId)>,
    /// The number of doorbells that this kernel has rung.
    rung: AtomicU64,
    cpus: [OwnCpu; OWN_CPUS],
    role: Once<Role>,
    /// The directory of the kernels on this machine.
    directory: Once<Directory<'static, AtomicU64>>,
    pools: Pools,
}

impl State {
    const fn new() -> Self {
        Self {
            boot: Once::new(),
            controller: Once::new(),
            rung: AtomicU64::new(0),
            cpus: [const { OwnCpu::new() }; OWN_CPUS],
            role: Once::new(),
            directory: Once::new(),
            pools: Pools::new(),
        }
    }

    /// Stores the information that the kernel was given at its start.
    pub fn set_boot(&self, boot: Boot) -> &Boot {
        self.boot.call_once(|| boot)
    }

    /// The information that the kernel was given at its start.
    pub fn boot(&self) -> &Boot {
        self.boot.get().expect("set_boot is the first thing that kernel_main does")
    }

    /// Stores the directory.
    pub fn set_directory(&self, directory: Directory<'static, AtomicU64>) -> &Directory<'static, AtomicU64> {
        self.directory.call_once(|| directory)
    }

    /// The directory. `None` before it is found.
    pub fn directory(&self) -> Option<&Directory<'static, AtomicU64>> {
        self.directory.get()
    }

    /// Returns whether the directory lists `cpu` for `instance` now. `None` if the directory or the entry cannot be read now.
    /// Always `None` while the conformance suite runs, because the directory does not list the suite's instances.
    pub fn lists(&self, instance: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        self.directory().filter(|_| self.role() != Role::Suite)?.has_cpu(instance, cpu).ok()
    }

    /// Puts the interrupt controller into `mode`, and makes this CPU accept doorbells. Interrupts must be off, and stay off.
    /// Returns the mode in which the controller is.
    pub fn set_up_interrupts(&self, mode: Mode) -> Result<Mode, impl fmt::Debug> {
        Controller::set_up(mode).map(|(controller, found)| {
            let cpu = controller.cpu_id();
            self.controller.call_once(|| (controller, cpu));
            found
        })
    }

    /// Makes this CPU, which is the second one of this kernel, accept doorbells. Interrupts must be off, and stay off.
    /// Returns the CPU's id.
    pub fn enter_second(&self) -> PhysCpuId {
        if let Err(e) = self.controller().enter_second() {
            fatal!("the interrupt controller of the second CPU: {e:?}");
        }
        self.controller().cpu_id()
    }

    /// The state of the CPU that makes this call.
    fn here(&self) -> &OwnCpu {
        &self.cpus[ThisCpu::index(&Kernel)]
    }

    /// Returns whether the second CPU runs deferred work.
    pub fn second_runs(&self) -> bool {
        self.cpus.get(1).is_some_and(|cpu| cpu.running.load(Ordering::Acquire))
    }

    /// If deferred work is due on this CPU, makes it due on the first CPU instead. Called by a CPU that leaves the kernel.
    /// With native links any CPU of the kernel may run this work.
    pub fn hand_on_due(&self) {
        if self.here().due.swap(false, Ordering::Relaxed) {
            self.cpus[0].due.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether mk-ipi may map `range`. In the demo and the suite, it must be RAM. A kernel that serves may also map
    /// memory that its host marks as reserved in the start info: the host shares it with this kernel.
    fn may_map(&self, range: PhysRange) -> bool {
        match self.role() {
            Role::Serve => self.boot().is_memory(range),
            Role::Demo | Role::Suite => self.boot().is_ram(range),
        }
    }

    /// The interrupt controller.
    pub fn controller(&self) -> &Controller {
        &self.controller.get().expect("set_up_interrupts comes before any use").0
    }

    /// The number of doorbells that this kernel has rung.
    pub fn rung(&self) -> u64 {
        self.rung.load(Ordering::Relaxed)
    }

    /// Runs deferred work once, with one budget, if it is due on this CPU. Does nothing if this CPU is already running
    /// deferred work, which the caller has interrupted. The caller has turned interrupts off. They are on while the work
    /// runs.
    pub fn run_due(&self) {
        let here = self.here();
        if here.due.load(Ordering::Relaxed) && !here.running.swap(true, Ordering::SeqCst) {
            here.due.store(false, Ordering::Relaxed);
            interrupts::enable();
            match self.role() {
                Role::Suite => _ = SUITE.run_deferred(),
                Role::Serve => _ = SERVER.run_deferred(),
                Role::Demo => drains::watched(|| _ = ENDPOINT.run_deferred()),
            }
            interrupts::disable();
            here.runs.fetch_add(1, Ordering::Relaxed);
            here.running.store(false, Ordering::Release);
        }
    }

    /// Sets this kernel's role. Only the first call has an effect.
    pub fn play(&self, role: Role) {
        self.role.call_once(|| role);
    }

    /// This kernel's role.
    pub fn role(&self) -> Role {
        self.role.get().copied().unwrap_or(Role::Demo)
    }

    /// Runs deferred work if it is due and interrupts are on. For the loop of a wait that does not sleep.
    pub fn service(&self) {
        if interrupts::are_enabled() {
            interrupts::disable();
            self.run_due();
            interrupts::enable();
        }
    }

    /// How often deferred work has run.
    pub fn runs(&self) -> u64 {
        self.cpus.iter().fold(0, |sum, cpu| sum.wrapping_add(cpu.runs.load(Ordering::Relaxed)))
    }

    /// Sleeps until the next interrupt, unless deferred work has run since [`runs`](Self::runs) returned `seen`.
    ///
    /// A caller calls `runs`, checks a condition, and sleeps if the condition is false. If this CPU handles a message after
    /// `runs` was called, this function does not sleep, and the caller checks the condition again. If another CPU handled the
    /// message, the next tick ends the sleep.
    pub fn sleep(&self, seen: u64) {
        interrupts::disable();
        self.run_due();
        if self.here().due.load(Ordering::Relaxed) || self.runs() != seen {
            interrupts::enable();
        } else {
            interrupts::enable_and_wait();
        }
    }
}

/// Called after an interrupt on this kernel's doorbell vector. The caller has acknowledged it. Interrupts are off.
pub fn on_doorbell() {
    let kernel = ENDPOINT.platform();
    hand_over::saw_doorbell(kernel.index());
    match kernel.role() {
        Role::Suite => SUITE.on_interrupt(),
        Role::Serve => SERVER.on_interrupt(),
        Role::Demo => {
            if control().is_to_stop(own::kernel().into()) {
                kernel.controller().stop_this();
            }
            ENDPOINT.on_interrupt();
        }
    }
    kernel.run_due();
}

/// Called after each tick. The caller has acknowledged the interrupt. Interrupts are off.
pub fn on_tick() {
    ENDPOINT.platform().run_due();
}

/// Called after an interrupt on another kernel's doorbell vector, or on an unknown one. The caller has acknowledged it. The
/// sender assumed that this CPU belongs to another kernel.
pub fn on_foreign() {
    hand_over::saw_stray();
}

// SAFETY: each call is passed on to the interrupt controller, which implements the trait as required.
unsafe impl Doorbell for Kernel {
    fn check(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.controller().check(cpu, vector)
    }

    fn ring(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.controller().ring(cpu, vector)?;
        self.rung.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn ring_from_nmi(&self, cpu: PhysCpuId, vector: Vector) -> Result<(), DoorbellError> {
        self.controller().ring_from_nmi(cpu, vector)?;
        self.rung.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

// SAFETY: each CPU's id is read when the CPU starts, and does not change. `own_index` finds out which of the two CPUs runs.
unsafe impl ThisCpu for Kernel {
    fn physical_id(&self) -> PhysCpuId {
        match self.index() {
            0 => self.controller.get().expect("set_up_interrupts comes before any use").1,
            _ => second::physical_id(),
        }
    }

    fn index(&self) -> usize {
        if OWN_CPUS == 1 {
            return 0;
        }
        arch::own_index()
    }

    fn compare_exchange_alone(&self, word: &AtomicU64, current: u64, new: u64) -> bool {
        Controller::compare_exchange_alone(word, current, new)
    }
}

// SAFETY: this turns off the interrupts of the CPU that makes the call. Code never moves from one CPU to another.
unsafe impl LocalInterrupts for Kernel {
    type State = bool;

    fn disable(&self) -> bool {
        let were_on = interrupts::are_enabled();
        interrupts::disable();
        were_on
    }

    fn restore(&self, were_on: bool) {
        if were_on {
            interrupts::enable();
        }
    }
}

// SAFETY: boot.s maps memory twice: one to one, and read-only at `READ_ONLY_ALIAS`. Nothing unmaps it. `map` returns only
// memory below `CACHED_END`, which is write-back cached, and nothing of this kernel's own image.
unsafe impl PhysMemory for Kernel {
    type Word = AtomicU64;

    fn map(&self, range: PhysRange, access: Access) -> Result<Mapping<AtomicU64>, MapError> {
        if !range.start().is_page_aligned() || !range.len().is_multiple_of(8) {
            return Err(MapError::Misaligned);
        }
        // The page at address 0 is refused, because a null pointer cannot be used.
        if range.start().0 == 0 || !self.may_map(range) || range.overlaps(own::image()) {
            return Err(MapError::NotAllowed);
        }
        let alias = match access {
            Access::ReadOnly => arch::READ_ONLY_ALIAS,
            Access::ReadWrite => 0,
        };
        let first = NonNull::new((alias + range.start().0) as *mut AtomicU64).ok_or(MapError::NotAllowed)?;
        let words = NonNull::slice_from_raw_parts(first, (range.len() / 8) as usize);
        // SAFETY: the words are aligned and not null, never unmapped, and not this kernel's own memory.
        Ok(unsafe { Mapping::new(words) })
    }

    unsafe fn unmap(&self, _: Mapping<AtomicU64>) {}

    /// Peers may share only pages in the instance pools. A kernel that serves lets them share none.
    fn peer_may_share(&self, page: PhysRange) -> bool {
        self.role() != Role::Serve && layout::contains(layout::pools(), page)
    }
}

// SAFETY: the memory map (layout.rs) reserves RAM for the pools. Only the host, which has one CPU, allocates from them. A
// kernel that serves has no pools.
unsafe impl InstancePool for Kernel {
    fn alloc(&self, instance: InstanceId, len: u64) -> Result<PhysAddr, PoolError> {
        if self.role() == Role::Serve {
            return Err(PoolError::NoPool);
        }
        without_interrupts(|| self.pools.alloc(instance, len))
    }

    unsafe fn free(&self, instance: InstanceId, range: PhysRange) {
        without_interrupts(|| self.pools.free(instance, range));
    }
}

impl DeferredWork for Kernel {
    fn schedule(&self) {
        self.here().due.store(true, Ordering::Relaxed);
    }
}

/// This kernel has no resource tree, so it reports added and removed regions in its log.
impl Observer for Kernel {
    fn peer_event(&self, peer: Peer, event: PeerEvent) {
        match self.role() {
            Role::Demo => stream::on_peer_event(peer.id, event),
            Role::Suite => conformance::on_peer_event(peer, event),
            Role::Serve => inbox::on_peer_event(peer.id, event),
        }
    }

    fn peer_has_cpu(&self, peer: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        self.lists(peer, cpu)
    }

    fn stop(&self) {
        match self.role() {
            Role::Demo => {}
            Role::Suite => conformance::on_stop(),
            Role::Serve => serve::on_stop(),
        }
    }

    fn region_added(&self, instance: InstanceId, range: PhysRange) {
        let (start, end) = (range.start().0, range.end().0);
        // The suite attaches and destroys many regions, which would fill the log.
        if self.role() != Role::Suite {
            log!("{start:#x}..{end:#x}: region of instance {}", instance.get());
        }
    }

    fn region_removed(&self, instance: InstanceId, range: PhysRange) {
        if self.role() != Role::Suite {
            log!("{:#x}: region of instance {} removed", range.start().0, instance.get());
        }
    }
}

/// The bytes of RAM at `range`.
///
/// # Safety
///
/// `range` is mapped RAM, and no code writes it while the slice is used.
pub unsafe fn bytes(range: PhysRange) -> &'static [u8] {
    // SAFETY: the caller keeps the safety rules of this function.
    unsafe { slice::from_raw_parts(range.start().0 as *const u8, range.len() as usize) }
}
