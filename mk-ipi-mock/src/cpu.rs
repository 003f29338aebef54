// SPDX-License-Identifier: MIT OR Apache-2.0
//! A CPU of the machine: a thread that executes code in steps, takes interrupts, and can be stopped at any access.

use crate::notes::NoteKind;
use crate::report::Step;
use crate::sched::{CpuState, Shared, Status};
use crate::word::{watch, MockWord};
use mk_ipi_abi::{PhysAddr, PhysCpuId, Vector};
use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::Arc;

thread_local! {
    static CURRENT: OnceCell<Cpu> = const { OnceCell::new() };
}

/// The panic payload with which a CPU unwinds its stack, when its kernel was stopped or the run has ended.
struct Stopped;

/// Calls `f` with the CPU of this thread, or with `None` if this thread is not a CPU.
pub(crate) fn with_current<R>(f: impl FnOnce(Option<&Cpu>) -> R) -> R {
    CURRENT.with(|current| f(current.get()))
}

/// The watcher of `MockWord`: does the step before an access to `word`. Returns false if the access must have no effect.
fn access(word: &MockWord, what: Step, value: u64) -> bool {
    with_current(|cpu| cpu.is_none_or(|cpu| cpu.access(word, what, value, true)))
}

/// A CPU of the machine. [`Machine::run`](crate::Machine::run) passes it to the closure that runs on this CPU.
pub struct Cpu {
    shared: Arc<Shared>,
    /// The number of the CPU in the machine.
    number: usize,
    /// True if interrupts are on.
    enabled: Cell<bool>,
    /// The number of interrupt handlers that are running, nested in each other.
    depth: Cell<u32>,
    /// True while deferred work runs.
    deferring: Cell<bool>,
    /// The number of interrupts that were taken and of runs of deferred work.
    taken: Cell<u64>,
}

impl core::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Cpu")
            .field("number", &self.number)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

impl Cpu {
    /// Runs `code` on CPU `number`, in this thread, once for each incarnation of its kernel, until the run ends.
    pub(crate) fn main(shared: &Arc<Shared>, number: usize, code: impl Fn(&Self)) {
        watch(access);
        CURRENT.with(|current| {
            let cpu = current.get_or_init(|| Self {
                shared: shared.clone(),
                number,
                enabled: Cell::new(true),
                depth: Cell::new(0),
                deferring: Cell::new(false),
                taken: Cell::new(0),
            });
            while shared.power_on(number) {
                // A kernel that was started again has no handlers yet, so interrupts must be off.
                cpu.enabled.set(cpu.incarnation() == 0);
                cpu.depth.set(0);
                cpu.deferring.set(false);
                let life = catch_unwind(AssertUnwindSafe(|| {
                    code(cpu);
                    cpu.rest();
                }));
                match life {
                    Err(payload) if !payload.is::<Stopped>() => shared.panicked(number, message(&*payload)),
                    _ => shared.power_off(number),
                }
            }
        });
    }

    fn state(&self) -> &CpuState {
        &self.shared.cpus[self.number]
    }

    /// Returns the physical id of this CPU.
    pub fn id(&self) -> PhysCpuId {
        self.state().id
    }

    /// Returns the number of this CPU's kernel.
    pub fn kernel(&self) -> usize {
        self.state().kernel
    }

    /// Returns the number of this CPU within its kernel, from 0.
    pub fn index(&self) -> usize {
        self.state().index
    }

    /// Returns how often this CPU's kernel was started again: 0 in its first life.
    pub fn incarnation(&self) -> u32 {
        self.shared.kernels[self.kernel()].incarnation()
    }

    /// Returns a random number, from the generator that was started with the machine's seed.
    pub fn random(&self) -> u64 {
        self.shared.random()
    }

    /// Returns true if the interrupts of this CPU are on.
    pub fn interrupts_enabled(&self) -> bool {
        self.enabled.get()
    }

    /// Switches interrupts off. Returns true if they were on.
    pub fn disable_interrupts(&self) -> bool {
        self.step(Step::InterruptsOff, None);
        self.enabled.replace(false)
    }

    /// Switches interrupts on, and takes the pending ones. A handler can call this too; then it is interrupted.
    pub fn enable_interrupts(&self) {
        self.enabled.set(true);
        self.step(Step::InterruptsOn, None);
    }

    /// Lets another CPU run, if one can. Call it in each iteration of a loop that waits. It counts as a step.
    pub fn relax(&self) {
        self.step(Step::Relax, None);
    }

    /// Switches interrupts on, and sleeps until this CPU has taken an interrupt or has run deferred work, like `sti; hlt`. An
    /// interrupt between the two actions wakes the CPU too.
    ///
    /// Switch interrupts off and check your condition before you call this. If interrupts are on at the call, the CPU can take
    /// the interrupt before it sleeps, as on a real machine. Then it sleeps although the condition is already true.
    pub fn idle(&self) {
        self.step(Step::Idle, None);
        self.enabled.set(true);
        let before = self.taken.get();
        loop {
            self.take_pending();
            if self.taken.get() != before || !self.alive() {
                return;
            }
            self.shared.sleep(self.number, Status::Idle);
        }
    }

    /// Sleeps until `done` returns true. It calls `done` with interrupts off, so that no wake-up is missed. At the end interrupts
    /// are on.
    ///
    /// `done` must become true in an interrupt or in deferred work of this CPU, because nothing else wakes the CPU.
    pub fn wait_until(&self, done: impl Fn() -> bool) {
        loop {
            self.disable_interrupts();
            if done() {
                return self.enable_interrupts();
            }
            self.idle();
        }
    }

    /// Takes interrupts until the run ends. A CPU does this after its code has returned.
    fn rest(&self) {
        self.enabled.set(true);
        while !self.shared.ended() {
            self.take_pending();
            self.shared.sleep(self.number, Status::Resting);
        }
    }

    /// Returns true if this CPU can continue. If its kernel was stopped or the run has ended, this starts to unwind the stack.
    /// Returns false if the stack is already being unwound.
    fn alive(&self) -> bool {
        if std::thread::panicking() {
            return false;
        }
        if self.shared.ended() || self.shared.kernels[self.kernel()].dead() {
            resume_unwind(Box::new(Stopped));
        }
        true
    }

    /// Does one step. Returns false if the later actions of this CPU must have no effect.
    fn step(&self, what: Step, at: Option<PhysAddr>) -> bool {
        if !self.alive() {
            return false;
        }
        self.shared.step(self.number, what, at);
        self.take_pending();
        self.alive()
    }

    /// Does the step before an access to memory or before a ring, and counts it for the faults that stop the kernel. Returns
    /// false if the access must have no effect.
    fn counted_step(&self, what: Step, at: Option<PhysAddr>) -> bool {
        if !self.step(what, at) {
            return false;
        }
        let kernel = &self.shared.kernels[self.kernel()];
        if !self.interrupts_enabled() {
            kernel.masked.fetch_add(1, Ordering::Relaxed);
        }
        if kernel.count_access(what) {
            self.shared.kill(self.kernel());
        }
        self.alive()
    }

    /// Does the step before an access. `value` is the value that the access will store. If `mapped` is true, panics unless the
    /// kernel has mapped the word. Returns false if the access must have no effect.
    pub(crate) fn access(&self, word: &MockWord, what: Step, value: u64, mapped: bool) -> bool {
        let at = self.shared.memory.address_of(word);
        let alive = self.counted_step(what, at);
        if let Some(at) = at.filter(|_| alive && mapped) {
            self.shared.kernels[self.kernel()].check_access(at, what);
        }
        if let Some(at) = at.filter(|_| alive && what == Step::Store) {
            self.note(NoteKind::Store(at, value));
        }
        alive
    }

    fn note(&self, what: NoteKind) {
        self.shared.note(self.number, what);
    }

    /// Rings CPU number `to`.
    pub(crate) fn ring(&self, to: usize, vector: Vector) {
        if self.counted_step(Step::Ring(self.shared.cpus[to].id, vector), None) {
            self.shared.ring(self.number, to, vector);
        }
    }

    /// Returns the state of this CPU's machine.
    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Returns the number of this CPU in the machine, or `None` if `shared` is another machine.
    pub(crate) fn number_in(&self, shared: &Arc<Shared>) -> Option<usize> {
        Arc::ptr_eq(&self.shared, shared).then_some(self.number)
    }

    /// Takes pending interrupts and runs scheduled deferred work, if interrupts are on, until nothing is pending.
    fn take_pending(&self) {
        while self.enabled.get() && self.alive() {
            if let Some(vector) = self.state().irr.take() {
                self.interrupt(vector);
            } else if self.depth.get() == 0
                && !self.deferring.get()
                && self.state().deferred.swap(false, Ordering::AcqRel)
            {
                self.deferring.set(true);
                self.shared.step(self.number, Step::Deferred, None);
                if self.alive() {
                    self.note(NoteKind::Deferred);
                    self.shared.kernels[self.kernel()].run_deferred();
                    self.note(NoteKind::DeferredEnd);
                }
                self.deferring.set(false);
                self.taken.set(self.taken.get() + 1);
            } else {
                return;
            }
        }
    }

    fn interrupt(&self, vector: Vector) {
        self.enabled.set(false);
        self.depth.set(self.depth.get() + 1);
        self.taken.set(self.taken.get() + 1);
        self.shared.step(self.number, Step::Interrupt(vector), None);
        if self.alive() {
            self.note(NoteKind::Interrupt(vector));
            self.shared.kernels[self.kernel()].handle(vector);
            self.note(NoteKind::InterruptEnd);
            self.shared.handled(self.number, vector);
        }
        self.depth.set(self.depth.get() - 1);
        self.enabled.set(true);
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without text")
        .into()
}
