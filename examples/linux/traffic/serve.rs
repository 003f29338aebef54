// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serve mode of a Linux that a host started: a thread does the orders of the host's traffic test
//! (examples/bare-metal/src/order.rs), until the module is unloaded.
//!
//! Message handlers store orders and questions, with interrupts off. The thread carries out the orders and answers the
//! questions, turn by turn. Within a turn it never waits for another kernel.

use super::{drive, inbox, report};
use crate::failure::{check, Result};
use crate::lock::Locked;
use crate::order::{
    Order, OrderKind, Query, Report, Reset, MAX_PINGS, ORDER, PING, QUERY, REPORT, RESET, STREAM,
};
use crate::payload::Payload;
use crate::peers::MAX_INSTANCES;
use crate::platform::ENDPOINT;
use crate::{ffi, stop};
use core::ffi::{c_int, c_void};
use mk_ipi_core::abi::{InstanceId, MessageType};
use mk_ipi_core::platform::PeerEvent;
use mk_ipi_core::sync::{AtomicU32, AtomicU64, Ordering};
use mk_ipi_core::Message;

/// How many messages are sent to one kernel in one turn. The kernel gets at most one doorbell for them.
const BURST: u64 = 32;
/// A ping without an answer is sent again after this many nanoseconds, because the other kernel can have been restarted.
const PING_AGAIN: u64 = 2_000_000_000;
/// The thread sleeps for a short time after this many turns, so that other tasks can use the CPU.
const TURNS: u32 = 1000;

/// What message handlers have stored for the thread, about one kernel.
struct News {
    /// How many messages this kernel is ordered to send to that kernel, in addition to earlier orders.
    stream: AtomicU64,
    /// How many pings this kernel is ordered to do with that kernel, plus 1; 0 if there is no new order.
    pings: AtomicU64,
    /// The questions of that kernel that are not answered yet: one bit for each kernel about which it asks.
    asked: AtomicU64,
    /// How many messages to that kernel are in doubt, in this run.
    in_doubt: AtomicU64,
}

static NEWS: [News; MAX_INSTANCES] = [const {
    let [stream, pings, in_doubt] = [const { AtomicU64::new(0) }; 3];
    News { stream, pings, asked: AtomicU64::new(0), in_doubt }
}; MAX_INSTANCES];

/// The number of the last run that the host has begun; 0 if it has begun none in this life.
static RUN: AtomicU32 = AtomicU32::new(0);

/// The thread's work with one other kernel.
struct Peer {
    /// How many messages were ordered.
    ordered: u64,
    /// How many messages were sent.
    sent: u64,
    /// How often a message could not be sent, because there was no room.
    busy: u64,
    /// How often this kernel had rung the doorbell of that kernel before the run.
    rung_before: u64,
    /// True if the thread waits for space in the lane.
    waits: bool,
    /// How many pings were ordered.
    pings: u64,
    /// The time at which the unanswered ping was sent, in nanoseconds and in cycles; `None` if there is no such ping.
    asked_at: Option<(u64, u64)>,
    /// How many pings were answered.
    done: usize,
    /// The round trips of these pings, in cycles.
    trips: [u64; MAX_PINGS as usize],
}

struct Server {
    run: u32,
    peers: [Peer; MAX_INSTANCES],
}

// SAFETY: no other `Locked` has the number 4.
static SERVER: Locked<Server> = unsafe {
    const NEW: Peer = Peer {
        ordered: 0,
        sent: 0,
        busy: 0,
        rung_before: 0,
        waits: false,
        pings: 0,
        asked_at: None,
        done: 0,
        trips: [0; MAX_PINGS as usize],
    };
    Locked::new(4, Server { run: 0, peers: [NEW; MAX_INSTANCES] })
};

fn news(id: InstanceId) -> Option<&'static News> {
    NEWS.get(id.index())
}

fn on_reset(message: &Message<'_>) {
    let Some(Reset { run }) = Reset::decode(message.payload()) else { return };
    if run == RUN.load(Ordering::Relaxed) {
        return;
    }
    inbox::reset();
    for news in &NEWS {
        for word in [&news.stream, &news.pings, &news.in_doubt] {
            word.store(0, Ordering::Relaxed);
        }
    }
    RUN.store(run, Ordering::Release);
}

fn on_order(message: &Message<'_>) {
    let Some(order) = Order::decode(message.payload()) else { return };
    let Some(news) = news(order.to).filter(|_| order.run == RUN.load(Ordering::Relaxed)) else { return };
    match order.kind {
        OrderKind::Stream => _ = news.stream.fetch_add(order.count, Ordering::Relaxed),
        OrderKind::Pings => news.pings.store(order.count.min(MAX_PINGS) + 1, Ordering::Relaxed),
    }
}

fn on_query(message: &Message<'_>) {
    let Some(Query { from, about }) = Query::decode(message.payload()) else { return };
    if message.sender() != Some(from) || about.index() >= MAX_INSTANCES {
        return;
    }
    if let Some(news) = news(from) {
        news.asked.fetch_or(1 << about.index(), Ordering::Release);
    }
}

/// Called for each event of a peer.
pub fn on_event(id: InstanceId, event: PeerEvent) {
    if let (Some(news), PeerEvent::InDoubt { .. }) = (news(id), event) {
        news.in_doubt.fetch_add(1, Ordering::Relaxed);
    }
}

impl Peer {
    fn begin(&mut self, id: InstanceId) {
        (self.ordered, self.sent, self.busy, self.waits) = (0, 0, 0, false);
        (self.pings, self.asked_at, self.done) = (0, None, 0);
        self.rung_before = rung(id);
    }

    fn streams(&self) -> bool {
        self.sent < self.ordered
    }

    /// Sends up to `BURST` messages of the stream, as many as there is room for. Returns true if any message was sent and the
    /// doorbell could be rung.
    fn stream(&mut self, id: InstanceId) -> bool {
        if self.waits {
            self.waits = !inbox::from(id).is_some_and(|f| f.space.swap(false, Ordering::AcqRel));
        }
        let before = self.sent;
        while !self.waits && self.streams() && self.sent - before < BURST {
            let payload = Payload::new(self.sent, super::me().get().into());
            match ENDPOINT.post(id, STREAM, payload.bytes()) {
                Ok(_) => self.sent += 1,
                Err(e) if e.is_transient() => {
                    self.busy += 1;
                    self.waits = ENDPOINT.want_space(id, payload.bytes().len()) == Ok(false);
                    break;
                }
                // There is no such kernel (any more).
                Err(_) => break,
            }
        }
        // If the doorbell could not be rung, the other kernel finds the messages with its next tick.
        self.sent != before && ENDPOINT.flush(id).is_ok()
    }

    /// Takes the answer to the last ping, or sends the next ping. Returns whether pings are still to be done.
    fn ping(&mut self, id: InstanceId, run: u32) -> bool {
        if self.done as u64 >= self.pings {
            return false;
        }
        let number = u64::from(run) << 32 | self.done as u64;
        let (now, cycles) = (drive::now(), drive::cycles());
        let is_answered = inbox::from(id).is_some_and(|f| f.ponged.load(Ordering::Acquire) == number + 1);
        match self.asked_at {
            Some((_, at)) if is_answered => {
                if let Some(trip) = self.trips.get_mut(self.done) {
                    *trip = cycles.saturating_sub(at);
                }
                (self.asked_at, self.done) = (None, self.done + 1);
            }
            Some((at, _)) if now.saturating_sub(at) < PING_AGAIN => {}
            _ => {
                let ping = Payload::new(number, super::me().get().into());
                self.asked_at = ENDPOINT.send(id, PING, ping.bytes()).ok().map(|_| (now, cycles));
            }
        }
        true
    }

    fn report(&mut self, id: InstanceId, run: u32) -> Report {
        let trips = self.trips.get_mut(..self.done).unwrap_or(&mut []);
        trips.sort_unstable();
        let at = |percent: usize| trips.get(trips.len() * percent / 100).copied().unwrap_or(0);
        let [rtt_min, rtt_median, rtt_p99] = [at(0), at(50), at(99)];
        let doorbells = rung(id).wrapping_sub(self.rung_before);
        Report {
            in_doubt: news(id).map_or(0, |news| news.in_doubt.load(Ordering::Relaxed)),
            pings: self.done as u64,
            rtt_min,
            rtt_median,
            rtt_p99,
            still_sending: self.streams() || (self.done as u64) < self.pings,
            ..report::own(id, run, self.sent, doorbells, self.busy)
        }
    }
}

fn rung(id: InstanceId) -> u64 {
    ENDPOINT.lane_stats(id).map_or(0, |lane| lane.rung)
}

fn ids() -> impl Iterator<Item = InstanceId> {
    (0..MAX_INSTANCES as u8).map(InstanceId::new)
}

impl Server {
    /// Does one turn: all that can be done now, without waiting. Returns whether anything was done.
    fn turn(&mut self) -> bool {
        let run = RUN.load(Ordering::Acquire);
        if run != self.run {
            self.run = run;
            ids().zip(&mut self.peers).for_each(|(id, peer)| peer.begin(id));
        }
        let mut moved = false;
        for id in ids().filter(|id| *id != super::me()) {
            moved |= self.report_to(id);
            let (Some(peer), Some(news)) = (self.peers.get_mut(id.index()), news(id)) else { continue };
            peer.ordered = peer.ordered.saturating_add(news.stream.swap(0, Ordering::Relaxed));
            if let Some(pings) = news.pings.swap(0, Ordering::Relaxed).checked_sub(1) {
                (peer.pings, peer.done, peer.asked_at) = (pings, 0, None);
            }
            moved |= peer.ping(id, run) | peer.stream(id);
        }
        inbox::answer_all();
        moved
    }

    /// Answers one question of `id`, if there is one. Returns whether a report was sent.
    fn report_to(&mut self, id: InstanceId) -> bool {
        let (Some(news), run) = (news(id), self.run) else { return false };
        let asked = news.asked.load(Ordering::Acquire);
        if RUN.load(Ordering::Relaxed) != run {
            // The question can be about a run that this thread has not begun yet.
            return false;
        }
        let Some(about) = ids().find(|about| asked & 1 << about.index() != 0) else { return false };
        let Some(peer) = self.peers.get_mut(about.index()) else { return false };
        // The bit is cleared before the report is sent, because the other kernel can ask again as soon as it has the report.
        news.asked.fetch_and(!(1 << about.index()), Ordering::AcqRel);
        let sent = ENDPOINT.send(id, REPORT, &peer.report(about, run).encode()).is_ok();
        if !sent {
            news.asked.fetch_or(1 << about.index(), Ordering::Relaxed);
        }
        sent
    }
}

/// The thread.
#[no_mangle]
extern "C" fn mk_ipi_rs_serve(_: *mut c_void) -> c_int {
    SERVER.with(|server| {
        let mut turns = 0u32;
        // SAFETY: this runs in the thread that the call asks about.
        while !unsafe { ffi::mk_ipi_glue_should_stop() } {
            turns = turns.wrapping_add(1);
            if stop::is_over() || !server.turn() || turns % TURNS == 0 {
                drive::pause();
            }
        }
    });
    0
}

/// Starts the thread, if it does not run already.
pub fn begin() -> Result {
    // SAFETY: process context; `end` stops it.
    check(
        unsafe { ffi::mk_ipi_glue_start_serving() },
        format_args!("the thread of serve mode cannot be started"),
    )
    .map(drop)
}

/// Stops the thread, if it was started, and waits for its end.
pub fn end() {
    // SAFETY: process context; the thread takes no lock that is held here.
    unsafe { ffi::mk_ipi_glue_stop_serving() };
}

/// The handlers of orders and questions. They are also registered before serve mode begins, because the host does not
/// repeat a message that was handled.
pub const HANDLERS: [(MessageType, fn(&Message<'_>)); 3] =
    [(RESET, on_reset), (ORDER, on_order), (QUERY, on_query)];
