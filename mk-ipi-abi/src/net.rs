// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages of a network interface between two kernels (SPEC chapter E).

use crate::{Incarnation, MessageType};

/// The type of a control message (SPEC E-2).
pub const NET_CONTROL_TYPE: MessageType = MessageType(0xffff_0020);
/// The type of a message with a whole frame, or its first bytes (SPEC E-5).
pub const NET_FRAME_TYPE: MessageType = MessageType(0xffff_0021);
/// The type of a message with further bytes of a frame (SPEC E-6).
pub const NET_PART_TYPE: MessageType = MessageType(0xffff_0022);

/// The major version that this crate implements (SPEC E-2).
pub const NET_MAJOR: u16 = 1;
/// Smallest length of a frame, in bytes: an Ethernet header.
pub const MIN_FRAME: u32 = 14;
/// Largest length of a frame, in bytes: an Ethernet header, and the largest IP packet.
pub const MAX_FRAME: u32 = MIN_FRAME + 65_535;
/// The smallest allowed value of [`Offer::max_frame`]: an Ethernet header, and the smallest MTU of IPv4.
pub const LEAST_MAX_FRAME: u32 = MIN_FRAME + 68;

bitflags::bitflags! {
    /// What an end accepts in addition to plain frames (SPEC E-2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u32 {
        /// Frames whose checksum is not filled in.
        const CSUM = 1;
        /// TCP frames on IPv4 that the receiver must segment. Needs `CSUM`.
        const TSO4 = 1 << 1;
        /// TCP frames on IPv6 that the receiver must segment. Needs `CSUM`.
        const TSO6 = 1 << 2;
    }
}

/// Identifies one opening of an end (SPEC E-3). An end that opens again has another key. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u32);

impl Key {
    /// The key with this number; `None` for 0.
    pub const fn new(number: u32) -> Option<Self> {
        match number {
            0 => None,
            number => Some(Self(number)),
        }
    }

    /// The key for opening number `opening` of an end in this life of its kernel.
    pub const fn of(life: Incarnation, opening: u16) -> Self {
        let number = life.get() << 16 | opening as u32;
        // 0 is not a valid key. It results from opening 0 if the low 16 bits of the incarnation are 0.
        Self(if number == 0 { u32::MAX } else { number })
    }

    /// The key as a number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// How an end describes itself when it opens (SPEC E-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The key that frames to this end must carry.
    pub key: Key,
    /// What the end accepts in addition to plain frames.
    pub features: Features,
    /// Largest length of a frame that the end accepts, in bytes: [`LEAST_MAX_FRAME`] to [`MAX_FRAME`].
    pub max_frame: u32,
    /// The Ethernet address of the end.
    pub mac: [u8; 6],
}

/// A control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The end is open.
    Open {
        /// How the end describes itself.
        offer: Offer,
        /// The key of the other end, if the sender has received it.
        heard: Option<Key>,
    },
    /// The end with this key is closed.
    Close(Key),
}

/// Why a payload is not a valid control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlError {
    /// The length of the payload is not [`Control::LEN`] bytes. This is its length.
    WrongSize(usize),
    /// The major version is not [`NET_MAJOR`]. This is the major version found.
    Version(u16),
    /// The kind is unknown. This is the kind found.
    WrongKind(u32),
    /// The key is 0.
    NoKey,
    /// A bit is not defined, or `TSO4` or `TSO6` is set without `CSUM`. These are all bits found.
    WrongFeatures(u32),
    /// The length of the largest frame is out of bounds. This is the length found.
    WrongMaxFrame(u32),
    /// The address is 0, or a group address. This is the address.
    WrongMac([u8; 6]),
}

impl core::fmt::Display for ControlError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::WrongSize(len) => {
                write!(f, "a control message of a network interface has {} bytes, not {len}", Control::LEN)
            }
            Self::Version(major) => {
                write!(f, "the network interface of the peer has version {major}, which is not supported")
            }
            Self::WrongKind(kind) => write!(f, "control messages of a network interface have no kind {kind}"),
            Self::NoKey => f.write_str("a control message of a network interface has the key 0"),
            Self::WrongFeatures(bits) => {
                write!(f, "the features {bits:#x} of a network interface have an unknown bit, or TSO without CSUM")
            }
            Self::WrongMaxFrame(max) => write!(f, "the largest frame of a network interface cannot have {max} bytes"),
            Self::WrongMac([a, b, c, d, e, g]) => write!(
                f,
                "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x} is not an address of a single network interface"
            ),
        }
    }
}

impl core::error::Error for ControlError {}

const OPEN: u32 = 1;
const CLOSE: u32 = 2;

/// The four bytes at `at`.
fn word(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    four.map_or(0, |four| u32::from_le_bytes(*four))
}

/// The two bytes at `at`.
fn half(bytes: &[u8], at: usize) -> u16 {
    let two = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>());
    two.map_or(0, |two| u16::from_le_bytes(*two))
}

/// Writes `from` to the bytes at `at`.
fn put(bytes: &mut [u8], at: usize, from: &[u8]) {
    bytes.iter_mut().skip(at).zip(from).for_each(|(to, byte)| *to = *byte);
}

impl Features {
    /// Whether all bits are defined, and `CSUM` is set if `TSO4` or `TSO6` is.
    fn is_sound(self) -> bool {
        let unknown = !Self::all().bits() & self.bits() != 0;
        !unknown && (self.contains(Self::CSUM) || !self.intersects(Self::TSO4.union(Self::TSO6)))
    }
}

impl Control {
    /// Bytes of the payload (SPEC E-2).
    pub const LEN: usize = 32;

    /// The payload.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (what, key, heard) = match self {
            Self::Open { offer, heard } => (OPEN, offer.key, heard.map_or(0, Key::get)),
            Self::Close(key) => (CLOSE, *key, 0),
        };
        put(&mut bytes, 0, &what.to_le_bytes());
        put(&mut bytes, 4, &NET_MAJOR.to_le_bytes());
        put(&mut bytes, 8, &key.get().to_le_bytes());
        put(&mut bytes, 12, &heard.to_le_bytes());
        if let Self::Open { offer, .. } = self {
            put(&mut bytes, 16, &offer.features.bits().to_le_bytes());
            put(&mut bytes, 20, &offer.max_frame.to_le_bytes());
            put(&mut bytes, 24, &offer.mac);
        }
        bytes
    }

    /// Reads a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, ControlError> {
        let bytes: &[u8; Self::LEN] =
            payload.try_into().map_err(|_| ControlError::WrongSize(payload.len()))?;
        let major = half(bytes, 4);
        if major != NET_MAJOR {
            return Err(ControlError::Version(major));
        }
        let key = Key::new(word(bytes, 8)).ok_or(ControlError::NoKey)?;
        match word(bytes, 0) {
            CLOSE => Ok(Self::Close(key)),
            OPEN => Ok(Self::Open { offer: Offer::decode(key, bytes)?, heard: Key::new(word(bytes, 12)) }),
            what => Err(ControlError::WrongKind(what)),
        }
    }
}

impl Offer {
    fn decode(key: Key, bytes: &[u8; Control::LEN]) -> Result<Self, ControlError> {
        let features = Features::from_bits_retain(word(bytes, 16));
        if !features.is_sound() {
            return Err(ControlError::WrongFeatures(features.bits()));
        }
        let max_frame = word(bytes, 20);
        if !(LEAST_MAX_FRAME..=MAX_FRAME).contains(&max_frame) {
            return Err(ControlError::WrongMaxFrame(max_frame));
        }
        let [.., m0, m1, m2, m3, m4, m5, _, _] = *bytes;
        let mac = [m0, m1, m2, m3, m4, m5];
        if m0 & 1 != 0 || mac == [0; 6] {
            return Err(ControlError::WrongMac(mac));
        }
        Ok(Self { key, features, max_frame, mac })
    }
}

/// The work on a frame that is left to the receiver. The fields have the same meaning as in the header of virtio-net (SPEC E-7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Bit 0: the checksum is not filled in yet. Bit 1: the checksum was checked.
    pub flags: u8,
    /// 0: no segmentation. 1 or 4: TCP on IPv4 or IPv6. Bit 7: with ECN.
    pub gso_type: u8,
    /// Bytes of the Ethernet, IP and TCP headers. A hint only.
    pub hdr_len: u16,
    /// Bytes of payload in each segment.
    pub gso_size: u16,
    /// Offset in the frame of the first byte that the checksum covers.
    pub csum_start: u16,
    /// Where the checksum is stored, as an offset from `csum_start`.
    pub csum_offset: u16,
}

/// Why the offload of a frame cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffloadError {
    /// A flag is not defined. These are all flags found.
    Flags(u8),
    /// The segmentation type is not defined. This is the type found.
    Gso(u8),
    /// A frame to be segmented has segments of 0 bytes, or a checksum that is filled in.
    GsoWhole,
    /// The bytes that the checksum covers begin inside of the Ethernet header, or the checksum ends after the frame.
    Csum {
        /// `csum_start`.
        start: u16,
        /// `csum_offset`.
        offset: u16,
    },
    /// The receiver does not accept such frames.
    NotSupported,
}

impl core::fmt::Display for OffloadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Flags(flags) => write!(f, "the offload flags {flags:#x} are not known"),
            Self::Gso(kind) => write!(f, "the segmentation type {kind:#x} is not known"),
            Self::GsoWhole => f.write_str("a frame to be segmented has segments of 0 bytes, or its checksum is filled in already"),
            Self::Csum { start, offset } => write!(f, "a checksum from byte {start}, stored at offset {offset} from there, does not lie in the frame after the Ethernet header"),
            Self::NotSupported => f.write_str("the receiver does not support this offload"),
        }
    }
}

impl core::error::Error for OffloadError {}

impl Offload {
    /// `flags`: the receiver must fill in the checksum.
    pub const NEEDS_CSUM: u8 = 1;
    /// `flags`: the checksum was checked.
    pub const DATA_VALID: u8 = 2;
    /// `gso_type`: TCP on IPv4.
    pub const TCPV4: u8 = 1;
    /// `gso_type`: TCP on IPv6.
    pub const TCPV6: u8 = 4;
    /// `gso_type`: with ECN.
    pub const ECN: u8 = 0x80;

    /// The features that a receiver needs for a frame with this offload.
    pub fn needed(&self) -> Features {
        let csum = if self.flags & Self::NEEDS_CSUM == 0 { Features::empty() } else { Features::CSUM };
        csum.union(match self.gso_type & !Self::ECN {
            Self::TCPV4 => Features::TSO4,
            Self::TCPV6 => Features::TSO6,
            _ => Features::empty(),
        })
    }

    /// Checks that a receiver with these `features` can handle a frame of `len` bytes with this offload.
    pub fn check(&self, len: u32, features: Features) -> Result<(), OffloadError> {
        if self.flags & !(Self::NEEDS_CSUM | Self::DATA_VALID) != 0 {
            return Err(OffloadError::Flags(self.flags));
        }
        let needs_csum = self.flags & Self::NEEDS_CSUM != 0;
        let (start, offset) = (u32::from(self.csum_start), u32::from(self.csum_offset));
        let end = start.saturating_add(offset).saturating_add(2);
        if needs_csum && (start < MIN_FRAME || end > len) {
            return Err(OffloadError::Csum { start: self.csum_start, offset: self.csum_offset });
        }
        match self.gso_type & !Self::ECN {
            0 if self.gso_type == 0 => {}
            Self::TCPV4 | Self::TCPV6 if needs_csum && self.gso_size != 0 => {}
            Self::TCPV4 | Self::TCPV6 => return Err(OffloadError::GsoWhole),
            _ => return Err(OffloadError::Gso(self.gso_type)),
        }
        if features.contains(self.needed()) {
            Ok(())
        } else {
            Err(OffloadError::NotSupported)
        }
    }
}

/// The head of a message of type [`NET_FRAME_TYPE`]: the frame's bytes follow (SPEC E-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// The key of the receiving end.
    pub key: Key,
    /// The number of the frame. The messages with its further bytes repeat the number.
    pub number: u32,
    /// Bytes of the whole frame.
    pub len: u32,
    /// The work on the frame that is left to the receiver.
    pub offload: Offload,
}

impl FrameHead {
    /// Length of the head in bytes.
    pub const LEN: usize = 24;

    /// The head as bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let Offload { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset } = self.offload;
        put(&mut bytes, 0, &self.key.get().to_le_bytes());
        put(&mut bytes, 4, &self.number.to_le_bytes());
        put(&mut bytes, 8, &self.len.to_le_bytes());
        put(&mut bytes, 12, &[flags, gso_type]);
        let halves = [hdr_len, gso_size, csum_start, csum_offset];
        halves.iter().zip([14, 16, 18, 20]).for_each(|(half, at)| put(&mut bytes, at, &half.to_le_bytes()));
        bytes
    }

    /// The head of a payload, and the bytes after it. `None` if the payload is too short, or has the key 0. Other fields are not
    /// checked.
    pub fn decode(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (bytes, rest) = payload.split_first_chunk::<{ Self::LEN }>()?;
        let [flags, gso_type] = half(bytes, 12).to_le_bytes();
        let offload = Offload {
            flags,
            gso_type,
            hdr_len: half(bytes, 14),
            gso_size: half(bytes, 16),
            csum_start: half(bytes, 18),
            csum_offset: half(bytes, 20),
        };
        let key = Key::new(word(bytes, 0))?;
        Some((Self { key, number: word(bytes, 4), len: word(bytes, 8), offload }, rest))
    }
}

/// The head of a message of type [`NET_PART_TYPE`]: more of the frame's bytes follow (SPEC E-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHead {
    /// The key of the receiving end.
    pub key: Key,
    /// The number of the frame.
    pub number: u32,
    /// The offset in the frame of the first of these bytes.
    pub at: u32,
}

impl PartHead {
    /// Length of the head in bytes.
    pub const LEN: usize = 16;

    /// The head as bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        put(&mut bytes, 0, &self.key.get().to_le_bytes());
        put(&mut bytes, 4, &self.number.to_le_bytes());
        put(&mut bytes, 8, &self.at.to_le_bytes());
        bytes
    }

    /// The head of a payload, and the bytes after it. `None` if the payload is too short, or has the key 0.
    pub fn decode(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (bytes, rest) = payload.split_first_chunk::<{ Self::LEN }>()?;
        let key = Key::new(word(bytes, 0))?;
        Some((Self { key, number: word(bytes, 4), at: word(bytes, 8) }, rest))
    }
}

#[cfg(test)]
mod tests;
