// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages between a host and the kernels that serve it, in addition to the stream and the pings.
//!
//! Hosts outside of this crate use this file too. So it uses only `core` and `mk_ipi_abi`, and does not panic.
//!
//! | type | payload | sent by | what for |
//! | --- | --- | --- | --- |
//! | [`STREAM`] | payload.rs: sequence number from 0, sender | a kernel with an order | the receiver counts it |
//! | [`PING`], [`PONG`] | payload.rs: a number, sender | a kernel with an order; the answer repeats the number | is timed |
//! | [`RESET`] | [`Reset`] | the host | a new run begins: all counters and streams back to 0 |
//! | [`ORDER`] | [`Order`] | the host | send messages, or pings, to another kernel |
//! | [`QUERY`] | [`Query`] | any kernel | asks for a [`REPORT`] |
//! | [`REPORT`] | [`Report`] | the kernel that was asked | what it knows of itself and one other |
//!
//! **Runs.** A kernel's life begins in run 0, in which it counts messages and ignores orders. A `RESET` for another run
//! than the present one empties its counters, forgets its orders and begins that run. A `RESET` for the present run
//! changes nothing. An `ORDER` for another run than the present one is ignored. The messages of the stream carry no
//! run. So a host resets all kernels while no message is on its way. It then sends each a `QUERY`, and orders nothing
//! before all have answered with a `REPORT` of the new run. Otherwise a message of the new run could come before the
//! `RESET`. A kernel that was killed and started again is reset alone.
//!
//! **Orders** for the stream to one kernel add up. A new order of pings begins a new series. Orders for different
//! kernels are worked on side by side. An order for a kernel that is not there yet waits for it; an order for a kernel
//! that is gone is dropped. A kernel sends nothing to itself.
//!
//! **Pings.** A sender has one unanswered ping at a time. If it pings again, only the answer to the latest ping counts.
//! A number has the run in its upper half, so that no answer counts in another run.
//!
//! On the wire each field is a little-endian 64-bit word, in the order of the struct.
#![allow(dead_code, reason = "host and kernel use a part each")]

use mk_ipi_abi::{InstanceId, MessageType};

/// A message of the stream.
pub const STREAM: MessageType = MessageType(0x100);
/// A message that must be answered by a [`PONG`].
pub const PING: MessageType = MessageType(0x101);
/// The answer to a [`PING`].
pub const PONG: MessageType = MessageType(0x102);
/// An [`Order`].
pub const ORDER: MessageType = MessageType(0x110);
/// A [`Query`].
pub const QUERY: MessageType = MessageType(0x111);
/// A [`Report`].
pub const REPORT: MessageType = MessageType(0x112);
/// A [`Reset`].
pub const RESET: MessageType = MessageType(0x113);

/// Most pings of one series. If more are ordered, so many are sent.
pub const MAX_PINGS: u64 = 1000;
/// Kernels that serve know instances below this one. A message that names another one is ignored.
pub const MAX_INSTANCES: usize = 64;

/// What must be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderKind {
    /// Messages of the stream.
    Stream,
    /// Pings. Each is sent once the one before it was answered.
    Pings,
}

/// The order to send something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What to send.
    pub kind: OrderKind,
    /// The receiver.
    pub to: InstanceId,
    /// How many.
    pub count: u64,
    /// In which run.
    pub run: u32,
}

/// The question what a kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The kernel that asks: on RFC v2 nothing else says where the answer goes.
    pub from: InstanceId,
    /// The instance that the question is about.
    pub about: InstanceId,
}

/// The order to begin a new run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Number of the run, not 0.
    pub run: u32,
}

/// What kernel `me` knows of itself and kernel `about`, since its run or its life began, whichever was later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The other one.
    pub about: InstanceId,
    /// The kernel that reports.
    pub me: InstanceId,
    /// The run.
    pub run: u32,
    /// How many messages of the stream `me` sent to `about`. Their numbers begin at 0.
    pub sent: u64,
    /// Doorbells that `me` rang at `about`, for any purpose.
    pub doorbells: u64,
    /// How often `me` found the slot or lane of `about` full.
    pub busy: u64,
    /// Messages of `me` during whose handling `about` died, as mk-ipi reported. They may or may not have been handled
    /// (native only).
    pub in_doubt: u64,
    /// Whole messages of the stream that came from `about`, each counted once.
    pub received: u64,
    /// Of these, the ones that former lives of `about` sent.
    pub former: u64,
    /// Number of the first message that came, 0 if none did. What came to a former life of `me` counts as lost.
    pub first: u64,
    /// Numbers that were left out and did not come later.
    pub lost: u64,
    /// Messages whose content does not match their checksum, from `about` or from an unknown sender.
    pub torn: u64,
    /// Messages that had come before.
    pub doubled: u64,
    /// Messages that came after one with a higher number. They count as received, too.
    pub disordered: u64,
    /// Pings that `about` answered.
    pub pings: u64,
    /// Shortest round trip, in cycles of the time stamp counter; 0 if there was none. The same holds for the next two.
    pub rtt_min: u64,
    /// Median of the round trips.
    pub rtt_median: u64,
    /// 99th percentile of the round trips.
    pub rtt_p99: u64,
    /// True if `me` still has messages or pings to send to `about`.
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

    /// The order in this payload, if it is a valid one.
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

    /// The question in this payload, if it is a valid one.
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

    /// The order in this payload, if it is a valid one.
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

    /// The report in this payload, if it is a valid one.
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

/// `BYTES` must be eight times `WORDS`. Stable Rust cannot express that in the type.
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
