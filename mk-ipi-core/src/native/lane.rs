// SPDX-License-Identifier: MIT OR Apache-2.0
//! The words of a region, as its receiver and its senders map them (SPEC N-3 to N-6).

use crate::platform::Mapping;
use crate::sync::{Ordering, Word};
use mk_ipi_abi::native::{header, receiver, Geometry, LineTag, LINE_WORDS};

/// The words of a control line.
pub(super) type Control<W> = [W; receiver::CONTROL_WORDS];
/// The words of a line.
pub(super) type Line<W> = [W; LINE_WORDS];

/// A region as its receiver maps it: its own pages to write, the lanes to read.
#[derive(Debug)]
pub(crate) struct OwnRegion<W> {
    pub(super) geometry: Geometry,
    /// Words of each lane.
    pub(super) lane_words: usize,
    pub(super) receiver: Mapping<W>,
    pub(super) lanes: Mapping<W>,
}

/// The receiver's end of one lane.
#[derive(Debug)]
pub(super) struct LaneEnd<'a, W> {
    pub(super) geometry: Geometry,
    pub(super) control: &'a Control<W>,
    lane: &'a [W],
}

/// A region as one of its senders maps it: its lane to write, the receiver's pages to read.
#[derive(Debug)]
pub(crate) struct PeerRegion<W> {
    pub(super) geometry: Geometry,
    /// The sender's lane.
    pub(super) lane: u32,
    pub(super) receiver: Mapping<W>,
    pub(super) words: Mapping<W>,
}

/// `N` words from word `at`.
#[inline(always)]
pub(super) fn array<W, const N: usize>(words: &[W], at: usize) -> Option<&[W; N]> {
    // One check: nothing here comes near the end of the address space.
    words.get(at..at.wrapping_add(N))?.first_chunk()
}

#[inline(always)]
fn control_of<W>(receiver_words: &[W], lane: u32) -> Option<&Control<W>> {
    // A lane's number is below 256.
    array(
        receiver_words,
        (lane as usize).wrapping_mul(receiver::CONTROL_WORDS).wrapping_add(receiver::CONTROL),
    )
}

impl<W: Word> OwnRegion<W> {
    pub(super) fn word(&self, at: usize) -> Option<&W> {
        self.receiver.words().get(at)
    }

    /// Our end of lane number `lane`; `None` if there is no such lane.
    #[inline(always)]
    pub(super) fn lane_end(&self, lane: u8) -> Option<LaneEnd<'_, W>> {
        let geometry = self.geometry;
        let control = control_of(self.receiver.words(), lane.into())?;
        let lane = self.lanes.words().get(self.lane_at(lane)..)?.get(..self.lane_words)?;
        Some(LaneEnd { geometry, control, lane })
    }

    #[inline(always)]
    fn lane_at(&self, lane: u8) -> usize {
        // At most 256 lanes of at most 65 pages.
        usize::from(lane).wrapping_mul(self.lane_words)
    }

    /// The index of the tag of a lane's line at `position`, for [`tag`](Self::tag).
    pub(super) fn tag_at(&self, lane: u8, position: u64) -> usize {
        self.lane_at(lane).wrapping_add(self.geometry.line_at(position))
    }

    /// The line whose tag has this index.
    #[inline(always)]
    pub(super) fn line(&self, tag_at: usize) -> Option<&Line<W>> {
        array(self.lanes.words(), tag_at)
    }

    /// The control line of a lane.
    #[inline(always)]
    pub(super) fn control(&self, lane: u8) -> Option<&Control<W>> {
        control_of(self.receiver.words(), lane.into())
    }

    /// The tag with this index, as it is now. One load.
    #[inline(always)]
    pub(super) fn tag(&self, at: usize) -> LineTag {
        LineTag::of_word(self.lanes.words().get(at).map_or(0, |tag| tag.load(Ordering::Relaxed)))
    }
}

impl<'a, W: Word> LaneEnd<'a, W> {
    /// A word of the sender's header.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(super) fn header(&self, word: usize) -> u64 {
        let Some(word) = self.lane.get(word) else { return 0 };
        word.load_acquire()
    }
    #[inline(always)]
    pub(super) fn line(&self, position: u64) -> Option<&'a Line<W>> {
        array(self.lane, self.geometry.line_at(position))
    }
    /// Writes a word of our control line.
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
    /// Lines of the lane.
    pub(super) fn lines(&self) -> u64 {
        self.geometry.lines().into()
    }
}

impl<W: Word> PeerRegion<W> {
    /// A word of the receiver's pages.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(super) fn receiver(&self, at: usize) -> u64 {
        let Some(word) = self.receiver.words().get(at) else { return 0 };
        word.load_acquire()
    }
    /// As `receiver`, in no order with what is read behind it.
    pub(super) fn receiver_relaxed(&self, at: usize) -> u64 {
        self.receiver.words().get(at).map_or(0, |word| word.load(Ordering::Relaxed))
    }
    /// A word of our lane's control line.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(super) fn control(&self, word: usize) -> u64 {
        let Some(word) = self.control_word(word) else { return 0 };
        word.load_acquire()
    }
    /// As `control`, in no order with what is read behind it.
    #[inline(always)]
    pub(super) fn control_relaxed(&self, word: usize) -> u64 {
        self.control_word(word).map_or(0, |word| word.load(Ordering::Relaxed))
    }
    #[inline(always)]
    fn control_word(&self, word: usize) -> Option<&W> {
        control_of(self.receiver.words(), self.lane)?.get(word)
    }
    #[inline(always)]
    pub(super) fn line(&self, position: u64) -> Option<&Line<W>> {
        array(self.words.words(), self.geometry.line_at(position))
    }
    /// Lines of the lane.
    #[inline(always)]
    pub(super) fn lines(&self) -> u64 {
        self.geometry.lines().into()
    }
    /// Has the line at `position` fetched for writing.
    #[inline(always)]
    pub(super) fn will_write(&self, position: u64) {
        if let Some([tag, ..]) = self.line(position) {
            tag.will_write();
        }
    }
    /// Writes a word of the lane's header.
    #[cfg_attr(loom, track_caller)]
    pub(super) fn set(&self, word: usize, value: u64) {
        if let Some(word) = self.words.words().get(word) {
            word.store(value, Ordering::Release);
        }
    }
    /// As `set`, if the word is still `found`.
    #[cfg_attr(loom, track_caller)]
    pub(super) fn replace(&self, word: usize, found: u64, value: u64) {
        if let Some(word) = self.words.words().get(word) {
            let _ = word.compare_exchange(found, value, Ordering::Release);
        }
    }
    /// As `set`, unless the word is larger already. Several CPUs may do so at once, one interrupted half-way.
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
    /// Reads back a word of the lane's header, which only we write.
    #[inline(always)]
    pub(super) fn own(&self, word: usize) -> u64 {
        self.words.words().get(word).map_or(0, |w| w.load(Ordering::Relaxed))
    }
    /// Adds one to a word of the lane's header. Statistics: another CPU's count may be lost.
    pub(super) fn count(&self, word: usize) {
        self.set(word, self.own(word).wrapping_add(1));
    }
}

const _: () = assert!(header::RUNG < header::WORDS);
