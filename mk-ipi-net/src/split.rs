// SPDX-License-Identifier: MIT OR Apache-2.0
//! Splits a frame into messages (SPEC E-5, E-6).

use mk_ipi_abi::net::{
    FrameHead, Offer, Offload, OffloadError, PartHead, MIN_FRAME, NET_FRAME_TYPE, NET_PART_TYPE,
};
use mk_ipi_abi::MessageType;

/// Why a frame cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitError {
    /// The frame is shorter than an Ethernet header, or longer than the other end accepts.
    WrongSize(u32),
    /// The offload is invalid, or the other end does not support it.
    Offload(OffloadError),
    /// Messages to the other end have no room for a head and one byte.
    NoRoom,
}

impl core::fmt::Display for SplitError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::WrongSize(len) => write!(f, "the other end takes no frame of {len} bytes"),
            Self::Offload(e) => write!(f, "{e}"),
            Self::NoRoom => f.write_str("a message has no room for a header and one byte"),
        }
    }
}

impl core::error::Error for SplitError {}

/// A frame that is being sent.
#[derive(Clone, Copy, Debug)]
pub struct FrameSplitter {
    head: FrameHead,
    at: u32,
    room: u32,
}

/// The head of a message: its first bytes, before those of the frame.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; FrameHead::LEN],
    len: usize,
}

impl Head {
    fn of(from: &[u8]) -> Self {
        let mut bytes = [0; FrameHead::LEN];
        bytes.iter_mut().zip(from).for_each(|(to, byte)| *to = *byte);
        Self { bytes, len: from.len() }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// One message of a frame: the head, then `len` bytes of the frame from `at` on.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// The message's type.
    pub msg_type: MessageType,
    /// Its head.
    pub head: Head,
    /// Offset in the frame of its bytes.
    pub at: u32,
    /// Number of its bytes.
    pub len: u32,
}

impl FrameSplitter {
    /// Splits a frame of `len` bytes into messages of at most `max_message` bytes, for an end with the offer `theirs`. `number`
    /// must differ from the number of the frame before.
    ///
    /// # Errors
    /// The frame cannot be sent.
    pub fn new(
        theirs: &Offer,
        number: u32,
        len: u32,
        offload: Offload,
        max_message: u32,
    ) -> Result<Self, SplitError> {
        if !(MIN_FRAME..=theirs.max_frame).contains(&len) {
            return Err(SplitError::WrongSize(len));
        }
        offload.check(len, theirs.features).map_err(SplitError::Offload)?;
        if max_message as usize <= FrameHead::LEN {
            return Err(SplitError::NoRoom);
        }
        let head = FrameHead { key: theirs.key, number, len, offload };
        Ok(Self { head, at: 0, room: max_message })
    }

    /// The next message. `None` if all were sent.
    pub fn next(&self) -> Option<Piece> {
        let left = self.head.len.checked_sub(self.at).filter(|left| *left != 0)?;
        let (msg_type, head) = if self.at == 0 {
            (NET_FRAME_TYPE, Head::of(&self.head.encode()))
        } else {
            let FrameHead { key, number, .. } = self.head;
            (NET_PART_TYPE, Head::of(&PartHead { key, number, at: self.at }.encode()))
        };
        let room = self.room.saturating_sub(u32::try_from(head.len).unwrap_or(u32::MAX));
        Some(Piece { msg_type, head, at: self.at, len: left.min(room) })
    }

    /// Says that `piece`, which [`next`](Self::next) returned, was sent.
    pub fn sent(&mut self, piece: &Piece) {
        self.at = piece.at.saturating_add(piece.len);
    }
}
