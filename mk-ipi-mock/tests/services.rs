// SPDX-License-Identifier: MIT OR Apache-2.0
//! A console and a channel between two kernels of the mock machine (SPEC chapters K and G).
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic"
)]

use mk_ipi_abi::channel::{Body, ChannelMessage, CHANNEL_TYPE};
use mk_ipi_abi::console::{ConsoleMessage, CONSOLE_TYPE};
use mk_ipi_abi::native::Geometry;
use mk_ipi_abi::{Incarnation, InstanceId, MessageType, PhysRange};
use mk_ipi_mock::{Callback, Link, Machine};
use mk_ipi_services::channel::{Inbox, Outbox, PartOutcome, ReaderChange};
use mk_ipi_services::console::{Log, Received, TerminalEnd};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

const FIRST: Incarnation = Incarnation::FIRST;
const SECOND: Incarnation = Incarnation::new(2).unwrap();
/// The smallest number of lines. A lane holds one message of 256 bytes and a few short ones.
const LINES: u32 = 8;
const NUMBER: u32 = 7;

fn id(kernel: usize) -> InstanceId {
    InstanceId::new(kernel as u8)
}

/// The messages that a kernel got and the test has not taken yet: the sender's incarnation, if it is known, and the payload.
type Came = Arc<Mutex<VecDeque<(Option<Incarnation>, Vec<u8>)>>>;

/// A machine with kernels 0 and 1, and the messages that each of them got.
struct Two {
    machine: Machine,
    regions: [PhysRange; 2],
    links: [Option<Arc<Link>>; 2],
    came: [Came; 2],
    msg_type: MessageType,
}

impl Two {
    fn new(msg_type: MessageType) -> Self {
        let machine = Machine::builder().kernel(&[0]).kernel(&[3]).memory(4096).build();
        let geometry = Geometry::new(2, LINES, 256).unwrap();
        let regions = [(); 2].map(|()| machine.native_region(geometry));
        let mut two = Self { machine, regions, links: [None, None], came: Default::default(), msg_type };
        two.boot(0, FIRST);
        two.boot(1, FIRST);
        two.settle();
        two
    }

    /// Begins a life of kernel `k`. The messages that its former life got are dropped.
    fn boot(&mut self, k: usize, life: Incarnation) {
        let link = self.machine.kernel(k).boot(id(k), life);
        self.came[k] = Came::default();
        let came = self.came[k].clone();
        let keep = move |m: &mk_ipi_core::Message<'_>| {
            came.lock().unwrap().push_back((m.sender_incarnation(), m.payload().to_vec()));
        };
        let _ = link.register(self.msg_type, Callback::new(keep)).unwrap();
        for (other, region) in self.regions.iter().enumerate() {
            let kernel = self.machine.kernel(other);
            let config = kernel.native_config(id(other), FIRST);
            link.attach_instance(&config, Some(*region)).unwrap();
        }
        self.links[k] = Some(link);
    }

    fn settle(&self) {
        self.machine.run(|_| ()).unwrap();
    }

    /// Sends to the other kernel. Returns false if the lane is full or the other kernel has not answered yet.
    fn send(&self, from: usize, payload: &[u8]) -> bool {
        let link = self.links[from].as_ref().unwrap();
        match link.send(id(1 - from), self.msg_type, payload) {
            Ok(_) => true,
            Err(e) => {
                assert!(e.is_transient(), "{e:?}");
                false
            }
        }
    }

    /// Takes the oldest message that kernel `at` got.
    fn next(&self, at: usize) -> Option<(Option<Incarnation>, Vec<u8>)> {
        self.came[at].lock().unwrap().pop_front()
    }
}

type Terminal = TerminalEnd<Vec<u8>>;

fn line() -> Terminal {
    TerminalEnd::new(vec![0; 200], vec![0; 600])
}

/// Kernel `k` sends the messages that its terminal `line` wants to send, and passes the messages that it got to `line`.
fn play(two: &Two, k: usize, line: &mut Terminal, life: Incarnation) {
    let mut room = [0; 256];
    while let Some((payload, sent)) = line.next(&mut room) {
        if !two.send(k, payload) {
            break;
        }
        line.sent(sent);
    }
    two.settle();
    while let Some((Some(from), payload)) = two.next(k) {
        assert_ne!(line.receive(&ConsoleMessage::decode(&payload).unwrap(), from, life), Received::Refused);
    }
}

/// Reads up to `most` bytes from a terminal.
fn read(line: &mut Terminal, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; most];
    let count = line.peek(&mut bytes);
    line.read(count);
    bytes.truncate(count);
    bytes
}

#[test]
fn a_terminal_goes_through_a_full_lane_whole_in_both_directions() {
    let two = Two::new(CONSOLE_TYPE);
    let mut ends = [line(), line()];
    ends.iter_mut().for_each(|end| {
        end.set_reader(true);
        end.peer_up(FIRST);
    });
    let (mut written, mut got) = ([0u64; 2], [Vec::new(), Vec::new()]);
    for round in 0..500usize {
        for k in 0..2 {
            let some: Vec<u8> = (0..round * 7 % 190).map(|i| (written[k] + i as u64) as u8).collect();
            written[k] += ends[k].write(if round < 400 { &some } else { &[] }) as u64;
            play(&two, k, &mut ends[k], FIRST);
            got[k].extend(read(&mut ends[k], 40 + round));
        }
    }
    for k in 0..2 {
        assert!(written[k] > 10_000);
        let whole = got[1 - k].iter().enumerate().all(|(i, byte)| *byte == i as u8);
        assert!(whole && got[1 - k].len() as u64 == written[k], "{k}");
        assert_eq!(ends[k].lost(), 0);
    }
}

#[test]
fn a_log_from_before_its_host_listens_comes_and_the_next_lifes_too() {
    let mut two = Two::new(CONSOLE_TYPE);
    let mut host = line();
    host.set_reader(true);
    for life in [FIRST, SECOND] {
        let mut log = Log::new([0; 400]);
        let mut room = [0; 256];
        log.write(b"boots");
        assert!(log.next(&mut room).is_none(), "the log sends nothing before the host has sent Listen");
        if life == SECOND {
            two.boot(1, SECOND);
        }
        host.peer_up(life);
        (0..4).for_each(|_| two.settle());
        play(&two, 0, &mut host, FIRST);
        while let Some((Some(from), payload)) = two.next(1) {
            let heard = log.receive(&ConsoleMessage::decode(&payload).unwrap(), from, life);
            assert_eq!(heard, Received::Listen);
        }
        let (payload, sent) = log.next(&mut room).unwrap();
        assert!(two.send(1, payload));
        log.sent(sent);
        two.settle();
        play(&two, 0, &mut host, FIRST);
        assert_eq!(read(&mut host, 600), b"boots");
        assert_eq!(host.lost(), 0);
    }
}

/// The reader of the channel: kernel 1, in its incarnation `life`.
struct Receiving {
    inbox: Inbox<Vec<u8>>,
    life: Incarnation,
}

impl Receiving {
    fn new(session: u32, life: Incarnation) -> Self {
        Self { inbox: Inbox::new(vec![0; 8192], session).unwrap(), life }
    }

    /// Passes the messages that kernel 1 got to the inbox, and sends the inbox's next message, which grants space to the writer.
    /// Returns the outcome of each part.
    fn play(&mut self, two: &Two) -> Vec<PartOutcome> {
        let mut taken = Vec::new();
        while let Some((_, payload)) = two.next(1) {
            let message = ChannelMessage::decode(&payload).unwrap();
            let is_ours = message.to.is_none_or(|to| to == self.life);
            match message.body {
                Body::Ask => self.inbox.asked(self.inbox.session() + 1),
                _ if !is_ours => taken.push(PartOutcome::Stale),
                body => taken.push(self.inbox.receive(&body)),
            }
        }
        if let Some(body) = self.inbox.next() {
            let mut room = [0; 256];
            let message = ChannelMessage { number: NUMBER, to: Some(FIRST), body };
            if two.send(1, message.encode(&mut room).unwrap()) {
                self.inbox.sent();
            }
        }
        two.settle();
        taken
    }
}

/// The writer of the channel: kernel 0.
#[derive(Default)]
struct Sending {
    outbox: Outbox,
    /// The message that is being sent.
    message: Vec<u8>,
    /// How many bytes of `message` were sent.
    at: usize,
}

impl Sending {
    /// Sends as many parts as the reader has granted and the lane has space for. Then passes the messages that kernel 0 got to
    /// the outbox. Returns the changes of the reader that the outbox reports.
    fn play(&mut self, two: &Two) -> Vec<ReaderChange> {
        let mut room = [0; 256];
        while let Some((payload, behind)) = self.outbox.part(NUMBER, &self.message, self.at, &mut room) {
            if !two.send(0, payload) {
                break;
            }
            self.outbox.sent(self.at, behind);
            self.at = behind;
        }
        two.settle();
        let mut heard = Vec::new();
        while let Some((Some(from), payload)) = two.next(0) {
            heard.push(self.outbox.receive(&ChannelMessage::decode(&payload).unwrap().body, from));
        }
        heard
    }

    /// Begins to send a message. The former message must have been sent completely.
    fn begin(&mut self, message: Vec<u8>) {
        assert!(self.at == self.message.len() && self.outbox.accepts(message.len()));
        (self.message, self.at) = (message, 0);
    }
}

/// The writer asks the reader to begin a session.
fn ask(two: &Two) {
    let mut room = [0; 256];
    let message = ChannelMessage { number: NUMBER, to: None, body: Body::Ask };
    assert!(two.send(0, message.encode(&mut room).unwrap()));
    two.settle();
}

#[test]
fn messages_of_programs_go_through_a_full_lane_whole_and_in_order() {
    let two = Two::new(CHANNEL_TYPE);
    let (mut reader, mut writer) = (Receiving::new(1, FIRST), Sending::default());
    ask(&two);
    let (mut sent, mut got, mut waited) = (0u32, 0u32, 0);
    let of = |n: u32| vec![n as u8; 1 + (n as usize * 977) % 4096];
    while got < 300 {
        reader.play(&two);
        writer.play(&two);
        let message = of(sent);
        if sent < 300 && writer.at == writer.message.len() && writer.outbox.accepts(message.len()) {
            writer.begin(message);
            sent += 1;
        } else if reader.inbox.messages() > 0 {
            let mut room = [0; 4096];
            let len = reader.inbox.read(&mut room).unwrap();
            assert_eq!(room[..len], of(got));
            got += 1;
        } else {
            waited += 1;
            assert!(waited < 100_000, "no message arrives any more");
        }
    }
    assert!(waited > 300, "a lane of 8 lines must often be full: {waited}");
}

#[test]
fn no_message_reaches_the_next_life_of_its_reader() {
    let mut two = Two::new(CHANNEL_TYPE);
    let (mut reader, mut writer) = (Receiving::new(1, FIRST), Sending::default());
    ask(&two);
    reader.play(&two);
    assert_eq!(writer.play(&two), [ReaderChange::Changed]);
    writer.begin(b"for the first life".to_vec());
    // The message is sent, but kernel 1 does not read it in this life. The lane keeps it for the next life.
    let mut room = [0; 256];
    let (payload, behind) = writer.outbox.part(NUMBER, &writer.message, 0, &mut room).unwrap();
    assert!(two.send(0, payload));
    writer.outbox.sent(0, behind);
    writer.at = behind;
    two.boot(1, SECOND);
    let mut reader = Receiving::new(2, SECOND);
    (0..4).for_each(|_| two.settle());
    assert_eq!(reader.play(&two), [PartOutcome::Stale]);
    assert_eq!(
        writer.play(&two),
        [ReaderChange::ChangedWithLoss],
        "the writer gets a change that says that a message is lost"
    );
    writer.begin(b"for the second".to_vec());
    writer.play(&two);
    assert_eq!(reader.play(&two), [PartOutcome::Message]);
    let len = reader.inbox.read(&mut room).unwrap();
    assert_eq!(&room[..len], b"for the second");
}
