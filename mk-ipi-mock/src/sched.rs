// SPDX-License-Identifier: MIT OR Apache-2.0
//! The scheduler: which CPU runs next, and what happens at which step.

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

/// How many of the last steps are kept for a [`Failure`].
const TAIL: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It runs, or can run when it gets the turn.
    Ready,
    /// It sleeps inside its code.
    Idle,
    /// Its code has returned; it only takes interrupts.
    Resting,
    /// It has noticed that its kernel stopped.
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
    /// The notes for a trace.
    pub notes: Notes,
    steps: AtomicU64,
    /// No fault or late doorbell is due before this step.
    next_event: AtomicU64,
    /// True if the run is over, well or with a failure. Then no CPU has an effect any more.
    ended: AtomicBool,
    sched: Mutex<Sched>,
}

/// The state of a CPU that other CPUs can see.
pub(crate) struct CpuState {
    pub id: PhysCpuId,
    pub kernel: usize,
    /// Its number within its kernel.
    pub index: usize,
    pub irr: Irr,
    pub deferred: AtomicBool,
    /// How often it was rung.
    pub rung: AtomicU64,
    turn: Condvar,
}

struct Sched {
    status: Vec<Status>,
    current: usize,
    rng: fastrand::Rng,
    /// One step in this many lets another CPU run.
    stay: u32,
    faults: Vec<ActiveFault>,
    /// Late doorbells: the step at which they are due, CPU, vector.
    late: Vec<(u64, usize, Vector)>,
    /// Doorbells that ring again after their handler: CPU, vector.
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
        // With some seeds nearly every access switches to another CPU; with others a CPU runs for a long time. Each finds other
        // bugs.
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

    /// Does one step of CPU `me`, which is about to do `what`. In stepped mode other CPUs can run meanwhile.
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

    /// Gives the turn to a CPU that the seed chooses, and waits for the next turn of `me`.
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

    /// Waits until `me` is ready and, in stepped mode, has the turn. Also returns if the run has ended.
    fn wait<'a>(&self, mut s: Guard<'a>, me: usize) -> Guard<'a> {
        while !self.ended() && !(s.status[me] == Status::Ready && (s.current == me || !self.stepped())) {
            s = self.cpus[me].turn.wait(s).unwrap_or_else(PoisonError::into_inner);
        }
        s
    }

    /// Waits for the first turn. If the kernel is stopped, waits until it is started again. Returns false if the run ended first.
    pub fn power_on(&self, me: usize) -> bool {
        drop(self.wait(lock(&self.sched), me));
        !self.ended()
    }

    /// Sleeps as `status` until something is pending, the kernel stops or the run ends.
    pub fn sleep(&self, me: usize, status: Status) {
        let mut s = lock(&self.sched);
        // This is checked under the lock, and `deliver` stores under the lock: so no wake-up is lost between check and sleep.
        if !self.cpus[me].pending() && !self.kernels[self.cpus[me].kernel].dead() && !self.ended() {
            s.status[me] = status;
            self.dispatch(&mut s);
            drop(self.wait(s, me));
        }
    }

    /// Adds a note of what CPU `me` does now.
    pub fn note(&self, me: usize, what: NoteKind) {
        self.notes.add(self.steps.load(Ordering::Relaxed), me, what);
    }

    /// CPU `me` noticed that its kernel stopped. Lets another CPU run.
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

    /// Chooses the CPU that runs next, after one has gone to sleep or off. If none can run, this moves time forward to the next
    /// late doorbell, or ends the run.
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

    /// CPU `me` panicked. This ends the run.
    pub fn panicked(&self, me: usize, message: String) {
        self.fail(&mut lock(&self.sched), Cause::Panicked { cpu: self.cpus[me].id, message });
    }

    /// The next number from the machine's seed.
    pub fn random(&self) -> u64 {
        lock(&self.sched).rng.u64(..)
    }
}

/// Doorbells and faults.
impl Shared {
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

    /// Rings CPU number `to`. The ordered faults decide whether the doorbell arrives now, later or never.
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

    /// A handler has returned. If its doorbell was doubled, it rings again now.
    pub fn handled(&self, me: usize, vector: Vector) {
        let mut s = lock(&self.sched);
        s.doorbells.taken += 1;
        if let Some(i) = s.doubled.iter().position(|&d| d == (me, vector)) {
            s.doubled.swap_remove(i);
            self.deliver(&mut s, me, vector);
        }
    }

    /// Delivers late doorbells and scribbles that are due at step `now`.
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

    /// Stops a kernel, and wakes its CPUs so that they notice.
    pub fn kill(&self, kernel: usize) {
        let mut s = lock(&self.sched);
        self.kernels[kernel].set_dead(true);
        for cpu in (0..self.cpus.len()).filter(|&i| self.cpus[i].kernel == kernel) {
            self.wake(&mut s, cpu);
        }
    }

    /// Starts a stopped kernel again. Returns false, and does nothing, as long as one of its CPUs has not noticed that it
    /// stopped.
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

    /// The fault that happens to this doorbell. If several ordered faults hit it, this is the first of them.
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
        // Every fault counts this occasion; only the first that hits is applied.
        hits.fold(None, |first, what| first.or(Some(what)))
    }
}
