// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demo: each kernel sends a stream of messages to each other kernel. After that, each pair of kernels measures round trips.

use crate::clock::{self, Watchdog};
use crate::control::control;
use crate::hand_over::{self, Guest};
use crate::host::Machine;
use crate::journal;
use crate::kill::Killer;
use crate::layout::MAX_KERNELS;
use crate::mover::Mover;
use crate::node::{self, instance, Node, DONE, READY};
use crate::options::Generation;
use crate::order::{PING, PONG, STREAM};
use crate::payload::{self, Payload};
use crate::platform::ENDPOINT;
use crate::receive::Findings;
use crate::stream::{Heart, Stream};
use crate::{drains, progress::Progress};
use mk_ipi_abi::MessageType;
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_core::{Deferred, Message, SendError};

/// The step (control.rs) at which a kernel has sent all its messages.
const SENT: u32 = READY + 1;
/// The step at which a kernel has received all that was sent to it.
const RECEIVED: u32 = SENT + 1;
/// The step at which the first ordered pair of kernels has measured its round trips. Each further pair adds one.
const FIRST_PAIR: u32 = RECEIVED + 1;
const _: () = assert!(FIRST_PAIR + ((MAX_KERNELS * MAX_KERNELS) as u32) < DONE);

/// The largest number of round trips per pair.
const MAX_TRIPS: usize = 1000;
/// If no message arrives for this number of seconds, the missing messages count as lost.
const LOST_AFTER: u64 = 2;

/// The result of a drain that found no message in any lane.
const NOTHING: Deferred = Deferred { messages: 0, more: false };

/// The ping that this kernel must answer: the sender plus one in the upper half, the ping's number in the lower half. 0 if
/// there is none.
static PINGED: AtomicU64 = AtomicU64::new(0);
/// The number of the last pong, plus one.
static PONGED: AtomicU64 = AtomicU64::new(0);

/// Counters of what this kernel sent to one other kernel.
#[derive(Clone, Copy, Default)]
struct Sent {
    messages: u64,
    doorbells: u64,
    busy: u64,
    /// The shortest round trip, the median, and the 99th percentile, in units of the clock.
    trips: [u64; 3],
}

/// Restores the state of this kernel's former lives from the journal, and registers the message handlers. Called before the
/// kernel joins the others.
pub fn register() {
    journal::own().recover();
    let registered = ENDPOINT
        .register(STREAM, &on_stream)
        .and_then(|_| ENDPOINT.register(PING, &on_ping))
        .and_then(|_| ENDPOINT.register(PONG, &on_pong));
    if registered.is_err() {
        fatal!("the registry is full");
    }
}

fn on_stream(message: &Message) {
    journal::own().receiver.take(message);
}

fn on_ping(message: &Message) {
    // A torn ping is not answered, so its sender reports a time-out.
    if let Some((number, sender)) = payload::check(message.payload()) {
        PINGED.store((u64::from(sender) + 1) << 32 | number & 0xffff_ffff, Ordering::Release);
    }
}

fn on_pong(message: &Message) {
    if let Some((number, _)) = payload::check(message.payload()) {
        PONGED.store(number + 1, Ordering::Release);
    }
}

/// Runs the demo. Returns true if no message to this kernel was lost, torn, doubled or out of order, and the drain was fair. Only
/// the host passes a `machine`. The host uses the machine to kill a kernel or to move a CPU, if the command line says so.
pub fn run(node: &Node, machine: Option<&mut Machine>) -> bool {
    if node.kernels < 2 {
        fatal!("a single kernel has no other kernel to talk to");
    }
    let (mut sent, mut progress) = stream(node, machine);
    wait_for_messages(node, &mut progress);
    let mut whole = true;
    if watches_drains(node) {
        whole &= report_drains(node);
    }
    // The last death was before the streams ended. So after this tick all messages in doubt are known.
    Heart::new().look();
    let arrivals = journal::own().receiver.arrivals();
    round_trips(node, &mut sent);
    let now = journal::own().receiver.arrivals();
    if now != arrivals {
        fatal!("{} messages came after the streams had ended", now - arrivals);
    }
    for to in node.others() {
        whole &= report_received(node, to);
        report_sent(node, to, &sent[to]);
    }
    log!("{:?}", ENDPOINT.stats());
    whole
}

/// Returns whether this kernel checks that its drain is fair. It does so only for native links, if one CPU does all draining,
/// and if this kernel is not killed.
fn watches_drains(node: &Node) -> bool {
    let is_plain = node.options.moves.is_none() && !node.is_victim(node.me);
    node.options.generation == Generation::Native && is_plain
}

/// The task that a kernel has in addition to its streams.
enum Aside<'a> {
    Nothing,
    Kill(Killer<'a>),
    Move(Mover<'a>),
    Guest(Guest<'a>),
}

impl<'a> Aside<'a> {
    /// The task that the command line gives this kernel. Only the host passes a `machine`.
    fn new(node: &'a Node, machine: Option<&'a mut Machine>) -> Self {
        match (machine, node.options.kills, node.options.moves) {
            (Some(machine), Some(kills), None) => Self::Kill(Killer::new(node, machine, kills)),
            (Some(machine), None, Some(moves)) => Self::Move(Mover::new(node, machine, moves)),
            (Some(_), Some(_), Some(_)) => {
                fatal!("kernels can be killed or a CPU can be moved, but not both")
            }
            (None, ..) => Guest::new(node).map_or(Self::Nothing, Self::Guest),
            (Some(_), None, None) => Self::Nothing,
        }
    }

    /// Does the part of the task that can be done now. Returns whether the task is finished.
    fn turn(&mut self, stream: &mut Stream) -> bool {
        match self {
            Self::Nothing => true,
            Self::Kill(killer) => killer.turn(stream),
            Self::Move(mover) => mover.turn(stream),
            Self::Guest(guest) => guest.turn(),
        }
    }

    /// Prints the record of the task.
    fn report(&self, node: &Node) {
        match self {
            Self::Kill(killer) => killer.report(),
            Self::Move(mover) => mover.report(),
            Self::Nothing | Self::Guest(_) => {}
        }
        if node.options.moves.is_some() {
            hand_over::report(node);
        }
    }
}

/// Sends all messages of the stream to all other kernels. Returns the counters for each receiver.
fn stream(node: &Node, machine: Option<&mut Machine>) -> ([Sent; MAX_KERNELS], Progress) {
    if watches_drains(node) {
        drains::watch(node.others().filter(|&k| !node.is_victim(k)));
    }
    let mut stream = Stream::new(node);
    let mut aside = Aside::new(node, machine);
    stream.run(|stream| aside.turn(stream));
    node.reach(SENT);
    node.wait_for_all(SENT, "not all kernels have sent", || {
        stream.turn();
    });
    drains::watch(core::iter::empty());
    aside.report(node);
    let mut sent = [Sent::default(); MAX_KERNELS];
    for to in node.others() {
        let (busy, doorbells) = stream.counts(to);
        sent[to] = Sent { messages: stream.sent(to), doorbells, busy, ..Sent::default() };
    }
    (sent, stream.progress)
}

/// Waits until all messages that were sent have arrived, or count as lost.
fn wait_for_messages(node: &Node, progress: &mut Progress) {
    let receiver = &journal::own().receiver;
    // All kernels have sent their messages, and have written the number to their journals.
    let sent_by = |k: usize| journal::of(k).sent[node.me].messages();
    let total: u64 = node.others().map(sent_by).sum();
    let mut watchdog = Watchdog::new(LOST_AFTER);
    loop {
        let (runs, arrivals) = (ENDPOINT.platform().runs(), progress.report());
        // If kernels were killed, messages in doubt can be missing. All kernels have sent everything. So if the drain finds
        // no message, no more will arrive.
        let nothing_left = node.options.kills.is_some() && ENDPOINT.drain() == NOTHING;
        if receiver.total() == total || nothing_left || watchdog.stalled(arrivals) {
            break;
        }
        ENDPOINT.platform().sleep(runs);
    }
    progress.end();
    node.reach(RECEIVED);
    node.wait_for_all(RECEIVED, "not all kernels have received", || {});
}

/// Prints the record of the messages from kernel `from`. Returns whether all of them, except those in doubt, came once,
/// intact and in order.
fn report_received(node: &Node, from: usize) -> bool {
    let sent = &journal::of(from).sent[node.me];
    let Findings { received, lost, torn, doubled, disordered } = journal::own().receiver.findings(from, sent);
    record!(
        "{{\"received\":{{\"from\":{from},\"to\":{},\"mode\":\"{}\",\"generation\":\"{}\",\
         \"received\":{received},\"lost\":{lost},\"torn\":{torn},\"doubled\":{doubled},\
         \"disordered\":{disordered}}}}}",
        node.me,
        node.options.mode,
        node.options.generation,
    );
    [lost, torn, doubled, disordered] == [0; 4]
}

/// Prints the record about the drain's fairness. Returns whether no stream waited for more calls than [`drains::allowed`].
fn report_drains(node: &Node) -> bool {
    let ((calls, longest), allowed) = (drains::found(), drains::allowed(node.kernels));
    record!(
        "{{\"drains\":{{\"kernel\":{},\"calls\":{calls},\"longest\":{longest},\"allowed\":{allowed}}}}}",
        node.me
    );
    longest <= allowed
}

/// Measures round trips, for one ordered pair of kernels after the other. The first kernel of the pair pings, the second one
/// answers, and all others wait.
fn round_trips(node: &Node, sent: &mut [Sent; MAX_KERNELS]) {
    let pairs =
        (0..node.kernels).flat_map(|f| (0..node.kernels).map(move |t| (f, t))).filter(|(f, t)| f != t);
    let mut heart = Heart::new();
    for ((from, to), step) in pairs.zip(FIRST_PAIR..) {
        if from == node.me {
            sent[to].trips = ping(node, to);
            node.reach(step);
        } else {
            node.wait("a round trip does not end", || {
                answer(node);
                if heart.beat(&ENDPOINT) {
                    node::follow();
                }
                control().step(from) >= step
            });
        }
    }
}

/// Sends one message. Returns false if there is no room for it now.
fn send(to: usize, ty: MessageType, message: &Payload) -> bool {
    match ENDPOINT.send(instance(to), ty, message.bytes()) {
        Ok(_) => true,
        Err(SendError::Busy | SendError::Full | SendError::Unanswered) => false,
        Err(e) => fatal!("sending to kernel {to}: {e:?}"),
    }
}

/// Answers the ping that was received, if there is one. Runs in the main program, not in a message handler.
fn answer(node: &Node) {
    let pinged = PINGED.load(Ordering::Acquire);
    if let Some(sender) = (pinged >> 32).checked_sub(1) {
        // All kernels together have one ping at a time, because its sender waits for the answer.
        PINGED.store(0, Ordering::Relaxed);
        let pong = Payload::new(pinged & 0xffff_ffff, node.me as u32);
        node.wait("no room for the answer to a ping", || send(sender as usize, PONG, &pong));
    }
}

/// Pings kernel `to`, one ping at a time. Returns the shortest round trip, the median, and the 99th percentile, in units of the
/// clock.
fn ping(node: &Node, to: usize) -> [u64; 3] {
    let mut trips = [0; MAX_TRIPS];
    let trips = &mut trips[..(node.options.messages as usize).min(MAX_TRIPS)];
    PONGED.store(0, Ordering::Relaxed);
    for (number, trip) in (0u64..).zip(trips.iter_mut()) {
        let ping = Payload::new(number, node.me as u32);
        let start = clock::now();
        node.wait("no room for a ping", || send(to, PING, &ping));
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
    let in_doubt = journal::own().sent[to].in_doubt().count();
    record!(
        "{{\"sent\":{{\"from\":{},\"to\":{to},\"mode\":\"{}\",\"generation\":\"{}\",\
         \"sent\":{},\"doorbells\":{},\"busy\":{},\"in_doubt\":{in_doubt},\
         \"rtt_cycles\":{{\"min\":{min},\"median\":{median},\"p99\":{p99}}}}}}}",
        node.me,
        node.options.mode,
        node.options.generation,
        sent.messages,
        sent.doorbells,
        sent.busy
    );
}
