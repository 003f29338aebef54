// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a receiver knows of one lane, in private memory, and what it needs to know of the rest of its kernel.

use super::lane::{Control, LaneEnd};
use crate::message::Message;
use crate::platform::{Peer, PeerEvent};
use crate::sync::{Ordering, Word};
use mk_ipi_abi::native::{control, header, receiver, Breach, Hello, Phase, MAX_PAYLOAD_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId};

/// What the receiver needs to know of the rest of its kernel.
pub(crate) trait Events {
    /// Another number, never 0, whenever an instance has come or gone.
    fn version(&self) -> u32;
    /// Whether this kernel knows the instance: only then its lane is looked at.
    fn knows(&self, id: InstanceId) -> bool;
    /// Hands a message to its handlers.
    fn deliver(&mut self, message: &Message<'_>);
    /// Rings an instance that waits for something of ours.
    fn ring(&self, id: InstanceId);
    /// Something happened to a lane.
    fn event(&mut self, peer: Peer, event: PeerEvent);
}

/// The one private copy of the message at hand.
pub(super) type Buffer = [u64; MAX_PAYLOAD_WORDS];

/// What the receiver knows of one lane. No peer can change it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// The line to be read next.
    pub next: u64,
    /// What `CREDIT` says.
    pub credited: u64,
    /// What `ANSWER` says.
    pub answer: u64,
    /// The `HELLO` that was looked at last.
    pub last_hello: u64,
    /// The end of what a former life of the sender may have published, while that is handed on; else 0.
    pub hand_on_until: u64,
    /// The largest `WANT` that was answered.
    pub answered_want: u64,
    /// What `RECEIVED` says.
    pub received: u64,
    /// Lines up to here are known to be published: they may be fetched ahead.
    pub known: u64,
    /// Where to find out again whether more are.
    pub look_ahead_at: u64,
    /// The life in `answer`.
    pub theirs: Option<Incarnation>,
    /// Lines are read: the life in `answer` is in force, and has broken nothing.
    pub open: bool,
    /// The kernel was told that the life in `answer` began.
    pub began_reported: bool,
    /// What is read before this position may be wrong because a former life of ours lied about how far it had read: nobody is
    /// accused of it.
    pub excused_until: u64,
    /// The last message had further lines.
    pub long: bool,
    /// There was something when it was last looked at.
    pub active: bool,
    /// The lane is in quarantine.
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

    /// Goes on from `position`, of which nobody knows how much is published behind it.
    pub(super) fn go_to(&mut self, position: u64) {
        (self.next, self.credited, self.known, self.look_ahead_at) = (position, position, position, position);
    }
}

/// One lane during its turn.
pub(super) struct Visit<'a, W> {
    pub end: LaneEnd<'a, W>,
    pub lane: &'a mut Lane,
    pub id: InstanceId,
    /// Our own life; `None` before the first, when nothing is looked at.
    pub ours: Option<Incarnation>,
}

impl<W: Word> Visit<'_, W> {
    pub(super) fn report<E: Events>(&self, to: &mut E, event: PeerEvent) {
        if let Some(ours) = self.ours {
            to.event(Peer { id: self.id, theirs: self.lane.theirs, ours }, event);
        }
    }

    /// Tells the sender how far we have handled, once for all that were (SPEC N-8).
    #[inline(always)]
    pub(super) fn give_credit(&mut self) {
        give_credit(self.end.control, self.lane);
    }

    /// Takes no more from this lane until its sender begins anew.
    #[cold]
    pub(super) fn quarantine<E: Events>(&mut self, to: &mut E, breach: Breach) {
        self.lane.open = false;
        let excused = core::mem::take(&mut self.lane.excused_until);
        if self.lane.next < excused || (breach == Breach::Hello && excused != 0) {
            // Nobody is accused: the sender is to begin anew.
            self.end.close(self.lane);
            return to.ring(self.id);
        }
        self.lane.breach = true;
        self.end.count(control::BAD);
        self.end.set(control::LAST_BREACH, breach as u64);
        self.end.set(control::BREACH, breach as u64);
        self.report(to, PeerEvent::Quarantined(breach));
        // It may wait for space, and is to learn that there will be none.
        to.ring(self.id);
    }
}

impl<W: Word> LaneEnd<'_, W> {
    /// Says that the life in `ANSWER` is not in force any more: the sender notices, and is to begin anew.
    pub(super) fn close(&self, lane: &mut Lane) {
        let word = self.header(header::HELLO);
        let said = Hello::from_word(word);
        if said.is_none_or(Hello::may_send) {
            // Whoever says that has messages here of which nobody knows which were handed out.
            lane.last_hello = word;
        }
        if let Some(hello) = Hello::from_word(lane.answer).or(said) {
            // Another session's: who is `First` sends also on the answer to its own `Begin`.
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
