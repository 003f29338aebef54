// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two ends of a channel (SPEC chapter G): an [`Inbox`] for the program that reads, and an [`Outbox`] for the programs that
//! write.

use crate::ring::Ring;
use mk_ipi_abi::channel::{Body, ChannelMessage, MAX_MESSAGE, MESSAGE_COST};
use mk_ipi_abi::Incarnation;

pub use mk_ipi_abi::channel::PART;

/// In the buffer, the length of a message is stored before the message. This is the number of bytes of the length.
const LEN: usize = 4;
/// Number of bytes of the window that the longest message takes.
const MAX_COST: u64 = MAX_MESSAGE as u64 + MESSAGE_COST;

/// The result of a received part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartOutcome {
    /// The part completes a message.
    Message,
    /// The part was accepted. More parts of its message must follow.
    Part,
    /// The part is for another session, and so for another reader or another life. It was dropped.
    Stale,
    /// The message is not a part, or the part is not at the next position, was not granted, or makes its message too long. It was
    /// dropped.
    Refused,
}

/// The reader's end of a channel: messages for one reader, from the programs of one kernel. If several CPUs use it, the caller
/// must hold a lock.
#[derive(Debug)]
pub struct Inbox<B> {
    kept: Ring<B>,
    /// Number of complete messages in the buffer.
    whole: usize,
    /// Number of bytes of the incomplete message, which is stored after the complete ones. `None` if no message is incomplete.
    begun: Option<usize>,
    /// The number of the session.
    session: u32,
    /// The position in this session up to which parts were received.
    position: u64,
    /// The position up to which the program has read.
    read: u64,
    /// The position up to which the writers may send.
    limit: u64,
    /// Number of bytes of the window that the messages in the buffer take.
    used: u64,
    /// True if a grant must be sent to the writers.
    grant_pending: bool,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Inbox<B> {
    /// Makes an empty inbox in the buffer `kept`, for the reader whose session has the number `session`. `None` if this number is
    /// 0, or if the buffer is too small for the longest message.
    pub fn new(kept: B, session: u32) -> Option<Self> {
        let kept = Ring::new(kept);
        if session == 0 || (kept.capacity() as u64) < MAX_COST {
            return None;
        }
        let mut inbox = Self {
            kept,
            whole: 0,
            begun: None,
            session: 0,
            position: 0,
            read: 0,
            limit: 0,
            used: 0,
            grant_pending: false,
        };
        inbox.begin(session);
        Some(inbox)
    }

    /// Begins the session with the number `session`. Call this when a new life of the writers' kernel, or of this kernel, has
    /// begun. Positions begin at 0. Complete messages stay, and an incomplete one is dropped.
    pub fn begin(&mut self, session: u32) {
        self.drop_begun();
        (self.session, self.position, self.read, self.limit) = (session, 0, 0, 0);
        self.grant();
    }

    /// The number of the session.
    pub const fn session(&self) -> u32 {
        self.session
    }

    /// Number of complete messages.
    pub const fn messages(&self) -> usize {
        self.whole
    }

    /// The size of the window: how many bytes the writers may send beyond what the program has read.
    fn window(&self) -> u64 {
        self.kept.capacity() as u64
    }

    /// Grants the free bytes of the window, if these are at least a quarter of the window, or if the writers need them for the
    /// longest message.
    fn grant(&mut self) {
        let limit = self.position.saturating_add(self.window().saturating_sub(self.used));
        let more = limit.saturating_sub(self.limit);
        if more >= self.window() / 4 || more > 0 && self.limit.saturating_sub(self.position) < MAX_COST {
            self.limit = limit;
            self.grant_pending = true;
        }
    }

    /// Handles [`Body::Ask`] of writers that know no reader: a grant must be sent to them. If parts were received in this
    /// session, a new session with the number `session` begins, because these writers begin at position 0. No session of this
    /// channel may have had this number before.
    pub fn asked(&mut self, session: u32) {
        if self.position > 0 && session != 0 {
            self.begin(session);
        }
        self.grant_pending = true;
    }

    /// The message that must be sent to the writers. `None` if there is no such message. Call [`Inbox::sent`] after it was sent.
    pub fn next(&self) -> Option<Body<'static>> {
        self.grant_pending.then_some(Body::Grant { session: self.session, limit: self.limit })
    }

    /// Says that the message of [`Inbox::next`] was sent.
    pub fn sent(&mut self) {
        self.grant_pending = false;
    }

    /// The message to send to the writers when the reader ends.
    pub const fn closed(&self) -> Body<'static> {
        Body::Closed { session: self.session, read: self.read }
    }

    /// Handles a part that was received. Another message is [`Refused`](PartOutcome::Refused).
    pub fn receive(&mut self, body: &Body<'_>) -> PartOutcome {
        let Body::Part { session, position, is_first, is_last, bytes } = *body else {
            return PartOutcome::Refused;
        };
        if session != self.session {
            return PartOutcome::Stale;
        }
        let cost = cost_of(is_first, bytes.len());
        let end = position.saturating_add(cost);
        let goes_on = self.begun.is_some();
        if position != self.position || end > self.limit || !(is_first || goes_on) {
            return PartOutcome::Refused;
        }
        if is_first {
            // The writer of an incomplete message has given it up.
            self.drop_begun();
        }
        let begun = self.begun.unwrap_or(0);
        let len = begun.saturating_add(bytes.len());
        let head: &[u8] = if is_first { &[0; LEN] } else { &[] };
        // If the message is not too long, bytes that were granted fit into the buffer. For a message of n bytes, the window has
        // counted n + `MESSAGE_COST` bytes, and the buffer needs only n + `LEN` bytes.
        let fits = len <= MAX_MESSAGE && head.len().saturating_add(bytes.len()) <= self.kept.room();
        self.position = end;
        if !fits {
            self.drop_begun();
            self.grant();
            return PartOutcome::Refused;
        }
        self.kept.push(head);
        self.kept.push(bytes);
        self.used = self.used.saturating_add(cost);
        self.begun = Some(len);
        if !is_last {
            return PartOutcome::Part;
        }
        let at = self.kept.len().saturating_sub(len).saturating_sub(LEN);
        self.kept.patch(at, &u32::try_from(len).unwrap_or(0).to_le_bytes());
        self.begun = None;
        self.whole = self.whole.saturating_add(1);
        PartOutcome::Message
    }

    /// Drops the incomplete message, if there is one. Its bytes of the window are free again.
    fn drop_begun(&mut self) {
        let Some(len) = self.begun.take() else { return };
        self.kept.truncate(self.kept.len().saturating_sub(len).saturating_sub(LEN));
        self.give_back(cost_of(true, len));
    }

    fn give_back(&mut self, cost: u64) {
        self.used = self.used.saturating_sub(cost);
    }

    /// Length of the oldest message; `None` if there is none.
    pub fn len(&self) -> Option<usize> {
        let mut len = [0; LEN];
        self.kept.copy(0, &mut len);
        (self.whole > 0).then_some(u32::from_le_bytes(len) as usize)
    }

    /// Whether there is no message.
    pub const fn is_empty(&self) -> bool {
        self.whole == 0
    }

    /// Copies the oldest message to `to`, and removes it. Returns its length. `None` if there is no message, or if `to` is too
    /// short; then the message stays.
    pub fn read(&mut self, to: &mut [u8]) -> Option<usize> {
        let len = self.len()?;
        self.kept.copy(LEN, to.get_mut(..len)?);
        self.kept.drop_first(LEN.saturating_add(len));
        self.whole = self.whole.saturating_sub(1);
        let cost = cost_of(true, len);
        self.give_back(cost);
        // While the buffer has messages of a former session, `used` counts these too. Then the difference is smaller than the
        // position up to which the program has read, so `read` must not decrease.
        self.read = self.position.saturating_sub(self.used).max(self.read);
        self.grant();
        Some(len)
    }

    /// Returns the buffer.
    pub fn into_buffer(self) -> B {
        self.kept.into_buffer()
    }
}

/// Number of bytes of the window that a part of `len` bytes takes.
const fn cost_of(is_first: bool, len: usize) -> u64 {
    let extra = if is_first { MESSAGE_COST } else { 0 };
    extra.saturating_add(len as u64)
}

/// What a received message, or the end of the reader's kernel, has changed for the writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderChange {
    /// The reader granted more bytes.
    GrantedMore,
    /// Nothing changed.
    Unchanged,
    /// There is a new reader, or no reader any more. The former reader, if there was one, has read everything that was sent.
    Changed,
    /// There is a new reader, or no reader any more. The former reader has not read everything that was sent, or has not said
    /// whether it has.
    ChangedWithLoss,
}

/// The writers' end of a channel: messages from the programs of one kernel to one reader on another. If several CPUs use it, the
/// caller must hold a lock.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The life of the reader's kernel, and the reader's session.
    reader: Option<(Incarnation, u32)>,
    /// The position in this session up to which parts were sent.
    position: u64,
    /// The position up to which the reader has granted bytes.
    limit: u64,
}

impl Outbox {
    /// An outbox without a known reader.
    pub const fn new() -> Self {
        Self { reader: None, position: 0, limit: 0 }
    }

    /// Handles a message that life `from` of the reader's kernel has sent.
    pub fn receive(&mut self, body: &Body<'_>, from: Incarnation) -> ReaderChange {
        match *body {
            // Late messages of a former life are ignored.
            _ if self.reader.is_some_and(|(life, _)| from.is_before(life)) => ReaderChange::Unchanged,
            Body::Grant { session, limit } if self.reader == Some((from, session)) => {
                let more = limit > self.limit;
                self.limit = self.limit.max(limit);
                if more {
                    ReaderChange::GrantedMore
                } else {
                    ReaderChange::Unchanged
                }
            }
            Body::Grant { session, limit } => {
                // Only `Closed` says how far the former reader has read. No `Closed` came from it.
                let lost = self.reader.is_some() && self.position > 0;
                *self = Self { reader: Some((from, session)), position: 0, limit };
                if lost {
                    ReaderChange::ChangedWithLoss
                } else {
                    ReaderChange::Changed
                }
            }
            Body::Closed { session, read } if self.reader == Some((from, session)) => {
                let lost = read < self.position;
                *self = Self::new();
                if lost {
                    ReaderChange::ChangedWithLoss
                } else {
                    ReaderChange::Changed
                }
            }
            _ => ReaderChange::Unchanged,
        }
    }

    /// Handles the event that the reader's kernel has died or detached.
    pub fn ended(&mut self) -> ReaderChange {
        let lost = self.position > 0;
        *self = Self::new();
        if lost {
            ReaderChange::ChangedWithLoss
        } else {
            ReaderChange::Changed
        }
    }

    /// Whether a reader is known.
    pub const fn has_reader(&self) -> bool {
        self.reader.is_some()
    }

    /// Whether the reader has granted enough bytes for a message of `len` bytes. False if the message is too long for a channel.
    pub fn accepts(&self, len: usize) -> bool {
        let end = self.position.saturating_add(cost_of(true, len));
        self.reader.is_some() && end <= self.limit && len <= MAX_MESSAGE
    }

    /// Makes a link message for channel `number` in the buffer `to`. It contains the part of `message` that begins at byte `at`.
    /// Returns the link message, and the offset in `message` after the part. `None` if no reader is known, if the part is not
    /// granted, if no bytes are left, or if `to` is too short. Call [`Outbox::sent`] after the link message was sent.
    pub fn part<'b>(
        &self,
        number: u32,
        message: &[u8],
        at: usize,
        to: &'b mut [u8],
    ) -> Option<(&'b [u8], usize)> {
        let (life, session) = self.reader?;
        let rest = message.get(at..).filter(|rest| !rest.is_empty())?;
        let most = to.len().saturating_sub(ChannelMessage::HEADER).min(rest.len());
        let bytes = rest.get(..most).filter(|bytes| !bytes.is_empty())?;
        let (is_first, end) = (at == 0, at.saturating_add(most));
        if self.position.saturating_add(cost_of(is_first, most)) > self.limit {
            return None;
        }
        let (position, is_last) = (self.position, end == message.len());
        let body = Body::Part { session, position, is_first, is_last, bytes };
        Some((ChannelMessage { number, to: Some(life), body }.encode(to)?, end))
    }

    /// Says that the part from byte `at` to byte `end` was sent.
    pub fn sent(&mut self, at: usize, end: usize) {
        self.position = self.position.saturating_add(cost_of(at == 0, end.saturating_sub(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::vec::Vec;

    const SESSION: u32 = 3;
    const NUMBER: u32 = 9;

    fn life(n: u32) -> Incarnation {
        Incarnation::new(n).unwrap()
    }

    fn inbox(window: usize) -> Inbox<Vec<u8>> {
        Inbox::new(std::vec![0; window], SESSION).unwrap()
    }

    fn tell(from: &mut Inbox<Vec<u8>>, to: &mut Outbox) -> Option<ReaderChange> {
        let body = from.next()?;
        from.sent();
        Some(to.receive(&body, life(5)))
    }

    /// Sends a message from byte `at` on, in parts of `len` bytes. Returns where it stopped.
    fn send(out: &mut Outbox, message: &[u8], mut at: usize, len: usize, to: &mut Inbox<Vec<u8>>) -> usize {
        let mut place = std::vec![0; ChannelMessage::HEADER + len];
        while let Some((payload, end)) = out.part(NUMBER, message, at, &mut place) {
            let part = ChannelMessage::decode(payload).unwrap();
            assert_eq!((part.number, part.to), (NUMBER, Some(life(5))));
            let taken = to.receive(&part.body);
            assert_eq!(taken, if end == message.len() { PartOutcome::Message } else { PartOutcome::Part });
            out.sent(at, end);
            at = end;
        }
        at
    }

    #[test]
    fn what_is_sent_is_read_in_order_and_the_window_holds_back() {
        let (mut out, mut inbox) = (Outbox::new(), inbox(8192));
        assert!(!out.accepts(1), "no reader is known");
        assert_eq!(tell(&mut inbox, &mut out), Some(ReaderChange::Changed));
        let (mut model, mut seed, mut place) = (VecDeque::new(), 7u32, [0; MAX_MESSAGE]);
        let mut held_back = 0;
        for round in 0..3_000u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let len = if round % 9 == 0 { MAX_MESSAGE } else { (seed >> 16) as usize % 900 + 1 };
            let message = std::vec![round as u8; len];
            if out.accepts(len) {
                assert_eq!(send(&mut out, &message, 0, 1 + (seed >> 8 & 255) as usize, &mut inbox), len);
                model.push_back(message);
            } else {
                held_back += 1;
                let expected = model.pop_front();
                let len = inbox.read(&mut place);
                assert_eq!(len.map(|len| place[..len].to_vec()), expected);
                tell(&mut inbox, &mut out);
            }
        }
        assert!(held_back > 500);
        assert_eq!(inbox.messages(), model.len());
        while let Some(len) = inbox.read(&mut place) {
            assert_eq!(Some(&place[..len]), model.pop_front().as_deref());
        }
        tell(&mut inbox, &mut out);
        assert!(model.is_empty() && out.accepts(MAX_MESSAGE) && !out.accepts(MAX_MESSAGE + 1));
    }

    #[test]
    fn what_is_not_granted_or_not_next_is_refused() {
        let part = |session, position, is_first, bytes| Body::Part {
            session,
            position,
            is_first,
            is_last: true,
            bytes,
        };
        let long = [0; 4097];
        for (message, taken) in [
            (part(SESSION + 1, 0, true, b"x".as_slice()), PartOutcome::Stale),
            (part(SESSION, 1, true, b"x"), PartOutcome::Refused),
            (part(SESSION, 0, false, b"x"), PartOutcome::Refused),
            (part(SESSION, 0, true, &long), PartOutcome::Refused),
            (part(SESSION, 0, true, b"x"), PartOutcome::Message),
            (Body::Ask, PartOutcome::Refused),
        ] {
            assert_eq!(inbox(8192).receive(&message), taken, "{message:?}");
        }
        let mut inbox = inbox(8192);
        let first = |position| Body::Part {
            session: SESSION,
            position,
            is_first: true,
            is_last: true,
            bytes: &[1; 4000],
        };
        assert_eq!(inbox.receive(&first(0)), PartOutcome::Message);
        assert_eq!(inbox.receive(&first(4064)), PartOutcome::Message);
        assert_eq!(
            inbox.receive(&part(SESSION, 8128, true, b"x")),
            PartOutcome::Refused,
            "64 bytes are granted, and the part needs 65"
        );
        assert_eq!(inbox.messages(), 2);
        assert!(Inbox::new([0; 4159], SESSION).is_none() && Inbox::new([0; 8192], 0).is_none());
    }

    #[test]
    fn a_message_that_is_too_long_takes_nothing_from_those_before_it() {
        let part = |position, is_first, is_last, bytes| {
            let session = SESSION;
            Body::Part { session, position, is_first, is_last, bytes }
        };
        // A message whose first part is too long, and one that is too long with its second part.
        for first_part in [None, Some(&[9; 3000])] {
            let mut inbox = inbox(3 * 8192);
            assert_eq!(inbox.receive(&part(0, true, true, b"whole")), PartOutcome::Message);
            let mut position = 5 + MESSAGE_COST;
            if let Some(first_part) = first_part {
                assert_eq!(inbox.receive(&part(position, true, false, first_part)), PartOutcome::Part);
                position += 3000 + MESSAGE_COST;
            }
            let is_first = first_part.is_none();
            assert_eq!(inbox.receive(&part(position, is_first, true, &[9; 4097])), PartOutcome::Refused);
            position += 4097 + if is_first { MESSAGE_COST } else { 0 };
            assert_eq!(inbox.receive(&part(position, true, true, b"next")), PartOutcome::Message);
            let mut place = [0; 8];
            for expected in [b"whole".as_slice(), b"next"] {
                assert_eq!(inbox.read(&mut place).and_then(|len| place.get(..len)), Some(expected));
            }
            assert!(inbox.is_empty() && inbox.used == 0, "all of the window is free again");
        }
    }

    #[test]
    fn a_message_that_was_begun_and_given_up_costs_nothing() {
        let (mut out, mut inbox) = (Outbox::new(), inbox(8192));
        tell(&mut inbox, &mut out);
        let mut place = [0; 256];
        for _ in 0..100 {
            let (payload, end) = out.part(NUMBER, &[7; 300], 0, &mut place).unwrap();
            assert_eq!(inbox.receive(&ChannelMessage::decode(payload).unwrap().body), PartOutcome::Part);
            out.sent(0, end);
            assert_eq!(send(&mut out, b"whole", 0, PART, &mut inbox), 5);
            assert_eq!(
                inbox.read(&mut place).map(|len| place[..len].to_vec()).as_deref(),
                Some(b"whole".as_slice())
            );
            tell(&mut inbox, &mut out);
        }
        assert!(out.accepts(MAX_MESSAGE));
    }

    #[test]
    fn a_short_buffer_loses_no_message() {
        let (mut out, mut inbox) = (Outbox::new(), inbox(8192));
        tell(&mut inbox, &mut out);
        send(&mut out, b"message", 0, PART, &mut inbox);
        assert_eq!((inbox.read(&mut [0; 6]), inbox.len()), (None, Some(7)));
        assert_eq!(inbox.read(&mut [0; 7]), Some(7));
        assert_eq!((inbox.read(&mut [0; 7]), inbox.is_empty()), (None, true));
    }

    #[test]
    fn who_writes_learns_whether_the_reader_had_it_all() {
        let (mut out, mut inbox) = (Outbox::new(), inbox(8192));
        tell(&mut inbox, &mut out);
        send(&mut out, b"one", 0, PART, &mut inbox);
        let unread = inbox.closed();
        inbox.read(&mut [0; 9]);
        let mut other = Outbox::new();
        other.receive(&Body::Grant { session: SESSION, limit: 4160 }, life(5));
        other.sent(0, 3);
        assert_eq!(other.receive(&unread, life(5)), ReaderChange::ChangedWithLoss);
        assert_eq!(
            out.receive(&Body::Closed { session: SESSION + 1, read: 0 }, life(5)),
            ReaderChange::Unchanged
        );
        assert_eq!(out.receive(&inbox.closed(), life(6)), ReaderChange::Unchanged, "of another life");
        assert_eq!(
            out.receive(&Body::Grant { session: 9, limit: 9 }, life(4)),
            ReaderChange::Unchanged,
            "of a former life"
        );
        assert_eq!(out.receive(&inbox.closed(), life(5)), ReaderChange::Changed);
        assert!(!out.has_reader());
        assert_eq!(out.receive(&Body::Grant { session: 8, limit: 5000 }, life(5)), ReaderChange::Changed);
        out.sent(0, 3);
        assert_eq!(out.receive(&Body::Grant { session: 8, limit: 4000 }, life(5)), ReaderChange::Unchanged);
        assert_eq!(out.ended(), ReaderChange::ChangedWithLoss);
        assert_eq!(out.ended(), ReaderChange::Changed);
    }

    #[test]
    fn writers_that_come_after_others_begin_at_0() {
        let (mut out, mut inbox) = (Outbox::new(), inbox(8192));
        inbox.asked(8);
        assert_eq!(inbox.session(), SESSION, "no writer has written");
        tell(&mut inbox, &mut out);
        send(&mut out, b"one", 0, PART, &mut inbox);
        let mut next = Outbox::new();
        inbox.asked(9);
        assert_eq!(tell(&mut inbox, &mut next), Some(ReaderChange::Changed));
        assert_eq!(send(&mut next, b"two", 0, PART, &mut inbox), 3);
        let mut place = [0; 9];
        assert_eq!(
            (inbox.read(&mut place), inbox.read(&mut place)),
            (Some(3), Some(3)),
            "the message of the former session is still there"
        );
    }

    #[test]
    fn another_session_begins_at_0_and_keeps_what_is_whole() {
        let (mut out, mut inbox) = (Outbox::new(), inbox(8192));
        tell(&mut inbox, &mut out);
        send(&mut out, &[1; 4096], 0, PART, &mut inbox);
        let mut place = [0; 256];
        let (half, _) = out.part(NUMBER, &[2; 300], 0, &mut place).unwrap();
        let half = half.to_vec();
        assert_eq!(inbox.receive(&ChannelMessage::decode(&half).unwrap().body), PartOutcome::Part);
        inbox.begin(SESSION + 1);
        assert_eq!(inbox.receive(&ChannelMessage::decode(&half).unwrap().body), PartOutcome::Stale);
        tell(&mut inbox, &mut out);
        assert!(
            !out.accepts(4096) && out.accepts(3000),
            "the message that was not read takes bytes of the window"
        );
        send(&mut out, b"new", 0, PART, &mut inbox);
        let mut place = [0; 4096];
        assert_eq!((inbox.read(&mut place), inbox.read(&mut place)), (Some(4096), Some(3)));
        tell(&mut inbox, &mut out);
        assert!(out.accepts(4096));
        assert_eq!(inbox.closed(), Body::Closed { session: SESSION + 1, read: 67 });
    }
}
