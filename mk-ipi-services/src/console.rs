// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ends of a console (SPEC chapter K): a [`TerminalEnd`] is one end of a terminal between two kernels, and also accepts the
//! log of the other kernel. A [`Log`] keeps the log of a kernel until the host listens.

use crate::ring::Ring;
use mk_ipi_abi::console::{Body, ConsoleMessage};
use mk_ipi_abi::Incarnation;

/// The result of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The message was a listen. The other end may accept more bytes than before: try to send.
    Listen,
    /// The message had bytes, which were accepted.
    Bytes,
    /// The message is for another life of this kernel, or is from a former life of the other kernel. It was dropped.
    Stale,
    /// The bytes are not at the next position, or were not granted; or a [`Log`] received a message that is not a listen. The
    /// message was dropped.
    Refused,
}

/// One end of a terminal between this kernel and another. If several CPUs use it, the caller must hold a lock.
#[derive(Debug)]
pub struct TerminalEnd<B> {
    /// The present life of the other kernel. `None` if it is not up.
    peer: Option<Incarnation>,
    /// Bytes to be sent.
    out: Ring<B>,
    /// How many bytes were sent to the present life of the other kernel.
    sent: u64,
    /// The position up to which the other end accepts bytes.
    limit: u64,
    /// Received bytes that no program has read yet.
    kept: Ring<B>,
    /// The position of the next terminal byte from the other end.
    received: u64,
    /// The position of the next log byte from the other kernel.
    logged: u64,
    /// The position up to which this end has granted bytes to the other end.
    granted: u64,
    /// True if a listen must be sent.
    listen_pending: bool,
    /// Number of lost bytes: received bytes that were replaced before a program read them, and bytes that the other kernel left
    /// out of its log.
    lost: u64,
    /// True if bytes of `out` were sent, or dropped by `peer_up`, since the last call of `has_made_room`.
    made_room: bool,
    /// Whether a program reads the received bytes.
    has_reader: bool,
}

/// Returned by [`TerminalEnd::next`] and [`Log::next`] with each message. Pass it to `sent` after the message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent(usize);

impl<B: AsRef<[u8]> + AsMut<[u8]>> TerminalEnd<B> {
    /// Makes an end whose peer is not up. `out` is the buffer for bytes to be sent, `kept` the buffer for received bytes.
    pub const fn new(out: B, kept: B) -> Self {
        Self {
            peer: None,
            out: Ring::new(out),
            sent: 0,
            limit: 0,
            kept: Ring::new(kept),
            received: 0,
            logged: 0,
            granted: 0,
            listen_pending: false,
            lost: 0,
            made_room: false,
            has_reader: false,
        }
    }

    /// Handles the event that the other kernel is up as `life`. If [`TerminalEnd::peer`] is this life already, returns false.
    /// Otherwise drops the unsent bytes, begins again at position 0 in both directions, and returns true. In both cases a listen
    /// is then pending, and received bytes stay.
    pub fn peer_up(&mut self, life: Incarnation) -> bool {
        let is_new = self.peer != Some(life);
        if is_new {
            self.out.clear();
            self.made_room = true;
            (self.peer, self.sent, self.limit) = (Some(life), 0, 0);
            (self.received, self.logged, self.granted) = (0, 0, 0);
            self.grant();
        }
        self.listen_pending = true;
        is_new
    }

    /// The present life of the other kernel. `None` if it is not up.
    pub const fn peer(&self) -> Option<Incarnation> {
        self.peer
    }

    /// Handles the event that the other kernel has died or detached. [`TerminalEnd::next`] returns no message until the other
    /// kernel is up again, as the same life or another one.
    pub fn peer_down(&mut self) {
        self.peer = None;
    }

    /// Handles a message that life `from` of the other kernel has sent. `me` is the present life of this kernel.
    pub fn receive(&mut self, message: &ConsoleMessage<'_>, from: Incarnation, me: Incarnation) -> Received {
        if message.to.is_some_and(|to| to != me) || self.peer.is_some_and(|peer| from.is_before(peer)) {
            return Received::Stale;
        }
        if self.peer != Some(from) {
            self.peer_up(from);
        }
        match message.body {
            Body::Listen { limit } => {
                self.limit = self.limit.max(limit);
                Received::Listen
            }
            Body::Log { position, bytes } => {
                self.lost = self.lost.saturating_add(position.saturating_sub(self.logged));
                self.logged = position.saturating_add(bytes.len() as u64);
                self.keep(bytes);
                Received::Bytes
            }
            Body::Terminal { position, bytes } => {
                let end = position.saturating_add(bytes.len() as u64);
                if position != self.received || end > self.granted {
                    return Received::Refused;
                }
                self.received = end;
                self.keep(bytes);
                self.grant();
                Received::Bytes
            }
        }
    }

    /// Stores received bytes. If the buffer is full, they replace the oldest ones.
    fn keep(&mut self, bytes: &[u8]) {
        let lost = self.kept.push_over(bytes);
        self.lost = self.lost.saturating_add(lost as u64);
    }

    /// Grants more bytes to the other end, if they are at least a quarter of the buffer. If a program reads, only free room is
    /// granted. If no program reads, half of the buffer is granted in any case: new bytes can then replace the oldest ones.
    fn grant(&mut self) {
        let all = self.kept.capacity();
        let room = if self.has_reader { self.kept.room() } else { all / 2 };
        let limit = self.received.saturating_add(room as u64);
        if limit.saturating_sub(self.granted) >= (all / 4) as u64 {
            self.granted = limit;
            self.listen_pending = true;
        }
    }

    /// Sets whether a program reads the received bytes.
    pub fn set_reader(&mut self, has_reader: bool) {
        self.has_reader = has_reader;
        self.grant();
    }

    /// Adds bytes to be sent, as many as fit. Returns their number.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.out.push(bytes)
    }

    /// How many more bytes [`TerminalEnd::write`] can add now.
    pub fn room(&self) -> usize {
        self.out.room()
    }

    /// Returns whether bytes were sent, or dropped by [`TerminalEnd::peer_up`], since the last call of this method. Then
    /// [`TerminalEnd::write`] can add more.
    pub fn has_made_room(&mut self) -> bool {
        core::mem::take(&mut self.made_room)
    }

    /// Number of bytes that wait to be sent.
    pub fn unsent(&self) -> usize {
        self.out.len()
    }

    /// Drops unsent bytes.
    pub fn clear_unsent(&mut self) {
        self.out.clear();
    }

    /// Copies received bytes to `to`, the oldest first, as many as fit. Returns their number. They stay until
    /// [`TerminalEnd::read`] removes them.
    pub fn peek(&self, to: &mut [u8]) -> usize {
        self.kept.copy(0, to)
    }

    /// Removes the `count` oldest received bytes, after a program has read them.
    pub fn read(&mut self, count: usize) {
        self.kept.drop_first(count);
        self.grant();
    }

    /// Number of bytes lost since the last [`TerminalEnd::clear_lost`]: received bytes that were replaced before they were read,
    /// and bytes that were left out of the other kernel's log.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Sets the number of lost bytes to 0, after it was shown to the reader.
    pub fn clear_lost(&mut self) {
        self.lost = 0;
    }

    /// Writes the next message to send to `to`, and returns it. `None` if there is nothing to send, or if `to` is too short.
    /// After the message was sent, call [`TerminalEnd::sent`].
    pub fn next<'b>(&self, to: &'b mut [u8]) -> Option<(&'b [u8], Sent)> {
        let life = self.peer?;
        let of = |body| ConsoleMessage { to: Some(life), body };
        if self.listen_pending {
            let payload = of(Body::Listen { limit: self.granted }).encode(to)?;
            return Some((payload, Sent(0)));
        }
        let may = usize::try_from(self.limit.saturating_sub(self.sent)).unwrap_or(usize::MAX);
        let mut bytes = [0; BYTES];
        let most = may.min(to.len().saturating_sub(ConsoleMessage::HEADER)).min(BYTES);
        let count = self.out.copy(0, bytes.get_mut(..most)?);
        let bytes = bytes.get(..count).filter(|bytes| !bytes.is_empty())?;
        let payload = of(Body::Terminal { position: self.sent, bytes }).encode(to)?;
        Some((payload, Sent(count)))
    }

    /// Says that the message which [`TerminalEnd::next`] returned last was sent.
    pub fn sent(&mut self, Sent(count): Sent) {
        match count {
            0 => self.listen_pending = false,
            count => {
                self.out.drop_first(count);
                self.made_room = true;
                self.sent = self.sent.saturating_add(count as u64);
            }
        }
    }

    /// Returns the buffers.
    pub fn into_buffers(self) -> [B; 2] {
        [self.out.into_buffer(), self.kept.into_buffer()]
    }
}

/// The largest number of bytes of a terminal or a log in one message: what fits into a message of 256 bytes.
pub const BYTES: usize = 256 - ConsoleMessage::HEADER;

/// The log of a kernel. Until the host listens, it keeps the newest bytes, as many as the buffer can hold. If several CPUs use
/// it, the caller must hold a lock.
#[derive(Debug)]
pub struct Log<B> {
    kept: Ring<B>,
    /// The position in the log of the oldest byte in `kept`.
    position: u64,
    /// The life of the host that listens.
    listener: Option<Incarnation>,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Log<B> {
    /// Makes an empty log in the buffer `kept`.
    pub const fn new(kept: B) -> Self {
        Self { kept: Ring::new(kept), position: 0, listener: None }
    }

    /// Adds bytes to the log. If the buffer is full, the oldest bytes are dropped.
    pub fn write(&mut self, bytes: &[u8]) {
        let lost = self.kept.push_over(bytes);
        self.position = self.position.saturating_add(lost as u64);
    }

    /// Handles a console message that life `from` of the host has sent. `me` is the present life of this kernel. Only a listen is
    /// accepted.
    pub fn receive(&mut self, message: &ConsoleMessage<'_>, from: Incarnation, me: Incarnation) -> Received {
        match message.body {
            _ if message.to.is_some_and(|to| to != me) => Received::Stale,
            Body::Listen { .. } => {
                self.listener = Some(from);
                Received::Listen
            }
            _ => Received::Refused,
        }
    }

    /// Writes the next message to send to `to`, and returns it. `None` if the host does not listen, if there is nothing to send,
    /// or if `to` is too short. After the message was sent, call [`Log::sent`].
    pub fn next<'b>(&self, to: &'b mut [u8]) -> Option<(&'b [u8], Sent)> {
        let life = self.listener?;
        let mut bytes = [0; BYTES];
        let most = to.len().saturating_sub(ConsoleMessage::HEADER).min(BYTES);
        let count = self.kept.copy(0, bytes.get_mut(..most)?);
        let bytes = bytes.get(..count).filter(|bytes| !bytes.is_empty())?;
        let message = ConsoleMessage { to: Some(life), body: Body::Log { position: self.position, bytes } };
        Some((message.encode(to)?, Sent(count)))
    }

    /// Says that the message which [`Log::next`] returned last was sent.
    pub fn sent(&mut self, Sent(count): Sent) {
        self.kept.drop_first(count);
        self.position = self.position.saturating_add(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const HOST: Incarnation = Incarnation::FIRST;

    fn life(n: u32) -> Incarnation {
        Incarnation::new(n).unwrap()
    }

    type End = TerminalEnd<Vec<u8>>;

    fn line(out: usize, kept: usize) -> End {
        TerminalEnd::new(std::vec![0; out], std::vec![0; kept])
    }

    /// Passes all messages that `from` has to send to `to`. Returns their results.
    fn carry(from: &mut End, of: Incarnation, to: &mut End, at: Incarnation) -> Vec<Received> {
        let (mut heard, mut place) = (Vec::new(), [0; 256]);
        while let Some((payload, sent)) = from.next(&mut place) {
            heard.push(to.receive(&ConsoleMessage::decode(payload).unwrap(), of, at));
            from.sent(sent);
        }
        heard
    }

    fn read(line: &mut End, most: usize) -> Vec<u8> {
        let mut bytes = std::vec![0; most];
        let count = line.peek(&mut bytes);
        line.read(count);
        bytes.truncate(count);
        bytes
    }

    #[test]
    fn a_terminals_bytes_wait_for_whoever_reads_and_none_is_lost() {
        let (mut a, mut b) = (line(64, 64), line(64, 64));
        a.set_reader(true);
        b.set_reader(true);
        b.peer_up(HOST);
        a.peer_up(life(5));
        let (mut written, mut got) = (0u64, Vec::new());
        for round in 0..400usize {
            let some: Vec<u8> = (0..round % 23).map(|i| (written + i as u64) as u8).collect();
            written += a.write(&some) as u64;
            carry(&mut a, HOST, &mut b, life(5));
            got.extend(read(&mut b, round % 7 + 3));
            carry(&mut b, life(5), &mut a, HOST);
        }
        for _ in 0..100 {
            carry(&mut a, HOST, &mut b, life(5));
            got.extend(read(&mut b, 64));
            carry(&mut b, life(5), &mut a, HOST);
        }
        assert!(written > 1_000);
        assert!(got.len() as u64 == written && got.iter().enumerate().all(|(i, byte)| *byte == i as u8));
        assert_eq!((a.lost(), b.lost()), (0, 0));
    }

    #[test]
    fn where_nobody_reads_the_latest_is_kept_and_the_loss_is_told() {
        let (mut a, mut b) = (line(64, 64), line(64, 64));
        b.peer_up(HOST);
        a.peer_up(life(5));
        for round in 0..50u8 {
            carry(&mut b, life(5), &mut a, HOST);
            assert_eq!(a.write(&[round; 10]), 10, "the writer never has to wait");
            carry(&mut a, HOST, &mut b, life(5));
        }
        b.set_reader(true);
        let got = read(&mut b, 100);
        assert_eq!((got.len(), got.last()), (64, Some(&49)));
        assert_eq!(b.lost(), 500 - 64);
        b.clear_lost();
        assert_eq!(b.lost(), 0);
    }

    #[test]
    fn what_is_not_granted_or_not_next_is_refused() {
        let mut b = line(64, 64);
        b.peer_up(HOST);
        let mut place = [0; 256];
        let terminal =
            |position, bytes| ConsoleMessage { to: Some(life(5)), body: Body::Terminal { position, bytes } };
        assert!(b.next(&mut place).is_some());
        assert_eq!(b.receive(&terminal(1, b"x"), HOST, life(5)), Received::Refused);
        assert_eq!(b.receive(&terminal(0, &[0; 33]), HOST, life(5)), Received::Refused, "32 are granted");
        assert_eq!(b.receive(&terminal(0, &[0; 32]), HOST, life(5)), Received::Bytes);
        assert_eq!(b.receive(&terminal(0, b"x"), HOST, life(5)), Received::Refused);
        assert_eq!(b.receive(&terminal(32, b"x"), HOST, life(6)), Received::Stale);
        assert_eq!(b.peek(&mut [0; 64]), 32);
    }

    #[test]
    fn a_new_life_begins_anew_and_gets_nothing_of_the_former_ones() {
        let (mut a, mut b) = (line(64, 64), line(64, 64));
        b.peer_up(HOST);
        a.peer_up(life(5));
        carry(&mut b, life(5), &mut a, HOST);
        a.write(b"for the former");
        let mut place = [0; 256];
        let late = a.next(&mut place).map(|(payload, _)| payload.to_vec());
        assert!(!a.peer_up(life(5)) && a.peer_up(life(6)));
        let listen = ConsoleMessage { to: None, body: Body::Listen { limit: 9 } };
        assert_eq!(a.receive(&listen, life(5), HOST), Received::Stale, "a late message of a former life");
        let (mut next, message) = (line(64, 64), late.unwrap());
        next.peer_up(HOST);
        assert_eq!(next.receive(&ConsoleMessage::decode(&message).unwrap(), HOST, life(6)), Received::Stale);
        carry(&mut next, life(6), &mut a, HOST);
        a.write(b"for this one");
        carry(&mut a, HOST, &mut next, life(6));
        assert_eq!(read(&mut next, 64), b"for this one");
        assert_eq!(b.receive(&listen, HOST, life(5)), Received::Listen);
    }

    #[test]
    fn a_log_is_kept_until_somebody_listens() {
        let (mut log, mut host) = (Log::new([0; 32]), line(64, 64));
        let mut place = [0; 64];
        for round in 0..10u8 {
            log.write(&[b'0' + round; 4]);
        }
        assert!(log.next(&mut place).is_none(), "the host does not listen");
        host.peer_up(life(5));
        let (listen, _) = host.next(&mut place).unwrap();
        let listen = listen.to_vec();
        let message = ConsoleMessage::decode(&listen).unwrap();
        assert_eq!(log.receive(&message, HOST, life(6)), Received::Stale);
        assert_eq!(log.receive(&message, HOST, life(5)), Received::Listen);
        while let Some((payload, sent)) = log.next(&mut place) {
            assert_eq!(
                host.receive(&ConsoleMessage::decode(payload).unwrap(), life(5), HOST),
                Received::Bytes
            );
            log.sent(sent);
        }
        assert_eq!(read(&mut host, 64), b"22223333444455556666777788889999");
        assert_eq!(host.lost(), 8, "the oldest 8 bytes were dropped");
        host.clear_lost();
        log.write(b"more");
        let (payload, _) = log.next(&mut place).unwrap();
        host.receive(&ConsoleMessage::decode(payload).unwrap(), life(5), HOST);
        assert_eq!((read(&mut host, 64).as_slice(), host.lost()), (b"more".as_slice(), 0));
    }
}
