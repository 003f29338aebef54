// SPDX-License-Identifier: MIT OR Apache-2.0
//! The size of a region, and where its lanes and lines begin (SPEC N-2, N-8).

use super::line::{lines_of, LineTag, LINE_WORDS, MAX_LEN};
use super::words::{header, receiver};
use crate::PAGE_SIZE;

/// Largest number of lanes: one per instance.
pub const MAX_LANES: u32 = 256;
/// Smallest number of lines of a lane.
pub const MIN_LINES: u32 = 8;
/// Largest number of lines of a lane.
pub const MAX_LINES: u32 = 4096;
/// Largest payload of a message in bytes, if the creator of a region gives no other number.
pub const DEFAULT_MAX_LEN: u32 = 256;

/// The number of lanes in a region, the lines of each lane, and the longest message. Every value of this type is within the
/// limits (SPEC N-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    lanes: u32,
    lines: u32,
    max_len: u32,
}

const fn whole_pages(bytes: u64) -> u64 {
    // No overflow: `bytes` is at most 256 + 64 x 4,096, for a lane, or 256 + 128 x 256, for the receiver's pages.
    bytes.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1)
}

impl Geometry {
    /// `lanes` (1 to [`MAX_LANES`]) of `lines` each (a power of two, [`MIN_LINES`] to [`MAX_LINES`]) for messages of at most
    /// `max_len` bytes (1 to [`MAX_LEN`]). `None` outside of these limits, or if the longest message does not fit into a lane.
    pub const fn new(lanes: u32, lines: u32, max_len: u32) -> Option<Self> {
        let lanes_fit = lanes >= 1 && lanes <= MAX_LANES;
        let lines_fit = lines.is_power_of_two() && lines >= MIN_LINES && lines <= MAX_LINES;
        let len_fits =
            max_len >= 1 && max_len as usize <= MAX_LEN && lines_of(max_len as usize) <= lines as u64;
        if lanes_fit && lines_fit && len_fits {
            Some(Self { lanes, lines, max_len })
        } else {
            None
        }
    }

    /// The default for `lanes`: 256 lines up to 4 lanes, 128 up to 16, 64 up to 64, else 32; messages of at most
    /// [`DEFAULT_MAX_LEN`] bytes. `None` if `lanes` is not 1 to [`MAX_LANES`].
    pub const fn default_for(lanes: u32) -> Option<Self> {
        let lines = match lanes {
            0..=4 => 256,
            5..=16 => 128,
            17..=64 => 64,
            _ => 32,
        };
        Self::new(lanes, lines, DEFAULT_MAX_LEN)
    }

    /// Number of lanes.
    pub const fn lanes(self) -> u32 {
        self.lanes
    }
    /// Number of lines of each lane, a power of two.
    pub const fn lines(self) -> u32 {
        self.lines
    }
    /// Largest payload of a message, in bytes.
    #[inline(always)]
    pub const fn max_len(self) -> u32 {
        self.max_len
    }
    /// Size of the receiver's pages, in bytes: 256 + 128 x lanes, rounded up to whole pages. The region begins with them.
    pub const fn receiver_len(self) -> u64 {
        let words = (self.lanes as u64).wrapping_mul(receiver::CONTROL_WORDS as u64);
        whole_pages(words.wrapping_add(receiver::CONTROL as u64).wrapping_mul(8))
    }
    /// Where the lanes begin, in bytes from the start of the region.
    pub const fn lanes_at(self) -> u64 {
        self.receiver_len()
    }
    /// Size of one lane in bytes: 256 + 64 x lines, rounded up to whole pages.
    pub const fn lane_len(self) -> u64 {
        let words = (self.lines as u64).wrapping_mul(LINE_WORDS as u64);
        whole_pages(words.wrapping_add(header::WORDS as u64).wrapping_mul(8))
    }
    /// Where lane `lane` begins, in bytes from the start of the region; `None` beyond the last.
    pub const fn lane_at(self, lane: u32) -> Option<u64> {
        if lane >= self.lanes {
            return None;
        }
        Some(self.lanes_at().wrapping_add((lane as u64).wrapping_mul(self.lane_len())))
    }
    /// Size of all lanes together, in bytes.
    pub const fn lanes_len(self) -> u64 {
        (self.lanes as u64).wrapping_mul(self.lane_len())
    }
    /// Size of the region in bytes (SPEC N-2).
    pub const fn total_size(self) -> u64 {
        self.lanes_at().wrapping_add(self.lanes_len())
    }

    /// Whether the line at `position` is the first line of its lane. A lap begins there.
    #[inline(always)]
    pub const fn is_first_of_lap(self, position: u64) -> bool {
        position as u32 & self.lines.wrapping_sub(1) == 0
    }
    /// The lap in which the line at `position` is written, counted from 0.
    #[inline(always)]
    const fn lap(self, position: u64) -> u64 {
        position >> self.lines.trailing_zeros()
    }
    /// The tag of a message's first line at `position`.
    #[inline(always)]
    pub const fn first_tag(self, position: u64) -> LineTag {
        LineTag::first(self.lap(position))
    }
    /// The tag of a further line at `position`.
    #[inline(always)]
    pub const fn further_tag(self, position: u64) -> LineTag {
        LineTag::further(self.lap(position))
    }
    /// Where the line at `position` begins, in words from the start of its lane.
    #[inline(always)]
    pub const fn line_at(self, position: u64) -> usize {
        // A lane has at most 4,096 lines, so nothing wraps.
        ((position as usize) & (self.lines as usize).wrapping_sub(1))
            .wrapping_mul(LINE_WORDS)
            .wrapping_add(header::WORDS)
    }
}
