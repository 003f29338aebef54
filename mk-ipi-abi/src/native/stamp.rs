// SPDX-License-Identifier: MIT OR Apache-2.0
//! The stamp at the start of a native region, and what else may lie there (SPEC N-1).

use super::Geometry;
use crate::directory::Version;
use crate::rfc_v2::SLOT_SIZE;
use crate::{Errno, PAGE_SIZE};
use bitflags::bitflags;
use core::mem::{offset_of, size_of};
use static_assertions::const_assert_eq;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First eight bytes of a native region: "MKIPINAT".
pub const MAGIC: u64 = u64::from_le_bytes(*b"MKIPINAT");
/// The layout described here. Another major is refused, the minor is ignored.
pub const VERSION: Version = Version { major: 1, minor: 0 };
/// 64-bit words of the stamp.
pub const STAMP_WORDS: usize = size_of::<Stamp>() / 8;
/// Where MKIPI003 has its magic, in bytes; its version follows in the low half of the next word.
pub const MKIPI003_AT: u64 = 264_232;
/// The magic of MKIPI003.
pub const MKIPI003_MAGIC: u64 = 0x4d4b_4950_4930_3033;

bitflags! {
    /// What a receiver offers. Both ends use the intersection (SPEC N-1); unknown bits are for later minors.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// It rings a sender that waits for space.
        const SPACE = 1;
        /// Its heartbeat beats, so that one that stands still means something.
        const HEARTBEAT = 2;
    }
}

/// 64 bytes at the start of a native region. The magic is written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Stamp {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: Version,
    /// Lanes.
    pub lanes: u32,
    /// Bytes of the region.
    pub total_size: u64,
    /// Cells of each lane.
    pub cells: u32,
    /// The receiver's life; 0 before its first.
    pub incarnation: u32,
    /// [`Features`].
    pub features: u64,
    /// 0.
    pub reserved: [u64; 3],
}

const_assert_eq!(size_of::<Stamp>(), 64);
const_assert_eq!(offset_of!(Stamp, version), 8);
const_assert_eq!(offset_of!(Stamp, lanes), 12);
const_assert_eq!(offset_of!(Stamp, total_size), 16);
const_assert_eq!(offset_of!(Stamp, cells), super::receiver::INCARNATION * 8);
const_assert_eq!(offset_of!(Stamp, incarnation), super::receiver::INCARNATION * 8 + 4);
const_assert_eq!(offset_of!(Stamp, features), 32);

bitflags! {
    /// Layouts of other generations that have the size of a region, exactly or in whole pages.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct KnownLayouts: u8 {
        /// One slot per CPU: a multiple of 272 bytes.
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
    /// Those that a region of `len` bytes could hold.
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
    /// The peer speaks MKIPI003, this version of it.
    Mkipi003 {
        /// What stands behind its magic; 3 in what is known of it.
        version: u32,
    },
    /// No stamp that is known.
    NoStamp {
        /// The first eight bytes.
        found: u64,
        /// Other generations' layouts that have the region's size.
        known: KnownLayouts,
    },
    /// Another major version: what it is.
    Version(Version),
    /// Numbers of lanes and cells that are out of bounds.
    Geometry {
        /// Lanes, as stamped.
        lanes: u32,
        /// Cells, as stamped.
        cells: u32,
    },
    /// The total does not follow from the geometry: what is stamped.
    Size(u64),
    /// The region is smaller than the stamp says, or than a stamp: bytes needed.
    TooSmall(u64),
}

impl StampError {
    /// `EPROTO` for another protocol, else `EINVAL`.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Mkipi003 { .. } | Self::NoStamp { .. } | Self::Version(_) => Errno::EPROTO,
            Self::Geometry { .. } | Self::Size(_) | Self::TooSmall(_) => Errno::EINVAL,
        }
    }
}

impl Stamp {
    /// The stamp of a new region, before its receiver's first life.
    pub const fn new(geometry: Geometry, features: Features) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            lanes: geometry.lanes(),
            total_size: geometry.total_size(),
            cells: geometry.cells(),
            incarnation: 0,
            features: features.bits(),
            reserved: [0; 3],
        }
    }

    /// Accepts this copy of a stamp as that of a region of `available` bytes.
    ///
    /// `mkipi003`: the two words at [`MKIPI003_AT`], if the region is that long.
    pub fn check(
        &self,
        available: u64,
        mkipi003: Option<[u64; 2]>,
    ) -> Result<(Geometry, Features), StampError> {
        if self.magic != MAGIC {
            return Err(match mkipi003 {
                Some([MKIPI003_MAGIC, next]) => StampError::Mkipi003 { version: next as u32 },
                _ => StampError::NoStamp { found: self.magic, known: KnownLayouts::of_size(available) },
            });
        }
        if self.version.major != VERSION.major {
            return Err(StampError::Version(self.version));
        }
        let &Self { lanes, cells, total_size, .. } = self;
        let geometry = Geometry::new(lanes, cells).ok_or(StampError::Geometry { lanes, cells })?;
        if total_size != geometry.total_size() {
            return Err(StampError::Size(total_size));
        }
        if total_size > available {
            return Err(StampError::TooSmall(total_size));
        }
        Ok((geometry, Features::from_bits_truncate(self.features)))
    }
}
