// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parses a file as a kernel image. The file has any bytes, or is a valid image with changes. Either it is refused, or all of its
//! segments are inside of the image.

use arbitrary::{Arbitrary, Unstructured};
use mk_ipi_abi::{PhysAddr, PhysRange, PAGE_SIZE};
use mk_ipi_spawn::image::{Image, ImageError, Placed, Relocation};
use small_elf::{file, load, note, notes, xen, Part};

#[allow(dead_code)]
#[path = "../../examples/linux/spawn/src/image/tests/small_elf.rs"]
mod small_elf;

const ENTRY: u32 = 18;
const RELOC: u32 = 19;
const FOUR_GIB: u64 = 1 << 32;

#[derive(Arbitrary, Debug)]
struct Input {
    segments: Vec<Load>,
    /// The segment that contains the entry, and the offset of the entry in this segment.
    entry: (u8, u8),
    /// Whether the note with the entry has 8 bytes instead of 4.
    long: bool,
    reloc: Option<Vec<u32>>,
    /// Whether the alignment is replaced by a power of two.
    even: bool,
    /// Another note, with any name.
    other: Option<([u8; 4], u8, Vec<u8>)>,
    patches: Vec<(u16, Patch)>,
    at: u64,
}

#[derive(Arbitrary, Debug)]
struct Load {
    /// Bytes between the end of the previous segment and this one.
    gap: u32,
    bytes: Vec<u8>,
    more: u32,
    align: u8,
}

#[derive(Arbitrary, Debug)]
enum Patch {
    Byte(u8),
    Word(u32),
    Long(u64),
    Flip(u8),
}

/// Parses the bytes themselves. Then builds the image that they describe, parses it, changes it, and parses it again.
pub fn image(data: &[u8]) {
    let _ = check(data, data.first_chunk().map_or(0, |word| u64::from_le_bytes(*word)));
    let Ok(mut input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    if let Some(align) = input.reloc.as_mut().filter(|_| input.even).and_then(|words| words.first_mut()) {
        *align = 1 << (*align % 32);
    }
    let Some((parts, entry, extent)) = parts(&input) else { return };
    let good = file(&parts);
    let found = check(&good, input.at);
    match expected(&input, &parts) {
        Ok(relocation) => assert_eq!(found, Ok((entry, extent, relocation))),
        Err(e) => assert_eq!(found, Err(e)),
    }
    let mut bytes = good;
    for (at, patch) in &input.patches {
        let at = usize::from(*at) % bytes.len();
        let new = match *patch {
            Patch::Byte(byte) => vec![byte],
            Patch::Word(word) => word.to_le_bytes().to_vec(),
            Patch::Long(long) => long.to_le_bytes().to_vec(),
            Patch::Flip(bit) => vec![bytes[at] ^ 1 << (bit % 8)],
        };
        bytes[at..].iter_mut().zip(new).for_each(|(to, byte)| *to = byte);
    }
    let _ = check(&bytes, input.at);
    let cut = usize::from(input.entry.1) * 8 % (bytes.len() + 1);
    let _ = check(&bytes[..cut], input.at);
}

/// The parts of a valid image, its entry and its range; `None` if the input does not describe a valid image.
fn parts(input: &Input) -> Option<(Vec<Part>, u32, PhysRange)> {
    let mut end = 0u64;
    let mut parts = Vec::new();
    for segment in input.segments.iter().take(20) {
        let at = end + u64::from(segment.gap);
        let memory = segment.bytes.len() as u64 + u64::from(segment.more);
        end = at + memory;
        parts.push(Part { align: 1 << (segment.align % 64), ..load(at, &segment.bytes, memory) });
    }
    let with_code: Vec<&Part> = parts.iter().filter(|part| !part.bytes.is_empty()).collect();
    let part = with_code.get(usize::from(input.entry.0) % with_code.len().max(1))?;
    let entry = part.at + (usize::from(input.entry.1) % part.bytes.len()) as u64;
    let entry = u32::try_from(entry).ok()?;
    let loaded = || parts.iter().filter(|part| part.memory != 0);
    let first = loaded().map(|part| part.at).min()? / PAGE_SIZE * PAGE_SIZE;
    let last = loaded().map(|part| part.at + part.memory).max()?.next_multiple_of(PAGE_SIZE);
    let extent = PhysRange::new(PhysAddr(first), last - first)?;
    let mut said = Vec::new();
    if let Some((name, kind, bytes)) = input.other.as_ref().filter(|(name, ..)| name != b"Xen\0") {
        said.extend(note(name, u32::from(*kind) + 16, bytes));
    }
    said.extend(xen(ENTRY, &[entry, 0][..if input.long { 2 } else { 1 }]));
    said.extend(input.reloc.iter().flat_map(|words| xen(RELOC, words)));
    parts.push(notes(said));
    Some((parts, entry, extent))
}

/// The expected relocation. This code follows only the text of Xen's header, and not the code that is tested.
fn expected(input: &Input, parts: &[Part]) -> Result<Option<Relocation>, ImageError> {
    let Some(words) = &input.reloc else { return Ok(None) };
    if words.len() > 3 {
        return Err(ImageError::RelocationNote(words.len() * 4));
    }
    let loaded = parts.iter().filter(|part| part.kind == small_elf::PT_LOAD && part.memory != 0);
    let widest = loaded.map(|part| part.align).max().filter(|align| *align >= 4096).unwrap_or(0x20_0000);
    let word = |n: usize| words.get(n).copied().map(u64::from);
    let (align, min, max) = (word(0).unwrap_or(widest), word(1).unwrap_or(0), word(2).unwrap_or(0xffff_ffff));
    let (min, max) = (PhysAddr(min), PhysAddr(max));
    if align.count_ones() != 1 {
        return Err(ImageError::Alignment(align));
    }
    if min > max {
        return Err(ImageError::Bounds { min, max });
    }
    Ok(Some(Relocation { align: align.max(4096), min, max }))
}

/// What was found in an image: its entry, its range and its relocation.
type Found = (u32, PhysRange, Option<Relocation>);

/// Parses a file. Checks that the result is as the documentation of `Image` says.
fn check(file: &[u8], at: u64) -> Result<Found, ImageError> {
    let image = Image::parse(file).inspect_err(|e| assert!(!e.to_string().is_empty()))?;
    let (extent, relocation) = (image.extent(), image.relocation());
    assert!(extent.start().is_page_aligned() && extent.len() % PAGE_SIZE == 0);
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for segment in image.segments() {
        let end = segment.offset + segment.bytes.len() as u64 + segment.zeroed;
        assert!(segment.offset < end && end <= extent.len(), "a segment leaves the image: {segment:?}");
        assert!(taken.iter().all(|(from, to)| end <= *from || *to <= segment.offset), "an overlap");
        taken.push((segment.offset, end));
    }
    assert!(taken.iter().any(|(from, _)| *from < PAGE_SIZE), "no segment is in the first page");
    assert!(taken.iter().any(|(_, to)| *to > extent.len() - PAGE_SIZE), "no segment is in the last page");
    let aligned = relocation.map_or(at, |r| (at % FOUR_GIB) & !(r.align - 1));
    let bounds = relocation.map_or([0; 2], |r| [r.min.0, r.max.0.wrapping_sub(extent.len()).wrapping_add(1)]);
    for at in [at, aligned, bounds[0], bounds[1], extent.start().0] {
        match image.place(PhysAddr(at)) {
            Ok(placed) => check_placed(&image, PhysAddr(at), placed),
            Err(e) => assert!(!may_lie(&image, at), "{at:#x}: {e}"),
        }
    }
    Ok((image.entry(), extent, relocation))
}

/// Whether the image may be placed at address `at`.
fn may_lie(image: &Image<'_>, at: u64) -> bool {
    let (at, len) = (u128::from(at), u128::from(image.extent().len()));
    let last = at + len - 1;
    let below = last < u128::from(FOUR_GIB);
    let moved = |r: Relocation| {
        at % u128::from(r.align) == 0 && at >= u128::from(r.min.0) && last <= u128::from(r.max.0)
    };
    below && (at == u128::from(image.extent().start().0) || image.relocation().is_some_and(moved))
}

/// Checks that a placed image is at an allowed address, and that its entry is a byte that comes from the file.
fn check_placed(image: &Image<'_>, at: PhysAddr, placed: Placed) {
    assert!(may_lie(image, at.0));
    assert_eq!((placed.range.start(), placed.range.len()), (at, image.extent().len()));
    assert!(placed.range.end().0 <= FOUR_GIB && at.is_page_aligned());
    let offset = u64::from(placed.entry) - at.0;
    let has =
        |offset: u64| image.segments().any(|s| (s.offset..s.offset + s.bytes.len() as u64).contains(&offset));
    assert!(has(offset), "the entry is not in a segment's bytes");
}
