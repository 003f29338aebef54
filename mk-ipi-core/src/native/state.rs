// SPDX-License-Identifier: MIT OR Apache-2.0
//! The receiver's private state of one lane, and the interface of the receiver to the rest of its kernel.

use super::lane::{Control, LaneEnd};
use crate::message::Message;
use crate::platform::{Peer, PeerEvent};
use crate::sync::{Ordering, Word};
use mk_ipi_abi::native::{control, header, receiver, Breach, Hello, MAX_PAYLOAD_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId};

/// The functions of its kernel that a receiver calls.
pub(crate) trait Events {
    /// Returns a number, never 0, that changes whenever an instance is added to the table of instances or removed from it.
    fn version(&self) -> u32;
    /// Returns whether the instance is in the table. The receiver reads only lanes of such instances.
    fn knows(&self, id: InstanceId) -> bool;
    /// Calls the handlers of a message.
    fn deliver(&mut self, message: &Message<'_>);
    /// Rings an instance: for an answer to its hello, for space in its lane, or because of a breach of the protocol.
    fn ring(&self, id: InstanceId);
    /// Reports an event of a lane to the kernel's observer.
    fn event(&mut self, peer: Peer, event: PeerEvent);
}

/// The private copy of the message that is being handled.
pub(super) type Buffer = [u64; MAX_PAYLOAD_WORDS];

/// What the receiver knows of one lane. This is private memory, which no peer can change. A *position* is a number of a line
/// (SPEC N-8).
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// The position of the next line to be read.
    pub next: u64,
    /// The value that this receiver stored last to `CREDIT`.
    pub credited: u64,
    /// The value that this receiver stored last to `ANSWER`.
    pub answer: u64,
    /// The value of `HELLO` that was handled last. A visit handles `HELLO` if it differs from this. 0: the next visit handles it
    /// again.
    pub last_hello: u64,
    /// While messages of a former life of the sender are delivered: the position after the last line that this life can have
    /// published. Otherwise 0.
    pub hand_on_until: u64,
    /// The largest value of `WANT` for which the sender was rung.
    pub answered_want: u64,
    /// Number of messages that were delivered, in all lives of this receiver. Stored to `RECEIVED` together with `CREDIT`.
    pub received: u64,
    /// Lines up to this position can be prefetched: the line at this position was found published.
    pub known: u64,
    /// When `next` reaches this position, the receiver checks again how far lines are published.
    pub look_ahead_at: u64,
    /// The incarnation in the last hello that was answered. `None` if no hello was answered.
    pub theirs: Option<Incarnation>,
    /// Whether the life in `answer` is in force and has not broken the protocol. Otherwise the receiver takes no messages of it.
    pub open: bool,
    /// Whether this life of the receiver has reported `PeerEvent::Began` for the life in `answer`.
    pub began_reported: bool,
    /// A breach before this position can be the fault of a former life of this receiver, which may have stored a wrong `CREDIT`.
    /// For such a breach the sender is disowned (SPEC N-9), and not put into quarantine. 0: no breach is excused.
    pub excused_until: u64,
    /// Whether the message that was delivered last took more than one line.
    pub long: bool,
    /// Whether the last visit to the lane found a message or a new hello.
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

    /// Sets the next line to be read, and what `CREDIT` is assumed to be. From there on no line is known to be published.
    pub(super) fn go_to(&mut self, position: u64) {
        (self.next, self.credited, self.known, self.look_ahead_at) = (position, position, position, position);
    }
}

/// One lane while the receiver visits it.
pub(super) struct Visit<'a, W> {
    pub end: LaneEnd<'a, W>,
    pub lane: &'a mut Lane,
    pub id: InstanceId,
    /// The incarnation of this receiver. `None` before its first life; no lane is read then.
    pub ours: Option<Incarnation>,
}

impl<W: Word> Visit<'_, W> {
    pub(super) fn report<E: Events>(&self, to: &mut E, event: PeerEvent) {
        if let Some(ours) = self.ours {
            to.event(Peer { id: self.id, theirs: self.lane.theirs, ours }, event);
        }
    }

    /// Stores to `CREDIT` the position up to which all messages were handled. Called once for several messages (SPEC N-8).
    #[inline(always)]
    pub(super) fn give_credit(&mut self) {
        give_credit(self.end.control, self.lane);
    }

    /// Handles a breach of the protocol by the sender: puts the lane into quarantine, or disowns the sender if the breach is
    /// excused. No more messages are taken from the lane until the sender begins a new life or attaches again.
    #[cold]
    pub(super) fn quarantine<E: Events>(&mut self, to: &mut E, breach: Breach) {
        self.lane.open = false;
        let excused = core::mem::take(&mut self.lane.excused_until);
        if self.lane.next < excused || (breach == Breach::Hello && excused != 0) {
            // The breach is excused, but the sender must begin again.
            self.end.close(self.lane);
            return to.ring(self.id);
        }
        self.lane.breach = true;
        self.end.count(control::BAD);
        self.end.set(control::LAST_BREACH, breach as u64);
        self.end.set(control::BREACH, breach as u64);
        self.report(to, PeerEvent::Quarantined(breach));
        // If the sender waits for space, the doorbell makes it read `BREACH`. There will be no space for this life.
        to.ring(self.id);
    }
}

impl<W: Word> LaneEnd<'_, W> {
    /// Disowns the sender (SPEC N-9): stores to `ANSWER` that the life there is not in force any more. The sender finds this and
    /// must begin again.
    pub(super) fn close(&self, lane: &mut Lane) {
        let word = self.header(header::HELLO);
        let said = Hello::from_word(word);
        if said.is_none_or(Hello::may_send) {
            // Marks this hello as handled, so that it is not answered. A sender in this phase can have messages in the lane, and
            // we do not know which of them were delivered.
            lane.last_hello = word;
        }
        if let Some(hello) = Hello::from_word(lane.answer).or(said) {
            // The session number is neither in `HELLO` nor in `ANSWER`, because a sender takes the `Begin` of its own session for
            // an answer.
            lane.answer = Hello::after(word, lane.answer, hello.incarnation).to_word();
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
