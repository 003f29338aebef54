// SPDX-License-Identifier: MIT OR Apache-2.0
//! A console and a channel whose other end is hostile (SPEC chapters K and G). Checks that bytes are accepted only if they were
//! granted and are in order, that memory stays bounded, and that the messages of this end have the right form.

use arbitrary::{Arbitrary, Unstructured};
use mk_ipi_abi::channel::{self, ChannelMessage, MAX_MESSAGE, MESSAGE_COST};
use mk_ipi_abi::console::{self, ConsoleMessage};
use mk_ipi_abi::Incarnation;
use mk_ipi_services::channel::{Inbox, Outbox, PartOutcome};
use mk_ipi_services::console::{Log, Received, TerminalEnd};

const OUT: usize = 64;
const KEPT: usize = 96;
const WINDOW: usize = 6000;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    /// A payload of any bytes.
    Raw(&'a [u8]),
    /// A console message that has the right form, with a position near the expected one.
    Console {
        kind: u8,
        to: u8,
        from: u8,
        off: i8,
        bytes: &'a [u8],
    },
    Channel {
        kind: u8,
        session: u8,
        off: i8,
        flags: u8,
        len: u16,
    },
    Write(&'a [u8]),
    Read(u8),
    Open(bool),
    Up(u8),
    Send,
    Begin(u8),
}

fn life(n: u8) -> Incarnation {
    Incarnation::new(u32::from(n % 3) + 1).unwrap()
}

/// A console and a channel, and a model of them.
struct Both {
    line: TerminalEnd<Vec<u8>>,
    log: Log<Vec<u8>>,
    /// The expected position of the next byte from the other end's terminal.
    terminal: u64,
    peer: Option<Incarnation>,
    inbox: Inbox<Vec<u8>>,
    position: u64,
    granted: u64,
    outbox: Outbox,
}

/// Sends the messages and makes the calls that `data` describes, and checks the results.
pub fn services(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut both = Both {
        line: TerminalEnd::new(vec![0; OUT], vec![0; KEPT]),
        log: Log::new(vec![0; KEPT]),
        terminal: 0,
        peer: None,
        inbox: Inbox::new(vec![0; WINDOW], 1).unwrap(),
        position: 0,
        granted: 0,
        outbox: Outbox::new(),
    };
    both.tell();
    while let Ok(step) = Step::arbitrary(&mut input) {
        if input.is_empty() {
            break;
        }
        both.step(&step);
    }
}

impl Both {
    fn step(&mut self, step: &Step<'_>) {
        match *step {
            Step::Raw(bytes) => {
                if let Ok(message) = ConsoleMessage::decode(bytes) {
                    assert_eq!(message.encode(&mut vec![0; bytes.len()]), Some(bytes));
                    self.receive_console(&message, life(0));
                }
                if let Ok(message) = ChannelMessage::decode(bytes) {
                    let mut room = vec![0; bytes.len()];
                    assert_eq!(ChannelMessage::decode(message.encode(&mut room).unwrap()), Ok(message));
                    self.receive_channel(&message.body);
                }
            }
            Step::Console { kind, to, from, off, bytes } => {
                let position = self.terminal.saturating_add_signed(off.into());
                let body = match kind % 3 {
                    0 => console::Body::Listen { limit: position },
                    1 => console::Body::Log { position, bytes },
                    _ => console::Body::Terminal { position, bytes },
                };
                let message = ConsoleMessage { to: (to % 4 != 3).then(|| life(to)), body };
                let mut room = vec![0; ConsoleMessage::HEADER + bytes.len()];
                if let Ok(message) = ConsoleMessage::decode(message.encode(&mut room).unwrap()) {
                    self.receive_console(&message, life(from));
                }
            }
            Step::Channel { kind, session, off, flags, len } => {
                let position = self.position.saturating_add_signed(off.into());
                let (session, bytes) = (u32::from(session % 3), vec![7; usize::from(len % 5000)]);
                let body = match kind % 8 {
                    0 => channel::Body::Ask,
                    1 => channel::Body::Grant { session, limit: position },
                    2 => channel::Body::Closed { session, read: position },
                    _ => {
                        let (is_first, is_last) = (flags & 1 != 0, flags & 2 != 0);
                        channel::Body::Part { session, position, is_first, is_last, bytes: &bytes }
                    }
                };
                self.receive_channel(&body);
            }
            Step::Write(bytes) => {
                let room = self.line.room();
                assert_eq!(self.line.write(bytes), room.min(bytes.len()));
                self.log.write(bytes);
            }
            Step::Read(count) => {
                let mut room = vec![0; count.into()];
                let count = self.line.peek(&mut room);
                self.line.read(count);
                self.read();
            }
            Step::Open(is_open) => self.line.set_reader(is_open),
            Step::Up(n) => {
                self.line.peer_up(life(n));
                self.heard_of(life(n));
            }
            Step::Send => self.send(),
            Step::Begin(session) => {
                self.inbox.begin(u32::from(session % 3) + 1);
                (self.position, self.granted) = (0, 0);
                self.tell();
            }
        }
    }

    /// A message or an event of life `from` was accepted. If this is another life than before, the positions of the terminal
    /// begin at 0 again.
    fn heard_of(&mut self, from: Incarnation) {
        if self.peer != Some(from) {
            (self.peer, self.terminal) = (Some(from), 0);
        }
    }

    fn receive_console(&mut self, message: &ConsoleMessage<'_>, from: Incarnation) {
        let me = life(0);
        let is_ours = message.to.is_none_or(|to| to == me);
        let heard = self.line.receive(message, from, me);
        let is_late = self.peer.is_some_and(|peer| from.is_before(peer));
        assert_eq!(heard == Received::Stale, !is_ours || is_late);
        if heard != Received::Stale {
            self.heard_of(from);
        }
        if let (Received::Bytes, console::Body::Terminal { position, bytes }) = (heard, message.body) {
            assert_eq!(position, self.terminal, "bytes out of order are accepted");
            assert!(bytes.len() <= KEPT, "more bytes are accepted than there is room for");
            self.terminal += bytes.len() as u64;
        }
        assert_eq!(self.log.receive(message, from, me) == Received::Stale, !is_ours);
        let mut room = [0; KEPT + 1];
        assert!(self.line.peek(&mut room) <= KEPT);
    }

    fn receive_channel(&mut self, body: &channel::Body<'_>) {
        let before = self.inbox.messages();
        let taken = self.inbox.receive(body);
        if let channel::Body::Part { position, is_first, bytes, .. } = *body {
            if matches!(taken, PartOutcome::Message | PartOutcome::Part) {
                assert_eq!(position, self.position, "a part out of order is accepted");
                self.position += bytes.len() as u64 + if is_first { MESSAGE_COST } else { 0 };
                assert!(self.position <= self.granted, "a part that was not granted is accepted");
            } else if taken == PartOutcome::Refused && position == self.position {
                // Some refused parts consume granted space, others do not. The model does not know which, so it begins a new
                // session.
                self.inbox.begin(1);
                (self.position, self.granted) = (0, 0);
            }
        }
        assert_eq!(self.inbox.messages(), before + usize::from(taken == PartOutcome::Message));
        self.tell();
        self.outbox.receive(body, life(1));
    }

    /// Stores the limit that the inbox grants.
    fn tell(&mut self) {
        if let Some(channel::Body::Grant { limit, .. }) = self.inbox.next() {
            assert!(limit - self.position <= WINDOW as u64);
            self.granted = limit;
            self.inbox.sent();
        }
    }

    fn read(&mut self) {
        let mut room = vec![0; MAX_MESSAGE];
        let len = self.inbox.len();
        assert_eq!(self.inbox.read(&mut room), len);
        assert!(
            len.is_none_or(|len| len <= MAX_MESSAGE && room[..len].iter().all(|byte| *byte == 7) || len > 0)
        );
        self.tell();
    }

    /// Sends all messages that can be sent, and checks that they have the right form.
    fn send(&mut self) {
        let mut room = [0; 256];
        for _ in 0..8 {
            if let Some((payload, sent)) = self.line.next(&mut room) {
                assert!(ConsoleMessage::decode(payload).is_ok());
                self.line.sent(sent);
            }
            if let Some((payload, sent)) = self.log.next(&mut room) {
                assert!(ConsoleMessage::decode(payload).is_ok());
                self.log.sent(sent);
            }
        }
        let message = [7; 600];
        let mut at = 0;
        while let Some((payload, behind)) = self.outbox.part(1, &message, at, &mut room) {
            assert!(ChannelMessage::decode(payload).is_ok() || behind > at);
            self.outbox.sent(at, behind);
            at = behind;
        }
        if self.outbox.accepts(MAX_MESSAGE) {
            assert!(self.outbox.has_reader());
        }
    }
}
