// SPDX-License-Identifier: MIT OR Apache-2.0
//! The stamp at the start of a native region, and how other layouts are recognized (SPEC N-1).

use super::geometry::Geometry;
use crate::directory::Version;
use crate::rfc_v2::SLOT_SIZE;
use crate::{Errno, PAGE_SIZE};
use bitflags::bitflags;
use core::mem::{offset_of, size_of};
use static_assertions::const_assert_eq;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First eight bytes of a native region: "MKIPINAT".
pub const MAGIC: u64 = u64::from_le_bytes(*b"MKIPINAT");
/// The version of this layout. A region with another major version is refused. The minor version is ignored.
pub const VERSION: Version = Version { major: 2, minor: 0 };
/// 64-bit words of the stamp.
pub const STAMP_WORDS: usize = size_of::<Stamp>() / 8;
/// Offset of the magic of MKIPI003 and its family, in bytes. Their version is the low half of the next word.
pub const MKIPI0NN_AT: u64 = 264_232;
/// The upper six bytes of the magic of MKIPI003 and its family: "MKIPI0". Two digits follow.
const MKIPI0NN: u64 = 0x4d4b_4950_4930;

/// The first 64 bytes of a native region. The magic is written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Stamp {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: Version,
    /// Number of lanes.
    pub lanes: u32,
    /// Size of the region in bytes.
    pub total_size: u64,
    /// Number of lines of each lane.
    pub lines: u32,
    /// Largest payload of a message, in bytes.
    pub max_len: u32,
    /// 0.
    pub reserved: [u64; 4],
}

const_assert_eq!(size_of::<Stamp>(), 64);
const_assert_eq!(offset_of!(Stamp, version), 8);
const_assert_eq!(offset_of!(Stamp, lanes), 12);
const_assert_eq!(offset_of!(Stamp, total_size), 16);
const_assert_eq!(offset_of!(Stamp, lines), 24);
const_assert_eq!(offset_of!(Stamp, max_len), 28);

bitflags! {
    /// Layouts of other generations that a region could hold, judged by its size only. The region has the size of the layout, or
    /// that size rounded up to whole pages.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct KnownLayouts: u8 {
        /// One slot per CPU: the size is a multiple of 272 bytes.
        const RFC_V2 = 1;
        /// The first ring: 17,416 bytes.
        const FIRST_RING = 2;
        /// v7.0-mk2: 263,696 bytes.
        const V7_MK2 = 4;
        /// MKIPI003: 264,256 bytes.
        const MKIPI003 = 8;
        /// The duplex link: 528,416 bytes.
        const DUPLEX = 16;
    }
}

impl KnownLayouts {
    /// The layouts that a region of `len` bytes could hold.
    pub fn of_size(len: u64) -> Self {
        let sizes = [
            (Self::FIRST_RING, 17_416u64),
            (Self::V7_MK2, 263_696),
            (Self::MKIPI003, 264_256),
            (Self::DUPLEX, 528_416),
        ];
        let fits = |size: u64| len == size || Some(len) == size.checked_next_multiple_of(PAGE_SIZE);
        let mut known = Self::empty();
        known.set(Self::RFC_V2, len != 0 && len.checked_rem(SLOT_SIZE as u64) == Some(0));
        sizes.into_iter().for_each(|(layout, size)| known.set(layout, known.contains(layout) || fits(size)));
        known
    }
}

/// Why a region is not a native one that this build can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampError {
    /// The region belongs to a peer that uses MKIPI003 or another protocol of that family.
    Mkipi0nn {
        /// The two digits of its magic; 3 for MKIPI003.
        number: u8,
        /// The version in the word after the magic. It is 3 in the known MKIPI003.
        version: u32,
    },
    /// The region does not begin with a known stamp.
    NoStamp {
        /// The first eight bytes.
        found: u64,
        /// Layouts of other generations that have the size of the region.
        known: KnownLayouts,
    },
    /// The major version is not that of [`VERSION`]. This is the version found. Major version 1 is mk-ipi's first native link.
    Version(Version),
    /// A number is out of bounds, or the longest message does not fit into a lane.
    Geometry {
        /// Number of lanes in the stamp.
        lanes: u32,
        /// Number of lines of a lane in the stamp.
        lines: u32,
        /// Largest payload of a message in the stamp, in bytes.
        max_len: u32,
    },
    /// The total size does not follow from the geometry. This is the size in the stamp.
    Size(u64),
    /// The region is smaller than its stamp says, or than a page. This is how many bytes are needed.
    TooSmall(u64),
}

impl core::fmt::Display for StampError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Mkipi0nn { number, version } => {
                write!(f, "the region belongs to a peer that uses MKIPI{number:03}, version {version}")
            }
            Self::NoStamp { found, .. } => {
                write!(f, "this memory is not a native region: its first word is {found:#018x}")
            }
            Self::Version(Version { major, minor }) => {
                write!(f, "a native region of version {major}.{minor} is not supported")
            }
            Self::Geometry { lanes, lines, max_len } => write!(
                f,
                "a native region cannot have {lanes} lanes of {lines} lines for messages of {max_len} bytes"
            ),
            Self::Size(size) => {
                write!(f, "the size {size} in the stamp does not follow from the lanes and lines")
            }
            Self::TooSmall(needed) => write!(f, "the region needs {needed} bytes, and is smaller"),
        }
    }
}

impl core::error::Error for StampError {}

impl StampError {
    /// `EPROTO` for another protocol or version, else `EINVAL`.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Mkipi0nn { .. } | Self::NoStamp { .. } | Self::Version(_) => Errno::EPROTO,
            Self::Geometry { .. } | Self::Size(_) | Self::TooSmall(_) => Errno::EINVAL,
        }
    }
}

impl Stamp {
    /// The stamp of a new region.
    pub const fn new(geometry: Geometry) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            lanes: geometry.lanes(),
            total_size: geometry.total_size(),
            lines: geometry.lines(),
            max_len: geometry.max_len(),
            reserved: [0; 4],
        }
    }

    /// Checks this copy of the stamp of a region of `available` bytes, and returns the geometry.
    ///
    /// `mkipi0nn`: the two words at [`MKIPI0NN_AT`], if the region is that long.
    pub fn check(&self, available: u64, mkipi0nn: Option<[u64; 2]>) -> Result<Geometry, StampError> {
        if self.magic != MAGIC {
            let named = mkipi0nn.and_then(|[magic, next]| Some((mkipi_number(magic)?, next as u32)));
            return Err(match named {
                Some((number, version)) => StampError::Mkipi0nn { number, version },
                None => StampError::NoStamp { found: self.magic, known: KnownLayouts::of_size(available) },
            });
        }
        if self.version.major != VERSION.major {
            return Err(StampError::Version(self.version));
        }
        let &Self { lanes, lines, max_len, total_size, .. } = self;
        let geometry =
            Geometry::new(lanes, lines, max_len).ok_or(StampError::Geometry { lanes, lines, max_len })?;
        if total_size != geometry.total_size() {
            return Err(StampError::Size(total_size));
        }
        if total_size > available {
            return Err(StampError::TooSmall(total_size));
        }
        Ok(geometry)
    }
}

/// The number in a magic of MKIPI003's family.
fn mkipi_number(magic: u64) -> Option<u8> {
    let [ones, tens, ..] = magic.to_le_bytes();
    let digits = magic >> 16 == MKIPI0NN && tens.is_ascii_digit() && ones.is_ascii_digit();
    let value = |digit: u8| digit.wrapping_sub(b'0');
    digits.then(|| value(tens).wrapping_mul(10).wrapping_add(value(ones)))
}
