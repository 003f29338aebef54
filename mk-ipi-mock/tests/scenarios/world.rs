// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plays a scenario: two kernels do the steps of their scripts, through any number of lives. At the end both lanes are checked.

use crate::verdict::{Lane, Received, Sent, Session};
use mk_ipi_abi::native::{lines_of, Geometry};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysRange};
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_core::{Message, SendError};
use mk_ipi_mock::{Callback, Cpu, Fault, Link, Machine, Mode};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

const TYPE: MessageType = MessageType(7);
const LINES: u32 = 8;
const MAX_LEN: u32 = 256;
/// The number of messages that each kernel sends at the end, to check that the lanes still work.
const LAST: u64 = 6;
/// The largest number of messages that are posted in one call.
const TOGETHER: u64 = 3;

/// A step in the script of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Sends this many messages to the other kernel.
    Send(u64),
    /// Posts this many messages to the other kernel, at most [`TOGETHER`] in one call.
    Many(u64),
    /// Begins a new life in the lane to the other kernel, in the same incarnation.
    Reattach,
    /// Writes wrong tags into the lane to the other kernel.
    Breach,
    /// Calls `goodbye`, and continues with the script.
    Goodbye,
    /// Waits until this many messages were handled since the start of the scenario.
    Received(usize),
    /// Begins the next life as a receiver.
    Restart,
    /// The same as `Restart`, but this life and later ones discard unread messages.
    Discard,
    /// Polls this many times.
    Poll(u64),
    /// Boots only when the other kernel cannot continue. This can only be the first step.
    Late,
}

/// The place where a kernel dies: its `store`-th store, counted from the moment at which the fault is injected.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    pub kernel: usize,
    pub store: u64,
}

/// The result of a run of a scenario.
pub struct Played {
    /// How many of the deaths happened.
    pub deaths: usize,
    /// How many stores the last life of each kernel made.
    pub stores: [u64; 2],
    /// The number of steps of the machine: accesses to memory, doorbells, interrupts and so on.
    pub steps: u64,
    /// The conditions that did not hold.
    pub problems: Vec<String>,
}

/// The test's record of a kernel.
#[derive(Default)]
struct Side {
    script: Vec<Step>,
    /// The index of the next step of the script.
    at: usize,
    /// How many messages of this step were sent.
    sent: u64,
    /// The kernel's incarnation. The steps `Restart` and `Discard` increment it too.
    life: u32,
    /// How often the kernel was stopped.
    deaths: usize,
    /// True if the kernel discards unread messages when it begins a life.
    gives_back: bool,
    /// True if a send found no space or no answer, and the kernel has got no event Space or Answered since then.
    waits: bool,
    /// The number of the next message.
    next: u64,
    /// The numbers of the messages that are being sent.
    sending: Vec<u64>,
    /// The numbers of the messages whose `send` did not return, because the kernel was stopped in it.
    uncertain: BTreeSet<u64>,
    /// The kernel's lives in its lane to the other kernel.
    sessions: Vec<Session>,
    /// The messages that the kernel has handled.
    received: Vec<Received>,
    link: Option<Arc<Link>>,
    /// The kernel's incarnation in the machine ([`Cpu::incarnation`]) when the kernel booted last.
    booted: Option<u32>,
    problems: Vec<String>,
}

impl Side {
    fn life(&self) -> Incarnation {
        Incarnation::new(self.life).unwrap()
    }

    fn next_life(&mut self) -> Incarnation {
        self.life += 1;
        self.life()
    }

    fn session(&mut self) -> &mut Session {
        self.sessions.last_mut().unwrap()
    }
}

struct World {
    machine: Machine,
    geometry: Geometry,
    regions: [PhysRange; 2],
    /// A word for each kernel. The kernel's handler stores to it, so that a kernel can also be stopped inside its handler.
    scratch: [PhysAddr; 2],
    sides: [Mutex<Side>; 2],
    /// The number of steps of the machine so far.
    steps: AtomicU64,
    me: Weak<World>,
}

fn id(kernel: usize) -> InstanceId {
    InstanceId::new(kernel as u8)
}

/// Returns the payload of message `number`. Depending on the number, it takes one line or several.
fn payload(number: u64) -> Vec<u8> {
    let len = [8, 14, 130, 48, 20, 200, 60][number as usize % 7];
    number.to_le_bytes().into_iter().chain((0..).map(|i| (number * 7 + i) as u8)).take(len).collect()
}

/// Plays the scripts of both kernels. The deaths happen one after another.
pub fn play(seed: u64, scripts: [&[Step]; 2], deaths: &[Death]) -> Played {
    let builder = Machine::builder().kernel(&[0]).kernel(&[3]).memory(16);
    let machine = builder.mode(Mode::Stepped { seed }).step_limit(60_000).build();
    let geometry = Geometry::new(2, LINES, MAX_LEN).unwrap();
    let regions = [(); 2].map(|()| machine.native_region(geometry));
    let scratch = [(); 2].map(|()| machine.reserve(8).start());
    let sides = scripts.map(|script| Mutex::new(Side { script: script.to_vec(), ..Side::default() }));
    let world = Arc::new_cyclic(|me| World {
        machine,
        geometry,
        regions,
        scratch,
        sides,
        steps: AtomicU64::new(0),
        me: me.clone(),
    });
    let came = world.live_and_die(deaths);
    let stores = [0, 1].map(|k| world.machine.kernel(k).stores());
    let steps = world.steps.load(Ordering::Relaxed);
    let mut problems = Vec::new();
    if let Some(came) = came {
        world.look_back(&mut problems);
        return Played { deaths: came, stores, steps, problems };
    }
    problems.push("a run did not end".into());
    Played { deaths: deaths.len(), stores, steps, problems }
}

impl World {
    fn side(&self, k: usize) -> MutexGuard<'_, Side> {
        self.sides[k].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the machine until nothing is pending. Returns false if the run fails.
    fn run(&self) -> bool {
        let run = self.machine.run(|cpu| {
            let k = cpu.kernel();
            let booted = self.side(k).booted == Some(cpu.incarnation());
            cpu.disable_interrupts();
            if !booted {
                self.boot(cpu);
            }
            let link = self.side(k).link.clone();
            link.into_iter().for_each(|link| self.follow_script(k, &link));
            cpu.enable_interrupts();
        });
        let steps = run.as_ref().map_or_else(|failure| failure.steps, |report| report.steps);
        self.steps.store(steps, Ordering::Relaxed);
        match run {
            Ok(_) => true,
            Err(failure) => {
                self.side(0).problems.push(format!("{:?}", failure.cause));
                false
            }
        }
    }

    /// Plays the scripts with the deaths. After each death the kernel is started again, and only then the next death is injected.
    /// At the end both kernels send the last messages. Returns how many deaths happened, or `None` if a run failed.
    fn live_and_die(&self, deaths: &[Death]) -> Option<usize> {
        let mut came = 0;
        if let Some(late) = (0..2).find(|k| matches!(self.side(*k).script[..], [Step::Late, ..])) {
            self.machine.stop_kernel(late);
            if !self.run() {
                return None;
            }
            self.machine.restart_kernel(late);
        }
        for &Death { kernel, store } in deaths {
            let store = self.machine.kernel(kernel).stores() + store;
            self.machine.fault(Fault::StopAtStore { kernel, store });
            if !self.run() {
                return None;
            }
            if !self.machine.is_stopped(kernel) {
                break;
            }
            came += 1;
            self.bury(kernel);
            self.machine.restart_kernel(kernel);
        }
        // A death that did not happen must not happen later.
        (0..2).for_each(|k| self.machine.kernel(k).forget_stop());
        if !self.run() {
            return None;
        }
        for k in 0..2 {
            let mut side = self.side(k);
            // Nothing is pending, and no kernel waits for a timer. So a step that is not done now would never be done.
            if side.at < side.script.len() && !matches!(side.script[side.at], Step::Received(_)) {
                let step = side.script[side.at];
                side.problems.push(format!("kernel {k} cannot finish the step {step:?}"));
            }
            let at = side.at;
            side.script.truncate(at);
            side.script.push(Step::Send(LAST));
            (side.sent, side.waits) = (0, false);
        }
        self.run().then_some(came)
    }

    /// Records that kernel `k` was stopped: its lives are over, and the messages that it was sending are uncertain.
    fn bury(&self, k: usize) {
        self.hear(k);
        let mut side = self.side(k);
        side.deaths += 1;
        (side.link, side.waits) = (None, false);
        let sending = std::mem::take(&mut side.sending);
        side.uncertain.extend(sending);
        side.sessions.iter_mut().for_each(|session| session.over = true);
    }

    /// Boots the kernel of this CPU as its next incarnation.
    fn boot(&self, cpu: &Cpu) {
        let (k, platform) = (cpu.kernel(), cpu.platform());
        let life = self.side(k).next_life();
        let link = platform.boot(id(k), life);
        let (world, inner) = (self.me.clone(), Arc::downgrade(&link));
        platform.set_deferred(move || {
            let (Some(world), Some(link)) = (world.upgrade(), inner.upgrade()) else { return };
            link.run_deferred();
            world.follow_script(k, &link);
        });
        let world = self.me.clone();
        let note = move |m: &Message<'_>| world.upgrade().into_iter().for_each(|world| world.receive(k, m));
        let _ = link.register(TYPE, Callback::new(note)).unwrap();
        self.side(k).link = Some(link.clone());
        self.attach(k, &link, k);
        self.begin(k, &link);
        self.side(k).booted = Some(cpu.incarnation());
    }

    fn attach(&self, k: usize, link: &Link, other: usize) {
        let kernel = self.machine.kernel(other);
        let config = kernel.native_config(id(other), Incarnation::FIRST);
        if let Err(e) = link.attach_instance(&config, Some(self.regions[other])) {
            self.side(k).problems.push(format!("an instance cannot be attached: {e:?}"));
        }
    }

    /// Begins a life of kernel `k` in its lane to the other kernel.
    fn begin(&self, k: usize, link: &Link) {
        let (_, life) = link.identity().unwrap();
        let mut side = self.side(k);
        side.waits = false;
        side.sessions.push(Session::new(life));
        drop(side);
        self.attach(k, link, 1 - k);
    }

    /// The handler of kernel `k`: records the message, and checks its payload and its lives.
    fn receive(&self, k: usize, message: &Message<'_>) {
        let number = message.payload().first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        // The kernel can also be stopped at this store. Then the message is not recorded as handled.
        self.machine.poke(self.scratch[k], number);
        let mut side = self.side(k);
        if message.sender() != Some(id(1 - k)) || message.payload() != payload(number) {
            side.problems.push("a message has a wrong sender or wrong bytes".into());
        }
        if message.receiver_incarnation() != Some(side.life()) {
            side.problems.push("a message does not name the life of its receiver that handles it".into());
        }
        side.received.push(Received { number, life: message.sender_incarnation() });
    }

    /// Takes the events that were reported at kernel `k`, and records them.
    fn hear(&self, k: usize) {
        for (_, event) in self.machine.kernel(k).peer_events() {
            let from_hostile = self.side(1 - k).sessions.iter().any(|session| session.hostile);
            let mut side = self.side(k);
            match event {
                PeerEvent::Space | PeerEvent::Answered => side.waits = false,
                PeerEvent::InDoubt { number } => side.session().doubts.push(number),
                PeerEvent::Discarded { after, to } => side.session().discarded.push((after, to)),
                PeerEvent::Quarantined(breach) if !from_hostile => {
                    side.problems.push(format!(
                        "a kernel that did not break the protocol is in quarantine: {breach:?}"
                    ));
                }
                PeerEvent::Refused(_) if side.session().hostile => side.waits = false,
                PeerEvent::Refused(breach) => {
                    side.problems
                        .push(format!("a kernel that did not break the protocol is refused: {breach:?}"));
                }
                _ => {}
            }
        }
    }

    /// Does the next steps of the script of kernel `k`, until one of them must wait.
    fn follow_script(&self, k: usize, link: &Arc<Link>) {
        loop {
            self.hear(k);
            let (step, received, waits) = {
                let side = self.side(k);
                (side.script.get(side.at).copied(), side.received.len(), side.waits)
            };
            let goes_on = match step {
                None => false,
                Some(Step::Received(count)) => received >= count,
                Some(Step::Send(count) | Step::Many(count)) => {
                    let together = if let Some(Step::Send(_)) = step { 1 } else { TOGETHER };
                    let left = count - self.side(k).sent.min(count);
                    if waits || !self.send(k, link, together.min(left)) {
                        return;
                    }
                    self.side(k).sent >= count
                }
                Some(_) => true,
            };
            if goes_on {
                let mut side = self.side(k);
                side.at += 1;
                side.sent = 0;
            } else if !matches!(step, Some(Step::Send(_) | Step::Many(_))) {
                return;
            }
            self.act(k, link, step);
        }
    }

    /// Does a step that need not wait.
    fn act(&self, k: usize, link: &Arc<Link>, step: Option<Step>) {
        match step {
            Some(Step::Goodbye) => link.goodbye(),
            Some(Step::Reattach) => {
                // The tick makes the core report the events about this life. A tick also polls, and so it can hide that a
                // doorbell is missing. For this reason other steps do not use it.
                link.tick(0, u64::MAX);
                self.hear(k);
                self.side(k).session().over = true;
                self.detach(k, link, 1 - k);
                self.begin(k, link);
            }
            Some(step @ (Step::Restart | Step::Discard)) => {
                self.detach(k, link, k);
                let life = self.side(k).next_life();
                if let Step::Discard = step {
                    self.side(k).gives_back = true;
                    link.discard_unread();
                }
                link.identify(id(k), life);
                self.attach(k, link, k);
            }
            Some(Step::Poll(count)) => {
                if let Some(mut poller) = link.poller() {
                    (0..count).for_each(|_| _ = poller.poll());
                }
            }
            Some(Step::Breach) => {
                self.side(k).session().hostile = true;
                let lane = self.regions[1 - k].start().0 + self.geometry.lane_at(k as u32).unwrap();
                for position in 0..u64::from(LINES) {
                    let word = self.geometry.line_at(position) as u64;
                    // This is a tag of a later lap.
                    let tag = self.geometry.first_tag(position + 1000 * u64::from(LINES));
                    self.machine.poke(PhysAddr(lane + 8 * word), tag.to_word(TYPE.0));
                }
                let _ = link.flush(id(1 - k));
            }
            _ => {}
        }
    }

    fn detach(&self, k: usize, link: &Link, other: usize) {
        if let Err(e) = link.destroy_instance(id(other)) {
            self.side(k).problems.push(format!("an instance cannot be destroyed: {e:?}"));
        }
    }

    /// Sends the next `count` messages. If there is too little space, sends only the first of them. Returns false if the kernel
    /// must wait for an event, because there is no space or no answer now. Also returns false after an error, which it records.
    fn send(&self, k: usize, link: &Link, count: u64) -> bool {
        let numbers: Vec<u64> = {
            let mut side = self.side(k);
            let numbers = side.next..side.next + count;
            side.sending = numbers.clone().collect();
            // If the kernel is stopped in this call, its next life must not use these numbers again, because they can have been
            // sent.
            side.next += count;
            numbers.collect()
        };
        let payloads: Vec<_> = numbers.iter().map(|number| payload(*number)).collect();
        let sent = match &payloads[..] {
            [one] => link.send(id(1 - k), TYPE, one).map(|position| (1, position)),
            _ => self.post(k, link, &payloads),
        };
        let mut side = self.side(k);
        side.sending.clear();
        side.next -= count - sent.map_or(0, |(taken, _)| taken as u64);
        match sent {
            Ok((taken, mut position)) => {
                side.sent += taken as u64;
                position -= payloads.iter().take(taken).map(|payload| lines_of(payload.len())).sum::<u64>();
                for (number, payload) in numbers.iter().zip(&payloads).take(taken) {
                    position += lines_of(payload.len());
                    side.session().sent.push(Sent { number: *number, position });
                }
                return true;
            }
            Err(SendError::Quarantined) if side.session().hostile => {
                side.sent = u64::MAX / 2;
                return true;
            }
            Err(SendError::Full | SendError::Unanswered) => {}
            Err(e) => {
                side.problems.push(format!("a message cannot be sent: {e:?}"));
                return false;
            }
        }
        drop(side);
        let wanted = link.want_space(id(1 - k), payloads[0].len());
        let mut side = self.side(k);
        side.waits = wanted != Ok(true);
        if let Err(e) = wanted {
            side.problems.push(format!("`want_space` fails: {e:?}"));
        }
        !side.waits
    }

    /// Posts as many of these messages as there is space for, and flushes. Returns how many were posted, and the message number
    /// of the last one.
    fn post(&self, k: usize, link: &Link, payloads: &[Vec<u8>]) -> Result<(usize, u64), SendError> {
        let to = id(1 - k);
        let payloads: Vec<&[u8]> = payloads.iter().map(|payload| &payload[..]).collect();
        let taken = link.post_many(to, TYPE, &payloads)?;
        link.flush(to)?;
        Ok((taken, link.lane_stats(to)?.number))
    }

    /// Checks both lanes at the end of a scenario. Adds a text to `problems` for each condition that does not hold.
    fn look_back(&self, problems: &mut Vec<String>) {
        for k in 0..2 {
            let link = self.side(k).link.clone();
            link.into_iter().for_each(|link| link.tick(0, u64::MAX));
            self.hear(k);
        }
        for (from, to) in [(0, 1), (1, 0)] {
            let (sender, receiver) = (self.side(from), self.side(to));
            let said = |what: &str| format!("{from} to {to}: {what}");
            problems.extend(sender.problems.iter().map(|what| said(what)));
            if sender.at < sender.script.len() {
                problems.push(said("the last messages cannot be sent"));
            }
            let lane = Lane {
                sessions: &sender.sessions,
                uncertain: &sender.uncertain,
                received: &receiver.received,
                deaths: receiver.deaths,
                gives_back: receiver.gives_back,
            };
            lane.judge(&mut |what| problems.push(said(what)));
            let last = sender.sessions.last().unwrap();
            let came = |sent: &Sent| receiver.received.iter().any(|received| received.number == sent.number);
            if last.sent.len() < LAST as usize || !last.sent.iter().rev().take(LAST as usize).all(came) {
                problems.push(said("the last messages did not arrive"));
            }
        }
    }
}
