// SPDX-License-Identifier: MIT OR Apache-2.0
//! A line of a lane: 64 bytes. The low half of its first word is a tag. No payload is stored there, so a receiver never reads
//! payload as a tag (SPEC N-6).
//!
//! ```text
//! first line    word 0  bits 29..0 lap, 30 set, 31 clear, 63..32 type    stored last, with release
//!               word 1  bits 31..0 length, 63..32 sending CPU
//!               words 2 to 7  the first 48 bytes
//! further line  word 0  bits 29..0 lap, 30 set, 31 set
//!               words 1 to 7  the next 56 bytes
//! ```

/// Largest payload of a message in a lane, in bytes. The stamp of a region may allow less (SPEC N-7).
pub const MAX_LEN: usize = 4096;
/// 64-bit words of a line.
pub const LINE_WORDS: usize = 8;
/// Words of payload in a message's first line.
pub const FIRST_LINE_WORDS: usize = 6;
/// Words of payload in each further line.
pub const FURTHER_LINE_WORDS: usize = 7;
/// Bytes of payload in a message's first line.
pub const FIRST_LINE_BYTES: usize = FIRST_LINE_WORDS * 8;
/// Bytes of payload in each further line.
pub const FURTHER_LINE_BYTES: usize = FURTHER_LINE_WORDS * 8;
/// Words of payload in all lines of the longest message.
pub const MAX_PAYLOAD_WORDS: usize =
    FIRST_LINE_WORDS + (MAX_LEN - FIRST_LINE_BYTES).div_ceil(FURTHER_LINE_BYTES) * FURTHER_LINE_WORDS;

/// Number of lines of a message of `len` bytes. `len` is at most [`MAX_LEN`].
#[inline(always)]
pub const fn lines_of(len: usize) -> u64 {
    if len <= FIRST_LINE_BYTES {
        1
    } else {
        // No overflow: `len` is above `FIRST_LINE_BYTES`, and the number of lines is small.
        (len.wrapping_sub(FIRST_LINE_BYTES).div_ceil(FURTHER_LINE_BYTES) as u64).wrapping_add(1)
    }
}

/// The low half of the first word of a line: the lap, and whether a message begins there.
///
/// Laps count from 0, modulo 2^30. Memory of zeros holds no tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineTag(pub u32);

impl LineTag {
    const LAP: u32 = (1 << 30) - 1;
    const PRESENT: u32 = 1 << 30;
    const FURTHER: u32 = 1 << 31;

    /// The tag of a message's first line in that lap.
    #[inline(always)]
    pub const fn first(lap: u64) -> Self {
        Self(lap as u32 & Self::LAP | Self::PRESENT)
    }
    /// The tag of a further line in that lap.
    #[inline(always)]
    pub const fn further(lap: u64) -> Self {
        Self(Self::first(lap).0 | Self::FURTHER)
    }
    /// The tag in the first word of a line.
    #[inline(always)]
    pub const fn of_word(word: u64) -> Self {
        Self(word as u32)
    }
    /// The first word of a message's first line.
    #[inline(always)]
    pub const fn to_word(self, msg_type: u32) -> u64 {
        self.0 as u64 | (msg_type as u64) << 32
    }
    /// Whether the tag `found` proves a breach of the protocol, if the receiver expects `self`, the tag of a first line. This is
    /// so if `found` has a later lap (less than 2^29 laps later), or is the tag of a further line in the same lap. A correct
    /// sender stores neither.
    pub const fn is_contradicted_by(self, found: Self) -> bool {
        let ahead = found.0.wrapping_sub(self.0) & Self::LAP;
        let further = found.0 & Self::FURTHER != 0;
        found.0 & Self::PRESENT != 0 && ((ahead != 0 && ahead < 1 << 29) || (ahead == 0 && further))
    }
}

/// The second word of a message's first line (SPEC N-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageInfo {
    /// Bytes of payload, not checked yet.
    pub len: u32,
    /// The low 32 bits of the physical id of the sending CPU. The sender writes them, and nobody can check them.
    pub cpu: u32,
}

impl MessageInfo {
    /// The word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        self.len as u64 | (self.cpu as u64) << 32
    }
    /// The information in a word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { len: word as u32, cpu: (word >> 32) as u32 }
    }
}
