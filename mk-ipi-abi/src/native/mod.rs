// SPDX-License-Identifier: MIT OR Apache-2.0
//! Generation "native": one region per receiver, one lane per sending instance (SPEC chapter N).
//!
//! ```text
//! stamp | receiver's line | control line of each lane     whole pages, written by the receiver
//! hints                                                    one page, written by all
//! lane 0: header, cells                                    whole pages, written by instance 0
//! lane 1: ...                                              whole pages, written by instance 1
//! ```
//!
//! What stands here gives words a meaning and checks private copies of them; nothing here touches memory.

#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of words")]

use crate::{Incarnation, PhysCpuId, Vector, PAGE_SIZE};

mod stamp;

pub use stamp::{
    Features, KnownLayouts, Stamp, StampError, MAGIC, MKIPI003_AT, MKIPI003_MAGIC, STAMP_WORDS, VERSION,
};

/// Most bytes of payload in one message; 0 is legal (SPEC N-7).
pub const MAX_LEN: usize = 256;
/// Most lanes: one per instance.
pub const MAX_LANES: u32 = 256;
/// Least cells of a lane.
pub const MIN_CELLS: u32 = 2;
/// Most cells of a lane.
pub const MAX_CELLS: u32 = 1024;

/// Words of the receiver's pages, from the start of the region (SPEC N-3).
pub mod receiver {
    /// Word of the stamp that holds `cells` (low half) and the incarnation (high half).
    pub const INCARNATION: usize = 3;
    /// Changes while the receiver lives: its clock. In the stamp's line.
    pub const HEARTBEAT: usize = 8;
    /// A [`Life`](super::Life) word: whether the receiver has said goodbye.
    pub const LIFE: usize = 9;
    /// 1 while the receiver wants to be rung for a message. A line of its own.
    pub const ARMED: usize = 16;
    /// A [`Bell`](super::Bell) word: where to ring it; 0 for what the directory says.
    pub const BELL: usize = 17;
    /// First word of lane 0's control line; one for each lane, 16 words apart.
    pub const CONTROL: usize = 32;
    /// Words from one control line to the next: 128 bytes.
    pub const CONTROL_WORDS: usize = 16;
}

/// Words of a lane's control line, which the receiver writes (SPEC N-4).
pub mod control {
    /// Positions below it are the sender's again.
    pub const CREDIT: usize = 0;
    /// The [`Hello`](super::Hello) word that the receiver has acknowledged; 0 if none yet.
    pub const ANSWER: usize = 1;
    /// The position at which the life acknowledged by `ANSWER` begins.
    pub const BASE: usize = 2;
    /// First position of the range that a restart of the receiver lost.
    pub const LOST_FROM: usize = 3;
    /// End of that range.
    pub const LOST_TO: usize = 4;
    /// The [`Breach`](super::Breach) for which the lane is in quarantine; 0 if it is not.
    pub const BREACH: usize = 5;
    /// Statistics: messages handed to handlers.
    pub const RECEIVED: usize = 6;
    /// Statistics: lives of the sender acknowledged, and restarts of the receiver.
    pub const RESETS: usize = 7;
    /// Statistics: times the lane went into quarantine.
    pub const BAD: usize = 8;
    /// Statistics: the last [`Breach`](super::Breach).
    pub const LAST_BREACH: usize = 9;
}

/// Words of a lane's header, which the sender writes (SPEC N-5).
pub mod header {
    /// The sender's [`Hello`](super::Hello); 0 until its first.
    pub const HELLO: usize = 0;
    /// The incarnation of the receiver that is to stop; obeyed in the host's lane only.
    pub const STOP: usize = 1;
    /// The sender has seen the lost range up to this position.
    pub const SEEN: usize = 2;
    /// The sender wants to be rung when `CREDIT` is no longer this less 1.
    pub const WANT: usize = 3;
    /// The [`Hello`](super::Hello) of the life that has cleaned the cells; no other's are read, but for a first one's.
    pub const CLEAN: usize = 4;
    /// Statistics: the position behind the last message sent. From here on lines that the receiver does not read.
    pub const SENT: usize = 16;
    /// Statistics: sends that found the lane full.
    pub const FULL: usize = 17;
    /// Statistics: doorbells rung; all other sends were suppressed.
    pub const RUNG: usize = 18;
    /// Words of the header.
    pub const WORDS: usize = 32;
}

/// Words of a cell: 320 bytes, five cache lines (SPEC N-6).
pub mod cell {
    /// Lap (low half) and message type (high half); stored last, with release.
    pub const HEAD: usize = 0;
    /// A [`CellAbout`](super::CellAbout) word.
    pub const ABOUT: usize = 1;
    /// First word of the payload. Its first 48 bytes share the line of the head.
    pub const PAYLOAD: usize = 2;
    /// Words of the payload in the head's line.
    pub const NEAR_WORDS: usize = 6;
    /// Words from one cell to the next.
    pub const WORDS: usize = 40;
}

/// Bytes of the hint page.
const HINT_LEN: u64 = PAGE_SIZE;
/// Words of the hint page that are used: one bit per lane.
pub const HINT_WORDS: usize = 4;

/// How many lanes a region has, and how many cells each. Every value of this type is in bounds (SPEC N-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    lanes: u32,
    cells: u32,
}

const fn whole_pages(bytes: u64) -> u64 {
    // At most 1024 cells of 320 bytes, or 256 lines of 128.
    bytes.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1)
}

impl Geometry {
    /// `lanes` of `cells` each: 1 to [`MAX_LANES`], a power of two from [`MIN_CELLS`] to [`MAX_CELLS`]; else `None`.
    pub const fn new(lanes: u32, cells: u32) -> Option<Self> {
        let lanes_fit = lanes >= 1 && lanes <= MAX_LANES;
        let cells_fit = cells.is_power_of_two() && cells >= MIN_CELLS && cells <= MAX_CELLS;
        if lanes_fit && cells_fit {
            Some(Self { lanes, cells })
        } else {
            None
        }
    }

    /// The default for `lanes`: 64 cells up to 4 lanes, 32 up to 16, 16 up to 64, else 8.
    pub const fn default_for(lanes: u32) -> Option<Self> {
        Self::new(
            lanes,
            match lanes {
                0..=4 => 64,
                5..=16 => 32,
                17..=64 => 16,
                _ => 8,
            },
        )
    }

    /// How many lanes.
    pub const fn lanes(self) -> u32 {
        self.lanes
    }
    /// Cells of each lane, a power of two.
    pub const fn cells(self) -> u32 {
        self.cells
    }
    /// Bytes of the receiver's pages, which come first: 256 + 128 x lanes, in whole pages.
    pub const fn receiver_len(self) -> u64 {
        whole_pages((self.lanes as u64).wrapping_mul(128).wrapping_add(256))
    }
    /// Where the hint page begins, in bytes from the start of the region.
    pub const fn hint_at(self) -> u64 {
        self.receiver_len()
    }
    /// Bytes of the hint page.
    pub const fn hint_len(self) -> u64 {
        HINT_LEN
    }
    /// Bytes of one lane: 256 + 320 x cells, in whole pages.
    pub const fn lane_len(self) -> u64 {
        whole_pages((self.cells as u64).wrapping_mul(cell::WORDS as u64).wrapping_mul(8).wrapping_add(256))
    }
    /// Where lane `lane` begins, in bytes from the start of the region; `None` beyond the last.
    pub const fn lane_at(self, lane: u32) -> Option<u64> {
        if lane >= self.lanes {
            return None;
        }
        Some(self.lanes_at().wrapping_add((lane as u64).wrapping_mul(self.lane_len())))
    }
    /// Where the lanes begin.
    pub const fn lanes_at(self) -> u64 {
        self.hint_at().wrapping_add(HINT_LEN)
    }
    /// Bytes of all lanes.
    pub const fn lanes_len(self) -> u64 {
        (self.lanes as u64).wrapping_mul(self.lane_len())
    }
    /// Bytes of the region (SPEC N-2).
    pub const fn total_size(self) -> u64 {
        self.lanes_at().wrapping_add(self.lanes_len())
    }

    /// The lap in which `position` is written, as a cell's head has it: it starts at 1 and wraps at 2^32.
    #[inline(always)]
    pub const fn lap(self, position: u64) -> u32 {
        ((position >> self.cells.trailing_zeros()) as u32).wrapping_add(1)
    }
    /// The index of the cell that holds `position`.
    #[inline(always)]
    pub const fn index(self, position: u64) -> usize {
        (position as u32 & self.cells.wrapping_sub(1)) as usize
    }
    /// The first position behind `position` whose lap no cell can bear yet.
    pub const fn next_life(self, position: u64) -> u64 {
        let cells = self.cells as u64;
        position.wrapping_add(cells).wrapping_add(cells.wrapping_sub(1)) & !cells.wrapping_sub(1)
    }
}

/// How a lap that was found stands to the one that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lap {
    /// The cell holds the message.
    Here,
    /// Not published yet.
    NotYet,
    /// A lap that is still to come: no honest sender is there.
    Future,
}

impl Lap {
    /// Compares modulo 2^32.
    #[inline(always)]
    pub const fn of(found: u32, expected: u32) -> Self {
        match found.wrapping_sub(expected) {
            0 => Self::Here,
            ahead if ahead < 1 << 31 => Self::Future,
            _ => Self::NotYet,
        }
    }
}

/// The second word of a cell: bits 15..0 length, 31..16 index of the sending CPU in the directory's list of its
/// instance, the rest 0 (SPEC N-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellAbout {
    /// Bytes of payload.
    pub len: u16,
    /// Which of the sending instance's CPUs.
    pub cpu: u16,
}

impl CellAbout {
    /// The word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.len as u64 | ((self.cpu as u64) << 16)
    }
    /// What a word says, not checked yet.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { len: word as u16, cpu: (word >> 16) as u16 }
    }
}

/// What a sender says at the start of its life: bits 31..0 incarnation, 47..32 session, 48 whether it is the first
/// that this lane ever saw, 49 set (SPEC N-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's life.
    pub incarnation: Incarnation,
    /// Tells apart two attachments of one life.
    pub session: u16,
    /// The lane was never used: the sender begins at position 0 without waiting for an answer.
    pub first: bool,
}

impl Hello {
    /// The word, never 0.
    pub const fn to_word(self) -> u64 {
        self.incarnation.get() as u64
            | ((self.session as u64) << 32)
            | ((self.first as u64) << 48)
            | (1 << 49)
    }
    /// What a word says; `None` for one that no sender of ours would write.
    pub const fn from_word(word: u64) -> Option<Self> {
        match Incarnation::new(word as u32) {
            Some(incarnation) if word >> 49 == 1 => {
                Some(Self { incarnation, session: (word >> 32) as u16, first: word & (1 << 48) != 0 })
            }
            _ => None,
        }
    }
    /// What a new life says that finds `before` in its own header.
    pub const fn after(before: u64, incarnation: Incarnation) -> Self {
        Self { incarnation, session: ((before >> 32) as u16).wrapping_add(1), first: before == 0 }
    }
}

/// Where a receiver wants to be rung: bits 15..0 index in the directory's list of its CPUs, 23..16 vector, 63 set
/// (SPEC N-12). It can name no CPU that the directory does not give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bell {
    /// Which of its CPUs.
    pub cpu: u16,
    /// The vector.
    pub vector: Vector,
}

impl Bell {
    /// The word, never 0.
    pub const fn to_word(self) -> u64 {
        self.cpu as u64 | ((self.vector.get() as u64) << 16) | (1 << 63)
    }
    /// What a word says about the CPUs of the directory's list; `None` for 0 and for what makes no sense.
    pub fn from_word(word: u64, listed: &[PhysCpuId]) -> Option<(PhysCpuId, Vector)> {
        let valid = word & !(1 << 63) < 1 << 24 && word >> 63 == 1;
        let cpu = listed.get((word & 0xffff) as usize).filter(|_| valid)?;
        Some((*cpu, Vector::new((word >> 16) as u8)?))
    }
}

/// A receiver's life, as its own page tells: bits 31..0 incarnation, 32 set when it is over (SPEC N-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Which.
    pub incarnation: Incarnation,
    /// It has said goodbye.
    pub over: bool,
}

impl Life {
    /// The word, never 0.
    pub const fn to_word(self) -> u64 {
        self.incarnation.get() as u64 | ((self.over as u64) << 32)
    }
    /// What a word says; `None` before the first life.
    pub const fn from_word(word: u64) -> Option<Self> {
        match Incarnation::new(word as u32) {
            Some(incarnation) if word >> 33 == 0 => Some(Self { incarnation, over: word >> 32 != 0 }),
            _ => None,
        }
    }
}

/// How a sender broke the protocol (SPEC N-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Breach {
    /// A cell bears a lap that is still to come.
    Lap = 1,
    /// A message says that it is longer than [`MAX_LEN`].
    Length = 2,
    /// A message names a CPU that the directory does not give its sender.
    Cpu = 3,
    /// A hello that makes no sense here.
    Hello = 4,
}

impl Breach {
    /// What a word of a control line says; `None` for 0 and unknown numbers.
    pub const fn from_word(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::Lap),
            2 => Some(Self::Length),
            3 => Some(Self::Cpu),
            4 => Some(Self::Hello),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
