// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages of a console (SPEC chapter K): a kernel's log, and a terminal between two kernels.

use crate::{Incarnation, Len, MessageType};

/// The type of these messages (SPEC K-1).
pub const CONSOLE_TYPE: MessageType = MessageType(0xffff_0002);

/// The version that SPEC.md describes (SPEC K-1).
const VERSION: u8 = 1;
const HEADER: usize = 16;
const LISTEN: u8 = 1;
const LOG: u8 = 2;
const TERMINAL: u8 = 3;

/// What a console message says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// The kernel that sends this message accepts the log of the receiving kernel. It also accepts bytes of the receiving
    /// kernel's terminal at positions below `limit`.
    Listen {
        /// The first position that is not accepted.
        limit: u64,
    },
    /// Bytes of the sender's log.
    Log {
        /// Number of bytes of the log before these, including bytes that were lost.
        position: u64,
        /// The bytes: at least one.
        bytes: &'a [u8],
    },
    /// Bytes of the sender's terminal.
    Terminal {
        /// Number of bytes of the terminal before these.
        position: u64,
        /// The bytes: at least one.
        bytes: &'a [u8],
    },
}

impl core::fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (name, position, bytes) = match self {
            Self::Listen { limit } => return f.debug_struct("Listen").field("limit", limit).finish(),
            Self::Log { position, bytes } => ("Log", position, bytes),
            Self::Terminal { position, bytes } => ("Terminal", position, bytes),
        };
        f.debug_struct(name).field("position", position).field("bytes", &Len(bytes.len())).finish()
    }
}

/// One console message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleMessage<'a> {
    /// The life of the receiver that the message is for; `None` if it is for any life.
    pub to: Option<Incarnation>,
    /// What the message says.
    pub body: Body<'a>,
}

/// Why a payload is not a valid console message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleError {
    /// The payload is shorter than a header, or a `Listen` has bytes after the header, or a `Log` or `Terminal` has none. This is
    /// the length of the payload.
    WrongSize(usize),
    /// The version is unknown. This is the version found.
    WrongVersion(u8),
    /// The kind is unknown. This is the kind found.
    WrongKind(u8),
    /// Bytes 2 and 3 are not 0. This is their value.
    NotZero(u16),
    /// The bytes would end above position 2^61. This is the position of the first byte.
    WrongPosition(u64),
    /// A `Terminal` message does not name the life of the receiver that it is for.
    NoReceiver,
}

impl core::fmt::Display for ConsoleError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::WrongSize(len) => write!(f, "a console message of this kind cannot have {len} bytes"),
            Self::WrongVersion(version) => write!(f, "console messages of version {version} are not known"),
            Self::WrongKind(kind) => write!(f, "console messages have no kind {kind}"),
            Self::NotZero(found) => write!(f, "bytes 2 and 3 of a console message are {found:#x}, not 0"),
            Self::WrongPosition(position) => {
                write!(f, "the bytes at console position {position:#x} go beyond 2^61")
            }
            Self::NoReceiver => f.write_str("a terminal message has 0 as the receiver's incarnation"),
        }
    }
}

impl core::error::Error for ConsoleError {}

impl<'a> ConsoleMessage<'a> {
    /// Length of the header in bytes. The bytes of the log or the terminal follow it (SPEC K-1).
    pub const HEADER: usize = HEADER;
    /// Every byte has a position below this number.
    const END: u64 = 1 << 61;

    /// Writes the message to the start of `to`. Returns the bytes written; `None` if `to` is too short.
    pub fn encode<'b>(&self, to: &'b mut [u8]) -> Option<&'b [u8]> {
        let (kind, position, bytes): (u8, u64, &[u8]) = match self.body {
            Body::Listen { limit } => (LISTEN, limit, &[]),
            Body::Log { position, bytes } => (LOG, position, bytes),
            Body::Terminal { position, bytes } => (TERMINAL, position, bytes),
        };
        let life = self.to.map_or(0, Incarnation::get);
        let first = u64::from(VERSION) | u64::from(kind) << 8 | u64::from(life) << 32;
        let len = Self::HEADER.checked_add(bytes.len())?;
        let all = first.to_le_bytes().into_iter().chain(position.to_le_bytes()).chain(bytes.iter().copied());
        let place = to.get_mut(..len)?;
        place.iter_mut().zip(all).for_each(|(to, byte)| *to = byte);
        Some(place)
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// A [`ConsoleError`] if the payload is not as SPEC K-1 says.
    pub fn decode(payload: &'a [u8]) -> Result<Self, ConsoleError> {
        let wrong_size = ConsoleError::WrongSize(payload.len());
        let (head, bytes) = payload.split_first_chunk::<HEADER>().ok_or(wrong_size)?;
        let [version, kind, zero @ .., _, _, _, _, _, _, _, _, _, _, _, _] = *head;
        let [_, _, _, _, life @ .., _, _, _, _, _, _, _, _] = *head;
        let [_, _, _, _, _, _, _, _, position @ ..] = *head;
        let (zero, position) = (u16::from_le_bytes(zero), u64::from_le_bytes(position));
        if version != VERSION {
            return Err(ConsoleError::WrongVersion(version));
        }
        if zero != 0 {
            return Err(ConsoleError::NotZero(zero));
        }
        let end = position.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > Self::END) {
            return Err(ConsoleError::WrongPosition(position));
        }
        let to = Incarnation::new(u32::from_le_bytes(life));
        let body = match kind {
            LISTEN => Body::Listen { limit: position },
            LOG => Body::Log { position, bytes },
            TERMINAL => Body::Terminal { position, bytes },
            _ => return Err(ConsoleError::WrongKind(kind)),
        };
        match body {
            Body::Listen { .. } if !bytes.is_empty() => Err(wrong_size),
            Body::Log { .. } | Body::Terminal { .. } if bytes.is_empty() => Err(wrong_size),
            Body::Terminal { .. } if to.is_none() => Err(ConsoleError::NoReceiver),
            _ => Ok(Self { to, body }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const SOME: &[u8] = b"bytes";

    fn all() -> Vec<ConsoleMessage<'static>> {
        let to = Incarnation::new(0x8765_4321);
        let of = |body| ConsoleMessage { to, body };
        let position = 0x1122_3344_5566_7788;
        std::vec![
            of(Body::Listen { limit: position }),
            of(Body::Log { position, bytes: SOME }),
            of(Body::Terminal { position, bytes: SOME }),
            ConsoleMessage { to: None, body: Body::Log { position: 0, bytes: SOME } },
        ]
    }

    #[test]
    fn each_comes_back_as_it_went() {
        for one in all() {
            let mut place = [0xff; 32];
            let sent = one.encode(&mut place).expect("room");
            assert_eq!(ConsoleMessage::decode(sent), Ok(one));
        }
        assert!(all().iter().all(|one| one.encode(&mut [0; 15]).is_none()));
    }

    #[test]
    fn debug_output_has_no_bytes_of_a_peer() {
        let shown = std::format!("{:?}", all());
        assert!(shown.contains("5 bytes") && !shown.contains("98"), "{shown}");
    }

    #[test]
    fn the_payload_has_the_specs_bytes() {
        let mut place = [0xff; 32];
        let one = ConsoleMessage {
            to: Incarnation::new(2),
            body: Body::Terminal { position: 0x0103, bytes: b"x" },
        };
        let expected = [1, 3, 0, 0, 2, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, b'x'];
        assert_eq!(one.encode(&mut place), Some(expected.as_slice()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let good = [1, 3, 0, 0, 2, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, b'x'];
        let with = |at: usize, value: u8| {
            let mut bytes = good;
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value);
            ConsoleMessage::decode(&bytes.clone()).map(|_| ()).err()
        };
        assert_eq!(ConsoleMessage::decode(&good[..15]), Err(ConsoleError::WrongSize(15)));
        assert_eq!(
            ConsoleMessage::decode(&good[..16]),
            Err(ConsoleError::WrongSize(16)),
            "a terminal message without bytes"
        );
        assert_eq!(with(1, 1), Some(ConsoleError::WrongSize(17)), "bytes after a limit");
        assert_eq!(with(0, 2), Some(ConsoleError::WrongVersion(2)));
        assert_eq!(with(1, 4), Some(ConsoleError::WrongKind(4)));
        assert_eq!(with(3, 1), Some(ConsoleError::NotZero(0x100)));
        assert_eq!(with(4, 0), Some(ConsoleError::NoReceiver));
        let last = ConsoleMessage::END - 1;
        for (position, expected) in [(last, None), (last + 1, Some(ConsoleError::WrongPosition(last + 1)))] {
            let one =
                ConsoleMessage { to: Some(Incarnation::FIRST), body: Body::Log { position, bytes: b"x" } };
            let mut place = [0; 17];
            let sent = one.encode(&mut place).expect("room");
            assert_eq!(ConsoleMessage::decode(sent).err(), expected);
        }
        assert_eq!(with(15, 0x20), Some(ConsoleError::WrongPosition(0x2000_0000_0000_0103)));
    }
}
