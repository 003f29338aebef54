// SPDX-License-Identifier: MIT OR Apache-2.0
//! The words of a region, as its receiver and its senders see them (SPEC N-3 to N-6).
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of words")]

use super::receive::Lane;
use crate::platform::Mapping;
use crate::sync::{Ordering, Word};
use mk_ipi_abi::native::{cell, header, receiver, Features, Geometry, Hello, Lap, HINT_WORDS};

/// The words of a control line.
pub(super) type Control<W> = [W; receiver::CONTROL_WORDS];
/// The words of a lane's header.
pub(super) type Header<W> = [W; header::WORDS];
/// The words of a cell.
pub(super) type Cell<W> = [W; cell::WORDS];

/// A region as its receiver maps it: its own pages and the hints to write, the lanes to read.
#[derive(Debug)]
pub(crate) struct OwnRegion<W> {
    pub(super) geometry: Geometry,
    pub(super) receiver: Mapping<W>,
    pub(super) hints: Mapping<W>,
    pub(super) lanes: Mapping<W>,
}

/// The receiver's end of one lane.
#[derive(Debug)]
pub(super) struct LaneEnd<'a, W> {
    pub(super) geometry: Geometry,
    pub(super) control: &'a Control<W>,
    lane: &'a [W],
}

/// A region as one of its senders maps it: its lane and the hints to write, the receiver's pages to read.
#[derive(Debug)]
pub(crate) struct PeerRegion<W> {
    pub(super) geometry: Geometry,
    pub(super) features: Features,
    /// The sender's lane.
    pub(super) lane: u32,
    pub(super) receiver: Mapping<W>,
    pub(super) hints: Mapping<W>,
    pub(super) words: Mapping<W>,
}

/// `N` words from word `at`.
#[inline(always)]
pub(super) fn array<W, const N: usize>(words: &[W], at: usize) -> Option<&[W; N]> {
    words.get(at..)?.first_chunk()
}

#[inline(always)]
fn control_of<W>(receiver_words: &[W], lane: u32) -> Option<&Control<W>> {
    let at = (lane as usize).checked_mul(receiver::CONTROL_WORDS)?.checked_add(receiver::CONTROL)?;
    array(receiver_words, at)
}

#[inline(always)]
fn cell_of<W>(lane_words: &[W], geometry: Geometry, position: u64) -> Option<&Cell<W>> {
    // Cells are few (`Geometry`), so neither can wrap.
    let at = geometry.index(position).wrapping_mul(cell::WORDS).wrapping_add(header::WORDS);
    array(lane_words, at)
}

impl<W: Word> OwnRegion<W> {
    pub(super) fn word(&self, at: usize) -> Option<&W> {
        self.receiver.words().get(at)
    }
    #[inline(always)]
    pub(super) fn hints(&self) -> Option<&[W; HINT_WORDS]> {
        array(self.hints.words(), 0)
    }
    /// Our end of a lane; `None` if there is none of that number.
    #[inline(always)]
    pub(super) fn lane_end(&self, lane: u8) -> Option<LaneEnd<'_, W>> {
        let geometry = self.geometry;
        let control = control_of(self.receiver.words(), lane.into())?;
        // At most 256 lanes of at most 81 pages.
        let words = (geometry.lane_len() >> 3) as usize;
        let lane = self.lanes.words().get(usize::from(lane).wrapping_mul(words)..)?.get(..words)?;
        Some(LaneEnd { geometry, control, lane })
    }
}

impl<'a, W: Word> LaneEnd<'a, W> {
    /// A word of the sender's header.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(super) fn header(&self, word: usize) -> u64 {
        let Some(word) = self.lane.get(word) else { return 0 };
        word.load(Ordering::Acquire)
    }
    #[inline(always)]
    pub(super) fn cell(&self, position: u64) -> Option<&'a Cell<W>> {
        cell_of(self.lane, self.geometry, position)
    }
    /// Writes a word of our control line.
    #[cfg_attr(loom, track_caller)]
    pub(super) fn set(&self, word: usize, value: u64) {
        if let Some(word) = self.control.get(word) {
            word.store(value, Ordering::Release);
        }
    }
    /// Adds one to a word of our control line.
    pub(super) fn count(&self, word: usize) {
        if let Some(word) = self.control.get(word) {
            word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }
    /// Cells of the lane.
    pub(super) fn cells(&self) -> u64 {
        self.geometry.cells().into()
    }
    /// Whether there is anything that a turn of this lane would find.
    pub(super) fn is_pending(&self, lane: &Lane) -> bool {
        let waits = self.header(header::HELLO) != lane.hello || self.untold(lane).is_some();
        let head = self.cell(lane.next).map_or(0, |[head, ..]| head.load(Ordering::Relaxed));
        let lap = Lap::of(head as u32, self.geometry.lap(lane.next));
        let clean = lane.clean || self.is_clean(lane.hello);
        waits || lane.until != 0 || (lap != Lap::NotYet && clean && lane.hello != 0 && !lane.breach)
    }
    /// The sender's `WANT`, if that was fulfilled and the sender not told yet.
    pub(super) fn untold(&self, lane: &Lane) -> Option<u64> {
        let want = self.header(header::WANT);
        (want != lane.want && want.wrapping_sub(1) != lane.credited).then_some(want)
    }
    /// Whether the life that said `hello` has cleaned the cells, or needed not (SPEC N-9).
    #[inline(always)]
    pub(super) fn is_clean(&self, hello: u64) -> bool {
        // SYNC POINT: lane-clean (acquire)
        Hello::from_word(hello).is_none_or(|h| h.first) || self.header(header::CLEAN) == hello
    }
}

impl<W: Word> PeerRegion<W> {
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(super) fn load(&self, at: usize, order: Ordering) -> u64 {
        let Some(word) = self.receiver.words().get(at) else { return 0 };
        word.load(order)
    }
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(super) fn control(&self, word: usize, order: Ordering) -> u64 {
        let line = control_of(self.receiver.words(), self.lane);
        let Some(word) = line.and_then(|line| line.get(word)) else { return 0 };
        word.load(order)
    }
    #[inline(always)]
    pub(super) fn hint(&self) -> Option<&W> {
        self.hints.words().get((self.lane >> 6) as usize)
    }
    #[inline(always)]
    pub(super) fn header(&self) -> Option<&Header<W>> {
        array(self.words.words(), 0)
    }
    #[inline(always)]
    pub(super) fn cell(&self, position: u64) -> Option<&Cell<W>> {
        cell_of(self.words.words(), self.geometry, position)
    }
    /// Writes a word of the lane's header.
    #[cfg_attr(loom, track_caller)]
    pub(super) fn set(&self, word: usize, value: u64) {
        if let Some(word) = self.header().and_then(|h| h.get(word)) {
            word.store(value, Ordering::Release);
        }
    }
    /// Reads back a word of the lane's header, which only we write.
    pub(super) fn own(&self, word: usize) -> u64 {
        self.header().and_then(|h| h.get(word)).map_or(0, |w| w.load(Ordering::Relaxed))
    }
}
