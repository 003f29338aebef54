// SPDX-License-Identifier: MIT OR Apache-2.0
//! Splits a frame into messages (SPEC E-5, E-6).

use mk_ipi_abi::net::{
    FrameHead, Offer, Offload, OffloadError, PartHead, MIN_FRAME, NET_FRAME_TYPE, NET_PART_TYPE,
};
use mk_ipi_abi::MessageType;

/// Why a frame cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitError {
    /// The frame is shorter than an Ethernet header, or longer than the other end accepts. The value is its length in bytes.
    WrongSize(u32),
    /// The offload is invalid, or the other end does not accept it.
    Offload(OffloadError),
    /// The messages have no room for a head and one byte of the frame.
    NoRoom,
}

impl core::fmt::Display for SplitError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::WrongSize(len) => write!(f, "the other end does not accept a frame of {len} bytes"),
            Self::Offload(e) => write!(f, "{e}"),
            Self::NoRoom => f.write_str("a message has no room for a head and one byte of the frame"),
        }
    }
}

impl core::error::Error for SplitError {}

/// Splits one frame into messages. Knows how much of the frame was sent.
#[derive(Clone, Copy, Debug)]
pub struct FrameSplitter {
    head: FrameHead,
    /// How many bytes of the frame were sent.
    at: u32,
    /// The largest number of bytes of a message, with its head.
    room: u32,
}

/// The head of a message: the bytes of the message that come before the bytes of the frame.
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

    /// The bytes of the head.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// One message of a frame. Its payload is the head, then `len` bytes of the frame from offset `at` on.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// The message's type.
    pub msg_type: MessageType,
    /// The message's head.
    pub head: Head,
    /// Offset in the frame of the bytes that come after the head.
    pub at: u32,
    /// Number of bytes that come after the head.
    pub len: u32,
}

impl FrameSplitter {
    /// Splits a frame of `len` bytes into messages of at most `max_message` bytes. `theirs` is the offer of the other end
    /// ([`Port::carrier`](crate::Port::carrier)). `number` is the number of this frame, and must differ from that of the frame
    /// before.
    ///
    /// # Errors
    /// If the frame cannot be sent; see [`SplitError`].
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

    /// The next message. `None` if all of the frame was sent.
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

    /// Says that `piece`, which [`next`](Self::next) returned last, was sent.
    pub fn sent(&mut self, piece: &Piece) {
        self.at = piece.at.saturating_add(piece.len);
    }
}
