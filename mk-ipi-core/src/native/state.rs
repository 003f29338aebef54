// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a receiver knows of one lane, in private memory, and its interface to the rest of its kernel.

use super::lane::{Control, LaneEnd};
use crate::message::Message;
use crate::platform::{Peer, PeerEvent};
use crate::sync::{Ordering, Word};
use mk_ipi_abi::native::{control, header, receiver, Breach, Hello, Phase, MAX_PAYLOAD_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId};

/// The receiver's interface to the rest of its kernel.
pub(crate) trait Events {
    /// A number, never 0, that changes whenever an instance is added or removed.
    fn version(&self) -> u32;
    /// Whether the instance is in the table. Only then its lane is read.
    fn knows(&self, id: InstanceId) -> bool;
    /// Hands a message to its handlers.
    fn deliver(&mut self, message: &Message<'_>);
    /// Rings an instance that waits for an answer or for space.
    fn ring(&self, id: InstanceId);
    /// Reports an event of a lane.
    fn event(&mut self, peer: Peer, event: PeerEvent);
}

/// The private copy of the message that is being handled.
pub(super) type Buffer = [u64; MAX_PAYLOAD_WORDS];

/// What the receiver knows of one lane. No peer can change it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// The line to be read next.
    pub next: u64,
    /// The value of our `CREDIT`.
    pub credited: u64,
    /// The value of our `ANSWER`.
    pub answer: u64,
    /// The `HELLO` that was read last.
    pub last_hello: u64,
    /// While messages of a former life of the sender are delivered: the end of what it may have published. Otherwise 0.
    pub hand_on_until: u64,
    /// The largest `WANT` that was answered.
    pub answered_want: u64,
    /// The value of our `RECEIVED`.
    pub received: u64,
    /// Lines up to this position are known to be published. They may be prefetched.
    pub known: u64,
    /// The position at which to check again whether more are published.
    pub look_ahead_at: u64,
    /// The sender's life in `answer`.
    pub theirs: Option<Incarnation>,
    /// Whether lines are read: the life in `answer` is in force, and has not broken the protocol.
    pub open: bool,
    /// Whether `PeerEvent::Began` was reported for the life in `answer`.
    pub began_reported: bool,
    /// Before this position the lane may be invalid because a former life of ours wrote a wrong credit. So the sender is not
    /// accused for it.
    pub excused_until: u64,
    /// Whether the last message had further lines.
    pub long: bool,
    /// Whether the last look at the lane found something.
    pub active: bool,
    /// Whether the lane is in quarantine.
    pub breach: bool,
}

impl Lane {
    pub(super) const NEW: Self = Self {
        next: 0,
        credited: 0,
        answer: 0,
        last_hello: 0,
        hand_on_until: 0,
        answered_want: 0,
        received: 0,
        known: 0,
        look_ahead_at: 0,
        theirs: None,
        open: false,
        began_reported: false,
        excused_until: 0,
        long: false,
        active: false,
        breach: false,
    };

    /// Continues at `position`. It is not known how much is published behind it.
    pub(super) fn go_to(&mut self, position: u64) {
        (self.next, self.credited, self.known, self.look_ahead_at) = (position, position, position, position);
    }
}

/// One lane while it is handled.
pub(super) struct Visit<'a, W> {
    pub end: LaneEnd<'a, W>,
    pub lane: &'a mut Lane,
    pub id: InstanceId,
    /// Our own life; `None` before the first one, when no lane is read.
    pub ours: Option<Incarnation>,
}

impl<W: Word> Visit<'_, W> {
    pub(super) fn report<E: Events>(&self, to: &mut E, event: PeerEvent) {
        if let Some(ours) = self.ours {
            to.event(Peer { id: self.id, theirs: self.lane.theirs, ours }, event);
        }
    }

    /// Tells the sender how far we have handled its messages: once for several (SPEC N-8).
    #[inline(always)]
    pub(super) fn give_credit(&mut self) {
        give_credit(self.end.control, self.lane);
    }

    /// Reads no more from this lane until its sender begins a new life or attaches again.
    #[cold]
    pub(super) fn quarantine<E: Events>(&mut self, to: &mut E, breach: Breach) {
        self.lane.open = false;
        let excused = core::mem::take(&mut self.lane.excused_until);
        if self.lane.next < excused || (breach == Breach::Hello && excused != 0) {
            // The sender is not accused, but must begin again.
            self.end.close(self.lane);
            return to.ring(self.id);
        }
        self.lane.breach = true;
        self.end.count(control::BAD);
        self.end.set(control::LAST_BREACH, breach as u64);
        self.end.set(control::BREACH, breach as u64);
        self.report(to, PeerEvent::Quarantined(breach));
        // It may wait for space, and must learn that there will be none.
        to.ring(self.id);
    }
}

impl<W: Word> LaneEnd<'_, W> {
    /// Writes that the life in `ANSWER` is not in force any more. The sender notices, and must begin again.
    pub(super) fn close(&self, lane: &mut Lane) {
        let word = self.header(header::HELLO);
        let said = Hello::from_word(word);
        if said.is_none_or(Hello::may_send) {
            // A sender in this phase has messages here, and it is not known which were delivered.
            lane.last_hello = word;
        }
        if let Some(hello) = Hello::from_word(lane.answer).or(said) {
            // Of another session: a sender in phase `First` also sends if its own `Begin` is answered.
            let other = Hello { session: hello.session.wrapping_add(1), phase: Phase::Begin, ..hello };
            lane.answer = other.to_word();
            self.set(control::ANSWER, lane.answer);
        }
    }
}

/// See [`Visit::give_credit`].
#[inline(always)]
pub(super) fn give_credit<W: Word>(control: &Control<W>, lane: &mut Lane) {
    if lane.next != lane.credited {
        lane.credited = lane.next;
        let [credit, ..] = control;
        let [.., received, _, _, _] = control;
        received.store(lane.received, Ordering::Relaxed);
        // SYNC POINT: lane-credit (release)
        credit.store(lane.next, Ordering::Release);
    }
}

const _: () = assert!(control::CREDIT == 0 && control::RECEIVED + 4 == receiver::CONTROL_WORDS);
