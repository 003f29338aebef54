// SPDX-License-Identifier: MIT OR Apache-2.0
//! The work of a kernel that serves (serve.rs): it sends the streams, pings, answers and reports that other kernels asked for. It
//! works for all these kernels at the same time.
//!
//! No code here waits. A message that cannot be sent now is kept, and the next turn tries again.

use crate::clock::{self, SECOND};
use crate::inbox::{self, News};
use crate::order::{Report, MAX_INSTANCES, MAX_PINGS, PING, PONG, REPORT, STREAM};
use crate::payload::Payload;
use crate::platform::Kernel;
use crate::serve::{self, Change, Peers, SERVER};
use crate::stream::{BURST, BUSY_SWEEPS};
use mk_ipi_abi::directory::Layout;
use mk_ipi_abi::{InstanceId, MessageType};
use mk_ipi_core::sync::spin_hint;
use mk_ipi_core::SendError;
use spin::Mutex;

/// A ping is sent again if it is not answered within this time, because its receiver may have died.
const PING_AGAIN: u64 = 2 * SECOND;

/// The only object of this type. It is a `static`, because it is too large for a stack. The main program locks it once, at
/// its start.
pub static REQUESTS: Mutex<Requests> = Mutex::new(Requests {
    me: InstanceId::HOST,
    run: 0,
    peers: [const { Peer::NEW }; MAX_INSTANCES],
    moved: false,
    blocked: false,
    sweeps: 0,
});

/// The requests of all kernels.
pub struct Requests {
    me: InstanceId,
    run: u32,
    peers: [Peer; MAX_INSTANCES],
    /// True if a message was sent in this turn, or can be sent in the next turn.
    moved: bool,
    /// True if a slot was occupied in this turn. No event reports that it has become free.
    blocked: bool,
    /// The number of turns in a row in which a slot was occupied and no message was sent.
    sweeps: u32,
}

/// What must be sent to one other kernel. The initial value has only zero bits, so the image file does not contain it.
struct Peer {
    /// The number of stream messages that were ordered in this run.
    ordered: u64,
    /// The number of stream messages that were sent in this run. It is also the sequence number of the next one.
    sent: u64,
    /// The next stream message, if it is already built.
    next: Option<Payload>,
    /// True if the lane is full. An event reports when it has space.
    waiting: bool,
    pings: Pings,
    /// The number of a ping from that kernel that must be answered.
    pong: Option<u64>,
    /// The instances about which that kernel asked for a report: one bit for each.
    asked: u64,
    /// The use of that kernel's slot in this run (RFC v2).
    slot: Usage,
    /// The lane's counters when this run began.
    lane_before: Usage,
}

/// Counters of the sends to a peer.
#[derive(Clone, Copy)]
struct Usage {
    /// How often the slot was occupied, or the lane full.
    busy: u64,
    /// How often the doorbell was rung.
    doorbells: u64,
}

/// A series of pings.
struct Pings {
    /// The length of the series.
    ordered: u64,
    /// The number of pings that were answered.
    done: usize,
    /// The time at which the unanswered ping was last sent.
    asked: Option<u64>,
    /// The round trips, in units of the clock.
    trips: [u64; MAX_PINGS as usize],
}

/// The result of a send.
enum Outcome {
    Sent,
    /// The slot is occupied.
    Busy,
    /// The lane has no space, or there is no receiver. An event reports the change.
    Full,
    /// Sending to this kernel cannot succeed.
    Refused(SendError),
}

impl<T> From<Result<T, SendError>> for Outcome {
    fn from(sent: Result<T, SendError>) -> Self {
        use SendError::{Busy, Contended, Full, Instance, NoRegion, NotRung, Unanswered};
        match sent {
            // If only the doorbell failed, the receiver finds the message in its next drain.
            Ok(_) | Err(NotRung(_)) => Self::Sent,
            Err(Busy | Contended) => Self::Busy,
            Err(Full | Unanswered | Instance(_) | NoRegion) => Self::Full,
            Err(e) => Self::Refused(e),
        }
    }
}

impl Usage {
    const NONE: Self = Self { busy: 0, doorbells: 0 };

    /// The counters of the lane to `id`. They count in all lives of this kernel. Zeros if there is no lane.
    fn of_lane(id: InstanceId) -> Self {
        let lane = SERVER.lane_stats(id);
        lane.map_or(Self::NONE, |lane| Self { busy: lane.full, doorbells: lane.rung })
    }
}

impl Pings {
    const NEW: Self = Self { ordered: 0, done: 0, asked: None, trips: [0; MAX_PINGS as usize] };

    fn are_over(&self) -> bool {
        self.done as u64 >= self.ordered
    }

    fn begin(&mut self, count: u64) {
        (self.ordered, self.done, self.asked) = (count.min(MAX_PINGS), 0, None);
    }

    /// The number of the ping that is not answered yet, or of the next ping.
    fn number(&self, run: u32) -> u64 {
        u64::from(run) << 32 | self.done as u64
    }

    fn answered(&mut self, at: u64) {
        if let (Some(asked), Some(trip)) = (self.asked.take(), self.trips.get_mut(self.done)) {
            *trip = at.wrapping_sub(asked);
            self.done += 1;
        }
    }

    /// The shortest round trip, the median, and the 99th percentile.
    fn percentiles(&self) -> [u64; 3] {
        let mut trips = self.trips;
        let trips = &mut trips[..self.done];
        trips.sort_unstable();
        [0, 50, 99].map(|percent| trips.get(trips.len() * percent / 100).copied().unwrap_or(0))
    }
}

impl Peer {
    const NEW: Self = Self {
        ordered: 0,
        sent: 0,
        next: None,
        waiting: false,
        pings: Pings::NEW,
        pong: None,
        asked: 0,
        slot: Usage::NONE,
        lane_before: Usage::NONE,
    };

    /// Begins a run: drops all orders and counters. Answers and reports that are due stay.
    fn begin(&mut self, id: InstanceId) {
        (self.ordered, self.sent, self.next, self.waiting) = (0, 0, None, false);
        self.pings.begin(0);
        (self.slot, self.lane_before) = (Usage::NONE, Usage::of_lane(id));
    }

    /// Drops all that is not sent yet. The counters stay.
    fn drop_all(&mut self) {
        (self.ordered, self.waiting, self.pong, self.asked) = (self.sent, false, None, 0);
        (self.pings.ordered, self.pings.asked) = (self.pings.done as u64, None);
    }

    fn streams(&self) -> bool {
        self.sent < self.ordered
    }
}

impl Requests {
    /// Begins without requests, in run 0. `me` is this kernel's id.
    pub fn begin(&mut self, me: InstanceId) {
        self.me = me;
        self.begin_run(0);
    }

    fn begin_run(&mut self, run: u32) {
        self.run = run;
        for (id, peer) in serve::ids().zip(&mut self.peers) {
            peer.begin(id);
        }
    }

    /// Follows the directory, and handles added and removed instances.
    pub fn look_around(&mut self, peers: &mut Peers) {
        peers.follow(|id, change| {
            let peer = self.peer(id);
            if matches!(change, Change::Went | Change::Replaced) {
                peer.drop_all();
            }
            if matches!(change, Change::Came | Change::Replaced) {
                peer.lane_before = Usage::of_lane(id);
            }
        });
    }

    /// Does all work that is possible now. Returns true if there is no more work before the next interrupt.
    pub fn turn(&mut self, peers: &mut Peers) -> bool {
        self.read_inbox(peers);
        (self.moved, self.blocked) = (false, false);
        let me = self.me;
        for id in serve::ids().filter(|&id| id != me) {
            // Answers and pings are few, so they are sent before the stream takes all space.
            self.answer(id);
            self.report(id);
            self.ping(id);
            self.stream(id);
        }
        if self.moved || !self.blocked {
            self.sweeps = 0;
            return !self.moved;
        }
        self.sweeps += 1;
        spin_hint();
        let idle = self.sweeps > BUSY_SWEEPS;
        if idle {
            self.sweeps = 0;
        }
        idle
    }

    fn read_inbox(&mut self, peers: &mut Peers) {
        loop {
            let (run, news) = inbox::next();
            if run != self.run {
                self.begin_run(run);
                log!("run {run}");
            }
            let Some((id, news)) = news else { return };
            if news.stream != 0 || news.pings.is_some() {
                // The sender of the order has read the present directory. So this kernel reads it, too, before it carries out the
                // order.
                self.look_around(peers);
            }
            self.take(id, &news);
        }
    }

    fn take(&mut self, id: InstanceId, news: &News) {
        let run = self.run;
        let peer = self.peer(id);
        peer.ordered = peer.ordered.saturating_add(news.stream);
        if let Some(pings) = news.pings {
            peer.pings.begin(pings);
        }
        if let Some((_, at)) = news.pong.filter(|(number, _)| *number == peer.pings.number(run)) {
            peer.pings.answered(at);
        }
        peer.pong = news.ping.or(peer.pong);
        peer.asked |= news.asked;
        peer.waiting &= !news.space;
    }

    /// The entry of `id`.
    fn peer(&mut self, id: InstanceId) -> &mut Peer {
        // All callers pass ids below `MAX_INSTANCES`.
        &mut self.peers[id.index()]
    }

    /// Answers the ping of `id`, if there is one.
    fn answer(&mut self, id: InstanceId) {
        if let Some(number) = self.peer(id).pong {
            let pong = Payload::new(number, self.me.get().into());
            if self.send(id, PONG, pong.bytes()) {
                self.peer(id).pong = None;
            }
        }
    }

    /// Sends `id` the reports that it asked for.
    fn report(&mut self, id: InstanceId) {
        while self.peer(id).asked != 0 {
            let about = InstanceId::new(self.peer(id).asked.trailing_zeros() as u8);
            let report = self.report_about(about);
            if !self.send(id, REPORT, &report.encode()) {
                return;
            }
            self.peer(id).asked &= !(1 << about.get());
        }
    }

    fn report_about(&mut self, about: InstanceId) -> Report {
        let (me, run) = (self.me, self.run);
        let (came, in_doubt) = inbox::found(about);
        let (peer, lane) = (self.peer(about), Usage::of_lane(about));
        let [rtt_min, rtt_median, rtt_p99] = peer.pings.percentiles();
        Report {
            about,
            me,
            run,
            sent: peer.sent,
            doorbells: peer.slot.doorbells + lane.doorbells.saturating_sub(peer.lane_before.doorbells),
            busy: peer.slot.busy + lane.busy.saturating_sub(peer.lane_before.busy),
            in_doubt,
            received: came.received,
            former: came.former,
            first: came.first,
            lost: came.lost,
            torn: came.torn,
            doubled: came.doubled,
            disordered: came.disordered,
            pings: peer.pings.done as u64,
            rtt_min,
            rtt_median,
            rtt_p99,
            still_sending: peer.streams() || !peer.pings.are_over(),
        }
    }

    /// Sends a ping to `id` if one is due.
    fn ping(&mut self, id: InstanceId) {
        let (me, run, now) = (self.me, self.run, clock::now());
        let pings = &self.peer(id).pings;
        if pings.are_over() || pings.asked.is_some_and(|at| now.wrapping_sub(at) < PING_AGAIN) {
            return;
        }
        let ping = Payload::new(pings.number(run), me.get().into());
        let start = clock::now();
        if self.send(id, PING, ping.bytes()) {
            self.peer(id).pings.asked = Some(start);
        }
    }

    /// Sends one message, if that is possible now. Returns true if it was sent.
    fn send(&mut self, id: InstanceId, ty: MessageType, bytes: &[u8]) -> bool {
        let rung = Kernel.rung();
        let outcome = SERVER.send(id, ty, bytes).into();
        let rung = Kernel.rung() - rung;
        let is_slot = is_slot(id);
        let peer = self.peer(id);
        if is_slot {
            peer.slot.doorbells += rung;
        }
        match outcome {
            Outcome::Sent => self.moved = true,
            Outcome::Busy => {
                peer.slot.busy += u64::from(is_slot);
                self.blocked = true;
            }
            Outcome::Full => {}
            Outcome::Refused(e) => {
                log!("sending to kernel {} fails: {e:?}", id.get());
                peer.drop_all();
            }
        }
        matches!(outcome, Outcome::Sent)
    }

    /// Sends a part of the stream to `id`: up to [`BURST`] messages into a lane, or one message into a slot.
    fn stream(&mut self, id: InstanceId) {
        let peer = self.peer(id);
        if !peer.streams() || peer.waiting {
            return;
        }
        if is_slot(id) {
            self.stream_to_slot(id);
        } else {
            self.stream_to_lane(id);
        }
    }

    fn stream_to_slot(&mut self, id: InstanceId) {
        let message = self.next_message(id);
        if self.send(id, STREAM, message.bytes()) {
            self.sent_next(id);
        }
    }

    fn stream_to_lane(&mut self, id: InstanceId) {
        let mut outcome = Outcome::Sent;
        let before = self.peer(id).sent;
        for _ in 0..BURST {
            if !self.peer(id).streams() {
                break;
            }
            let message = self.next_message(id);
            outcome = SERVER.post(id, STREAM, message.bytes()).into();
            if !matches!(outcome, Outcome::Sent) {
                break;
            }
            self.sent_next(id);
        }
        if self.peer(id).sent != before {
            self.moved = true;
            // If the doorbell fails, the receiver finds the messages in its next drain.
            let _ = SERVER.flush(id);
        }
        match outcome {
            Outcome::Sent => {}
            Outcome::Busy => self.blocked = true,
            Outcome::Full => {
                let len = self.next_message(id).bytes().len();
                self.wait_for_space(id, len);
            }
            Outcome::Refused(e) => {
                log!("the stream to kernel {} ends: {e:?}", id.get());
                self.peer(id).drop_all();
            }
        }
    }

    /// Asks for an event when the lane to `id` has space for `len` bytes. If there is no such lane, the next turns try to
    /// send again.
    fn wait_for_space(&mut self, id: InstanceId, len: usize) {
        match SERVER.want_space(id, len) {
            Ok(true) => self.moved = true,
            Ok(false) => self.peer(id).waiting = true,
            Err(_) => {}
        }
    }

    fn next_message(&mut self, id: InstanceId) -> Payload {
        let me = self.me.get().into();
        let peer = self.peer(id);
        let sent = peer.sent;
        *peer.next.get_or_insert_with(|| Payload::new(sent, me))
    }

    fn sent_next(&mut self, id: InstanceId) {
        let peer = self.peer(id);
        (peer.sent, peer.next) = (peer.sent + 1, None);
    }
}

/// Returns whether `id` has slots (RFC v2).
fn is_slot(id: InstanceId) -> bool {
    SERVER.instance(id).is_ok_and(|i| i.layout() == Some(Layout::RfcV2))
}
