// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access to the words of a region, for its receiver and for its senders (SPEC N-3 to N-6).

use crate::platform::Mapping;
use crate::sync::{Ordering, Word};
use mk_ipi_abi::native::{header, receiver, Geometry, LineTag, LINE_WORDS};

/// A control line: the words that the receiver writes for one lane.
pub(super) type Control<W> = [W; receiver::CONTROL_WORDS];
/// A line of a lane.
pub(super) type Line<W> = [W; LINE_WORDS];

/// A region as its receiver maps it: the receiver's pages for writing, the lanes for reading.
#[derive(Debug)]
pub(crate) struct OwnRegion<W> {
    pub(super) geometry: Geometry,
    /// Number of words of each lane.
    pub(super) lane_words: usize,
    pub(super) receiver: Mapping<W>,
    pub(super) lanes: Mapping<W>,
}

/// One lane as its receiver accesses it.
#[derive(Debug)]
pub(super) struct LaneEnd<'a, W> {
    pub(super) geometry: Geometry,
    pub(super) control: &'a Control<W>,
    lane: &'a [W],
}

/// A region as one of its senders maps it: the sender's lane for writing, the receiver's pages for reading.
#[derive(Debug)]
pub(crate) struct PeerRegion<W> {
    pub(super) geometry: Geometry,
    /// The number of the sender's lane.
    pub(super) lane: u32,
    pub(super) receiver: Mapping<W>,
    pub(super) words: Mapping<W>,
}

/// The `N` words that begin with word `at`. `None` if there are fewer.
#[inline(always)]
pub(super) fn array<W, const N: usize>(words: &[W], at: usize) -> Option<&[W; N]> {
    // If the sum wraps, it is less than `at`, and `get` returns `None`.
    words.get(at..at.wrapping_add(N))?.first_chunk()
}

#[inline(always)]
fn control_of<W>(receiver_words: &[W], lane: u32) -> Option<&Control<W>> {
    // The product cannot wrap: a lane's number is below 256.
    array(
        receiver_words,
        (lane as usize).wrapping_mul(receiver::CONTROL_WORDS).wrapping_add(receiver::CONTROL),
    )
}

impl<W: Word> OwnRegion<W> {
    /// A word of our own pages.
    pub(super) fn word(&self, at: usize) -> Option<&W> {
        self.receiver.words().get(at)
    }

    /// Lane number `lane`. `None` if the region has no such lane.
    #[inline(always)]
    pub(super) fn lane_end(&self, lane: u8) -> Option<LaneEnd<'_, W>> {
        let geometry = self.geometry;
        let control = control_of(self.receiver.words(), lane.into())?;
        let lane = self.lanes.words().get(self.lane_at(lane)..)?.get(..self.lane_words)?;
        Some(LaneEnd { geometry, control, lane })
    }

    /// The index of the first word of a lane in `lanes`.
    #[inline(always)]
    fn lane_at(&self, lane: u8) -> usize {
        // The product cannot wrap: a region has at most 256 lanes of at most 65 pages each.
        usize::from(lane).wrapping_mul(self.lane_words)
    }

    /// The index of the tag of a lane's line at `position`, for [`tag`](Self::tag).
    pub(super) fn tag_at(&self, lane: u8, position: u64) -> usize {
        self.lane_at(lane).wrapping_add(self.geometry.line_at(position))
    }

    /// The line whose tag has this index (see [`tag_at`](Self::tag_at)).
    #[inline(always)]
    pub(super) fn line(&self, tag_at: usize) -> Option<&Line<W>> {
        array(self.lanes.words(), tag_at)
    }

    /// The control line of a lane.
    #[inline(always)]
    pub(super) fn control(&self, lane: u8) -> Option<&Control<W>> {
        control_of(self.receiver.words(), lane.into())
    }

    /// Loads the tag with this index, relaxed.
    #[inline(always)]
    pub(super) fn tag(&self, at: usize) -> LineTag {
        LineTag::of_word(self.lanes.words().get(at).map_or(0, |tag| tag.load(Ordering::Relaxed)))
    }
}

impl<'a, W: Word> LaneEnd<'a, W> {
    /// Loads a word of the sender's header, with acquire.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(super) fn header(&self, word: usize) -> u64 {
        let Some(word) = self.lane.get(word) else { return 0 };
        word.load_acquire()
    }
    /// The line at `position`.
    #[inline(always)]
    pub(super) fn line(&self, position: u64) -> Option<&'a Line<W>> {
        array(self.lane, self.geometry.line_at(position))
    }
    /// Stores to a word of our control line, with release.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(super) fn set(&self, word: usize, value: u64) {
        if let Some(word) = self.control.get(word) {
            word.store(value, Ordering::Release);
        }
    }
    /// Reads back a word of our control line.
    pub(super) fn own(&self, word: usize) -> u64 {
        self.control.get(word).map_or(0, |word| word.load(Ordering::Relaxed))
    }
    /// Adds one to a word of our control line.
    pub(super) fn count(&self, word: usize) {
        self.set(word, self.own(word).wrapping_add(1));
    }
    /// Number of lines of the lane.
    pub(super) fn lines(&self) -> u64 {
        self.geometry.lines().into()
    }
}

impl<W: Word> PeerRegion<W> {
    /// Loads a word of the receiver's pages, with acquire.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(super) fn receiver(&self, at: usize) -> u64 {
        let Some(word) = self.receiver.words().get(at) else { return 0 };
        word.load_acquire()
    }
    /// As `receiver`, but relaxed: later loads are not ordered after this one.
    pub(super) fn receiver_relaxed(&self, at: usize) -> u64 {
        self.receiver.words().get(at).map_or(0, |word| word.load(Ordering::Relaxed))
    }
    /// Loads a word of our lane's control line, with acquire.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(super) fn control(&self, word: usize) -> u64 {
        let Some(word) = self.control_word(word) else { return 0 };
        word.load_acquire()
    }
    /// As `control`, but relaxed: later loads are not ordered after this one.
    #[inline(always)]
    pub(super) fn control_relaxed(&self, word: usize) -> u64 {
        self.control_word(word).map_or(0, |word| word.load(Ordering::Relaxed))
    }
    #[inline(always)]
    fn control_word(&self, word: usize) -> Option<&W> {
        control_of(self.receiver.words(), self.lane)?.get(word)
    }
    /// The line at `position`.
    #[inline(always)]
    pub(super) fn line(&self, position: u64) -> Option<&Line<W>> {
        array(self.words.words(), self.geometry.line_at(position))
    }
    /// Number of lines of the lane.
    #[inline(always)]
    pub(super) fn lines(&self) -> u64 {
        self.geometry.lines().into()
    }
    /// Prefetches the line at `position` for writing.
    #[inline(always)]
    pub(super) fn will_write(&self, position: u64) {
        if let Some([tag, ..]) = self.line(position) {
            tag.will_write();
        }
    }
    /// Stores to a word of the lane's header, with release.
    #[cfg_attr(loom, track_caller)]
    pub(super) fn set(&self, word: usize, value: u64) {
        if let Some(word) = self.words.words().get(word) {
            word.store(value, Ordering::Release);
        }
    }
    /// As `set`, but only if the word still has the value `found`. One compare-and-swap.
    #[cfg_attr(loom, track_caller)]
    pub(super) fn replace(&self, word: usize, found: u64, value: u64) {
        if let Some(word) = self.words.words().get(word) {
            let _ = word.compare_exchange(found, value, Ordering::Release);
        }
    }
    /// As `set`, but only if `value` is larger than the word. Several CPUs can call this at the same time, and so can an
    /// interrupt handler that interrupts a call.
    pub(super) fn raise(&self, word: usize, value: u64) {
        let Some(word) = self.words.words().get(word) else { return };
        let mut found = word.load(Ordering::Relaxed);
        while found < value {
            match word.compare_exchange(found, value, Ordering::Release) {
                Ok(_) => return,
                Err(other) => found = other,
            }
        }
    }
    /// Loads a word of the lane's header, relaxed. Apart from a kernel that creates the region again, only this
    /// kernel writes it.
    #[inline(always)]
    pub(super) fn own(&self, word: usize) -> u64 {
        self.words.words().get(word).map_or(0, |w| w.load(Ordering::Relaxed))
    }
    /// Adds one to a word of the lane's header. For statistics only: if two CPUs do this at the same time, one addition can be
    /// lost.
    pub(super) fn count(&self, word: usize) {
        self.set(word, self.own(word).wrapping_add(1));
    }
}

const _: () = assert!(header::RUNG < header::WORDS);
