// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames on their way in: each message is checked, and told where its bytes belong (SPEC E-5 to E-8).

use mk_ipi_abi::net::{
    FrameHead, Key, Offer, Offload, OffloadError, PartHead, MIN_FRAME, NET_FRAME_TYPE, NET_PART_TYPE,
};
use mk_ipi_abi::MessageType;

/// Why a message is no part of a frame. What was gathered of a frame goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// We are not open.
    Closed,
    /// The type of other messages.
    WrongType(MessageType),
    /// It is too short for a head, or has no key.
    NoHead,
    /// It was meant for a former time for which we were open: its key.
    Stale(Key),
    /// The frame has less bytes than an Ethernet header, or more than we take: the bytes that it says.
    WrongSize(u32),
    /// The message has more bytes than are left of the frame, or none.
    WrongLength(usize),
    /// The offload makes no sense, or is none that we take.
    Offload(OffloadError),
    /// Of a frame whose begin, or a part before, did not come.
    NotExpected {
        /// The number of its frame,
        number: u32,
        /// and where in the frame it belongs.
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

/// Bytes of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FrameBytes<'a> {
    /// For the first bytes of a frame: how many it has in all, and what is left to be done to it. What was gathered before is void.
    pub begins: Option<(u32, Offload)>,
    /// Where in the frame the bytes belong: behind those before.
    pub at: u32,
    /// The bytes.
    pub bytes: &'a [u8],
    /// With them the frame is whole.
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

/// What is expected next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Expected {
    key: u32,
    number: u32,
    at: u32,
    len: u32,
}

/// The frame that is under way from one peer, if any is.
#[derive(Debug, Default)]
pub struct FrameAssembler(Option<Expected>);

impl FrameAssembler {
    /// None is under way.
    pub const fn new() -> Self {
        Self(None)
    }

    /// A message came, while we are open as `ours` says.
    ///
    /// # Errors
    /// It is no part of a frame. A frame that was under way is given up, unless the message was [`Stale`](FrameError::Stale).
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

    /// Gives up the frame that is under way, if any is.
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
    /// Puts `bytes` where they are expected.
    fn put(self, begins: Option<(u32, Offload)>, bytes: &[u8]) -> Result<(FrameBytes<'_>, Self), FrameError> {
        let count = u32::try_from(bytes.len()).ok().filter(|count| *count != 0);
        let end = count.and_then(|count| self.at.checked_add(count)).filter(|end| *end <= self.len);
        let end = end.ok_or(FrameError::WrongLength(bytes.len()))?;
        Ok((FrameBytes { begins, at: self.at, bytes, is_whole: end == self.len }, Self { at: end, ..self }))
    }
}

#[cfg(test)]
mod tests;
