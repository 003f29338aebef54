// SPDX-License-Identifier: MIT OR Apache-2.0
//! Generation "native": one region per receiver, one lane per sending instance (SPEC chapter N).
//!
//! ```text
//! stamp | receiver's line | control line of each lane     whole pages, written by the receiver
//! lane 0: header, lines                                    whole pages, written by instance 0
//! lane 1: ...                                              whole pages, written by instance 1
//! ```
//!
//! These modules define what the words of a region mean, and check private copies of words. They do not access the region.
//! `line`, `words` and `lives` are independent; `geometry` uses `line` and `words`; `stamp` uses `geometry`.
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of words")]

mod geometry;
mod line;
mod lives;
mod stamp;
mod words;

pub use geometry::{Geometry, DEFAULT_MAX_LEN, MAX_LANES, MAX_LINES, MIN_LINES};
pub use line::{
    lines_of, LineTag, MessageInfo, FIRST_LINE_BYTES, FIRST_LINE_WORDS, FURTHER_LINE_BYTES,
    FURTHER_LINE_WORDS, LINE_WORDS, MAX_LEN, MAX_PAYLOAD_WORDS,
};
pub use lives::{Attached, Bell, Breach, Hello, Life, Phase};
pub use stamp::{KnownLayouts, Stamp, StampError, MAGIC, MKIPI0NN_AT, STAMP_WORDS, VERSION};
pub use words::{control, header, receiver};

#[cfg(test)]
mod tests;
