// SPDX-License-Identifier: MIT OR Apache-2.0
//! A native region, found to be one: its pages, mapped with no more rights than their users have (SPEC N-1, N-3).

use super::lane::{array, OwnRegion, PeerRegion};
use crate::instance::AddError;
use crate::platform::{Access, MapError, Mapping, PhysMemory};
use crate::sync::{Ordering, Word};
use mk_ipi_abi::native::{
    control, header, receiver, Features, Geometry, Stamp, StampError, MKIPI003_AT, STAMP_WORDS,
};
use mk_ipi_abi::{InstanceId, PhysAddr, PhysRange, PAGE_SIZE};
use zerocopy::transmute;

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
    // SYNC POINT: region-stamped (acquire)
    let load = |at: usize| first.words().get(at).map_or(0, |w| w.load(Ordering::Acquire));
    let words: [u64; STAMP_WORDS] = core::array::from_fn(load);
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
