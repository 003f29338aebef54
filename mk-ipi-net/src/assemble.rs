// SPDX-License-Identifier: MIT OR Apache-2.0
//! Assembles received frames: checks each message, and says where its bytes belong (SPEC E-5 to E-8).

use mk_ipi_abi::net::{
    FrameHead, Key, Offer, Offload, OffloadError, PartHead, MIN_FRAME, NET_FRAME_TYPE, NET_PART_TYPE,
};
use mk_ipi_abi::MessageType;

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The interface is closed.
    Closed,
    /// The message has another type.
    WrongType(MessageType),
    /// The message is too short for a head, or its key is 0.
    NoHead,
    /// The message is for a former opening of this end. This is its key.
    Stale(Key),
    /// The frame is shorter than an Ethernet header, or longer than we accept. This is its length.
    WrongSize(u32),
    /// The message has no bytes of the frame, or more than the frame still needs.
    WrongLength(usize),
    /// The offload is invalid, or not one that we support.
    Offload(OffloadError),
    /// The message belongs to a frame whose beginning, or an earlier part, did not come.
    NotExpected {
        /// The number of its frame.
        number: u32,
        /// The offset of its bytes in the frame.
        at: u32,
    },
}

impl core::fmt::Display for FrameError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Closed => f.write_str("the interface is closed"),
            Self::WrongType(ty) => write!(f, "a message of type {:#x} carries no frame", ty.0),
            Self::NoHead => f.write_str("the message has no header, or the key 0"),
            Self::Stale(key) => write!(f, "the message is for the former key {:#x}", key.get()),
            Self::WrongSize(len) => write!(f, "a frame of {len} bytes is not allowed"),
            Self::WrongLength(len) => {
                write!(f, "the message has {len} bytes, which do not fit into its frame")
            }
            Self::Offload(e) => write!(f, "{e}"),
            Self::NotExpected { number, at } => {
                write!(f, "byte {at} of frame {number} is not what comes next")
            }
        }
    }
}

impl core::error::Error for FrameError {}

/// Received bytes of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FrameBytes<'a> {
    /// For the first bytes of a frame: its length, and its offload. Bytes of a former incomplete frame are void.
    pub begins: Option<(u32, Offload)>,
    /// Offset of the bytes in the frame. They follow the bytes of the message before.
    pub at: u32,
    /// The bytes.
    pub bytes: &'a [u8],
    /// Whether the frame is complete.
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

/// The bytes that are expected next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Expected {
    key: u32,
    number: u32,
    at: u32,
    len: u32,
}

/// The incomplete frame from one peer, if any.
#[derive(Debug, Default)]
pub struct FrameAssembler(Option<Expected>);

impl FrameAssembler {
    /// An assembler without an incomplete frame.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Handles a received message. `ours` is our offer, while the interface is open.
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

    /// Drops the incomplete frame, if any.
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
