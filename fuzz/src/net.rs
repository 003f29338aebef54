// SPDX-License-Identifier: MIT OR Apache-2.0
//! One end of a network interface gets the messages of a hostile peer (SPEC chapter E). What it does is compared with a simple
//! model.

use arbitrary::{Arbitrary, Unstructured};
use mk_ipi_abi::net::*;
use mk_ipi_abi::{Incarnation, MessageType};
use mk_ipi_net::{FrameAssembler, FrameError, FrameSplitter, Port};

/// One event or call.
#[derive(Arbitrary, Debug)]
enum Step {
    Open {
        features: u8,
        max_frame: u32,
    },
    Close,
    /// A control message of any bytes, from a life of the peer.
    Control(u8, Vec<u8>),
    /// A control message that has the right form, with random values.
    Said {
        life: u8,
        what: bool,
        key: u8,
        heard: u8,
        features: u8,
        max_frame: u32,
    },
    Up(u8),
    Gone(Option<u8>),
    Suspect(bool),
    Say,
    /// A frame message of any bytes; with true a part message.
    Bytes(bool, Vec<u8>),
    /// A frame message whose head has the right form, with random values.
    Frame {
        key: u8,
        number: u8,
        len: u16,
        offload: [u8; 10],
        bytes: u16,
    },
    Part {
        key: u8,
        number: u8,
        at: u16,
        bytes: u16,
    },
    /// This end splits a frame into messages.
    Send {
        len: u32,
        offload: [u8; 10],
        max_message: u32,
    },
}

fn life(number: u8) -> Incarnation {
    Incarnation::new(u32::from(number).max(1)).unwrap()
}

fn key(number: u8) -> u32 {
    u32::from(number % 4)
}

/// A frame number. There are only two, so that the numbers of two messages are often equal.
fn number(number: u8) -> u32 {
    u32::from(number.is_multiple_of(4))
}

/// The offload fields of a frame: in most cases no offload, sometimes an offload that can be valid, sometimes any values.
fn offload(bytes: [u8; 10]) -> Offload {
    let [kind, gso_type, rest @ ..] = bytes;
    let half = |at: usize| u16::from_le_bytes([rest[at], rest[at + 1]]);
    let any = Offload {
        flags: rest[0],
        gso_type,
        hdr_len: half(0),
        gso_size: half(2),
        csum_start: half(4),
        csum_offset: half(6),
    };
    let gso_type =
        [0, Offload::TCPV4, Offload::TCPV6, Offload::TCPV4 | Offload::ECN][usize::from(gso_type % 4)];
    match kind % 8 {
        0 => any,
        1 | 2 => Offload { flags: Offload::NEEDS_CSUM, gso_type, csum_start: 34, csum_offset: 16, ..any },
        _ => Offload::default(),
    }
}

/// One end of the interface, and a model of it.
struct End {
    port: Port,
    gather: FrameAssembler,
    openings: u8,
    /// The frame that is incomplete: how many of its bytes were received, how many it has, and its number.
    frame: Option<(u32, u32, u32)>,
}

/// Makes the calls that the bytes describe, and checks the results.
pub fn net(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut end = End { port: Port::new(), gather: FrameAssembler::new(), openings: 0, frame: None };
    while let (false, Ok(step)) = (input.is_empty(), Step::arbitrary(&mut input)) {
        end.step(step);
        end.check();
    }
}

impl End {
    fn step(&mut self, step: Step) {
        match step {
            Step::Open { features, max_frame } => self.open(features, max_frame),
            Step::Close => _ = self.port.close(),
            Step::Control(of, bytes) => self.receive(of, &bytes),
            Step::Said { life, what, key: k, heard, features, max_frame } => {
                let mut bytes = [0; Control::LEN];
                let what = if what { 1u32 } else { 2 };
                let words = [what, 1, key(k), key(heard), features.into(), max_frame, 0x4444_4402, 0];
                bytes.chunks_mut(4).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
                self.receive(life, &bytes);
            }
            Step::Up(of) => _ = self.port.peer_is_up(life(of)),
            Step::Gone(of) => _ = self.port.peer_is_gone(of.map(life)),
            Step::Suspect(is) => _ = self.port.peer_is_suspect(is),
            Step::Say => {
                if let Some(message) = self.port.begin_send() {
                    assert_eq!(
                        Control::decode(&message.encode()),
                        Ok(message),
                        "a message of this end is not valid"
                    );
                    assert_eq!(self.port.begin_send(), None, "two messages are sent at the same time");
                    assert!(!self.port.end_send(true));
                    assert_eq!(self.port.pending(), None);
                }
            }
            Step::Bytes(is_part, bytes) => {
                self.take(if is_part { NET_PART_TYPE } else { NET_FRAME_TYPE }, &bytes);
            }
            Step::Frame { key: k, number, len, offload: o, bytes } => {
                let Some(key) = Key::new(key(k)) else { return };
                let head =
                    FrameHead { key, number: self::number(number), len: len.into(), offload: offload(o) };
                let payload = [&head.encode()[..], &vec![number; usize::from(bytes % 4096)]].concat();
                self.take(NET_FRAME_TYPE, &payload);
            }
            Step::Part { key: k, number, at, bytes } => {
                let Some(key) = Key::new(key(k)) else { return };
                // In three of four cases, the expected place.
                let at = self.frame.filter(|_| at % 4 != 0).map_or(at.into(), |(came, ..)| came);
                let head = PartHead { key, number: self::number(number), at };
                let payload = [&head.encode()[..], &vec![number; usize::from(bytes % 4096)]].concat();
                self.take(NET_PART_TYPE, &payload);
            }
            Step::Send { len, offload: o, max_message } => {
                self.send(len % 70_000, offload(o), max_message % 5_000)
            }
        }
    }

    fn open(&mut self, features: u8, max_frame: u32) {
        // If a key were used again, a frame of a former opening would be valid.
        self.openings = self.openings.wrapping_add(1);
        let Some(key) = Key::new(key(self.openings)) else { return };
        let features =
            if features & 1 == 0 { Features::empty() } else { Features::from_bits_truncate(features.into()) };
        let max_frame = max_frame.clamp(LEAST_MAX_FRAME, MAX_FRAME);
        let _ = self.port.open(Offer { key, features, max_frame, mac: [2; 6] });
    }

    fn receive(&mut self, of: u8, bytes: &[u8]) {
        let before = self.port.carrier();
        match (Control::decode(bytes), self.port.receive(Some(life(of)), bytes)) {
            (Ok(_), Ok(changed)) => {
                assert_eq!(
                    changed.gained,
                    self.port.carrier().is_some() && key_of(before) != key_of(self.port.carrier())
                );
            }
            (Err(a), Err(b)) => assert_eq!((a, before), (b, self.port.carrier())),
            (a, b) => panic!("{a:?}, {b:?}"),
        }
    }

    fn take(&mut self, msg_type: MessageType, payload: &[u8]) {
        let ours = self.port.ours().copied();
        let taken = match self.gather.take(ours.as_ref(), msg_type, payload) {
            Ok(taken) => taken,
            Err(FrameError::Stale(key)) => return assert_ne!(Some(key), ours.map(|ours| ours.key)),
            Err(_) => return self.frame = None,
        };
        let ours = ours.expect("nothing is taken while this end is closed");
        let (number, at) = match PartHead::decode(payload) {
            Some((head, _)) if msg_type == NET_PART_TYPE => (head.number, head.at),
            _ => (FrameHead::decode(payload).expect("it was taken").0.number, 0),
        };
        assert_eq!(taken.at, at, "the bytes are not at the place that the message names");
        if let Some((len, offload)) = taken.begins {
            assert!((MIN_FRAME..=ours.max_frame).contains(&len));
            assert_eq!(offload.check(len, ours.features), Ok(()));
            self.frame = Some((0, len, number));
        }
        let (came, len, begun) = self.frame.expect("it has begun");
        assert_eq!((taken.at, number), (came, begun), "a part is out of order");
        let came = came + taken.bytes.len() as u32;
        assert!(came <= len && !taken.bytes.is_empty());
        assert_eq!(taken.is_whole, came == len);
        self.frame = (came < len).then_some((came, len, begun));
    }

    fn send(&mut self, len: u32, offload: Offload, max_message: u32) {
        let Some(theirs) = self.port.carrier() else { return };
        let Ok(mut cut) = FrameSplitter::new(&theirs, 1, len, offload, max_message) else { return };
        // The other end must be able to assemble the frame.
        let (mut there, mut came) = (FrameAssembler::new(), 0);
        while let Some(piece) = cut.next() {
            let payload = [piece.head.as_bytes(), &vec![0; piece.len as usize]].concat();
            assert!(payload.len() <= max_message as usize);
            let taken = there
                .take(Some(&theirs), piece.msg_type, &payload)
                .expect("the other end refuses a message of this end");
            assert_eq!(taken.at, came);
            came += piece.len;
            assert_eq!(taken.is_whole, came == len);
            cut.sent(&piece);
        }
        assert_eq!(came, len);
    }

    fn check(&self) {
        assert!(self.port.carrier().is_none() || self.port.ours().is_some());
    }
}

fn key_of(offer: Option<Offer>) -> Option<Key> {
    offer.map(|offer| offer.key)
}
