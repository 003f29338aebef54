// SPDX-License-Identifier: MIT OR Apache-2.0
//! A native region, found to be one: its pages, mapped with no more rights than their users have (SPEC N-3).
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of words")]

use super::receive::Lane;
use crate::instance::AddError;
use crate::platform::{Access, MapError, Mapping, PhysMemory};
use crate::sync::{Ordering, Word};
use mk_ipi_abi::native::{
    cell, control, header, receiver, Features, Geometry, Hello, Lap, Stamp, StampError, HINT_WORDS,
    MKIPI003_AT, STAMP_WORDS,
};
use mk_ipi_abi::{InstanceId, PhysAddr, PhysRange, PAGE_SIZE};
use zerocopy::transmute;

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
    receiver: Mapping<W>,
    hints: Mapping<W>,
    lanes: Mapping<W>,
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
    receiver: Mapping<W>,
    hints: Mapping<W>,
    words: Mapping<W>,
}

/// `N` words from word `at`.
#[inline(always)]
fn array<W, const N: usize>(words: &[W], at: usize) -> Option<&[W; N]> {
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
    /// Maps the region at `range`, which is ours, with the geometry that its stamp says.
    pub(crate) fn map<P: PhysMemory<Word = W>>(platform: &P, range: PhysRange) -> Result<Self, AddError> {
        let (geometry, _) = look(platform, range)?;
        let parts = [
            (0, geometry.receiver_len(), Access::ReadWrite),
            (geometry.hint_at(), geometry.hint_len(), Access::ReadWrite),
            (geometry.lanes_at(), geometry.lanes_len(), Access::ReadOnly),
        ];
        let [receiver, hints, lanes] = map_parts(platform, range, parts)?;
        Ok(Self { geometry, receiver, hints, lanes })
    }

    /// Undoes `map`; the region is not used again.
    pub(crate) fn unmap<P: PhysMemory<Word = W>>(self, platform: &P) {
        [self.receiver, self.hints, self.lanes].into_iter().for_each(|m| unmap(platform, m));
    }

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
    pub(super) fn header(&self, word: usize) -> u64 {
        self.lane.get(word).map_or(0, |w| w.load(Ordering::Acquire))
    }
    #[inline(always)]
    pub(super) fn cell(&self, position: u64) -> Option<&'a Cell<W>> {
        cell_of(self.lane, self.geometry, position)
    }
    /// Writes a word of our control line.
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
    /// Maps what `me` may use of the region at `range`, with the geometry that its stamp says.
    pub(crate) fn map<P: PhysMemory<Word = W>>(
        platform: &P,
        range: PhysRange,
        me: InstanceId,
    ) -> Result<Self, AddError> {
        let (geometry, features) = look(platform, range)?;
        let lane = u32::from(me.get());
        let lane_at = geometry.lane_at(lane).ok_or(AddError::NoLane(me))?;
        let parts = [
            (0, geometry.receiver_len(), Access::ReadOnly),
            (geometry.hint_at(), geometry.hint_len(), Access::ReadWrite),
            (lane_at, geometry.lane_len(), Access::ReadWrite),
        ];
        let [receiver, hints, words] = map_parts(platform, range, parts)?;
        Ok(Self { geometry, features, lane, receiver, hints, words })
    }

    /// What its stamp said.
    pub(crate) const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Undoes `map`; the region is not used again.
    pub(crate) fn unmap<P: PhysMemory<Word = W>>(self, platform: &P) {
        [self.receiver, self.hints, self.words].into_iter().for_each(|m| unmap(platform, m));
    }

    #[inline(always)]
    pub(super) fn load(&self, at: usize, order: Ordering) -> u64 {
        self.receiver.words().get(at).map_or(0, |w| w.load(order))
    }
    #[inline(always)]
    pub(super) fn control(&self, word: usize, order: Ordering) -> u64 {
        control_of(self.receiver.words(), self.lane).and_then(|c| c.get(word)).map_or(0, |w| w.load(order))
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

/// A part of the region, mapped whole.
fn part<P: PhysMemory>(
    platform: &P,
    range: PhysRange,
    at: u64,
    len: u64,
    access: Access,
) -> Result<Mapping<P::Word>, AddError> {
    let start = PhysAddr(range.start().0.wrapping_add(at));
    let part = PhysRange::new(start, len).ok_or(AddError::Misaligned)?;
    let mapping = platform.map(part, access).map_err(AddError::Map)?;
    if (mapping.words().len() as u64).checked_mul(8) == Some(len) {
        return Ok(mapping);
    }
    unmap(platform, mapping);
    Err(AddError::Map(MapError::Misaligned))
}

/// Three parts, or none.
fn map_parts<P: PhysMemory>(
    platform: &P,
    range: PhysRange,
    [first, second, third]: [(u64, u64, Access); 3],
) -> Result<[Mapping<P::Word>; 3], AddError> {
    let map = |(at, len, access)| part(platform, range, at, len, access);
    let first = map(first)?;
    let second = match map(second) {
        Ok(second) => second,
        Err(e) => {
            unmap(platform, first);
            return Err(e);
        }
    };
    match map(third) {
        Ok(third) => Ok([first, second, third]),
        Err(e) => {
            unmap(platform, first);
            unmap(platform, second);
            Err(e)
        }
    }
}

/// Undoes [`part`].
fn unmap<P: PhysMemory>(platform: &P, mapping: Mapping<P::Word>) {
    // SAFETY: every mapping here came from `map` of this platform, and whoever gives one up borrows nothing from it.
    unsafe { platform.unmap(mapping) };
}

/// Reads the stamp of the region at `range` once, and checks the copy.
fn look<P: PhysMemory>(platform: &P, range: PhysRange) -> Result<(Geometry, Features), AddError> {
    if !range.start().is_page_aligned() {
        return Err(AddError::Misaligned);
    }
    let len = range.len() & !7;
    if len < PAGE_SIZE {
        return Err(AddError::Stamp(StampError::TooSmall(PAGE_SIZE)));
    }
    let first = part(platform, range, 0, PAGE_SIZE, Access::ReadOnly)?;
    let words: [u64; STAMP_WORDS] =
        core::array::from_fn(|i| first.words().get(i).map_or(0, |w| w.load(Ordering::Acquire)));
    unmap(platform, first);
    let stamp: Stamp = transmute!(words);
    let mkipi003 =
        if stamp.magic == mk_ipi_abi::native::MAGIC { None } else { mkipi003(platform, range, len) };
    stamp.check(len, mkipi003).map_err(AddError::Stamp)
}

/// The words where MKIPI003 has its magic, if the region is that long.
fn mkipi003<P: PhysMemory>(platform: &P, range: PhysRange, len: u64) -> Option<[u64; 2]> {
    const PAGE: u64 = MKIPI003_AT & !(PAGE_SIZE - 1);
    let rest = len.checked_sub(PAGE)?.min(PAGE_SIZE);
    let page = part(platform, range, PAGE, rest, Access::ReadOnly).ok()?;
    let at = ((MKIPI003_AT - PAGE) >> 3) as usize;
    let words = array::<_, 2>(page.words(), at)
        .map(|[magic, version]| [magic.load(Ordering::Relaxed), version.load(Ordering::Relaxed)]);
    unmap(platform, page);
    words
}

/// Makes an empty region of `geometry` at `range`, which nobody uses yet; the stamp's magic comes last.
pub(crate) fn create<P: PhysMemory>(
    platform: &P,
    range: PhysRange,
    geometry: Geometry,
) -> Result<(), AddError> {
    let whole = part(platform, range, 0, geometry.total_size(), Access::ReadWrite)?;
    let words = whole.words();
    words.iter().for_each(|w| w.store(0, Ordering::Relaxed));
    let stamp: [u64; STAMP_WORDS] = transmute!(Stamp::new(geometry, Features::all()));
    for (word, value) in words.iter().zip(stamp).skip(1) {
        word.store(value, Ordering::Relaxed);
    }
    if let (Some(magic), [value, ..]) = (words.first(), stamp) {
        // SYNC POINT: region-stamped (release)
        magic.store(value, Ordering::Release);
    }
    unmap(platform, whole);
    Ok(())
}

const _: () = assert!(control::LAST_BREACH < receiver::CONTROL_WORDS && header::RUNG < header::WORDS);
