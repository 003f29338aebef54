// SPDX-License-Identifier: MIT OR Apache-2.0
//! The scheduler. It decides which CPU runs next, and at which step a fault or an interrupt happens.

use crate::fault::{ActiveFault, DoorbellFault, Fault, When};
use crate::interrupts::Irr;
use crate::kernel::KernelState;
use crate::memory::{lock, Memory};
use crate::notes::{NoteKind, Notes};
use crate::report::{Cause, Doorbells, Event, Failure, Mode, Report, Step};
use mk_ipi_abi::{PhysAddr, PhysCpuId, Vector};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

/// The number of last steps that are kept for a [`Failure`].
const TAIL: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The CPU runs, or can run when it gets the turn.
    Ready,
    /// The CPU's code sleeps until the next interrupt.
    Idle,
    /// The CPU's code has returned. The CPU only takes interrupts.
    Resting,
    /// The CPU runs no code: its kernel is stopped, and the CPU has noticed that.
    Off,
}

/// The state of the whole machine, which all its CPUs share.
pub(crate) struct Shared {
    pub mode: Mode,
    pub limit: u64,
    pub builder: ThreadId,
    pub memory: Arc<Memory>,
    pub kernels: Vec<KernelState>,
    pub cpus: Vec<CpuState>,
    /// The recorded events, for a trace.
    pub notes: Notes,
    /// The number of steps so far.
    steps: AtomicU64,
    /// The step at which the next late doorbell or scribble can be due.
    next_event: AtomicU64,
    /// True if the run has ended, with success or with a failure. Then the accesses of the CPUs have no effect any more.
    ended: AtomicBool,
    sched: Mutex<Sched>,
}

/// The part of a CPU's state that other CPUs use too.
pub(crate) struct CpuState {
    pub id: PhysCpuId,
    /// The number of the CPU's kernel.
    pub kernel: usize,
    /// The number of the CPU within its kernel.
    pub index: usize,
    pub irr: Irr,
    /// True if deferred work is scheduled on the CPU.
    pub deferred: AtomicBool,
    /// How often the CPU was rung.
    pub rung: AtomicU64,
    /// The CPU's thread waits on this for its turn.
    turn: Condvar,
}

struct Sched {
    status: Vec<Status>,
    /// In stepped mode: the number of the CPU that has the turn.
    current: usize,
    rng: fastrand::Rng,
    /// A CPU gives up its turn at a step with probability 1 / `stay`.
    stay: u32,
    faults: Vec<ActiveFault>,
    /// Late doorbells: the step at which each is due, its CPU and its vector.
    late: Vec<(u64, usize, Vector)>,
    /// Doorbells that must arrive a second time when their handler has returned: CPU and vector.
    doubled: Vec<(usize, Vector)>,
    hasher: DefaultHasher,
    tail: VecDeque<Event>,
    switches: u64,
    doorbells: Doorbells,
    failure: Option<Failure>,
}

type Guard<'a> = MutexGuard<'a, Sched>;

impl CpuState {
    pub fn new(id: PhysCpuId, kernel: usize, index: usize) -> Self {
        Self {
            id,
            kernel,
            index,
            irr: Irr::default(),
            deferred: AtomicBool::new(false),
            rung: AtomicU64::new(0),
            turn: Condvar::new(),
        }
    }

    fn pending(&self) -> bool {
        self.irr.any() || self.deferred.load(Ordering::Acquire)
    }
}

impl Shared {
    pub fn new(
        mode: Mode,
        limit: u64,
        memory: Memory,
        kernels: Vec<KernelState>,
        cpus: Vec<CpuState>,
        notes: Notes,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(match mode {
            Mode::Stepped { seed } => seed,
            Mode::Free => 0,
        });
        // With some seeds nearly every second access switches to another CPU. With others a CPU runs for a long time. These
        // schedules find different bugs.
        let stay = *rng.choice(&[2, 4, 8, 32]).unwrap_or(&4);
        let sched = Sched {
            status: vec![Status::Ready; cpus.len()],
            current: 0,
            rng,
            stay,
            faults: Vec::new(),
            late: Vec::new(),
            doubled: Vec::new(),
            hasher: DefaultHasher::new(),
            tail: VecDeque::with_capacity(TAIL),
            switches: 0,
            doorbells: Doorbells::default(),
            failure: None,
        };
        Self {
            mode,
            limit,
            builder: std::thread::current().id(),
            memory: Arc::new(memory),
            kernels,
            cpus,
            notes,
            steps: AtomicU64::new(0),
            next_event: AtomicU64::new(u64::MAX),
            ended: AtomicBool::new(true),
            sched: Mutex::new(sched),
        }
    }

    fn stepped(&self) -> bool {
        matches!(self.mode, Mode::Stepped { .. })
    }

    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Begins a run. Each CPU is ready, except those of stopped kernels.
    pub fn begin(&self) {
        let mut s = lock(&self.sched);
        for (status, cpu) in s.status.iter_mut().zip(&self.cpus) {
            *status = if self.kernels[cpu.kernel].dead() { Status::Off } else { Status::Ready };
        }
        self.ended.store(false, Ordering::Release);
        self.dispatch(&mut s);
    }

    /// Returns the result of the run that ended.
    pub fn finish(&self) -> Result<Report, Failure> {
        let mut s = lock(&self.sched);
        match s.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(Report {
                steps: self.steps.load(Ordering::Relaxed),
                switches: s.switches,
                trace: s.hasher.finish(),
                doorbells: s.doorbells,
            }),
        }
    }

    /// Counts one step of CPU `me`, which does `what` after this call. In stepped mode other CPUs can run before this returns.
    pub fn step(&self, me: usize, what: Step, at: Option<PhysAddr>) {
        let n = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        let due = n >= self.next_event.load(Ordering::Relaxed);
        if self.stepped() {
            let mut s = lock(&self.sched);
            s.record(Event { step: n, cpu: self.cpus[me].id, what, at });
            if due {
                self.run_due(&mut s, n);
            }
            if n >= self.limit {
                return self.fail(&mut s, Cause::StepLimit);
            }
            let stay = s.stay;
            if what == Step::Relax || s.rng.u32(0..stay) == 0 {
                self.switch(s, me, what == Step::Relax);
            }
        } else {
            if due {
                self.run_due(&mut lock(&self.sched), n);
            }
            if n >= self.limit {
                return self.fail(&mut lock(&self.sched), Cause::StepLimit);
            }
            if what == Step::Relax {
                std::thread::yield_now();
            }
        }
    }

    /// Gives the turn to a ready CPU that the seed chooses, and waits until `me` has the turn again. If `yields` is
    /// true, the seed chooses among the other CPUs only.
    fn switch(&self, mut s: Guard<'_>, me: usize, yields: bool) {
        let ready = |s: &Sched, i: usize| s.status[i] == Status::Ready && !(yields && i == me);
        let count = (0..self.cpus.len()).filter(|&i| ready(&s, i)).count();
        if count == 0 {
            return;
        }
        let nth = s.rng.usize(0..count);
        let chosen = (0..self.cpus.len()).filter(|&i| ready(&s, i)).nth(nth);
        if let Some(next) = chosen.filter(|&next| next != me) {
            s.current = next;
            s.switches += 1;
            drop(s);
            self.cpus[next].turn.notify_one();
            drop(self.wait(lock(&self.sched), me));
        }
    }

    /// Waits until CPU `me` is ready and, in stepped mode, has the turn. Also returns if the run has ended.
    fn wait<'a>(&self, mut s: Guard<'a>, me: usize) -> Guard<'a> {
        while !self.ended() && !(s.status[me] == Status::Ready && (s.current == me || !self.stepped())) {
            s = self.cpus[me].turn.wait(s).unwrap_or_else(PoisonError::into_inner);
        }
        s
    }

    /// Waits for the first turn of CPU `me`. If its kernel is stopped, waits until the kernel is started again. Returns false if
    /// the run has ended.
    pub fn power_on(&self, me: usize) -> bool {
        drop(self.wait(lock(&self.sched), me));
        !self.ended()
    }

    /// Puts CPU `me` to sleep with this status, until an interrupt or deferred work is pending, its kernel stops, or the run
    /// ends.
    pub fn sleep(&self, me: usize, status: Status) {
        let mut s = lock(&self.sched);
        // The check is made under the lock, and `deliver` makes a vector pending under the same lock. So no wake-up is lost
        // between the check and the sleep.
        if !self.cpus[me].pending() && !self.kernels[self.cpus[me].kernel].dead() && !self.ended() {
            s.status[me] = status;
            self.dispatch(&mut s);
            drop(self.wait(s, me));
        }
    }

    /// Records for the trace that CPU `me` does `what` now.
    pub fn note(&self, me: usize, what: NoteKind) {
        self.notes.add(self.steps.load(Ordering::Relaxed), me, what);
    }

    /// Marks CPU `me` as off, and lets another CPU run. The CPU calls this when its stack has unwound, because its kernel was
    /// stopped or the run has ended.
    pub fn power_off(&self, me: usize) {
        if self.kernels[self.cpus[me].kernel].dead() {
            self.note(me, NoteKind::Stopped);
        }
        let mut s = lock(&self.sched);
        s.status[me] = Status::Off;
        if !self.ended() {
            self.dispatch(&mut s);
        }
    }

    /// Chooses the CPU that runs next. It is called when a run begins, and when a CPU begins to sleep or is off. If no CPU can
    /// run, it moves the time forward to the next late doorbell. If there is no late doorbell either, it ends the run. If the
    /// code of a CPU sleeps then, the run has failed.
    fn dispatch(&self, s: &mut Guard<'_>) {
        loop {
            let ready: Vec<_> = (0..self.cpus.len()).filter(|&i| s.status[i] == Status::Ready).collect();
            if let Some(&next) = s.rng.choice(&ready) {
                if self.stepped() {
                    s.current = next;
                    s.switches += 1;
                    self.cpus[next].turn.notify_one();
                }
                return;
            }
            if let Some(due) = s.late.iter().map(|late| late.0).min() {
                let now = self.steps.fetch_max(due, Ordering::Relaxed).max(due);
                self.run_due(s, now);
                continue;
            }
            let idle = |i: &usize| s.status[*i] == Status::Idle;
            let asleep: Vec<_> = (0..self.cpus.len()).filter(idle).map(|i| self.cpus[i].id).collect();
            return if asleep.is_empty() { self.end() } else { self.fail(s, Cause::Deadlock(asleep)) };
        }
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.cpus.iter().for_each(|cpu| cpu.turn.notify_one());
    }

    fn fail(&self, s: &mut Guard<'_>, cause: Cause) {
        if !self.ended() {
            let (mode, steps) = (self.mode, self.steps.load(Ordering::Relaxed));
            s.failure = Some(Failure { mode, steps, cause, tail: s.tail.drain(..).collect() });
            self.end();
        }
    }

    /// Ends the run with a failure, because the code of CPU `me` panicked.
    pub fn panicked(&self, me: usize, message: String) {
        self.fail(&mut lock(&self.sched), Cause::Panicked { cpu: self.cpus[me].id, message });
    }

    /// Returns the next random number of the generator that was started with the machine's seed.
    pub fn random(&self) -> u64 {
        lock(&self.sched).rng.u64(..)
    }
}

/// Doorbells and faults.
impl Shared {
    /// Injects a fault.
    pub fn order(&self, fault: Fault) {
        match fault {
            Fault::Stop { kernel, access } => return self.kernels[kernel].stop_at(access, u64::MAX),
            Fault::StopAtStore { kernel, store } => return self.kernels[kernel].stop_at(u64::MAX, store),
            Fault::Doorbell { .. } | Fault::Scribble { .. } => {}
        }
        let mut s = lock(&self.sched);
        s.faults.push(ActiveFault { fault, seen: 0 });
        self.schedule_events(&s);
    }

    /// Rings CPU number `to`. The injected faults decide whether the doorbell arrives now, later, twice or never.
    pub fn ring(&self, from: usize, to: usize, vector: Vector) {
        let mut s = lock(&self.sched);
        self.note(from, NoteKind::Ring(to, vector));
        s.doorbells.rung += 1;
        self.cpus[to].rung.fetch_add(1, Ordering::Relaxed);
        let (from, target) = (self.cpus[from].id, self.cpus[to].id);
        match s.doorbell_fault(from, target) {
            Some(DoorbellFault::Lost) => s.doorbells.lost += 1,
            Some(DoorbellFault::Late(by)) => {
                let due = self.steps.load(Ordering::Relaxed).saturating_add(by);
                s.late.push((due, to, vector));
                self.schedule_events(&s);
            }
            Some(DoorbellFault::Doubled) => {
                s.doubled.push((to, vector));
                self.deliver(&mut s, to, vector);
            }
            None => self.deliver(&mut s, to, vector),
        }
    }

    /// Makes a vector pending at CPU number `to`, and wakes that CPU.
    fn deliver(&self, s: &mut Guard<'_>, to: usize, vector: Vector) {
        if self.cpus[to].irr.set(vector) {
            s.doorbells.coalesced += 1;
        }
        self.wake(s, to);
    }

    fn wake(&self, s: &mut Guard<'_>, cpu: usize) {
        if matches!(s.status[cpu], Status::Idle | Status::Resting) {
            s.status[cpu] = Status::Ready;
            self.cpus[cpu].turn.notify_one();
        }
    }

    /// Counts an interrupt whose handler has returned. If a fault has doubled its doorbell, the doorbell arrives again now.
    pub fn handled(&self, me: usize, vector: Vector) {
        let mut s = lock(&self.sched);
        s.doorbells.taken += 1;
        if let Some(i) = s.doubled.iter().position(|&d| d == (me, vector)) {
            s.doubled.swap_remove(i);
            self.deliver(&mut s, me, vector);
        }
    }

    /// Delivers the late doorbells, and does the scribbles, that are due at step `now`.
    fn run_due(&self, s: &mut Guard<'_>, now: u64) {
        let due: Vec<_> = s.late.iter().filter(|late| late.0 <= now).copied().collect();
        s.late.retain(|late| late.0 > now);
        due.into_iter().for_each(|(_, cpu, vector)| self.deliver(s, cpu, vector));
        for i in 0..s.faults.len() {
            let Fault::Scribble { when, range, value } = s.faults[i].fault else { continue };
            if when.hits(now, &mut s.rng) {
                let words = self.memory.words(range).expect("a scribble outside memory");
                let word = &words[s.rng.usize(0..words.len())];
                let value = value.unwrap_or_else(|| s.rng.u64(..));
                word.raw().store(value, Ordering::Relaxed);
            }
        }
        self.schedule_events(s);
    }

    /// Computes `next_event`.
    fn schedule_events(&self, s: &Guard<'_>) {
        let now = self.steps.load(Ordering::Relaxed);
        let late = s.late.iter().map(|late| late.0);
        let scribbles = s.faults.iter().filter_map(|armed| match armed.fault {
            Fault::Scribble { when: When::Nth(n), .. } => (n > now).then_some(n),
            Fault::Scribble { when: When::OneIn(_), .. } => Some(0),
            _ => None,
        });
        self.next_event.store(late.chain(scribbles).min().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Stops a kernel, and wakes its CPUs, so that they notice it and unwind.
    pub fn kill(&self, kernel: usize) {
        let mut s = lock(&self.sched);
        self.kernels[kernel].set_dead(true);
        for cpu in (0..self.cpus.len()).filter(|&i| self.cpus[i].kernel == kernel) {
            self.wake(&mut s, cpu);
        }
    }

    /// Starts a stopped kernel again. Returns false, and does nothing, if one of its CPUs is not off yet.
    pub fn try_restart(&self, kernel: usize) -> bool {
        let mut s = lock(&self.sched);
        let mine = || (0..self.cpus.len()).filter(|&i| self.cpus[i].kernel == kernel);
        if !self.ended() && mine().any(|i| s.status[i] != Status::Off) {
            return false;
        }
        self.kernels[kernel].reset();
        s.doubled.retain(|(cpu, _)| self.cpus[*cpu].kernel != kernel);
        for i in mine() {
            self.cpus[i].irr.clear();
            self.cpus[i].deferred.store(false, Ordering::Release);
            s.status[i] = Status::Ready;
            self.cpus[i].turn.notify_one();
        }
        true
    }
}

impl Sched {
    fn record(&mut self, event: Event) {
        event.hash(&mut self.hasher);
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(event);
    }

    /// Returns the fault that happens to this doorbell. If several injected faults hit it, returns the one that was injected
    /// first.
    fn doorbell_fault(&mut self, from: PhysCpuId, to: PhysCpuId) -> Option<DoorbellFault> {
        let Self { faults, rng, .. } = self;
        let hits = faults.iter_mut().filter_map(|armed| {
            let Fault::Doorbell { from: f, to: t, when, what } = armed.fault else { return None };
            if f.is_some_and(|f| f != from) || t.is_some_and(|t| t != to) {
                return None;
            }
            armed.seen += 1;
            when.hits(armed.seen, rng).then_some(what)
        });
        // `fold` visits all faults, so each of them counts this doorbell. Only the first fault that hits is applied.
        hits.fold(None, |first, what| first.or(Some(what)))
    }
}
