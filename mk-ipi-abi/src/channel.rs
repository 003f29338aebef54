// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages by which programs on two kernels talk (SPEC chapter G).

use crate::{Incarnation, Len, MessageType};

/// The type of these messages (SPEC G-1).
pub const CHANNEL_TYPE: MessageType = MessageType(0xffff_0003);

/// The longest message of a program, in bytes (SPEC G-2).
pub const MAX_MESSAGE: usize = 4096;
/// How many positions each message takes, in addition to one position for each of its bytes (SPEC G-4).
pub const MESSAGE_COST: u64 = 64;
/// Largest number of bytes of a program's message in one part, if the link carries messages of 256 bytes (SPEC G-2).
pub const PART: usize = 256 - HEADER;

/// The version that SPEC.md describes (SPEC G-1).
const VERSION: u8 = 1;
const HEADER: usize = 24;
const ASK: u8 = 1;
const GRANT: u8 = 2;
const PART_OF: u8 = 3;
const CLOSED: u8 = 4;
const IS_FIRST: u16 = 1;
const IS_LAST: u16 = 2;

/// What a channel message says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// A writer asks whether there is a reader.
    Ask,
    /// There is a reader. It accepts bytes at positions below `limit`.
    Grant {
        /// The number of this reader, never 0.
        session: u32,
        /// The first position that is not granted.
        limit: u64,
    },
    /// A part of a message.
    Part {
        /// The number of the reader that the part is for.
        session: u32,
        /// The position at which the part begins: how much was sent to that reader before (SPEC G-4).
        position: u64,
        /// Whether the part is the first one of its message.
        is_first: bool,
        /// Whether the part is the last one of its message.
        is_last: bool,
        /// The bytes of the part: at least one.
        bytes: &'a [u8],
    },
    /// There is no reader now.
    Closed {
        /// The number of the reader that has closed; 0 if there was none.
        session: u32,
        /// The position up to which that reader had read.
        read: u64,
    },
}

impl core::fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Ask => f.write_str("Ask"),
            Self::Grant { session, limit } => {
                f.debug_struct("Grant").field("session", session).field("limit", limit).finish()
            }
            Self::Part { session, position, is_first, is_last, bytes } => f
                .debug_struct("Part")
                .field("session", session)
                .field("position", position)
                .field("is_first", is_first)
                .field("is_last", is_last)
                .field("bytes", &Len(bytes.len()))
                .finish(),
            Self::Closed { session, read } => {
                f.debug_struct("Closed").field("session", session).field("read", read).finish()
            }
        }
    }
}

/// One channel message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelMessage<'a> {
    /// The number of the channel. Programs that open the same number talk with each other.
    pub number: u32,
    /// The life of the receiver that the message is for; `None` if it is for any life.
    pub to: Option<Incarnation>,
    /// What the message says.
    pub body: Body<'a>,
}

/// Why a payload is not a valid channel message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelError {
    /// The payload is shorter than a header, or a part has no bytes after the header, or another kind has some. This is the
    /// length of the payload.
    WrongSize(usize),
    /// The version is unknown. This is the version found.
    WrongVersion(u8),
    /// The kind is unknown. This is the kind found.
    WrongKind(u8),
    /// A flag is unknown, or not allowed in this kind. These are all flags of the message.
    WrongFlags(u16),
    /// The position is not below 2^61. This is the position.
    WrongPosition(u64),
    /// The reader's number is 0 in a grant or a part; or an `Ask` has a reader's number or a position that is not 0. This is the
    /// reader's number.
    WrongSession(u32),
    /// A grant or a part does not name the life of the receiver that it is for.
    NoReceiver,
}

impl core::fmt::Display for ChannelError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::WrongSize(len) => write!(f, "a channel message of this kind cannot have {len} bytes"),
            Self::WrongVersion(version) => write!(f, "channel messages of version {version} are not known"),
            Self::WrongKind(kind) => write!(f, "channel messages have no kind {kind}"),
            Self::WrongFlags(flags) => {
                write!(f, "the flags {flags:#x} are not allowed in this kind of channel message")
            }
            Self::WrongPosition(position) => {
                write!(f, "the channel position {position:#x} is not below 2^61")
            }
            Self::WrongSession(session) => {
                write!(f, "the session number {session}, or the position, is not allowed in this kind of channel message")
            }
            Self::NoReceiver => f.write_str("a grant or a part has 0 as the receiver's incarnation"),
        }
    }
}

impl core::error::Error for ChannelError {}

impl<'a> ChannelMessage<'a> {
    /// Length of the header in bytes. The bytes of the program's message follow it (SPEC G-1).
    pub const HEADER: usize = HEADER;
    /// Every position is below this number.
    const END: u64 = 1 << 61;

    /// Writes the message to the start of `to`. Returns the bytes written; `None` if `to` is too short.
    pub fn encode<'b>(&self, to: &'b mut [u8]) -> Option<&'b [u8]> {
        let (kind, flags, session, position, bytes): (u8, u16, u32, u64, &[u8]) = match self.body {
            Body::Ask => (ASK, 0, 0, 0, &[]),
            Body::Grant { session, limit } => (GRANT, 0, session, limit, &[]),
            Body::Part { session, position, is_first, is_last, bytes } => {
                let flags = if is_first { IS_FIRST } else { 0 } | if is_last { IS_LAST } else { 0 };
                (PART_OF, flags, session, position, bytes)
            }
            Body::Closed { session, read } => (CLOSED, 0, session, read, &[]),
        };
        let life = self.to.map_or(0, Incarnation::get);
        let words = [
            u64::from(VERSION) | u64::from(kind) << 8 | u64::from(flags) << 16 | u64::from(self.number) << 32,
            u64::from(life) | u64::from(session) << 32,
            position,
        ];
        let len = Self::HEADER.checked_add(bytes.len())?;
        let all = words.iter().flat_map(|word| word.to_le_bytes()).chain(bytes.iter().copied());
        let place = to.get_mut(..len)?;
        place.iter_mut().zip(all).for_each(|(to, byte)| *to = byte);
        Some(place)
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// A [`ChannelError`] if the payload is not as SPEC G-1 says.
    pub fn decode(payload: &'a [u8]) -> Result<Self, ChannelError> {
        let wrong_size = ChannelError::WrongSize(payload.len());
        let (head, bytes) = payload.split_first_chunk::<HEADER>().ok_or(wrong_size)?;
        let half = |at: usize| {
            let four = head.get(at..).and_then(|rest| rest.first_chunk::<4>());
            four.map_or(0, |four| u32::from_le_bytes(*four))
        };
        let [version, kind, low, high, ..] = *head;
        let (number, life, session) = (half(4), half(8), half(12));
        let (flags, position) =
            (u16::from_le_bytes([low, high]), u64::from(half(16)) | u64::from(half(20)) << 32);
        if version != VERSION {
            return Err(ChannelError::WrongVersion(version));
        }
        let may_have = if kind == PART_OF { IS_FIRST | IS_LAST } else { 0 };
        if flags & !may_have != 0 {
            return Err(ChannelError::WrongFlags(flags));
        }
        if position >= Self::END {
            return Err(ChannelError::WrongPosition(position));
        }
        let to = Incarnation::new(life);
        let body = match kind {
            ASK => Body::Ask,
            GRANT => Body::Grant { session, limit: position },
            PART_OF => {
                let (is_first, is_last) = (flags & IS_FIRST != 0, flags & IS_LAST != 0);
                Body::Part { session, position, is_first, is_last, bytes }
            }
            CLOSED => Body::Closed { session, read: position },
            _ => return Err(ChannelError::WrongKind(kind)),
        };
        let is_part = matches!(body, Body::Part { .. });
        let has_session = is_part || matches!(body, Body::Grant { .. });
        if bytes.is_empty() == is_part {
            return Err(wrong_size);
        }
        match body {
            Body::Ask if session != 0 || position != 0 => Err(ChannelError::WrongSession(session)),
            _ if has_session && session == 0 => Err(ChannelError::WrongSession(0)),
            _ if has_session && to.is_none() => Err(ChannelError::NoReceiver),
            _ => Ok(Self { number, to, body }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn all() -> Vec<ChannelMessage<'static>> {
        let (session, position) = (0x8765_4321, 0x1122_3344_5566_7788);
        let part = |is_first, is_last| Body::Part { session, position, is_first, is_last, bytes: b"bytes" };
        let all = [
            Body::Grant { session, limit: position },
            part(true, false),
            part(false, false),
            part(false, true),
            part(true, true),
            Body::Closed { session, read: position },
        ];
        let to = Incarnation::new(0x0102_0304);
        let ask = ChannelMessage { number: 7, to: None, body: Body::Ask };
        all.into_iter().map(|body| ChannelMessage { number: 0xffff_ffff, to, body }).chain([ask]).collect()
    }

    #[test]
    fn each_comes_back_as_it_went() {
        for one in all() {
            let mut place = [0xff; 32];
            let sent = one.encode(&mut place).expect("room");
            assert_eq!(ChannelMessage::decode(sent), Ok(one));
        }
        assert!(all().iter().all(|one| one.encode(&mut [0; 23]).is_none()));
    }

    #[test]
    fn a_part_is_as_long_as_a_short_links_message_has_room_for() {
        assert_eq!(PART, 232);
        let bytes = &[1; PART];
        let body = Body::Part { session: 1, position: 0, is_first: true, is_last: true, bytes };
        let mut place = [0; 257];
        let sent = ChannelMessage { number: 1, to: Some(Incarnation::FIRST), body }.encode(&mut place);
        assert_eq!(sent.map(<[u8]>::len), Some(256));
    }

    #[test]
    fn debug_output_has_no_bytes_of_a_peer() {
        let shown = std::format!("{:?}", all());
        assert!(shown.contains("5 bytes") && !shown.contains("98"), "{shown}");
    }

    #[test]
    fn the_payload_has_the_specs_bytes() {
        let body = Body::Part { session: 5, position: 0x0103, is_first: true, is_last: false, bytes: b"x" };
        let expected = [1, 3, 1, 0, 9, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, b'x'];
        let mut place = [0xff; 32];
        let sent = ChannelMessage { number: 9, to: Incarnation::new(2), body }
            .encode(&mut place)
            .map(<[u8]>::to_vec);
        assert_eq!(sent.as_deref(), Some(expected.as_slice()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let good = [1, 3, 1, 0, 9, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, b'x'];
        let with = |changes: &[(usize, u8)], len: usize| {
            let mut bytes = good;
            for (at, value) in changes {
                bytes.iter_mut().skip(*at).take(1).for_each(|byte| *byte = *value);
            }
            ChannelMessage::decode(bytes.get(..len).unwrap_or(&[])).map(|_| ()).err()
        };
        assert_eq!(with(&[], 23), Some(ChannelError::WrongSize(23)));
        assert_eq!(with(&[], 24), Some(ChannelError::WrongSize(24)), "a part without bytes");
        assert_eq!(with(&[(1, 2), (2, 0)], 25), Some(ChannelError::WrongSize(25)), "a grant with bytes");
        assert_eq!(with(&[(0, 0)], 25), Some(ChannelError::WrongVersion(0)));
        assert_eq!(with(&[(1, 5), (2, 0)], 25), Some(ChannelError::WrongKind(5)));
        assert_eq!(with(&[(2, 5)], 25), Some(ChannelError::WrongFlags(5)));
        assert_eq!(with(&[(1, 2)], 24), Some(ChannelError::WrongFlags(1)), "a grant with a part's flags");
        assert_eq!(with(&[(23, 0x20)], 25), Some(ChannelError::WrongPosition(0x2000_0000_0000_0103)));
        assert_eq!(with(&[(12, 0)], 25), Some(ChannelError::WrongSession(0)));
        assert_eq!(
            with(&[(1, 1), (2, 0)], 24),
            Some(ChannelError::WrongSession(5)),
            "an `Ask` with a reader's number"
        );
        let ask = [(1, 1), (2, 0), (12, 0), (16, 0), (17, 0)];
        assert_eq!(with(&ask, 24), None);
        let (without_session, with_position) = (&ask[..4], [&ask[..3], &[(16, 1), (17, 0)]].concat());
        for question in [without_session, &with_position] {
            assert_eq!(with(question, 24), Some(ChannelError::WrongSession(0)), "an `Ask` with a position");
        }
        assert_eq!(with(&[(8, 0)], 25), Some(ChannelError::NoReceiver));
    }
}
