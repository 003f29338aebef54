// SPDX-License-Identifier: MIT OR Apache-2.0
//! A console and a channel whose other end says anything (SPEC chapters K and G): what is taken was granted and is in order, memory
//! stays bounded, and what a correct end says comes back as it went.

use arbitrary::{Arbitrary, Unstructured};
use mk_ipi_abi::channel::{self, Channel, MAX_MESSAGE, MESSAGE_COST};
use mk_ipi_abi::console::{self, Console};
use mk_ipi_abi::Incarnation;
use mk_ipi_services::channel::{Inbox, Outbox, Taken};
use mk_ipi_services::console::{Heard, Line, Log};

const OUT: usize = 64;
const KEPT: usize = 96;
const WINDOW: usize = 6000;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    /// A payload of any bytes.
    Raw(&'a [u8]),
    /// One that is well formed, near what is expected.
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

/// Both services, what they were told, and what a model expects.
struct Both {
    line: Line<Vec<u8>>,
    log: Log<Vec<u8>>,
    /// The next byte of the other end's terminal, and what it was granted, as far as was sent.
    terminal: u64,
    peer: Option<Incarnation>,
    inbox: Inbox<Vec<u8>>,
    position: u64,
    granted: u64,
    outbox: Outbox,
}

/// Has a hostile other end say what `data` says.
pub fn services(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut both = Both {
        line: Line::new(vec![0; OUT], vec![0; KEPT]),
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
                if let Ok(said) = Console::decode(bytes) {
                    assert_eq!(said.encode(&mut vec![0; bytes.len()]), Some(bytes));
                    self.hear(&said, life(0));
                }
                if let Ok(said) = Channel::decode(bytes) {
                    let mut room = vec![0; bytes.len()];
                    assert_eq!(Channel::decode(said.encode(&mut room).unwrap()), Ok(said));
                    self.take(&said.saying);
                }
            }
            Step::Console { kind, to, from, off, bytes } => {
                let position = self.terminal.saturating_add_signed(off.into());
                let saying = match kind % 3 {
                    0 => console::Saying::Listen { limit: position },
                    1 => console::Saying::Log { position, bytes },
                    _ => console::Saying::Terminal { position, bytes },
                };
                let said = Console { to: (to % 4 != 3).then(|| life(to)), saying };
                let mut room = vec![0; Console::HEADER + bytes.len()];
                if let Ok(said) = Console::decode(said.encode(&mut room).unwrap()) {
                    self.hear(&said, life(from));
                }
            }
            Step::Channel { kind, session, off, flags, len } => {
                let position = self.position.saturating_add_signed(off.into());
                let (session, bytes) = (u32::from(session % 3), vec![7; usize::from(len % 5000)]);
                let saying = match kind % 8 {
                    0 => channel::Saying::Ask,
                    1 => channel::Saying::Grant { session, limit: position },
                    2 => channel::Saying::Closed { session, read: position },
                    _ => {
                        let (is_first, is_last) = (flags & 1 != 0, flags & 2 != 0);
                        channel::Saying::Part { session, position, is_first, is_last, bytes: &bytes }
                    }
                };
                self.take(&saying);
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
            Step::Open(is_open) => self.line.open(is_open),
            Step::Up(n) => {
                self.line.up(life(n));
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

    /// Whether the line begins anew with that life.
    fn heard_of(&mut self, from: Incarnation) {
        if self.peer != Some(from) {
            (self.peer, self.terminal) = (Some(from), 0);
        }
    }

    fn hear(&mut self, said: &Console<'_>, from: Incarnation) {
        let me = life(0);
        let is_ours = said.to.is_none_or(|to| to == me);
        let heard = self.line.hear(said, from, me);
        let is_late = self.peer.is_some_and(|peer| from.is_before(peer));
        assert_eq!(heard == Heard::Stale, !is_ours || is_late);
        if heard != Heard::Stale {
            self.heard_of(from);
        }
        if let (Heard::Bytes, console::Saying::Terminal { position, bytes }) = (heard, said.saying) {
            assert_eq!(position, self.terminal, "in order");
            assert!(bytes.len() <= KEPT, "no more than there can be room for");
            self.terminal += bytes.len() as u64;
        }
        assert_eq!(self.log.hear(said, from, me) == Heard::Stale, !is_ours);
        let mut room = [0; KEPT + 1];
        assert!(self.line.peek(&mut room) <= KEPT);
    }

    fn take(&mut self, saying: &channel::Saying<'_>) {
        let before = self.inbox.messages();
        let taken = self.inbox.take(saying);
        if let channel::Saying::Part { position, is_first, bytes, .. } = *saying {
            if matches!(taken, Taken::Message | Taken::Part) {
                assert_eq!(position, self.position, "in order");
                self.position += bytes.len() as u64 + if is_first { MESSAGE_COST } else { 0 };
                assert!(self.position <= self.granted, "granted");
            } else if taken == Taken::Refused && position == self.position {
                // Too long a message costs what was granted; what begins nothing, or was not granted, costs nothing.
                self.inbox.begin(1);
                (self.position, self.granted) = (0, 0);
            }
        }
        assert_eq!(self.inbox.messages(), before + usize::from(taken == Taken::Message));
        self.tell();
        self.outbox.hear(saying, life(1));
    }

    /// What the inbox grants is known.
    fn tell(&mut self) {
        if let Some(channel::Saying::Grant { limit, .. }) = self.inbox.next() {
            assert!(limit - self.position <= WINDOW as u64);
            self.granted = limit;
            self.inbox.told();
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

    /// All that may be sent is well formed and short enough.
    fn send(&mut self) {
        let mut room = [0; 256];
        for _ in 0..8 {
            if let Some((payload, sent)) = self.line.next(&mut room) {
                assert!(Console::decode(payload).is_ok());
                self.line.sent(sent);
            }
            if let Some((payload, sent)) = self.log.next(&mut room) {
                assert!(Console::decode(payload).is_ok());
                self.log.sent(sent);
            }
        }
        let message = [7; 600];
        let mut at = 0;
        while let Some((payload, behind)) = self.outbox.part(1, &message, at, &mut room) {
            assert!(Channel::decode(payload).is_ok() || behind > at);
            self.outbox.sent(at, behind);
            at = behind;
        }
        if self.outbox.takes(MAX_MESSAGE) {
            assert!(self.outbox.has_reader());
        }
    }
}
