// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages between a host and the kernels that serve it (serve.rs).
//!
//! The module in examples/linux includes this file, too. So it uses only `core` and `mk_ipi_abi`, and does not panic.
//!
//! | type | payload | sent by | meaning |
//! | --- | --- | --- | --- |
//! | [`STREAM`] | payload.rs: sequence number from 0, sender | a kernel that has an order | the receiver counts it |
//! | [`PING`] | payload.rs: a number, sender | a kernel that has an order | the receiver answers with a [`PONG`] |
//! | [`PONG`] | payload.rs: the ping's number, sender | the receiver of the ping | the ping's sender measures the round trip |
//! | [`RESET`] | [`Reset`] | the host | a new run begins: all counters and streams begin at 0 again |
//! | [`ORDER`] | [`Order`] | the host | send messages, or pings, to another kernel |
//! | [`QUERY`] | [`Query`] | any kernel | asks for a [`REPORT`] |
//! | [`REPORT`] | [`Report`] | the kernel that was asked | its counters for one other kernel |
//!
//! **Runs.** A kernel's life begins in run 0, in which the kernel counts messages and ignores orders. A `RESET` with the
//! number of another run sets the kernel's counters to 0, drops its orders, and begins that run. A `RESET` for the present
//! run has no effect. An `ORDER` for another run is ignored. A message of the stream does not contain the number of its run.
//! So a host resets all kernels while no message is on its way. Then it sends a `QUERY` to each kernel, and sends orders only
//! after all kernels have answered with a `REPORT` of the new run. Otherwise a kernel could receive a message of the new run
//! before the `RESET`. A kernel that was killed and started again is reset without the others.
//!
//! **Orders.** Several orders for the stream to one kernel add up. A new order for pings begins a new series. Orders for
//! different receivers are carried out at the same time. An order for a kernel that does not run yet waits for that kernel.
//! If a kernel is removed, the orders for it are dropped. A kernel sends nothing to itself.
//!
//! **Pings.** A sender has one unanswered ping per receiver. If there is no answer, it sends the same ping again. The next answer
//! then counts, and is timed from the last sending. A ping's number has the run in its upper half, so that an answer from another
//! run is not counted.
//!
//! In a payload each field is a little-endian word of 64 bits. The fields are in the order of `encode`.
#![allow(dead_code, reason = "the host uses some parts, the other kernels use others")]

use mk_ipi_abi::{InstanceId, MessageType};

/// A message of the stream.
pub const STREAM: MessageType = MessageType(0x100);
/// A message whose receiver must answer with a [`PONG`].
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

/// The largest number of pings in a series. If more are ordered, this number is sent.
pub const MAX_PINGS: u64 = 1000;
/// Kernels that serve know only instances with ids below this number. They ignore messages that name another instance.
pub const MAX_INSTANCES: usize = 64;

/// What a kernel must send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderKind {
    /// Messages of the stream.
    Stream,
    /// Pings. Each is sent after the ping before it was answered.
    Pings,
}

/// The order to send something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What to send.
    pub kind: OrderKind,
    /// The receiver.
    pub to: InstanceId,
    /// The number of messages or pings.
    pub count: u64,
    /// The run to which the order belongs.
    pub run: u32,
}

/// Asks a kernel for a [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The kernel that asks, and gets the report. It is in the payload because RFC v2 does not tell the sender of a message.
    pub from: InstanceId,
    /// The instance that the report must be about.
    pub about: InstanceId,
}

/// The order to begin a new run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The number of the run. It is not 0.
    pub run: u32,
}

/// The counters that kernel `me` has for kernel `about`. They begin with the run, or with the life of `me` if that began later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The other kernel.
    pub about: InstanceId,
    /// The kernel that reports.
    pub me: InstanceId,
    /// The present run of `me`.
    pub run: u32,
    /// The number of stream messages that `me` sent to `about`. Their sequence numbers begin at 0.
    pub sent: u64,
    /// The number of doorbells that `me` rang at `about`, for messages of all types.
    pub doorbells: u64,
    /// How often the slot of `about` was occupied, or its lane full, when `me` tried to send.
    pub busy: u64,
    /// The number of messages from `me` to `about` that are in doubt: `about` died, and may have handled them or not (native
    /// only).
    pub in_doubt: u64,
    /// The number of intact stream messages that came from `about`, each counted once.
    pub received: u64,
    /// The number of those messages that former lives of `about` sent.
    pub former: u64,
    /// The sequence number of the first message that came, 0 if none came. If a former life of `me` received messages, these
    /// messages are counted in `lost`.
    pub first: u64,
    /// The number of sequence numbers that were skipped, and did not come later.
    pub lost: u64,
    /// The number of messages with a wrong checksum, from `about` or from an unknown sender.
    pub torn: u64,
    /// The number of messages that came again.
    pub doubled: u64,
    /// The number of messages that came after one with a higher sequence number. `received` contains them, too.
    pub disordered: u64,
    /// The number of pings of the present series that `about` answered.
    pub pings: u64,
    /// The shortest round trip, in units of the clock of `me` (on x86-64: cycles of the time stamp counter). 0 if there was none.
    pub rtt_min: u64,
    /// The median of the round trips, in the same unit. 0 if there was none.
    pub rtt_median: u64,
    /// The 99th percentile of the round trips, in the same unit. 0 if there was none.
    pub rtt_p99: u64,
    /// True if `me` still has messages or pings to send to `about`.
    pub still_sending: bool,
}

impl Order {
    /// The length of the payload, in bytes.
    pub const LEN: usize = 32;

    /// Returns the payload of the message.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let kind = match self.kind {
            OrderKind::Stream => 1,
            OrderKind::Pings => 2,
        };
        to_bytes([kind, word_of(self.to), self.count, self.run.into()])
    }

    /// Reads an order from a payload. `None` if it is invalid.
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
    /// The length of the payload, in bytes.
    pub const LEN: usize = 16;

    /// Returns the payload of the message.
    pub fn encode(&self) -> [u8; Self::LEN] {
        to_bytes([word_of(self.from), word_of(self.about)])
    }

    /// Reads a query from a payload. `None` if it is invalid.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [from, about] = to_words(bytes)?;
        Some(Self { from: instance(from)?, about: instance(about)? })
    }
}

impl Reset {
    /// The length of the payload, in bytes.
    pub const LEN: usize = 8;

    /// Returns the payload of the message.
    pub fn encode(&self) -> [u8; Self::LEN] {
        to_bytes([u64::from(self.run)])
    }

    /// Reads a reset from a payload. `None` if it is invalid.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [run] = to_words(bytes)?;
        u32::try_from(run).ok().filter(|run| *run != 0).map(|run| Self { run })
    }
}

impl Report {
    /// The length of the payload, in bytes.
    pub const LEN: usize = 152;

    /// Returns the payload of the message.
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

    /// Reads a report from a payload. `None` if it is invalid.
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

/// Writes words as little-endian bytes. `BYTES` must be eight times `WORDS`; stable Rust cannot express that in the type.
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
