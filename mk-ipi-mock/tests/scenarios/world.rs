// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two kernels that follow a script through any number of lives, and what must be true of them in the end.

use mk_ipi_abi::native::{cell, header, Geometry};
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysAddr, PhysRange};
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::{Message, SendError};
use mk_ipi_mock::{Callback, Cpu, Fault, Link, Machine, Mode};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

const TYPE: MessageType = MessageType(7);
const CELLS: u64 = 4;
/// Messages each way when all is over, to see that the lanes work.
const LAST: u64 = 6;

/// What a kernel does.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Sends that many messages to the other.
    Send(u64),
    /// Begins anew in its lane, in the same life.
    Reattach,
    /// Writes nonsense into its lane.
    Breach,
    /// Says goodbye, and goes on all the same.
    Goodbye,
    /// Waits until that many messages have come in all.
    Received(usize),
    /// Begins its next life as a receiver.
    Restart,
    /// Boots when the other has come to a rest. The first step, or none.
    Late,
}

/// The last thing that a kernel does: its `store`-th store from where the machine stands then.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    pub kernel: usize,
    pub store: u64,
}

/// What came of it.
pub struct Played {
    /// How many of the deaths came.
    pub deaths: usize,
    /// Stores of each kernel's last life, up to the end of its script.
    pub stores: [u64; 2],
    pub problems: Vec<String>,
}

/// One life of a sender in its lane.
#[derive(Default)]
struct Session {
    /// Messages that `send` took, in order.
    sent: Vec<u64>,
    /// What the receiver's restarts lost, as it was told.
    lost: Vec<(u64, u64)>,
    over: bool,
    hostile: bool,
}

#[derive(Default)]
struct Side {
    script: Vec<Step>,
    /// The step that is next, and messages sent in it.
    at: usize,
    sent: u64,
    life: u32,
    /// Ends of its lives, as a receiver: stopped or begun anew.
    ends: u64,
    /// The next message's number.
    next: u64,
    /// The number of the message that is being sent.
    sending: Option<u64>,
    /// Messages in whose `send` it stopped.
    uncertain: BTreeSet<u64>,
    sessions: Vec<Session>,
    /// Numbers, in the order in which they came.
    received: Vec<u64>,
    link: Option<Arc<Link>>,
    /// The machine's incarnation that has booted.
    booted: Option<u32>,
    problems: Vec<String>,
}

struct World {
    machine: Machine,
    geometry: Geometry,
    regions: [PhysRange; 2],
    sides: [Mutex<Side>; 2],
    me: Weak<World>,
}

fn id(kernel: usize) -> InstanceId {
    InstanceId::new(kernel as u8)
}

fn payload(number: u64) -> Vec<u8> {
    let len = 8 + (number % 4) * 6;
    number.to_le_bytes().into_iter().chain((0..).map(|i| (number * 7 + i) as u8)).take(len as usize).collect()
}

/// Plays the scripts with these deaths, one after another.
pub fn play(seed: u64, scripts: [&[Step]; 2], deaths: &[Death]) -> Played {
    let builder = Machine::builder().kernel(&[0]).kernel(&[3]).memory(16);
    let machine = builder.mode(Mode::Stepped { seed }).step_limit(30_000).build();
    let geometry = Geometry::new(2, CELLS as u32).unwrap();
    let regions = [(); 2].map(|()| machine.native_region(geometry));
    let sides = scripts.map(|script| Mutex::new(Side { script: script.to_vec(), ..Side::default() }));
    let world = Arc::new_cyclic(|me| World { machine, geometry, regions, sides, me: me.clone() });
    let came = world.live_and_die(deaths);
    let stores = [0, 1].map(|k| world.machine.kernel(k).stores());
    let mut problems = Vec::new();
    if let Some(came) = came {
        world.look_back(&mut problems);
        return Played { deaths: came, stores, problems };
    }
    problems.push("a run without end".into());
    Played { deaths: deaths.len(), stores, problems }
}

impl World {
    fn side(&self, k: usize) -> MutexGuard<'_, Side> {
        self.sides[k].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until nothing is pending; false if that does not come.
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
        match run {
            Ok(_) => true,
            Err(failure) => {
                self.side(0).problems.push(format!("{:?}", failure.cause));
                false
            }
        }
    }

    /// All deaths that come, each mended before the next, and the last messages; how many deaths came.
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
        // A death that did not come does not come later.
        (0..2).for_each(|k| self.machine.kernel(k).forget_stop());
        if !self.run() {
            return None;
        }
        for k in 0..2 {
            let mut side = self.side(k);
            // Nothing is pending and no kernel waits for a clock: what is left is left for ever.
            if side.at < side.script.len() && !matches!(side.script[side.at], Step::Received(_)) {
                let step = side.script[side.at];
                side.problems.push(format!("kernel {k} waits in vain, {step:?}"));
            }
            let at = side.at;
            side.script.truncate(at);
            side.script.push(Step::Send(LAST));
            side.sent = 0;
        }
        self.run().then_some(came)
    }

    /// A kernel has stopped: what its life leaves.
    fn bury(&self, k: usize) {
        self.hear(k);
        let mut side = self.side(k);
        side.ends += 1;
        side.link = None;
        let sending = side.sending.take();
        side.uncertain.extend(sending);
        side.sessions.iter_mut().for_each(|session| session.over = true);
    }

    fn boot(&self, cpu: &Cpu) {
        let (k, platform) = (cpu.kernel(), cpu.platform());
        let life = {
            let mut side = self.side(k);
            side.life += 1;
            Incarnation::new(side.life).unwrap()
        };
        let link = platform.boot(id(k), life);
        let (world, inner) = (self.me.clone(), Arc::downgrade(&link));
        platform.set_deferred(move || {
            let (Some(world), Some(link)) = (world.upgrade(), inner.upgrade()) else { return };
            link.run_deferred();
            world.follow_script(k, &link);
        });
        let world = self.me.clone();
        let note = move |m: &Message| world.upgrade().into_iter().for_each(|world| world.receive(k, m));
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
            self.side(k).problems.push(format!("not attached: {e:?}"));
        }
    }

    /// Kernel `k` begins a life in its lane to the other.
    fn begin(&self, k: usize, link: &Link) {
        self.side(k).sessions.push(Session::default());
        self.attach(k, link, 1 - k);
    }

    fn receive(&self, k: usize, message: &Message) {
        let number = message.payload().first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        let mut side = self.side(k);
        if message.sender() != Some(id(1 - k)) || message.payload() != payload(number) {
            side.problems.push("a message that nobody sent".into());
        }
        side.received.push(number);
    }

    /// Takes note of what the observer of `k` was told.
    fn hear(&self, k: usize) {
        for (_, event) in self.machine.kernel(k).peer_events() {
            let from_hostile = self.side(1 - k).sessions.iter().any(|session| session.hostile);
            let mut side = self.side(k);
            match event {
                PeerEvent::Lost { first, count } => {
                    side.sessions.last_mut().unwrap().lost.push((first, count));
                }
                PeerEvent::Quarantined(breach) if !from_hostile => {
                    side.problems.push(format!("somebody honest is in quarantine: {breach:?}"));
                }
                _ => {}
            }
        }
    }

    /// Goes on with the script until it has to wait.
    fn follow_script(&self, k: usize, link: &Arc<Link>) {
        loop {
            self.hear(k);
            let (step, received) = {
                let side = self.side(k);
                (side.script.get(side.at).copied(), side.received.len())
            };
            let goes_on = match step {
                None => false,
                Some(Step::Received(count)) => received >= count,
                Some(Step::Send(count)) => {
                    if !self.send(k, link) {
                        return;
                    }
                    self.side(k).sent >= count
                }
                Some(_) => true,
            };
            if step.is_none() || (!goes_on && !matches!(step, Some(Step::Send(_)))) {
                return;
            }
            if goes_on {
                let mut side = self.side(k);
                side.at += 1;
                side.sent = 0;
            }
            self.act(k, link, step);
        }
    }

    /// The steps that are done at once.
    fn act(&self, k: usize, link: &Arc<Link>, step: Option<Step>) {
        match step {
            Some(Step::Goodbye) => link.goodbye(),
            Some(Step::Reattach) => {
                // A tick is a poll too: elsewhere it would hide that nobody rang.
                link.tick(0, u64::MAX);
                self.hear(k);
                self.side(k).sessions.last_mut().unwrap().over = true;
                self.detach(k, link, 1 - k);
                self.begin(k, link);
            }
            Some(Step::Restart) => {
                let life = {
                    let mut side = self.side(k);
                    side.ends += 1;
                    side.life += 1;
                    Incarnation::new(side.life).unwrap()
                };
                self.detach(k, link, k);
                link.identify(id(k), life);
                self.attach(k, link, k);
            }
            Some(Step::Breach) => {
                self.side(k).sessions.last_mut().unwrap().hostile = true;
                let lane = self.regions[1 - k].start().0 + self.geometry.lane_at(k as u32).unwrap();
                for n in 0..CELLS {
                    let word = header::WORDS as u64 + n * cell::WORDS as u64;
                    self.machine.poke(PhysAddr(lane + 8 * word), 0x4000_0000 + n);
                }
                let _ = link.flush(id(1 - k));
            }
            _ => {}
        }
    }

    fn detach(&self, k: usize, link: &Link, other: usize) {
        if let Err(e) = link.destroy_instance(id(other)) {
            self.side(k).problems.push(format!("not destroyed: {e:?}"));
        }
    }

    /// Sends the next message; false if there is no space now, and the kernel will be told.
    fn send(&self, k: usize, link: &Link) -> bool {
        let number = {
            let mut side = self.side(k);
            let number = side.next;
            side.sending = Some(number);
            // The next life does not say again what this one may have said.
            side.next += 1;
            number
        };
        let sent = link.send(id(1 - k), TYPE, &payload(number));
        let mut side = self.side(k);
        side.sending = None;
        match sent {
            Ok(()) => {
                side.sent += 1;
                side.sessions.last_mut().unwrap().sent.push(number);
                return true;
            }
            Err(SendError::Quarantined) if side.sessions.last().unwrap().hostile => {
                side.sent = u64::MAX / 2;
                return true;
            }
            Err(SendError::Full | SendError::Unanswered) => side.next -= 1,
            Err(e) => {
                side.problems.push(format!("not sent: {e:?}"));
                return false;
            }
        }
        drop(side);
        match link.want_space(id(1 - k)) {
            Ok(now) => now,
            Err(e) => {
                self.side(k).problems.push(format!("no space: {e:?}"));
                false
            }
        }
    }

    /// All is over: was everything as it should be?
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
                problems.push(said("the lane does not work any more"));
            }
            if receiver.received.windows(2).any(|pair| pair[0] >= pair[1]) {
                problems.push(said("a message out of order, or twice"));
            }
            let received: BTreeSet<u64> = receiver.received.iter().copied().collect();
            let sent: BTreeSet<u64> =
                sender.sessions.iter().flat_map(|session| session.sent.clone()).collect();
            if received.iter().any(|n| !sent.contains(n) && !sender.uncertain.contains(n)) {
                problems.push(said("a message that was not sent"));
            }
            let lost: u64 = sender.sessions.iter().flat_map(|session| &session.lost).map(|lost| lost.1).sum();
            // Ranges that were not told yet become one, with what came between them.
            if receiver.ends == 1 && lost > CELLS {
                problems.push(said("more is lost than lay in the lane"));
            }
            for session in &sender.sessions {
                look_at(session, &received, receiver.ends, &mut |what| problems.push(said(what)));
            }
            let last = sender.sessions.last().unwrap();
            let last = last.sent.iter().rev().take(LAST as usize);
            if last.clone().count() < LAST as usize || !last.clone().all(|n| received.contains(n)) {
                problems.push(said("the last messages did not come"));
            }
        }
    }
}

/// What was sent has come, or was told to be lost.
fn look_at(session: &Session, received: &BTreeSet<u64>, ends: u64, say: &mut dyn FnMut(&str)) {
    let told = |i: u64| session.lost.iter().any(|(first, count)| (*first..first + count).contains(&i));
    for (i, number) in (0..).zip(&session.sent) {
        let excused = session.hostile || told(i) || (session.over && ends != 0);
        if !received.contains(number) && !excused {
            say("a message is lost, and nobody was told");
        }
    }
    let beyond = |(first, count): &(u64, u64)| first + count > session.sent.len() as u64;
    if session.lost.iter().any(beyond) || (ends == 0 && !session.lost.is_empty()) {
        say("a message is told to be lost that was not");
    }
}
