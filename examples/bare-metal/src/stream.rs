// SPDX-License-Identifier: MIT OR Apache-2.0
//! The stream: each kernel sends its messages to each other kernel, without waiting for answers.

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

/// The largest number of messages that are sent to one receiver in a row. The receiver's doorbell is rung at most once for them.
pub const BURST: usize = 32;
/// A sender sleeps if it found all receivers' slots occupied in more than this number of turns in a row (RFC v2).
pub const BUSY_SWEEPS: u32 = 50;
/// A sender ends with an error if there is no progress for this number of seconds.
const PATIENCE: u64 = 10;
/// The time between two calls of `tick`, in units of the clock.
const TICK: u64 = clock::SECOND / 200;
/// A peer whose heartbeat does not change for this time is suspect. In units of the clock.
const SUSPECT_AFTER: u64 = 5 * clock::SECOND;

/// For each receiver, this number of last messages is remembered, with their numbers in the lane. After a receiver has died, its
/// next life reports a message in doubt by the number in the lane. Before the sender's next tick reads this, far fewer messages
/// are sent.
const RECENT: usize = 4096;

/// For each receiver, the numbers in the lane of the last [`RECENT`] messages. The index is the message's number modulo `RECENT`.
static NUMBERS: [[AtomicU64; RECENT]; MAX_KERNELS] =
    [const { [const { AtomicU64::new(0) }; RECENT] }; MAX_KERNELS];

/// The kernels whose lanes have space again: one bit for each.
static SPACE: AtomicU64 = AtomicU64::new(0);

/// Called for each event of a peer.
pub fn on_peer_event(peer: InstanceId, event: PeerEvent) {
    let k = peer.index();
    match event {
        PeerEvent::Space => {
            SPACE.fetch_or(1 << k, Ordering::Relaxed);
        }
        PeerEvent::InDoubt { number } => {
            let sent = &journal::own().sent[k];
            let Some(message) = numbered(k, sent.messages(), number) else {
                fatal!("kernel {k} died while it handled message {number} of the lane, which is not a recent one")
            };
            log!("kernel {k} died while it handled message {message}");
            sent.doubt(message);
        }
        // The next tick follows the directory anyway.
        PeerEvent::ReadDirectory => {}
        PeerEvent::Quarantined(breach) => fatal!("kernel {k} broke the protocol: {breach:?}"),
        PeerEvent::Refused(breach) => {
            fatal!("kernel {k} reports that this kernel broke the protocol: {breach:?}")
        }
        PeerEvent::Began(life) | PeerEvent::Up(life) if life.get() == 1 => {}
        event => log!("kernel {k}: {event:?}"),
    }
}

/// Finds a message to kernel `k` by its `number` in the lane. `messages` is the number of messages sent so far. Returns the
/// message's sequence number. `None` if it is not one of the last [`RECENT`].
fn numbered(k: usize, messages: u64, number: u64) -> Option<u64> {
    let mut last = messages.saturating_sub(RECENT as u64)..messages;
    last.rfind(|message| NUMBERS[k][*message as usize % RECENT].load(Ordering::Relaxed) == number)
}

/// Calls `tick` periodically. By `tick` this kernel shows that it is alive, and finds out which other kernels are alive.
pub struct Heart(u64);

impl Heart {
    /// Begins now. The first call of `tick` is one period later.
    pub fn new() -> Self {
        Self(clock::now())
    }

    /// Calls `tick` if a period has passed. Returns whether it called `tick`.
    pub fn beat<const CPUS: usize>(&mut self, endpoint: &End<CPUS>) -> bool {
        let now = clock::now();
        let is_time = now.wrapping_sub(self.0) > TICK;
        if is_time {
            self.0 = now;
            endpoint.tick(now, SUSPECT_AFTER);
        }
        is_time
    }

    /// Calls `tick` at once.
    pub fn look(&mut self) {
        self.0 = clock::now();
        ENDPOINT.tick(self.0, SUSPECT_AFTER);
    }
}

/// The sending side of the stream.
pub struct Stream<'a> {
    node: &'a Node,
    journal: &'static Journal,
    /// Reports how many messages have come to this kernel.
    pub progress: Progress,
    /// The next message to each other kernel.
    next: [Payload; MAX_KERNELS],
    /// How often each receiver's slot or lane was full.
    busy: [u64; MAX_KERNELS],
    /// The number of doorbells rung for each receiver (RFC v2).
    doorbells: [u64; MAX_KERNELS],
    /// The kernels in whose lanes this kernel waits for space: one bit for each.
    waiting: u64,
    /// True if each receiver that already got its share of the messages (`turn_of`) may get one more message now.
    more: bool,
    heart: Heart,
    watchdog: Watchdog,
    busy_sweeps: u32,
}

impl<'a> Stream<'a> {
    /// Begins this kernel's stream, or continues that of its former life.
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

    /// The number of messages sent to kernel `to`.
    pub fn sent(&self, to: usize) -> u64 {
        self.journal.sent[to].messages()
    }

    /// Returns whether all messages were sent.
    pub fn is_over(&self) -> bool {
        self.node.others().all(|to| self.is_over_to(to))
    }

    fn is_over_to(&self, to: usize) -> bool {
        let enough = if control().is_going_on() { MAX_MESSAGES } else { self.node.options.messages };
        self.sent(to) >= enough.into()
    }

    /// How often the slot or lane of kernel `to` was full, and how often its doorbell was rung.
    pub fn counts(&self, to: usize) -> (u64, u64) {
        match self.node.options.generation {
            Generation::RfcV2 => (self.busy[to], self.doorbells[to]),
            Generation::Native => match ENDPOINT.lane_stats(instance(to)) {
                Ok(lane) => (lane.full, lane.rung),
                Err(e) => fatal!("no counters of the lane to kernel {to}: {e:?}"),
            },
        }
    }

    /// Runs turns until all messages are sent and `aside` returns true. Calls `aside` after each turn.
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

    /// Sends the messages that can be sent now. Returns true if there is no more work before the next interrupt.
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
        // No event reports that a slot has become free. A message, or the next tick, ends the sleep.
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

    /// The number of messages to send to kernel `to` in one turn. While kernels are killed or a CPU is moved, the sequence
    /// numbers are divided into shares: one for the time until the first kill or move, one for the time until the next, and
    /// so on. A receiver that already got the present share gets only one message per period of `tick`. So messages remain
    /// for the last kill or move, however fast the kernels are.
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
                fatal!("ringing the doorbell of kernel {to}: {e:?}");
            }
            self.journal.sent[to].flushed();
        }
        if full {
            match ENDPOINT.want_space(instance(to), self.next[to].bytes().len()) {
                Ok(true) => {}
                Ok(false) => self.waiting |= 1 << to,
                Err(e) => fatal!("waiting for space in the lane to kernel {to}: {e:?}"),
            }
        }
    }

    /// Sends the next message to kernel `to` by `send`. `send` returns the message's number in the lane, or `None` if there
    /// was no room. Returns whether the message was sent.
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

    /// Causes the fault that the command line gives this kernel, if any.
    fn fail_on_order(&mut self) {
        let fault = self.node.options.fault.filter(|f| usize::from(f.kernel) == self.node.me);
        let victim = self.node.others().find(|&to| !self.is_over_to(to));
        let (Some(Fault { kind, .. }), Some(to)) = (fault, victim) else { return };
        log!("this kernel now has the ordered fault: {kind:?}");
        match kind {
            // hand_over.rs causes these two.
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
