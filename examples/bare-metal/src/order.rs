// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages between a host and the kernels that serve it, in addition to the stream and the pings.
//!
//! Hosts outside of this crate use this file too. So it uses only `core` and `mk_ipi_abi`, and does not panic.
//!
//! | type | payload | sent by | what for |
//! | --- | --- | --- | --- |
//! | [`STREAM`] | payload.rs: sequence number from 0, sender | a kernel with an order | is counted |
//! | [`PING`], [`PONG`] | payload.rs: a number, sender | a kernel with an order; the answer has the ping's number | is timed |
//! | [`RESET`] | [`Reset`] | the host | a new run begins: all counters and streams back to 0 |
//! | [`ORDER`] | [`Order`] | the host | send messages, or pings, to another kernel |
//! | [`QUERY`] | [`Query`] | any kernel | is answered by a [`REPORT`] |
//! | [`REPORT`] | [`Report`] | who was asked | what the asked one knows of itself and one other |
//!
//! **Runs.** A kernel's life begins in run 0, in which it counts messages and ignores orders. A `RESET` of another run than
//! the present one empties its counters, forgets its orders and begins that run; one of the present run changes nothing. An
//! `ORDER` of another run than the present one is ignored. The stream carries no run: a host resets all kernels while nothing
//! is on its way, and orders nothing before each has answered a `QUERY` behind its `RESET` by a `REPORT` of the new run, lest
//! a message of the new run come before the `RESET`. A kernel that was killed and started again is reset alone.
//!
//! **Orders** to one kernel add up for the stream; a new order of pings begins a new series. Orders to different kernels are
//! worked on side by side. One to a kernel that is not there yet waits for it; one to a kernel that is gone is dropped. A
//! kernel sends nothing to itself.
//!
//! **Pings.** A sender has one unanswered ping at a time. If it pings again, only the answer to the latest ping counts. A number has the
//! run in its upper half, so that no answer counts in another run.
//!
//! On the wire each field is a little-endian 64-bit word, in the order of the struct.
#![allow(dead_code, reason = "host and kernel use a part each")]

use mk_ipi_abi::{InstanceId, MessageType};

/// A message of the stream.
pub const STREAM: MessageType = MessageType(0x100);
/// A message that is to be answered by a [`PONG`].
pub const PING: MessageType = MessageType(0x101);
/// The answer.
pub const PONG: MessageType = MessageType(0x102);
/// An [`Order`].
pub const ORDER: MessageType = MessageType(0x110);
/// A [`Query`].
pub const QUERY: MessageType = MessageType(0x111);
/// A [`Report`].
pub const REPORT: MessageType = MessageType(0x112);
/// A [`Reset`].
pub const RESET: MessageType = MessageType(0x113);

/// Most pings of one series; an order of more means as many.
pub const MAX_PINGS: u64 = 1000;
/// Kernels that serve know instances below this one; what names another is ignored.
pub const MAX_INSTANCES: usize = 64;

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderKind {
    /// Messages of the stream.
    Stream,
    /// Pings, each once the one before it was answered.
    Pings,
}

/// "Send."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub kind: OrderKind,
    /// The receiver.
    pub to: InstanceId,
    /// How many.
    pub count: u64,
    /// In which run.
    pub run: u32,
}

/// "What do you know?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Who asks: on RFC v2 nothing else says where the answer goes.
    pub from: InstanceId,
    /// The instance that it is about.
    pub about: InstanceId,
}

/// "A new run begins."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Its number, not 0.
    pub run: u32,
}

/// What kernel `me` knows of itself and kernel `about`, since its run or its life began, whichever was later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The other one.
    pub about: InstanceId,
    /// Who reports.
    pub me: InstanceId,
    /// The run.
    pub run: u32,
    /// Messages of the stream that `me` sent to `about`: numbers 0 to this.
    pub sent: u64,
    /// Doorbells that `me` rang at `about`, for whatever.
    pub doorbells: u64,
    /// How often `me` found the slot or lane of `about` full.
    pub busy: u64,
    /// Messages of `me` that `about` died handling, as mk-ipi reported. They may or may not be handled (native only).
    pub in_doubt: u64,
    /// Whole messages of the stream that came from `about`, each counted once.
    pub received: u64,
    /// Of these, the ones that former lives of `about` sent.
    pub former: u64,
    /// Number of the first message that came, 0 if none did: what came to a former life of `me` counts as lost.
    pub first: u64,
    /// Numbers that were left out, and that did not come later.
    pub lost: u64,
    /// Messages with another content than their checksum says, from `about` or from nobody known.
    pub torn: u64,
    /// Messages that had come before.
    pub doubled: u64,
    /// Messages that came behind one with a higher number. They count as received, too.
    pub disordered: u64,
    /// Pings that `about` answered.
    pub pings: u64,
    /// Shortest round trip, in cycles of the time stamp counter; 0 without any, as the next two.
    pub rtt_min: u64,
    /// Median of the round trips.
    pub rtt_median: u64,
    /// 99th percentile of the round trips.
    pub rtt_p99: u64,
    /// Whether `me` still has messages or pings to send to `about`.
    pub still_sending: bool,
}

impl Order {
    /// Bytes on the wire.
    pub const LEN: usize = 32;

    /// The payload.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let kind = match self.kind {
            OrderKind::Stream => 1,
            OrderKind::Pings => 2,
        };
        to_bytes([kind, word_of(self.to), self.count, self.run.into()])
    }

    /// What the payload says, if it makes sense.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [kind, to, count, run] = to_words(bytes)?;
        let kind = match kind {
            1 => OrderKind::Stream,
            2 => OrderKind::Pings,
            _ => return None,
        };
        Some(Self { kind, to: instance(to)?, count, run: u32::try_from(run).ok()? })
    }
}

impl Query {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// The payload.
    pub fn encode(&self) -> [u8; Self::LEN] {
        to_bytes([word_of(self.from), word_of(self.about)])
    }

    /// What the payload says, if it makes sense.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [from, about] = to_words(bytes)?;
        Some(Self { from: instance(from)?, about: instance(about)? })
    }
}

impl Reset {
    /// Bytes on the wire.
    pub const LEN: usize = 8;

    /// The payload.
    pub fn encode(&self) -> [u8; Self::LEN] {
        to_bytes([u64::from(self.run)])
    }

    /// What the payload says, if it makes sense.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [run] = to_words(bytes)?;
        u32::try_from(run).ok().filter(|run| *run != 0).map(|run| Self { run })
    }
}

impl Report {
    /// Bytes on the wire.
    pub const LEN: usize = 152;

    /// The payload.
    pub fn encode(&self) -> [u8; Self::LEN] {
        to_bytes([
            word_of(self.about),
            word_of(self.me),
            self.run.into(),
            self.sent,
            self.doorbells,
            self.busy,
            self.in_doubt,
            self.received,
            self.former,
            self.first,
            self.lost,
            self.torn,
            self.doubled,
            self.disordered,
            self.pings,
            self.rtt_min,
            self.rtt_median,
            self.rtt_p99,
            self.still_sending.into(),
        ])
    }

    /// What the payload says, if it makes sense.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let words: [u64; 19] = to_words(bytes)?;
        let [about, me, run, sent, doorbells, busy, in_doubt, words @ ..] = words;
        let [received, former, first, lost, torn, doubled, disordered, words @ ..] = words;
        let [pings, rtt_min, rtt_median, rtt_p99, still_sending] = words;
        Some(Self {
            about: instance(about)?,
            me: instance(me)?,
            run: u32::try_from(run).ok()?,
            sent,
            doorbells,
            busy,
            in_doubt,
            received,
            former,
            first,
            lost,
            torn,
            doubled,
            disordered,
            pings,
            rtt_min,
            rtt_median,
            rtt_p99,
            still_sending: still_sending != 0,
        })
    }
}

fn word_of(id: InstanceId) -> u64 {
    id.get().into()
}

fn instance(word: u64) -> Option<InstanceId> {
    u8::try_from(word).ok().map(InstanceId::new)
}

/// `BYTES` is eight times `WORDS`, which stable Rust cannot say.
fn to_bytes<const WORDS: usize, const BYTES: usize>(words: [u64; WORDS]) -> [u8; BYTES] {
    const { assert!(BYTES == WORDS * 8 && BYTES <= 256) };
    let mut bytes = [0; BYTES];
    let all = words.iter().flat_map(|word| word.to_le_bytes());
    bytes.iter_mut().zip(all).for_each(|(place, byte)| *place = byte);
    bytes
}

fn to_words<const WORDS: usize>(bytes: &[u8]) -> Option<[u64; WORDS]> {
    if bytes.len() != WORDS.checked_mul(8)? {
        return None;
    }
    let (mut words, mut rest) = ([0; WORDS], bytes);
    for word in &mut words {
        let (eight, behind) = rest.split_first_chunk::<8>()?;
        (*word, rest) = (u64::from_le_bytes(*eight), behind);
    }
    Some(words)
}
