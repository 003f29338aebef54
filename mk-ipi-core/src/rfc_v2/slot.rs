// SPDX-License-Identifier: MIT OR Apache-2.0
//! One slot of an RFC v2 region. A message is stored and read word by word (SPEC chapters S, R, X).

use crate::message::Message;
use crate::sync::{fence, Ordering, Word};
use mk_ipi_abi::rfc_v2::{check_data_size, Claim, NoMessage, MK_MAX_DATA_SIZE, SLOT_WORDS, WORD_DATA_SIZE};
use mk_ipi_abi::{MessageType, PhysCpuId};
use zerocopy::IntoBytes;

/// What a sender does if the slot holds an unread message (SPEC X-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotPolicy {
    /// The sender overwrites the message, as the C peers do. The receiver never writes the slot.
    Overwrite,
    /// The sender stores nothing, and the send fails with `Busy`. Allowed only if the receiver and all senders use mk-ipi.
    Exclusive,
}

/// Number of words of the largest payload.
const PAYLOAD_WORDS: usize = MK_MAX_DATA_SIZE / 8;

/// A checked private copy of a message, which waits for its handlers.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) sender_cpu: PhysCpuId,
    pub(crate) msg_type: MessageType,
    /// INVARIANT: at most `MK_MAX_DATA_SIZE`.
    pub(crate) len: usize,
    pub(crate) words: [u64; PAYLOAD_WORDS],
}

impl Stored {
    pub(crate) const EMPTY: Self =
        Self { sender_cpu: PhysCpuId(0), msg_type: MessageType(0), len: 0, words: [0; PAYLOAD_WORDS] };

    /// The message as handlers see it.
    pub(crate) fn message(&self) -> Message<'_> {
        let payload = self.words.as_bytes().get(..self.len).unwrap_or(&[]);
        Message { origin: None, sender_cpu: self.sender_cpu, msg_type: self.msg_type, payload }
    }
}

/// A message for a slot. It is checked before the slot is touched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    sender_cpu: u32,
    msg_type: MessageType,
    payload: &'a [u8],
}

/// Why a message cannot be carried by a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsendable {
    Empty,
    TooLong,
    SenderBeyondField,
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(from: PhysCpuId, msg_type: MessageType, payload: &'a [u8]) -> Result<Self, Unsendable> {
        match check_data_size(payload.len() as u64) {
            Ok(_) => {}
            Err(NoMessage::Empty) => return Err(Unsendable::Empty),
            Err(_) => return Err(Unsendable::TooLong),
        }
        // `sender_cpu` is a C `int`. An id that does not fit is refused, and not truncated (SPEC S-3).
        let sender_cpu = i32::try_from(from.0).map_err(|_| Unsendable::SenderBeyondField)?;
        Ok(Self { sender_cpu: sender_cpu.unsigned_abs(), msg_type, payload })
    }

    fn header(&self) -> u64 {
        u64::from(self.sender_cpu) | (u64::from(self.msg_type.0) << 32)
    }

    /// Stores header and payload in the slot, and zeros after the payload (SPEC S-4).
    fn fill<W: Word>(&self, slot: Slot<'_, W>) {
        let [header, _, buffer @ ..] = slot.0;
        header.store(self.header(), Ordering::Relaxed);
        let whole = self.payload.chunks_exact(8);
        let rest = whole.remainder().iter().rev().fold(0, |word, &byte| (word << 8) | u64::from(byte));
        let words = whole.map(|c| c.try_into().map_or(0, u64::from_le_bytes));
        let words = words.chain([rest]).chain(core::iter::repeat(0));
        for (word, value) in buffer.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

/// Why no message was taken from a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The slot holds no message.
    Nothing(NoMessage),
    /// A sender overwrote the message while it was read. The overwritten message is lost. The sender rings for the new one.
    Overwritten,
}

/// One slot: words that peers can write at any time.
#[derive(Debug)]
pub(crate) struct Slot<'a, W>(&'a [W; SLOT_WORDS]);

impl<W> Clone for Slot<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<W> Copy for Slot<'_, W> {}

impl<'a, W: Word> Slot<'a, W> {
    /// The slot of the CPU with physical id `cpu` in a region; `None` beyond its last slot (SPEC R-2).
    pub(crate) fn of_cpu(region: &'a [W], cpu: PhysCpuId) -> Option<Self> {
        let first = usize::try_from(cpu.0).ok()?.checked_mul(SLOT_WORDS)?;
        region.get(first..first.checked_add(SLOT_WORDS)?)?.try_into().ok().map(Self)
    }

    /// Every slot of a region.
    pub(crate) fn all(mut region: &'a [W]) -> impl Iterator<Item = Self> {
        core::iter::from_fn(move || {
            let (slot, rest) = region.split_first_chunk()?;
            region = rest;
            Some(Self(slot))
        })
    }

    fn data_size(self) -> &'a W {
        let [_, data_size, ..] = self.0;
        data_size
    }

    /// Stores a message over the former one, as the C peers do (SPEC S-4).
    pub(crate) fn overwrite(self, message: &Outgoing<'_>) {
        // `data_size` becomes 0 first, so that a receiver detects the change.
        // (SYNC POINT: slot-overwrite, release)
        self.data_size().store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        message.fill(self);
        // SYNC POINT: slot-published (release)
        self.data_size().store(message.payload.len() as u64, Ordering::Release);
    }

    /// Claims an empty slot (SPEC X-2). If the slot is not empty, returns its `data_size` as the error.
    pub(crate) fn claim(self, claim: Claim) -> Result<Claimed<'a, W>, u64> {
        // SYNC POINT: slot-emptied (acquire)
        self.data_size().compare_exchange(0, claim.to_data_size(), Ordering::Acquire)?;
        Ok(Claimed { slot: self, claim })
    }

    /// Empties the slot if it holds this claim (SPEC X-5). The owner of the claim is dead. True if the slot held the claim.
    pub(crate) fn clear_claim(self, claim: Claim) -> bool {
        // Loaded first, so that the cache lines of other slots are not written.
        self.data_size().load(Ordering::Relaxed) == claim.to_data_size()
            // SYNC POINT: slot-emptied (release). No model proves it, because the host accesses no other word.
            && self.data_size().compare_exchange(claim.to_data_size(), 0, Ordering::Release).is_ok()
    }

    /// Checks whether the slot holds a message now. If it holds none, the error says why.
    pub(crate) fn peek(self) -> Result<(), NoMessage> {
        check_data_size(self.data_size().load(Ordering::Relaxed)).map(|_| ())
    }

    /// Copies the message out and checks the copy. Each word of the message is read once. Empties an exclusive slot. In an
    /// overwrite slot `data_size` and the header are loaded once more, to detect a change (SPEC ).
    pub(crate) fn take(self, policy: SlotPolicy, into: &mut Stored) -> Result<(), NotTaken> {
        let [header, data_size, buffer @ ..] = self.0;
        // SYNC POINT: slot-published (acquire)
        let size = data_size.load(Ordering::Acquire);
        let len = match check_data_size(size) {
            Ok(len) => len,
            Err(nothing) => return Err(self.refuse(policy, size, nothing)),
        };
        let head = header.load(Ordering::Relaxed);
        for (copy, word) in into.words.iter_mut().zip(buffer).take(len.div_ceil(8)) {
            *copy = word.load(Ordering::Relaxed);
        }
        match policy {
            // SYNC POINT: slot-emptied (release)
            SlotPolicy::Exclusive => data_size.store(0, Ordering::Release),
            SlotPolicy::Overwrite => {
                // SYNC POINT: slot-overwrite (acquire)
                fence(Ordering::Acquire);
                if data_size.load(Ordering::Relaxed) != size || header.load(Ordering::Relaxed) != head {
                    return Err(NotTaken::Overwritten);
                }
            }
        }
        into.sender_cpu = PhysCpuId(head & 0xffff_ffff);
        let msg_type = (head >> 32) as u32;
        into.msg_type = MessageType(msg_type);
        into.len = len;
        Ok(())
    }

    /// Handles a slot without a message. An exclusive slot with an invalid `data_size` would be `Busy` for ever, so it is
    /// emptied.
    fn refuse(self, policy: SlotPolicy, size: u64, found: NoMessage) -> NotTaken {
        if let (SlotPolicy::Exclusive, NoMessage::BadSize(_)) = (policy, found) {
            // If this fails, a sender has written the slot meanwhile, and rings for its message.
            let _ = self.data_size().compare_exchange(size, 0, Ordering::Relaxed);
        }
        NotTaken::Nothing(found)
    }
}

/// A slot that holds our claim. If this value is dropped, the slot stays claimed: only `publish` and the host end a claim.
#[derive(Debug)]
#[must_use]
pub(crate) struct Claimed<'a, W> {
    slot: Slot<'a, W>,
    claim: Claim,
}

impl<W: Word> Claimed<'_, W> {
    /// Stores the message and publishes it. If the claim is gone, returns the `data_size` that has replaced it as the error (SPEC
    ///
    pub(crate) fn publish(self, message: &Outgoing<'_>) -> Result<(), u64> {
        message.fill(self.slot);
        let len = message.payload.len() as u64;
        // SYNC POINT: slot-published (release)
        self.slot.data_size().compare_exchange(self.claim.to_data_size(), len, Ordering::Release)?;
        Ok(())
    }
}

const _: () = assert!(WORD_DATA_SIZE == 1 && SLOT_WORDS == 2 + PAYLOAD_WORDS);

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;
