// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds, checks and maps a native region. Pages that this kernel only reads are mapped read-only (SPEC N-1, N-3).

use super::lane::{array, OwnRegion, PeerRegion};
use crate::platform::{Access, MapError, Mapping, PhysMemory};
use crate::sync::{fence, Ordering, Word};
use mk_ipi_abi::native::{header, Attached, Geometry, Stamp, StampError, MAGIC, MKIPI0NN_AT, STAMP_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId, PhysAddr, PhysRange, PAGE_SIZE};
use zerocopy::transmute;

/// Why a region was not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegionError {
    /// The region does not begin on a page boundary, or a part of it would end above the largest physical address.
    Misaligned,
    /// The memory could not be mapped.
    Map(MapError),
    /// The memory has no stamp of a native region, or the stamp of a region that this build cannot use.
    Stamp(StampError),
    /// The region has no lane for this instance.
    NoLane(InstanceId),
}

impl<W: Word> OwnRegion<W> {
    /// Maps this kernel's own region at `range`. The geometry is that in the region's stamp.
    pub(crate) fn map<P: PhysMemory<Word = W>>(platform: &P, range: PhysRange) -> Result<Self, RegionError> {
        let geometry = look(platform, range)?;
        let own = (0, geometry.receiver_len(), Access::ReadWrite);
        let lanes = (geometry.lanes_at(), geometry.lanes_len(), Access::ReadOnly);
        let [receiver, lanes] = map_both(platform, range, own, lanes)?;
        Ok(Self { geometry, lane_words: (geometry.lane_len() >> 3) as usize, receiver, lanes })
    }

    /// Undoes `map`; the region is not used again.
    pub(crate) fn unmap<P: PhysMemory<Word = W>>(self, platform: &P) {
        [self.receiver, self.lanes].into_iter().for_each(|m| unmap(platform, m));
    }
}

impl<W: Word> PeerRegion<W> {
    /// Maps a peer's region at `range`: the receiver's pages read-only, and the lane of instance `me` for writing. The geometry
    /// is that in the region's stamp.
    pub(crate) fn map<P: PhysMemory<Word = W>>(
        platform: &P,
        range: PhysRange,
        me: InstanceId,
    ) -> Result<Self, RegionError> {
        let geometry = look(platform, range)?;
        let lane = u32::from(me.get());
        let lane_at = geometry.lane_at(lane).ok_or(RegionError::NoLane(me))?;
        let theirs = (0, geometry.receiver_len(), Access::ReadOnly);
        let ours = (lane_at, geometry.lane_len(), Access::ReadWrite);
        let [receiver, words] = map_both(platform, range, theirs, ours)?;
        Ok(Self { geometry, lane, receiver, words })
    }

    /// The geometry from the region's stamp.
    pub(crate) const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Undoes `map`; the region is not used again.
    pub(crate) fn unmap<P: PhysMemory<Word = W>>(self, platform: &P) {
        [self.receiver, self.words].into_iter().for_each(|m| unmap(platform, m));
    }
}

/// A part of a region: its offset and its length in bytes, and the access for which it is mapped.
type Part = (u64, u64, Access);

/// Maps one part of the region at `range`. An error if the platform maps fewer or more words than the part has.
fn part<P: PhysMemory>(
    platform: &P,
    range: PhysRange,
    (at, len, access): Part,
) -> Result<Mapping<P::Word>, RegionError> {
    let start = PhysAddr(range.start().0.wrapping_add(at));
    let part = PhysRange::new(start, len).ok_or(RegionError::Misaligned)?;
    let mapping = platform.map(part, access).map_err(RegionError::Map)?;
    if (mapping.words().len() as u64).checked_mul(8) == Some(len) {
        return Ok(mapping);
    }
    unmap(platform, mapping);
    Err(RegionError::Map(MapError::Misaligned))
}

/// Maps two parts. If the second one cannot be mapped, unmaps the first one.
fn map_both<P: PhysMemory>(
    platform: &P,
    range: PhysRange,
    first: Part,
    second: Part,
) -> Result<[Mapping<P::Word>; 2], RegionError> {
    let first = part(platform, range, first)?;
    match part(platform, range, second) {
        Ok(second) => Ok([first, second]),
        Err(e) => {
            unmap(platform, first);
            Err(e)
        }
    }
}

/// Unmaps a mapping that [`part`] made.
fn unmap<P: PhysMemory>(platform: &P, mapping: Mapping<P::Word>) {
    // SAFETY: `map` of this platform made the mapping, and the callers hold no reference into it any more.
    unsafe { platform.unmap(mapping) };
}

/// Copies the stamp of the region at `range`, checks the copy, and returns the geometry in it.
fn look<P: PhysMemory>(platform: &P, range: PhysRange) -> Result<Geometry, RegionError> {
    if !range.start().is_page_aligned() {
        return Err(RegionError::Misaligned);
    }
    let len = range.len() & !7;
    if len < PAGE_SIZE {
        return Err(RegionError::Stamp(StampError::TooSmall(PAGE_SIZE)));
    }
    let first = part(platform, range, (0, PAGE_SIZE, Access::ReadOnly))?;
    // SYNC POINT: region-stamped (acquire)
    let load = |at: usize| first.words().get(at).map_or(0, |word| word.load_acquire());
    let words: [u64; STAMP_WORDS] = core::array::from_fn(load);
    unmap(platform, first);
    let stamp: Stamp = transmute!(words);
    let other = if stamp.magic == MAGIC { None } else { mkipi0nn(platform, range, len) };
    stamp.check(len, other).map_err(RegionError::Stamp)
}

/// Reads the two words in which a region of layout MKIPI0nn has its magic and its version. `None` if the region is too short.
fn mkipi0nn<P: PhysMemory>(platform: &P, range: PhysRange, len: u64) -> Option<[u64; 2]> {
    const PAGE: u64 = MKIPI0NN_AT & !(PAGE_SIZE - 1);
    let rest = len.checked_sub(PAGE)?.min(PAGE_SIZE);
    let page = part(platform, range, (PAGE, rest, Access::ReadOnly)).ok()?;
    let at = ((MKIPI0NN_AT - PAGE) >> 3) as usize;
    let words = array::<_, 2>(page.words(), at)
        .map(|[magic, version]| [magic.load(Ordering::Relaxed), version.load(Ordering::Relaxed)]);
    unmap(platform, page);
    words
}

/// Calls `each` for every instance whose `ATTACHED` word says that the instance has the region at `range` mapped (SPEC N-17).
pub(crate) fn mapped_by<P: PhysMemory>(
    platform: &P,
    range: PhysRange,
    geometry: Geometry,
    mut each: impl FnMut(InstanceId, Incarnation),
) -> Result<(), MapError> {
    let lanes = (geometry.lanes_at(), geometry.lanes_len(), Access::ReadOnly);
    let lanes = part(platform, range, lanes).map_err(|e| match e {
        RegionError::Map(e) => e,
        _ => MapError::Misaligned,
    })?;
    let lane_words = (geometry.lane_len() >> 3) as usize;
    // The other half of the fence in `Endpoint::attach_listed`: either we see the word of an instance that attaches now, or that
    // instance reads the directory as we have written it before this call.
    fence(Ordering::SeqCst);
    let attached = |lane: u8| {
        let word =
            lanes.words().get(usize::from(lane).wrapping_mul(lane_words).wrapping_add(header::ATTACHED));
        // SYNC POINT: lane-attached (acquire)
        let word = Some(word?.load_acquire()).filter(|word| *word != 0)?;
        // An instance with an invalid word counts as attached too.
        let life = Attached::from_word(word).map_or(Incarnation::FIRST, |attached| attached.incarnation);
        Some((InstanceId::new(lane), life))
    };
    (0..=u8::MAX).filter_map(attached).for_each(|(id, incarnation)| each(id, incarnation));
    unmap(platform, lanes);
    Ok(())
}

/// Makes an empty region of this geometry at `range`. No kernel may use that memory yet. The magic of the stamp is stored last,
/// so that a reader finds a complete region or none.
pub(crate) fn create<P: PhysMemory>(
    platform: &P,
    range: PhysRange,
    geometry: Geometry,
) -> Result<(), RegionError> {
    let whole = part(platform, range, (0, geometry.total_size(), Access::ReadWrite))?;
    let words = whole.words();
    words.iter().for_each(|w| w.store(0, Ordering::Relaxed));
    let stamp: [u64; STAMP_WORDS] = transmute!(Stamp::new(geometry));
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
