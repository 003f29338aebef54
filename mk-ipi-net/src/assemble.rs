// SPDX-License-Identifier: MIT OR Apache-2.0
//! Assembles received frames: checks each message, and says where its bytes belong (SPEC E-5 to E-8).

use mk_ipi_abi::net::{
    FrameHead, Key, Offer, Offload, OffloadError, PartHead, MIN_FRAME, NET_FRAME_TYPE, NET_PART_TYPE,
};
use mk_ipi_abi::MessageType;

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// This end is closed.
    Closed,
    /// The message is neither a frame message nor a part message. The value is its type.
    WrongType(MessageType),
    /// The message is too short for a head, or its key is 0.
    NoHead,
    /// The message is for another opening of this end, or for another life. The value is its key.
    Stale(Key),
    /// The frame is shorter than an Ethernet header, or longer than this end accepts. The value is its length in bytes.
    WrongSize(u32),
    /// The message has no bytes of the frame, or more bytes than the frame still needs. The value is the number of bytes.
    WrongLength(usize),
    /// The offload is invalid, or this end has not offered to accept it.
    Offload(OffloadError),
    /// The message is a part, but not the part that must come next: the frame message or an earlier part did not come.
    NotExpected {
        /// The number of the part's frame.
        number: u32,
        /// The offset of the part's bytes in the frame.
        at: u32,
    },
}

impl core::fmt::Display for FrameError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Closed => f.write_str("the interface is closed"),
            Self::WrongType(ty) => write!(f, "a message of type {:#x} carries no frame", ty.0),
            Self::NoHead => f.write_str("the message is too short for a head, or its key is 0"),
            Self::Stale(key) => write!(f, "the message is for key {:#x}, not for the present key", key.get()),
            Self::WrongSize(len) => write!(f, "a frame of {len} bytes is not allowed"),
            Self::WrongLength(len) => {
                write!(f, "the message has {len} bytes of its frame: none, or more than are missing")
            }
            Self::Offload(e) => write!(f, "{e}"),
            Self::NotExpected { number, at } => {
                write!(f, "the part at byte {at} of frame {number} is not the one that must come next")
            }
        }
    }
}

impl core::error::Error for FrameError {}

/// Bytes of a frame that were received in one message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FrameBytes<'a> {
    /// If these are the first bytes of a frame: the frame's length in bytes, and its offload. Otherwise `None`. If an earlier
    /// frame is incomplete when a new frame begins, its missing bytes do not come any more: drop it.
    pub begins: Option<(u32, Offload)>,
    /// Offset of the bytes in the frame: 0, or the offset after the last byte of the frame's previous message.
    pub at: u32,
    /// The bytes.
    pub bytes: &'a [u8],
    /// Whether the frame is complete with these bytes.
    pub is_whole: bool,
}

impl core::fmt::Debug for FrameBytes<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FrameBytes")
            .field("begins", &self.begins)
            .field("at", &self.at)
            .field("len", &self.bytes.len())
            .field("is_whole", &self.is_whole)
            .finish()
    }
}

/// The bytes that must come next: those from offset `at` on, of the frame with this `key`, `number` and `len`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Expected {
    key: u32,
    number: u32,
    at: u32,
    len: u32,
}

/// Checks the frames from one peer. Knows which bytes of an incomplete frame are expected next, if there is such a frame.
#[derive(Debug, Default)]
pub struct FrameAssembler(Option<Expected>);

impl FrameAssembler {
    /// Makes an assembler without an incomplete frame.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Handles a received message. `ours` is this end's offer, or `None` if this end is closed
    /// ([`Port::ours`](crate::Port::ours)).
    ///
    /// # Errors
    /// The message was refused. An incomplete frame is dropped, unless the message was [`Stale`](FrameError::Stale).
    pub fn take<'a>(
        &mut self,
        ours: Option<&Offer>,
        msg_type: MessageType,
        payload: &'a [u8],
    ) -> Result<FrameBytes<'a>, FrameError> {
        let taken = match (ours, msg_type) {
            (None, _) => Err(FrameError::Closed),
            (Some(ours), NET_FRAME_TYPE) => Self::begin(ours, payload),
            (Some(ours), NET_PART_TYPE) => self.go_on(ours, payload),
            (_, other) => Err(FrameError::WrongType(other)),
        };
        match taken {
            Ok((taken, expected)) => {
                self.0 = (!taken.is_whole).then_some(expected);
                Ok(taken)
            }
            Err(e) => {
                if !matches!(e, FrameError::Stale(_)) {
                    self.0 = None;
                }
                Err(e)
            }
        }
    }

    /// Drops the incomplete frame, if there is one.
    pub fn reset(&mut self) {
        self.0 = None;
    }

    fn begin<'a>(ours: &Offer, payload: &'a [u8]) -> Result<(FrameBytes<'a>, Expected), FrameError> {
        let (head, bytes) = FrameHead::decode(payload).ok_or(FrameError::NoHead)?;
        let FrameHead { key, number, len, offload } = head;
        if key != ours.key {
            return Err(FrameError::Stale(key));
        }
        if !(MIN_FRAME..=ours.max_frame).contains(&len) {
            return Err(FrameError::WrongSize(len));
        }
        offload.check(len, ours.features).map_err(FrameError::Offload)?;
        let begins = Some((len, offload));
        Expected { key: key.get(), number, at: 0, len }.put(begins, bytes)
    }

    fn go_on<'a>(&self, ours: &Offer, payload: &'a [u8]) -> Result<(FrameBytes<'a>, Expected), FrameError> {
        let (PartHead { key, number, at }, bytes) = PartHead::decode(payload).ok_or(FrameError::NoHead)?;
        if key != ours.key {
            return Err(FrameError::Stale(key));
        }
        let expected = self.0.filter(|e| (e.key, e.number, e.at) == (key.get(), number, at));
        expected.ok_or(FrameError::NotExpected { number, at })?.put(None, bytes)
    }
}

impl Expected {
    /// Accepts `bytes` at the expected offset.
    fn put(self, begins: Option<(u32, Offload)>, bytes: &[u8]) -> Result<(FrameBytes<'_>, Self), FrameError> {
        let count = u32::try_from(bytes.len()).ok().filter(|count| *count != 0);
        let end = count.and_then(|count| self.at.checked_add(count)).filter(|end| *end <= self.len);
        let end = end.ok_or(FrameError::WrongLength(bytes.len()))?;
        Ok((FrameBytes { begins, at: self.at, bytes, is_whole: end == self.len }, Self { at: end, ..self }))
    }
}

#[cfg(test)]
mod tests;
