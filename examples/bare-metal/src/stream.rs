// SPDX-License-Identifier: MIT OR Apache-2.0
//! The stream: every kernel sends its messages to every other one, without waiting for answers.

use crate::clock::{self, Watchdog};
use crate::control::control;
use crate::journal::{self, Journal};
use crate::layout::MAX_KERNELS;
use crate::machine;
use crate::node::{self, instance, Node};
use crate::options::{Fault, FaultKind, Generation, MAX_MESSAGES};
use crate::order::STREAM;
use crate::payload::Payload;
use crate::platform::{End, ENDPOINT};
use crate::progress::Progress;
use mk_ipi_abi::InstanceId;
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::sync::{spin_hint, AtomicU64, Ordering};
use mk_ipi_core::SendError;

/// Messages to one receiver in a row. It is rung at most once for them.
pub const BURST: usize = 32;
/// Sweeps that find all receivers busy, before a sender sleeps (RFC v2).
pub const BUSY_SWEEPS: u32 = 50;
/// Seconds without progress after which a sender gives up.
const PATIENCE: u64 = 10;
/// Time from one look at the peers to the next.
const TICK: u64 = clock::SECOND / 200;
/// A peer whose heartbeat stands still for this time is suspect.
const SUSPECT_AFTER: u64 = 5 * clock::SECOND;

/// How many of the last messages to one receiver are remembered by their numbers in the lane. This is far more than are
/// sent between the receiver's rebirth and the next tick.
const RECENT: usize = 4096;

/// The number that the lane to each kernel gave to each of its last messages.
static NUMBERS: [[AtomicU64; RECENT]; MAX_KERNELS] =
    [const { [const { AtomicU64::new(0) }; RECENT] }; MAX_KERNELS];

/// One bit for each kernel whose lane has space again.
static SPACE: AtomicU64 = AtomicU64::new(0);

/// Something happened to a peer.
pub fn on_peer_event(peer: InstanceId, event: PeerEvent) {
    let k = peer.index();
    match event {
        PeerEvent::Space => {
            SPACE.fetch_or(1 << k, Ordering::Relaxed);
        }
        PeerEvent::InDoubt { number } => {
            let sent = &journal::own().sent[k];
            let Some(message) = numbered(k, sent.messages(), number) else {
                fatal!("kernel {k} died handling {number}, which is none of our last messages")
            };
            log!("kernel {k} died handling message {message}");
            sent.doubt(message);
        }
        // The next tick follows the directory.
        PeerEvent::ReadDirectory => {}
        PeerEvent::Quarantined(breach) => fatal!("kernel {k} broke the protocol: {breach:?}"),
        PeerEvent::Refused(breach) => fatal!("kernel {k} says that we broke the protocol: {breach:?}"),
        PeerEvent::Began(life) | PeerEvent::Up(life) if life.get() == 1 => {}
        event => log!("kernel {k}: {event:?}"),
    }
}

/// The message, of the last of `messages` to kernel `k`, that has `number` in the lane.
fn numbered(k: usize, messages: u64, number: u64) -> Option<u64> {
    let mut last = messages.saturating_sub(RECENT as u64)..messages;
    last.rfind(|message| NUMBERS[k][*message as usize % RECENT].load(Ordering::Relaxed) == number)
}

/// Shows that this kernel is alive, and checks which others are.
pub struct Heart(u64);

impl Heart {
    /// A heart that begins to beat now.
    pub fn new() -> Self {
        Self(clock::now())
    }

    /// Beats if it is time. Returns whether it did.
    pub fn beat<const CPUS: usize>(&mut self, endpoint: &End<CPUS>) -> bool {
        let now = clock::now();
        let is_time = now.wrapping_sub(self.0) > TICK;
        if is_time {
            self.0 = now;
            endpoint.tick(now, SUSPECT_AFTER);
        }
        is_time
    }

    /// Beats at once.
    pub fn look(&mut self) {
        self.0 = clock::now();
        ENDPOINT.tick(self.0, SUSPECT_AFTER);
    }
}

/// The sending side of the stream.
pub struct Stream<'a> {
    node: &'a Node,
    journal: &'static Journal,
    /// What has come to this kernel.
    pub progress: Progress,
    /// The next message to each other kernel.
    next: [Payload; MAX_KERNELS],
    /// How often a slot or lane was found full.
    busy: [u64; MAX_KERNELS],
    /// Doorbells rung by the sends (RFC v2).
    doorbells: [u64; MAX_KERNELS],
    /// One bit for each kernel in whose lane this kernel waits for space.
    waiting: u64,
    /// True if a receiver that has had its share may be sent one more message.
    more: bool,
    heart: Heart,
    watchdog: Watchdog,
    busy_sweeps: u32,
}

impl<'a> Stream<'a> {
    /// This kernel's stream, continued from where its former life left it.
    pub fn new(node: &'a Node) -> Self {
        let journal = journal::own();
        let payload = |k: usize| Payload::new(journal.sent[k].messages(), node.me as u32);
        Self {
            node,
            journal,
            progress: Progress::new(node),
            next: core::array::from_fn(payload),
            busy: [0; MAX_KERNELS],
            doorbells: [0; MAX_KERNELS],
            waiting: 0,
            more: false,
            heart: Heart::new(),
            watchdog: Watchdog::new(PATIENCE),
            busy_sweeps: 0,
        }
    }

    /// Messages sent to kernel `to`.
    pub fn sent(&self, to: usize) -> u64 {
        self.journal.sent[to].messages()
    }

    /// Returns whether all was sent.
    pub fn is_over(&self) -> bool {
        self.node.others().all(|to| self.is_over_to(to))
    }

    fn is_over_to(&self, to: usize) -> bool {
        let enough = if control().is_going_on() { MAX_MESSAGES } else { self.node.options.messages };
        self.sent(to) >= enough.into()
    }

    /// How often kernel `to` was found full, and how often it was rung.
    pub fn counts(&self, to: usize) -> (u64, u64) {
        match self.node.options.generation {
            Generation::RfcV2 => (self.busy[to], self.doorbells[to]),
            Generation::Native => match ENDPOINT.lane_stats(instance(to)) {
                Ok(lane) => (lane.full, lane.rung),
                Err(e) => fatal!("the lane to kernel {to}: {e:?}"),
            },
        }
    }

    /// Sends until all was sent. Calls `aside` after each turn, and also goes on until `aside` returns that it has
    /// finished.
    pub fn run(&mut self, mut aside: impl FnMut(&mut Self) -> bool) {
        loop {
            let runs = ENDPOINT.platform().runs();
            let idle = self.turn();
            if aside(self) && self.is_over() {
                return;
            }
            if idle {
                ENDPOINT.platform().sleep(runs);
            }
        }
    }

    /// Sends what can be sent now. Returns whether there is nothing to do before an interrupt.
    pub fn turn(&mut self) -> bool {
        let before = self.total();
        let idle = match self.node.options.generation {
            Generation::Native => self.turn_native(),
            Generation::RfcV2 => self.turn_rfc_v2(before),
        };
        let half = u64::from(self.node.options.messages) / 2;
        if before <= half && self.total() > half {
            self.fail_on_order();
        }
        self.more = self.heart.beat(&ENDPOINT);
        if self.more {
            node::follow();
        }
        let moved = self.total() + self.progress.report();
        self.node.progress(moved);
        if self.watchdog.stalled(moved) && !self.is_over() {
            let behind = self.node.others().find(|&to| !self.is_over_to(to)).unwrap_or(self.node.me);
            fatal!("kernel {behind} takes no messages");
        }
        idle
    }

    /// Sends one message to each receiver whose slot is free.
    fn turn_rfc_v2(&mut self, before: u64) -> bool {
        for to in self.node.others() {
            if !self.is_over_to(to) {
                let rung = ENDPOINT.platform().rung();
                self.send_next(to, |message| match ENDPOINT.send(instance(to), STREAM, message) {
                    Err(SendError::Busy) => Ok(None),
                    sent => sent.map(Some),
                });
                self.doorbells[to] += ENDPOINT.platform().rung() - rung;
            }
        }
        self.busy_sweeps = if self.total() == before { self.busy_sweeps + 1 } else { 0 };
        spin_hint();
        // No event tells when a slot becomes free. A message, or the next tick, ends the sleep.
        let idle = self.busy_sweeps > BUSY_SWEEPS;
        if idle {
            self.busy_sweeps = 0;
        }
        idle
    }

    /// Sends a burst to each receiver whose lane has space.
    fn turn_native(&mut self) -> bool {
        let mut idle = true;
        for to in self.node.others() {
            let bit = 1 << to;
            if self.waiting & SPACE.fetch_and(!bit, Ordering::Relaxed) & bit != 0 {
                self.waiting &= !bit;
            }
            if self.waiting & bit == 0 && !self.is_over_to(to) {
                self.burst(to);
            }
            idle &= self.waiting & bit != 0 || self.is_over_to(to) || self.turn_of(to) == 0;
        }
        idle
    }

    /// How many messages to send to kernel `to` in one turn. While kernels are killed or a CPU is moved, each of these
    /// events has its share of all numbers. After its share a receiver gets only a few messages. So there is traffic
    /// during the last event, too, however fast the kernels are.
    fn turn_of(&self, to: usize) -> usize {
        let kills = self.node.options.kills.filter(|_| !self.node.is_victim(self.node.me));
        let times = self.node.options.moves.or(kills.map(|kills| kills.count));
        let Some(times) = times.filter(|_| control().is_going_on()) else { return BURST };
        let numbers = u64::from(MAX_MESSAGES) / 4 * 3;
        let share = numbers * (control().ordered() + 1) / (u64::from(times) + 1);
        if self.sent(to) < share {
            BURST
        } else {
            usize::from(self.more)
        }
    }

    fn burst(&mut self, to: usize) {
        let before = self.sent(to);
        let mut full = false;
        for _ in 0..self.turn_of(to) {
            if self.is_over_to(to) || full {
                break;
            }
            full = !self.send_next(to, |message| match ENDPOINT.post(instance(to), STREAM, message) {
                Err(SendError::Full | SendError::Unanswered) => Ok(None),
                sent => sent.map(Some),
            });
        }
        if self.sent(to) != before {
            if let Err(e) = ENDPOINT.flush(instance(to)) {
                fatal!("ringing kernel {to}: {e:?}");
            }
            self.journal.sent[to].flushed();
        }
        if full {
            match ENDPOINT.want_space(instance(to), self.next[to].bytes().len()) {
                Ok(true) => {}
                Ok(false) => self.waiting |= 1 << to,
                Err(e) => fatal!("waiting for kernel {to}: {e:?}"),
            }
        }
    }

    /// Sends the next message to kernel `to` by `send`, which returns its number if there was room. Returns whether
    /// there was.
    fn send_next(&mut self, to: usize, send: impl FnOnce(&[u8]) -> Result<Option<u64>, SendError>) -> bool {
        let payload = &self.next[to];
        let place = &NUMBERS[to][self.sent(to) as usize % RECENT];
        let sent = self.journal.sent[to].next(|| match send(payload.bytes()) {
            Ok(number) => number.inspect(|number| place.store(*number, Ordering::Relaxed)).is_some(),
            Err(e) => fatal!("sending to kernel {to}: {e:?}"),
        });
        if sent {
            self.next[to] = Payload::new(self.sent(to), self.node.me as u32);
        } else {
            self.busy[to] += 1;
        }
        sent
    }

    fn total(&self) -> u64 {
        self.node.others().map(|to| self.sent(to)).sum()
    }

    /// Fails, if this kernel was told to fail.
    fn fail_on_order(&mut self) {
        let fault = self.node.options.fault.filter(|f| usize::from(f.kernel) == self.node.me);
        let victim = self.node.others().find(|&to| !self.is_over_to(to));
        let (Some(Fault { kind, .. }), Some(to)) = (fault, victim) else { return };
        log!("failing, as ordered: {kind:?}");
        match kind {
            // These two do not happen here, but in hand_over.rs.
            FaultKind::Keep | FaultKind::Stale => {}
            FaultKind::Hang => machine::halt(),
            FaultKind::Panic => panic!("as ordered"),
            FaultKind::Exception => machine::undefined_instruction(),
            FaultKind::Tear => self.next[to].spoil(),
            FaultKind::Double => self.next[to] = Payload::new(0, self.node.me as u32),
            FaultKind::Lose => {
                self.journal.sent[to].skip();
                self.next[to] = Payload::new(self.sent(to), self.node.me as u32);
            }
        }
    }
}
