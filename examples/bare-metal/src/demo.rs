// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demo's traffic: every kernel streams to every other one, then each pair plays ping-pong.

use crate::clock::{self, Watchdog};
use crate::control::control;
use crate::layout::MAX_KERNELS;
use crate::machine;
use crate::node::{instance, Node, DONE, READY};
use crate::options::{Fault, FaultKind};
use crate::payload::{self, Payload};
use crate::platform::ENDPOINT;
use crate::receive::{Findings, Receiver};
use mk_ipi_abi::MessageType;
use mk_ipi_core::sync::{spin_hint, AtomicU64, Ordering};
use mk_ipi_core::{Message, SendError};

/// A message of the stream.
const STREAM: MessageType = MessageType(0x100);
/// A message that is to be answered.
const PING: MessageType = MessageType(0x101);
/// The answer.
const PONG: MessageType = MessageType(0x102);

/// Step (control.rs) at which a kernel has put all its messages into slots.
const SENT: u32 = READY + 1;
/// Step at which it has said what came.
const RECEIVED: u32 = SENT + 1;
/// Step at which the first of the ordered pairs is through its round trips, and one more for each other pair.
const FIRST_PAIR: u32 = RECEIVED + 1;
const _: () = assert!(FIRST_PAIR + ((MAX_KERNELS * MAX_KERNELS) as u32) < DONE);

/// Most round trips per pair.
const MAX_TRIPS: usize = 1000;
/// Sweeps over all receivers that are busy before a sender sleeps.
const BUSY_SWEEPS: u32 = 50;
/// Seconds without progress after which a sender gives up.
const PATIENCE: u64 = 10;
/// Seconds without an arrival after which a message that was sent counts as lost.
const LOST_AFTER: u64 = 2;

static RECEIVER: Receiver = Receiver::new();
/// The ping that waits for its answer: sender plus one in the upper half, number in the lower; 0 if none.
static PINGED: AtomicU64 = AtomicU64::new(0);
/// The number of the last pong, plus one.
static PONGED: AtomicU64 = AtomicU64::new(0);

/// What a kernel did to one other.
#[derive(Clone, Copy, Default)]
struct Sent {
    messages: u64,
    doorbells: u64,
    busy: u64,
    /// Round trips in cycles: least, median, 99th percentile.
    trips: [u64; 3],
}

/// Takes messages from now on. Before the kernel says that it is ready.
pub fn register() {
    let registered = ENDPOINT
        .register(STREAM, &on_stream)
        .and_then(|_| ENDPOINT.register(PING, &on_ping))
        .and_then(|_| ENDPOINT.register(PONG, &on_pong));
    if registered.is_err() {
        fatal!("the registry is full");
    }
}

fn on_stream(message: &Message) {
    RECEIVER.take(message);
}

fn on_ping(message: &Message) {
    // A torn ping is not answered: the round trip times out.
    if let Some((number, sender)) = payload::check(message.payload()) {
        PINGED.store((u64::from(sender) + 1) << 32 | number & 0xffff_ffff, Ordering::Release);
    }
}

fn on_pong(message: &Message) {
    if let Some((number, _)) = payload::check(message.payload()) {
        PONGED.store(number + 1, Ordering::Release);
    }
}

/// Runs all of it; whether nothing was lost, torn or doubled.
pub fn run(node: &Node) -> bool {
    if node.kernels < 2 {
        fatal!("a kernel alone has nobody to talk to");
    }
    let mut sent = [Sent::default(); MAX_KERNELS];
    let mut progress = Progress::new(node);
    stream(node, &mut sent, &mut progress);
    let whole = report_received(node, &mut progress);
    let arrivals = RECEIVER.arrivals();
    round_trips(node, &mut sent);
    if RECEIVER.arrivals() != arrivals {
        fatal!("{} messages of the stream came after it had ended", RECEIVER.arrivals() - arrivals);
    }
    for to in node.others() {
        report_sent(node, to, &sent[to]);
    }
    log!("{:?}", ENDPOINT.stats());
    whole
}

/// Sends one message; whether the receiver's slot was free.
fn send(to: usize, ty: MessageType, message: &Payload, sent: &mut Sent) -> bool {
    let rung = ENDPOINT.platform().rung();
    let result = ENDPOINT.send(instance(to), ty, message.bytes());
    sent.doorbells += ENDPOINT.platform().rung() - rung;
    match result {
        Ok(()) => sent.messages += 1,
        Err(SendError::Busy) => sent.busy += 1,
        Err(e) => fatal!("sending to kernel {to}: {e:?}"),
    }
    result.is_ok()
}

/// Sends all messages to all others, in turn, as their slots become free.
fn stream(node: &Node, sent: &mut [Sent; MAX_KERNELS], progress: &mut Progress) {
    let me = node.me as u32;
    let messages = u64::from(node.options.messages);
    let mut next = [Payload::new(0, me); MAX_KERNELS];
    let mut watchdog = Watchdog::new(PATIENCE);
    let (mut total, mut busy_sweeps) = (0, 0);
    while total < progress.total {
        let (before, runs) = (total, ENDPOINT.platform().runs());
        for to in node.others() {
            if sent[to].messages < messages && send(to, STREAM, &next[to], &mut sent[to]) {
                next[to] = Payload::new(sent[to].messages, me);
                total += 1;
            }
        }
        if before <= messages / 2 && total > messages / 2 {
            total += fail_on_order(node, &mut sent[..], &mut next);
        }
        let moved = total + progress.report();
        node.progress(moved);
        if watchdog.stalled(moved) {
            let behind = node.others().find(|&to| sent[to].messages < messages).unwrap_or(node.me);
            fatal!("kernel {behind} takes no messages");
        }
        busy_sweeps = if total == before { busy_sweeps + 1 } else { 0 };
        spin_hint();
        if busy_sweeps > BUSY_SWEEPS {
            // Nobody tells when a slot becomes free: a message, or the next tick, ends this.
            busy_sweeps = 0;
            ENDPOINT.platform().sleep(runs);
        }
    }
    node.reach(SENT);
    node.wait_for_all(SENT, "not all kernels have sent", || node.progress(total + progress.report()));
}

/// Fails, if this kernel was told to. Gives how many messages are not sent because of it.
fn fail_on_order(node: &Node, sent: &mut [Sent], next: &mut [Payload]) -> u64 {
    let fault = node.options.fault.filter(|f| usize::from(f.kernel) == node.me);
    let victim = node.others().find(|&to| sent[to].messages < node.options.messages.into());
    let (Some(Fault { kind, .. }), Some(to)) = (fault, victim) else { return 0 };
    log!("failing, as ordered: {kind:?}");
    match kind {
        FaultKind::Hang => machine::halt(),
        FaultKind::Panic => panic!("as ordered"),
        // SAFETY: it raises an exception, which ends the machine.
        FaultKind::Exception => unsafe { core::arch::asm!("ud2") },
        FaultKind::Tear => next[to].spoil(),
        FaultKind::Double => next[to] = Payload::new(0, node.me as u32),
        FaultKind::Lose => {
            sent[to].messages += 1;
            next[to] = Payload::new(sent[to].messages, node.me as u32);
            return 1;
        }
    }
    0
}

/// Waits for what is on its way, then says what came from whom; whether all did, once and whole.
fn report_received(node: &Node, progress: &mut Progress) -> bool {
    let mut watchdog = Watchdog::new(LOST_AFTER);
    loop {
        let (runs, arrivals) = (ENDPOINT.platform().runs(), progress.report());
        if RECEIVER.total() == progress.total || watchdog.stalled(arrivals) {
            break;
        }
        ENDPOINT.platform().sleep(runs);
    }
    let mut whole = true;
    for from in node.others() {
        let Findings { received, lost, torn, doubled } =
            RECEIVER.findings(from, node.options.messages.into());
        whole &= lost == 0 && torn == 0 && doubled == 0;
        record!(
            "{{\"received\":{{\"from\":{from},\"to\":{},\"mode\":\"{}\",\"generation\":\"rfc-v2\",\
             \"received\":{received},\"lost\":{lost},\"torn\":{torn},\"doubled\":{doubled}}}}}",
            node.me,
            node.options.mode,
        );
    }
    node.reach(RECEIVED);
    node.wait_for_all(RECEIVED, "not all kernels have received", || {});
    whole
}

/// Each ordered pair in turn: one pings, the other answers, the rest sleeps.
fn round_trips(node: &Node, sent: &mut [Sent; MAX_KERNELS]) {
    let pairs =
        (0..node.kernels).flat_map(|f| (0..node.kernels).map(move |t| (f, t))).filter(|(f, t)| f != t);
    for ((from, to), step) in pairs.zip(FIRST_PAIR..) {
        if from == node.me {
            sent[to].trips = ping(node, to);
            node.reach(step);
        } else {
            node.wait("a round trip does not end", || {
                answer(node);
                control().step(from) >= step
            });
        }
    }
}

/// Answers the ping that waits, if one does, from the main program.
fn answer(node: &Node) {
    let pinged = PINGED.load(Ordering::Acquire);
    if let Some(sender) = (pinged >> 32).checked_sub(1) {
        // There is one ping at a time: its sender waits for the answer.
        PINGED.store(0, Ordering::Relaxed);
        let pong = Payload::new(pinged & 0xffff_ffff, node.me as u32);
        let sent = &mut Sent::default();
        node.wait("a ping's sender takes no answer", || send(sender as usize, PONG, &pong, sent));
    }
}

/// Pings kernel `to`, one ping at a time; least, median and 99th percentile of the round trips in cycles.
fn ping(node: &Node, to: usize) -> [u64; 3] {
    let mut trips = [0; MAX_TRIPS];
    let trips = &mut trips[..(node.options.messages as usize).min(MAX_TRIPS)];
    PONGED.store(0, Ordering::Relaxed);
    for (number, trip) in (0u64..).zip(trips.iter_mut()) {
        let ping = Payload::new(number, node.me as u32);
        let start = clock::now();
        node.wait("a kernel takes no ping", || send(to, PING, &ping, &mut Sent::default()));
        node.wait("a ping is not answered", || PONGED.load(Ordering::Acquire) == number + 1);
        *trip = clock::now().wrapping_sub(start);
        node.progress(clock::now());
    }
    trips.sort_unstable();
    let at = |percent: usize| trips.get(trips.len() * percent / 100).copied().unwrap_or(0);
    [at(0), at(50), at(99)]
}

fn report_sent(node: &Node, to: usize, sent: &Sent) {
    let [min, median, p99] = sent.trips;
    record!(
        "{{\"sent\":{{\"from\":{},\"to\":{to},\"mode\":\"{}\",\"generation\":\"rfc-v2\",\
         \"sent\":{},\"doorbells\":{},\"busy\":{},\
         \"rtt_cycles\":{{\"min\":{min},\"median\":{median},\"p99\":{p99}}}}}}}",
        node.me,
        node.options.mode,
        sent.messages,
        sent.doorbells,
        sent.busy
    );
}

/// Tells how much has come, every twentieth.
struct Progress {
    kernel: usize,
    total: u64,
    next: u64,
}

impl Progress {
    fn new(node: &Node) -> Self {
        let total = u64::from(node.options.messages) * (node.kernels as u64 - 1);
        Self { kernel: node.me, total, next: total.div_ceil(20) }
    }

    /// Tells it if it is time; gives a number that changes with every arrival.
    fn report(&mut self) -> u64 {
        let done = RECEIVER.total();
        if done >= self.next {
            // The last one comes exactly at the end.
            self.next =
                if done < self.total { (done + self.total.div_ceil(20)).min(self.total) } else { u64::MAX };
            let Self { kernel, total, .. } = self;
            record!("{{\"progress\":{{\"kernel\":{kernel},\"done\":{done},\"total\":{total}}}}}");
        }
        RECEIVER.arrivals()
    }
}
