// SPDX-License-Identifier: MIT OR Apache-2.0
//! The record of the messages that the suite's handlers at one kernel were called with.

use mk_ipi_core::abi::{Incarnation, InstanceId, MessageType, PhysCpuId};
use mk_ipi_core::sync::{AtomicU64, Ordering::Relaxed};
use mk_ipi_core::Message;

/// The number of records that an inbox keeps. After that a new record overwrites the oldest one.
const RECORDS: usize = 512;

/// A record of the messages that the suite's handlers at one kernel were called with, in order. It also holds the suite's state
/// at this kernel. Only one CPU uses an inbox.
#[derive(Debug)]
pub struct Inbox {
    /// Bits 63..32: the number of the case that runs. Bits 31..0: the step within the case.
    pub(crate) progress: AtomicU64,
    /// A value that a callback stores, and that the case reads later. It is 0 at the start of a case.
    pub(crate) note: AtomicU64,
    /// The number of messages since the inbox was made.
    count: AtomicU64,
    /// The words of each record are: type and length; sending CPU; digest of the payload; first 8 bytes of the payload; sending
    /// instance plus 1, or 0 if it is unknown; message number; incarnations of sender and receiver, 0 if unknown.
    records: [[AtomicU64; 7]; RECORDS],
}

/// The record of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub msg_type: MessageType,
    pub len: usize,
    pub sender: PhysCpuId,
    pub digest: u64,
    pub first: u64,
    pub from: Option<InstanceId>,
    /// The message's number in its lane; 0 if it came in a slot.
    pub number: u64,
    /// The incarnations of sender and receiver; 0 if unknown.
    pub lives: [u32; 2],
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    /// Makes an inbox without records.
    pub const fn new() -> Self {
        Self {
            progress: AtomicU64::new(0),
            note: AtomicU64::new(0),
            count: AtomicU64::new(0),
            records: [const { [const { AtomicU64::new(0) }; 7] }; RECORDS],
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    pub(crate) fn push(&self, message: &Message<'_>) {
        let n = self.count();
        let payload = message.payload();
        let mut first = [0; 8];
        for (to, from) in first.iter_mut().zip(payload) {
            *to = *from;
        }
        let kind = (u64::from(message.msg_type().0) << 32) | payload.len() as u64;
        let from = message.sender().map_or(0, |id| u64::from(id.get()) + 1);
        let life = |life: Option<Incarnation>| u64::from(life.map_or(0, Incarnation::get));
        let lives = life(message.sender_incarnation()) << 32 | life(message.receiver_incarnation());
        let number = message.number().unwrap_or(0);
        let cpu = message.sender_cpu().0;
        let values = [kind, cpu, digest(payload), u64::from_le_bytes(first), from, number, lives];
        for (word, value) in self.records[n as usize % RECORDS].iter().zip(values) {
            word.store(value, Relaxed);
        }
        self.count.store(n + 1, Relaxed);
    }

    /// Returns the record of message `n`, counted from 0 since the inbox was made. Returns `None` if that message has not come
    /// yet, or if its record was overwritten.
    pub(crate) fn get(&self, n: u64) -> Option<Record> {
        if n >= self.count() || self.count() - n > RECORDS as u64 {
            return None;
        }
        let [kind, sender, digest, first, from, number, lives] = &self.records[n as usize % RECORDS];
        let [kind, lives] = [kind, lives].map(|word| word.load(Relaxed));
        Some(Record {
            msg_type: MessageType((kind >> 32) as u32),
            len: (kind & 0xffff_ffff) as usize,
            sender: PhysCpuId(sender.load(Relaxed)),
            digest: digest.load(Relaxed),
            first: first.load(Relaxed),
            from: from.load(Relaxed).checked_sub(1).map(|id| InstanceId::new(id as u8)),
            number: number.load(Relaxed),
            lives: [(lives >> 32) as u32, lives as u32],
        })
    }
}

/// Returns the 64-bit FNV-1a hash of `bytes`. The cases compare it, to find payloads in which any byte is wrong.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// Returns a payload of `len` bytes, and zeros after it. Bytes 0 to 7 are `seed`, little endian. The bytes after these depend on
/// `seed` too.
pub(crate) fn payload(seed: u64, len: usize) -> [u8; 256] {
    long_payload(seed, len)
}

/// Does the same as [`payload`], but `len` can be up to `N`.
pub(crate) fn long_payload<const N: usize>(seed: u64, len: usize) -> [u8; N] {
    let mut bytes = [0; N];
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for (i, b) in bytes[..len].iter_mut().enumerate() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        *b = if i < 8 { seed.to_le_bytes()[i] } else { x as u8 };
    }
    bytes
}
