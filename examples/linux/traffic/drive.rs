// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the traffic test on the host. It resets all kernels, orders their streams, sends its own streams, waits for the end
//! of all streams, and then orders the pings.
//!
//! A kernel that is stopped during the run drops out of it, also if its next life runs.

use super::{deaths, inbox, report, Plan, PROGRESS};
use crate::failure::{failure, refuse, Result};
use crate::order::{Order, OrderKind, Query, Report, Reset, ORDER, PING, QUERY, RESET, STREAM};
use crate::payload::Payload;
use crate::peers::MAX_INSTANCES;
use crate::platform::ENDPOINT;
use crate::{ffi, host, peers, start};
use kernel::prelude::*;
use mk_ipi_core::abi::{Incarnation, InstanceId, MessageType};
use mk_ipi_core::sync::{spin_hint, AtomicU32, Ordering};
use mk_ipi_x86::Microseconds;

/// How many messages are sent to one kernel before it is the turn of the next kernel. The kernel gets at most one doorbell
/// for them. This is for the native link. With slots (RFC v2), one message is sent.
const BURST: usize = 32;
/// The sender sleeps after this many turns of all kernels in which nothing could be sent.
const IDLE_SWEEPS: u32 = 100;
/// The sender sleeps after this many turns of all kernels in any case, because some Linux kernels do not preempt it.
const SWEEPS: u32 = 1000;
/// A run fails after this many nanoseconds without progress. A Linux with debug checks boots in a shorter time.
const PATIENCE: u64 = 90_000_000_000;
/// How long to wait for the next life of a kernel that was killed. A Linux must boot in this time.
const REBIRTH: Microseconds = Microseconds(120_000_000);

/// Number of the last run.
static RUN: AtomicU32 = AtomicU32::new(0);

/// The time in nanoseconds, by Linux's monotonic clock.
pub fn now() -> u64 {
    // SAFETY: Linux keeps time while the module runs.
    unsafe { ffi::ktime_get() }.unsigned_abs()
}

/// Sleeps for a short time.
pub fn pause() {
    // SAFETY: process context.
    unsafe { ffi::usleep_range_state(50, 100, ffi::TASK_UNINTERRUPTIBLE) };
}

/// Detects that there was no progress for the time `PATIENCE`.
struct Watchdog {
    /// The largest progress that was seen.
    seen: u64,
    /// The time at which it was seen first.
    since: u64,
}

impl Watchdog {
    fn new() -> Self {
        Self { seen: 0, since: now() }
    }

    fn check(&mut self, progress: u64, what: &str) -> Result {
        // SAFETY: it only reads the state of the current task.
        if unsafe { ffi::mk_ipi_glue_signal_pending() } {
            return refuse!(EINTR, "interrupted while {what}");
        }
        if self.is_over(progress) {
            return refuse!(ETIMEDOUT, "no progress while {what}");
        }
        Ok(())
    }

    /// Returns whether there was no progress for too long.
    ///
    /// Only a number that is larger than all earlier ones counts as progress. So a faulty peer whose numbers go up and down
    /// cannot keep the run from ending.
    fn is_over(&mut self, progress: u64) -> bool {
        let now = now();
        if self.seen < progress {
            (self.seen, self.since) = (progress, now);
        }
        now.saturating_sub(self.since) > PATIENCE
    }
}

/// Sends a message, and waits for room if there is none. Returns false if the kernel has dropped out.
fn send(to: &Peer, ty: MessageType, payload: &[u8]) -> Result<bool> {
    let mut watchdog = Watchdog::new();
    loop {
        match ENDPOINT.send(to.id, ty, payload) {
            Ok(_) => return Ok(true),
            Err(e) if !e.is_transient() => return refuse!(EIO, "to instance {}: {e:?}", to.id.get()),
            Err(_) if !to.lives() => return Ok(false),
            Err(_) => watchdog.check(0, "a kernel accepts no order")?,
        }
        inbox::answer_all();
        pause();
    }
}

/// A kernel of the run, and this kernel's stream to it.
struct Peer {
    id: InstanceId,
    /// The incarnation of the kernel at the beginning of the run.
    life: Incarnation,
    /// True if the kernel is on the native link.
    native: bool,
    /// How many messages of the stream were sent.
    sent: u64,
    /// How often a message could not be sent, because there was no room.
    busy: u64,
    /// How often this kernel had rung the doorbell of that kernel before the run.
    rung_before: u64,
    /// True if this kernel waits for space in the lane.
    waits: bool,
    /// True if all messages of the stream were sent.
    over: bool,
}

impl Peer {
    fn new(id: InstanceId) -> Result<Self> {
        let Some(life) = life_of(id) else { return refuse!(ENOENT, "instance {} does not run", id.get()) };
        let rung_before = ENDPOINT.lane_stats(id).map(|l| l.rung);
        let (native, rung_before) = (rung_before.is_ok(), rung_before.unwrap_or(0));
        Ok(Self { id, life, native, sent: 0, busy: 0, rung_before, waits: false, over: false })
    }

    /// Returns whether the kernel still runs in the incarnation in which it began the run.
    fn lives(&self) -> bool {
        life_of(self.id) == Some(self.life)
    }

    fn doorbells(&self) -> u64 {
        match ENDPOINT.lane_stats(self.id) {
            Ok(lane) => lane.rung.wrapping_sub(self.rung_before),
            Err(_) => self.sent,
        }
    }

    /// Sends up to `BURST` messages, or one message into a slot, if there is room. Returns whether any message was sent.
    /// Sends nothing if the kernel was stopped during the run.
    fn turn(&mut self, messages: u64) -> Result<bool> {
        if deaths::is_over(self.id) {
            return Ok(false);
        }
        if self.waits {
            self.waits = !inbox::from(self.id).is_some_and(|f| f.space.swap(false, Ordering::AcqRel));
        }
        self.over = self.sent >= messages;
        if self.over || self.waits {
            return Ok(false);
        }
        let before = self.sent;
        let burst = if self.native { BURST } else { 1 };
        let mut full = false;
        while !full && self.sent < messages && self.sent - before < burst as u64 {
            full = !self.next()?;
        }
        if self.native && self.sent != before {
            ENDPOINT.flush(self.id).map_err(|e| failure!(EIO, "ringing {}: {e:?}", self.id.get()))?;
        }
        if full && self.native {
            let len = self.payload().bytes().len();
            self.waits = ENDPOINT.want_space(self.id, len) == Ok(false);
        }
        Ok(self.sent != before)
    }

    /// The payload of the next message.
    fn payload(&self) -> Payload {
        Payload::new(self.sent, InstanceId::HOST.get().into())
    }

    /// Sends the next message. Returns whether there was room.
    fn next(&mut self) -> Result<bool> {
        let payload = self.payload();
        let sent = if self.native {
            ENDPOINT.post(self.id, STREAM, payload.bytes())
        } else {
            ENDPOINT.send(self.id, STREAM, payload.bytes())
        };
        crate::callback::trace_sent(
            self.id.get(),
            STREAM.0,
            payload.bytes().len(),
            sent.map_or_else(|e| e.errno().to_c(), |_| 0),
        );
        match sent {
            Ok(number) => {
                deaths::note(self.id, self.sent, number);
                self.sent += 1;
            }
            Err(e) if e.is_transient() => self.busy += 1,
            Err(e) => return refuse!(EIO, "to instance {}: {e:?}", self.id.get()),
        }
        Ok(sent.is_ok())
    }
}

/// The incarnation of the kernel of `id`, if it runs.
fn life_of(id: InstanceId) -> Option<Incarnation> {
    host::with(|host| host.instances().find(|(i, _)| *i == id).and_then(|(_, i)| i.life()))
}

/// Asks the kernel `of` for its report about its messages to and from `about`. Returns `None` if it has dropped out.
fn ask(of: &Peer, about: InstanceId, run: u32) -> Result<Option<Report>> {
    inbox::expect_report(of.id);
    let query = Query { from: InstanceId::HOST, about };
    if !send(of, QUERY, &query.encode())? {
        return Ok(None);
    }
    let mut watchdog = Watchdog::new();
    loop {
        match inbox::report_of(of.id) {
            // This is a late answer to an earlier question.
            Some(report) if report.about != about || report.run != run => inbox::expect_report(of.id),
            Some(report) => return Ok(Some(report)),
            None => {}
        }
        if !of.lives() {
            return Ok(None);
        }
        watchdog.check(0, "a kernel gives no report")?;
        inbox::answer_all();
        pause();
    }
}

/// The kernels of a run.
struct Peers {
    all: [Option<Peer>; MAX_INSTANCES],
    /// The kernels of `all` that have dropped out: one bit for each.
    dead: u32,
    run: u32,
}

impl Peers {
    fn is_dead(&self, id: InstanceId) -> bool {
        self.dead & 1 << id.index() != 0
    }

    fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.all.iter().flatten().filter(|peer| !self.is_dead(peer.id))
    }

    /// Marks a kernel as dead if it does not run any more in the incarnation in which it began the run.
    fn drop_dead(&mut self) {
        let dead = self.iter().filter(|peer| !peer.lives()).fold(0, |dead, peer| dead | 1 << peer.id.index());
        self.dead |= dead;
    }

    fn get(&self, id: InstanceId) -> Option<&Peer> {
        self.iter().find(|peer| peer.id == id)
    }

    /// The kernels that have dropped out.
    fn dead(&self) -> impl Iterator<Item = &Peer> {
        self.all.iter().flatten().filter(|peer| self.is_dead(peer.id))
    }
}

/// Does a complete run.
pub fn run(plan: &Plan) -> Result {
    report::clear();
    let mut peers = Peers { all: [const { None }; MAX_INSTANCES], dead: 0, run: 0 };
    for id in plan.others() {
        deaths::begin(id);
        let peer = Peer::new(id)?;
        if let Some(place) = peers.all.get_mut(id.index()) {
            *place = Some(peer);
        }
    }
    let others = plan.others().count() as u64;
    for (word, value) in PROGRESS.iter().zip([0, plan.messages * others * 2]) {
        word.store(value, Ordering::Relaxed);
    }
    // All kernels are reset twice. During the first reset, a kernel that is not reset yet can still send messages of the last
    // run to a kernel that is reset already. Before the second reset no kernel sends any more.
    peers.run = next_run();
    reset(&peers)?;
    wait_for_quiet(plan, &peers)?;
    peers.run = next_run();
    reset(&peers)?;
    order_streams(plan, &peers)?;
    stream(plan, &mut peers)?;
    settle(plan, &mut peers)?;
    pings(plan, &mut peers)?;
    peers.drop_dead();
    for dead in peers.dead() {
        account_for(dead, plan, &peers)?;
    }
    Ok(())
}

/// Returns the number of a new run.
fn next_run() -> u32 {
    RUN.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1)
}

/// Makes all kernels begin the run. This ends their streams of former runs.
fn reset(peers: &Peers) -> Result {
    inbox::reset();
    let run = peers.run;
    for peer in peers.iter() {
        let sent = send(peer, RESET, &Reset { run }.encode())?;
        if !sent || ask(peer, InstanceId::HOST, run)?.is_none() {
            return refuse!(EIO, "instance {} does not begin the run", peer.id.get());
        }
    }
    Ok(())
}

/// Waits until no kernel receives messages of a stream any more.
fn wait_for_quiet(plan: &Plan, peers: &Peers) -> Result {
    let (mut before, mut watchdog) = (None, Watchdog::new());
    loop {
        let mut received = progress(peers);
        for (of, about) in pairs(plan).filter(|(of, _)| *of != InstanceId::HOST) {
            received = received.wrapping_add(one(peers, of, about)?.map_or(0, |report| report.received));
        }
        if before == Some(received) {
            return Ok(());
        }
        before = Some(received);
        watchdog.check(0, "a former run ends")?;
        // SAFETY: process context.
        unsafe { ffi::msleep(20) };
    }
}

fn order_streams(plan: &Plan, peers: &Peers) -> Result {
    for peer in peers.iter() {
        for to in plan.kernels().filter(|to| *to != peer.id) {
            let order = Order { kind: OrderKind::Stream, to, count: plan.messages, run: peers.run };
            send(peer, ORDER, &order.encode())?;
        }
    }
    Ok(())
}

/// Sends this kernel's own streams, to all at once.
fn stream(plan: &Plan, peers: &mut Peers) -> Result {
    let (mut idle, mut sweeps, mut watchdog) = (0, 0, Watchdog::new());
    loop {
        let mut moved = false;
        for peer in peers.all.iter_mut().flatten() {
            moved |= peer.turn(plan.messages)?;
        }
        if peers.iter().all(|p| p.over || deaths::is_over(p.id)) {
            return Ok(());
        }
        idle = if moved { 0 } else { idle + 1 };
        sweeps += 1;
        spin_hint();
        if idle > IDLE_SWEEPS || sweeps > SWEEPS {
            (idle, sweeps) = (0, 0);
            peers.drop_dead();
            pause();
        }
        watchdog.check(progress(peers), "the streams run")?;
    }
}

/// Stores the progress for the file `traffic`. Returns a number that grows with each message that this kernel sends or
/// receives.
fn progress(peers: &Peers) -> u64 {
    let sent = peers.all.iter().flatten().fold(0u64, |sum, p| sum.wrapping_add(p.sent));
    let received = (0..MAX_INSTANCES as u8).filter_map(|id| inbox::from(InstanceId::new(id)));
    let done = received.fold(sent, |sum, from| sum.wrapping_add(from.check.counts().received));
    let [word, _] = &PROGRESS;
    word.store(done, Ordering::Relaxed);
    done
}

/// Waits, for each direction, until the receiver has got the complete stream, or gets no more messages. Then stores the
/// results.
fn settle(plan: &Plan, peers: &mut Peers) -> Result {
    for (from, to) in pairs(plan) {
        let mut watchdog = Watchdog::new();
        loop {
            // The next life of a kernel that was killed reports about another run, so it must not be asked.
            peers.drop_dead();
            let Some((sent, received)) = both(peers, from, to)? else { break };
            // A peer reports these numbers, so they can have any value.
            let moved = [sent.sent, received.received].map(|n| n.min(plan.messages));
            let moved = moved.into_iter().fold(progress(peers), u64::wrapping_add);
            let ended = !sent.still_sending && sent.sent >= plan.messages;
            let whole = received.received.saturating_add(received.torn) >= sent.sent;
            if ended && (whole || watchdog.is_over(moved)) {
                report::keep(from, to, Some(sent), received);
                break;
            }
            watchdog.check(moved, "the streams end")?;
            pause();
        }
    }
    Ok(())
}

/// Waits for the next life of the killed kernel `dead`, asks it for its reports, and stores how many messages were lost in
/// the streams to and from `dead`. Does nothing with slots (RFC v2), or if there is no next life.
fn account_for(dead: &Peer, plan: &Plan, peers: &Peers) -> Result {
    // When the next life is up, the link has reported the messages in doubt.
    let is_up =
        || peers::sign(dead.id) == peers::Sign::Up && life_of(dead.id).is_some_and(|l| l != dead.life);
    if !dead.native || !start::wait_until(REBIRTH, is_up) {
        return Ok(());
    }
    let next = Peer::new(dead.id)?;
    let mut others = plan.kernels().filter(|id| *id != dead.id && !peers.is_dead(*id));
    others.try_for_each(|other| account_between(dead, &next, other, peers))
}

/// Stores how many messages were lost between the killed kernel `dead` and the kernel `other`, which was not killed.
fn account_between(dead: &Peer, next: &Peer, other: InstanceId, peers: &Peers) -> Result {
    let mut watchdog = Watchdog::new();
    loop {
        let theirs = if other == InstanceId::HOST {
            Some(report::own(dead.id, peers.run, dead.sent, dead.doorbells(), dead.busy))
        } else {
            one(peers, other, dead.id)?
        };
        // The next life was not told the number of a run, so its run is 0.
        let (Some(mut sent), Some(mut got)) = (theirs, ask(next, other, 0)?) else { return Ok(()) };
        let had = had_before(dead, other, &mut sent, &mut got);
        let moved = [sent.sent, had, got.received].into_iter().fold(0, u64::wrapping_add);
        let whole = had.saturating_add(got.received).saturating_add(got.torn) >= sent.sent;
        if !sent.still_sending && (whole || watchdog.is_over(moved)) {
            got.received = had.saturating_sub(sent.in_doubt).saturating_add(got.received);
            report::keep_once(other, dead.id, Some(sent), got);
            report::keep_once(dead.id, other, None, sent);
            return Ok(());
        }
        watchdog.check(moved, "the next life of a kernel reads its messages")?;
        pause();
    }
}

/// Returns how many messages the killed life of `dead` had received from the stream of `other`. `sent` is the report of
/// `other`, and `got` the report of the next life. For the stream of this kernel, the link knows this number. Messages that
/// both lives received then count as doubled. For the stream of another kernel, the number is the position of the first
/// message that the next life received. If the next life received none, it is the number of messages that were sent.
fn had_before(dead: &Peer, other: InstanceId, sent: &mut Report, got: &mut Report) -> u64 {
    if other != InstanceId::HOST {
        return if got.received == 0 { sent.sent } else { got.first };
    }
    let (had, in_doubt) = deaths::taken(dead.id, dead.sent);
    sent.in_doubt = in_doubt.into();
    if got.received != 0 {
        got.doubled = got.doubled.saturating_add(had.saturating_sub(got.first));
    }
    had
}

/// All directions of the run: pairs of the sender and the receiver.
fn pairs(plan: &Plan) -> impl Iterator<Item = (InstanceId, InstanceId)> {
    let plan = *plan;
    plan.kernels().flat_map(move |from| plan.kernels().map(move |to| (from, to))).filter(|(f, t)| f != t)
}

/// The reports of both ends of a direction. `None` if one of them has dropped out.
fn both(peers: &Peers, from: InstanceId, to: InstanceId) -> Result<Option<(Report, Report)>> {
    Ok(one(peers, from, to)?.zip(one(peers, to, from)?))
}

/// The report of `me` about its messages to and from `about`. `None` if `me` has dropped out.
fn one(peers: &Peers, me: InstanceId, about: InstanceId) -> Result<Option<Report>> {
    if me == InstanceId::HOST {
        return Ok(peers
            .get(about)
            .map(|peer| report::own(peer.id, peers.run, peer.sent, peer.doorbells(), peer.busy)));
    }
    let Some(peer) = peers.get(me) else { return Ok(None) };
    ask(peer, about, peers.run)
}

/// Orders the pings of each direction, and waits for their end, one direction after the other.
fn pings(plan: &Plan, peers: &mut Peers) -> Result {
    for (from, to) in pairs(plan).filter(|_| plan.pings != 0) {
        peers.drop_dead();
        let trips = match (peers.get(from), peers.get(to)) {
            (None, Some(peer)) if from == InstanceId::HOST => ping(peer, plan.pings, peers.run)?,
            (Some(peer), to_peer) if to == InstanceId::HOST || to_peer.is_some() => {
                let order = Order { kind: OrderKind::Pings, to, count: plan.pings, run: peers.run };
                send(peer, ORDER, &order.encode())?;
                wait_for_pings(peers, from, to, plan.pings)?
            }
            _ => None,
        };
        if let Some(trips) = trips {
            report::keep_trips(from, to, trips);
        }
    }
    Ok(())
}

fn wait_for_pings(peers: &Peers, from: InstanceId, to: InstanceId, pings: u64) -> Result<Option<[u64; 3]>> {
    let mut watchdog = Watchdog::new();
    loop {
        let Some(report) = one(peers, from, to)? else { return Ok(None) };
        if report.pings >= pings && !report.still_sending {
            return Ok(Some([report.rtt_min, report.rtt_median, report.rtt_p99]));
        }
        watchdog.check(report.pings.min(pings), "a kernel pings")?;
        pause();
    }
}

/// Does this kernel's own pings to `to`, in process context. Returns the minimum, the median and the 99th percentile of the
/// round trips, in cycles of the time stamp counter.
fn ping(to: &Peer, pings: u64, run: u32) -> Result<Option<[u64; 3]>> {
    let mut trips =
        KVec::with_capacity(pings as usize, GFP_KERNEL).map_err(|_| failure!(ENOMEM, "no memory"))?;
    let Some(from) = inbox::from(to.id) else { return Ok(None) };
    for number in 0..pings {
        let number = u64::from(run) << 32 | number;
        let ping = Payload::new(number, InstanceId::HOST.get().into());
        let start = cycles();
        if !send(to, PING, ping.bytes())? {
            return Ok(None);
        }
        let (mut watchdog, mut turns) = (Watchdog::new(), 0u32);
        while from.ponged.load(Ordering::Acquire) != number + 1 {
            spin_hint();
            turns = turns.wrapping_add(1);
            if turns % 10_000 == 0 {
                watchdog.check(0, "a ping is not answered")?;
                if !to.lives() {
                    return Ok(None);
                }
                pause();
            }
        }
        // The task can have moved to another CPU with a lower counter, so the difference can be negative.
        trips.push(cycles().saturating_sub(start), GFP_KERNEL).map_err(|_| failure!(ENOMEM, "no memory"))?;
    }
    trips.sort_unstable();
    let at = |percent: usize| trips.get(trips.len() * percent / 100).copied().unwrap_or(0);
    Ok(Some([at(0), at(50), at(99)]))
}

/// Reads the time stamp counter of this CPU.
pub fn cycles() -> u64 {
    // SAFETY: every x86-64 CPU has this instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}
