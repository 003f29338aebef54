// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use small_elf::{self as elf, field, file, load, note, notes, xen, Part};
use std::string::ToString;
use std::vec;
use std::vec::Vec;

mod small_elf;

const ENTRY: u32 = 18;
const RELOC: u32 = 19;
const CODE: [u8; 6] = *b"a code";
const START: u64 = 0x100_0000;

/// The parts of an image: code, then data, as in a Linux image, and notes. The entry is the third byte of the code. `more` is
/// added to the notes.
fn parts(more: &[u8]) -> Vec<Part> {
    let said = [&xen(ENTRY, &[START as u32 + 2, 0]), more].concat();
    vec![load(START, &CODE, 6), load(START + 0x2010, b"data", 0x1000), notes(said)]
}

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr(start), len).unwrap()
}

fn error(file: &[u8]) -> ImageError {
    Image::parse(file).unwrap_err()
}

/// The file with `parts`, in which `bytes` were written at offset `at`.
fn patched(parts: &[Part], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file(parts);
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn an_image_is_its_segments_its_pages_and_its_entry() {
    let file = file(&parts(&[]));
    let image = Image::parse(&file).unwrap();
    assert_eq!(image.extent(), range(START, 0x4000));
    assert_eq!(image.relocation(), None);
    let all: Vec<_> = image.segments().collect();
    let data = Segment { offset: 0x2010, bytes: b"data", zeroed: 0xffc };
    assert_eq!(all, [Segment { offset: 0, bytes: &CODE, zeroed: 0 }, data]);
    let placed = Placed { entry: 0x100_0002, range: image.extent() };
    assert_eq!(image.place(PhysAddr(START)), Ok(placed));
    let (linked, at) = (PhysAddr(START), PhysAddr(0x200_0000));
    assert_eq!(image.place(at), Err(ImageError::Fixed { linked, at }));
}

#[test]
fn the_first_page_need_not_begin_with_the_image() {
    let said = notes(xen(ENTRY, &[0x1234]));
    let file = file(&[load(0x5000, b"", 0x10), load(0x1234, &CODE, 6), said]);
    let image = Image::parse(&file).unwrap();
    assert_eq!(image.extent(), range(0x1000, 0x5000));
    assert_eq!(image.segments().map(|s| s.offset).collect::<Vec<_>>(), [0x4000, 0x234]);
    assert_eq!(image.place(PhysAddr(0x1000)).unwrap().entry, 0x1234);
}

#[test]
fn a_moved_image_keeps_to_its_alignment_and_its_bounds() {
    // This is the note of a Linux image.
    let file = file(&parts(&xen(RELOC, &[0x20_0000, 0x100_0000, 0x1fff_ffff])));
    let image = Image::parse(&file).unwrap();
    let (min, max) = (PhysAddr(0x100_0000), PhysAddr(0x1fff_ffff));
    assert_eq!(image.relocation(), Some(Relocation { align: 0x20_0000, min, max }));
    let place = |at| image.place(PhysAddr(at));
    let moved = Placed { entry: 0x1fe0_0002, range: range(0x1fe0_0000, 0x4000) };
    assert_eq!(place(0x1fe0_0000), Ok(moved));
    let at = PhysAddr(0x110_0000);
    assert_eq!(image.place(at), Err(ImageError::Unaligned { at, align: 0x20_0000 }));
    let at = PhysAddr(0xe0_0000);
    assert_eq!(image.place(at), Err(ImageError::TooLow { at, min }));
    assert_eq!(place(0x2000_0000), Err(ImageError::TooHigh { last: PhysAddr(0x2000_3fff), max }));
    let last = PhysAddr(0xffff_ffff_ffe0_3fff);
    assert_eq!(place(0xffff_ffff_ffe0_0000), Err(ImageError::TooHigh { last, max }));
}

#[test]
fn the_last_byte_may_be_the_highest_and_no_more() {
    for (max, fits) in [(0x400_3fff, true), (0x400_3ffe, false)] {
        let file = file(&parts(&xen(RELOC, &[0x1000, 0, max])));
        let placed = Image::parse(&file).unwrap().place(PhysAddr(0x400_0000));
        assert_eq!(placed.is_ok(), fits, "{max:#x}");
    }
}

#[test]
fn nothing_is_placed_at_4_gib_or_above() {
    let file = file(&parts(&xen(RELOC, &[])));
    let image = Image::parse(&file).unwrap();
    assert_eq!(image.place(PhysAddr(0xffff_c000)).unwrap().entry, 0xffff_c002);
    let too_high = |last| Err(ImageError::TooHigh { last: PhysAddr(last), max: PhysAddr(0xffff_ffff) });
    assert_eq!(image.place(PhysAddr(0xffff_d000)), too_high(0x1_0000_0fff));
    assert_eq!(image.place(PhysAddr(0x1_0000_0000)), too_high(0x1_0000_3fff));
    assert_eq!(image.place(PhysAddr(!0xfff)), too_high(u64::MAX));
}

#[test]
fn an_image_may_be_linked_where_it_cannot_start() {
    let mut all = parts(&[]);
    all.push(load(1 << 32, b"", 1));
    let file = file(&all);
    let image = Image::parse(&file).unwrap();
    let (last, max) = (PhysAddr(0x1_0000_0fff), PhysAddr(0xffff_ffff));
    assert_eq!(image.place(PhysAddr(START)), Err(ImageError::TooHigh { last, max }));
}

#[test]
fn where_it_was_linked_the_bounds_of_a_move_do_not_count() {
    let file = file(&parts(&xen(RELOC, &[0x4000_0000, 0x4000_0000, 0x7fff_ffff])));
    let image = Image::parse(&file).unwrap();
    assert_eq!(image.place(PhysAddr(START)).unwrap().entry, 0x100_0002);
    assert_eq!(image.place(PhysAddr(0x4000_0000)).unwrap().entry, 0x4000_0002);
}

#[test]
fn what_the_note_leaves_out_has_a_default() {
    let found = |words: &[u32], align| {
        let mut all = parts(&xen(RELOC, words));
        all[1].align = align;
        Image::parse(&file(&all)).map(|image| image.relocation().unwrap())
    };
    let is = |align, min, max| Ok(Relocation { align, min: PhysAddr(min), max: PhysAddr(max) });
    assert_eq!(found(&[], 0x1000), is(0x1000, 0, 0xffff_ffff));
    assert_eq!(found(&[], 0x40_0000), is(0x40_0000, 0, 0xffff_ffff));
    assert_eq!(found(&[0x8000], 0x40_0000), is(0x8000, 0, 0xffff_ffff));
    assert_eq!(found(&[0x8000, 7], 0x1000), is(0x8000, 7, 0xffff_ffff));
    assert_eq!(found(&[0x8000, 7, 7], 0x1000), is(0x8000, 7, 7));
    // An alignment below the page size becomes the page size.
    assert_eq!(found(&[1], 0x1000), is(0x1000, 0, 0xffff_ffff));
    assert_eq!(found(&[], 0x3000), Err(ImageError::Alignment(0x3000)));
    let mut all = parts(&xen(RELOC, &[]));
    all.iter_mut().for_each(|part| part.align = 1);
    let default = Image::parse(&file(&all)).unwrap().relocation();
    assert_eq!(default.map(|r| r.align), Some(0x20_0000));
}

#[test]
fn a_note_that_makes_no_sense_is_refused() {
    let with = |said: &[u8]| error(&file(&parts(said)));
    for align in [0, 3, 0x20_0001] {
        assert_eq!(with(&xen(RELOC, &[align])), ImageError::Alignment(align.into()));
    }
    let (min, max) = (PhysAddr(0x2000), PhysAddr(0x1fff));
    assert_eq!(with(&xen(RELOC, &[0x1000, 0x2000, 0x1fff])), ImageError::Bounds { min, max });
    for len in [1, 3, 13, 16] {
        assert_eq!(with(&note(b"Xen\0", RELOC, &vec![0; len])), ImageError::RelocationNote(len));
    }
    let entry = |said: &[u8]| {
        let mut all = parts(&[]);
        all[2] = notes(note(b"Xen\0", ENTRY, said));
        Image::parse(&file(&all)).map(|image| image.entry)
    };
    assert_eq!(entry(&[3, 0, 0, 1]), Ok(0x100_0003));
    assert_eq!(entry(&[3, 0, 0, 1, 0, 0, 0, 0]), Ok(0x100_0003));
    assert_eq!(entry(&[3, 0, 0, 1, 1, 0, 0, 0]), Err(ImageError::EntryNote(8)));
    assert_eq!(entry(&[3, 0, 0]), Err(ImageError::EntryNote(3)));
    assert_eq!(entry(&[]), Err(ImageError::EntryNote(0)));
}

#[test]
fn the_entry_is_code_that_the_file_has() {
    for (entry, good) in
        [(START - 1, false), (START, true), (START + 5, true), (START + 6, false), (START + 0x2100, false)]
    {
        let mut all = parts(&[]);
        all[2] = notes(xen(ENTRY, &[entry as u32]));
        let outside = ImageError::EntryOutside(entry as u32);
        assert_eq!(Image::parse(&file(&all)).map(|_| ()), if good { Ok(()) } else { Err(outside) });
    }
}

#[test]
fn the_entry_is_named_by_xens_note_alone() {
    let entry = xen(ENTRY, &[START as u32])[16..].to_vec();
    for said in [
        vec![],
        note(b"GNU\0", ENTRY, &entry),
        note(b"Xen\0", ENTRY + 1, &entry),
        note(b"XenOther", ENTRY, &entry),
        // A note that is longer than its segment, and a note after `MAX_NOTES` other notes.
        xen(ENTRY, &[START as u32, 0])[..18].to_vec(),
        [note(b"", 0, b"").repeat(MAX_NOTES), xen(ENTRY, &[START as u32])].concat(),
    ] {
        let mut all = parts(&[]);
        all[2] = notes(said);
        assert_eq!(error(&file(&all)), ImageError::NoEntry);
    }
    let mut all = parts(&[]);
    all[2].kind = 6;
    assert_eq!(error(&file(&all)), ImageError::NoEntry);
}

#[test]
fn the_first_of_two_notes_counts_and_any_segment_may_have_it() {
    let mut all = parts(&xen(ENTRY, &[0]));
    all.insert(0, notes(note(b"Linux\0", ENTRY, b"x")));
    assert_eq!(Image::parse(&file(&all)).unwrap().entry, 0x100_0002);
}

#[test]
fn a_segment_of_notes_may_be_aligned_to_8_bytes() {
    let mut all = parts(&[]);
    let mut said = note(b"GNU\0", 5, b"word");
    said.extend([0; 4]);
    said.extend(xen(ENTRY, &[START as u32, 0]));
    all[2] = Part { align: 8, ..notes(said) };
    assert_eq!(Image::parse(&file(&all)).unwrap().entry, 0x100_0000);
}

#[test]
fn a_file_of_another_kind_is_named() {
    assert_eq!(error(b""), ImageError::NotElf);
    assert_eq!(error(b"\x7fEL"), ImageError::NotElf);
    let mut zimage = vec![0; 0x206];
    assert_eq!(error(&zimage), ImageError::NotElf);
    zimage[0x202..].copy_from_slice(b"HdrS");
    assert_eq!(error(&zimage), ImageError::BzImage);
    let good = parts(&[]);
    let with = |at, bytes: &[u8]| error(&patched(&good, at, bytes));
    assert_eq!(with(elf::CLASS, &[1]), ImageError::Class(1));
    assert_eq!(with(elf::ORDER, &[2]), ImageError::ByteOrder(2));
    assert_eq!(with(elf::MACHINE, &[183, 0]), ImageError::Machine(183));
    assert_eq!(with(elf::KIND, &[1, 0]), ImageError::Type(1));
    assert!(Image::parse(&patched(&good, elf::KIND, &[3, 0])).is_ok());
}

#[test]
fn what_is_not_in_the_file_is_refused() {
    let good = parts(&[]);
    let whole = file(&good);
    for len in [4, 5, 6, 63, 64 + 56 * 3 - 1] {
        assert_eq!(error(&whole[..len]), ImageError::Tables, "{len}");
    }
    assert_eq!(error(&patched(&good, elf::HEADERS, &[0xff; 8])), ImageError::Tables);
    // The section headers are not used, so they can be outside of the file.
    assert!(Image::parse(&patched(&good, elf::SECTIONS, &[0xff; 8])).is_ok());
    let cut = whole.len() - 1;
    let gone = ImageError::NotInFile { offset: 242, len: 24, file: cut };
    assert_eq!(error(&whole[..cut]), gone);
    let file = whole.len();
    let far = ImageError::NotInFile { offset: u64::MAX, len: 6, file };
    assert_eq!(error(&patched(&good, field(0, elf::OFFSET), &[0xff; 8])), far);
    let mut all = good.clone();
    all[0].memory = u64::from(u32::MAX);
    all[1].at = 1 << 40;
    let long = ImageError::NotInFile { offset: 232, len: 0xffff_ffff, file };
    assert_eq!(error(&patched(&all, field(0, elf::IN_FILE), &[0xff; 4])), long);
}

#[test]
fn a_segment_without_bytes_may_lie_anywhere_in_the_file() {
    let mut all = parts(&[]);
    all.push(load(0x900_0000, b"", 0x10));
    assert!(Image::parse(&patched(&all, field(3, elf::OFFSET), &[0xff; 8])).is_ok());
}

#[test]
fn segments_that_contradict_each_other_or_themselves() {
    let with = |more: Part| {
        let mut all = parts(&[]);
        all.push(more);
        Image::parse(&file(&all)).map(|image| image.extent())
    };
    let at = PhysAddr(START + 0x9000);
    assert_eq!(with(load(at.0, b"four", 3)), Err(ImageError::Sizes { at, file: 4, memory: 3 }));
    for (start, len) in [(PhysAddr::LIMIT, 1), (PhysAddr::LIMIT - 1, 2), (u64::MAX, 1), (1, u64::MAX)] {
        let at = PhysAddr(start);
        assert_eq!(with(load(start, b"", len)), Err(ImageError::Unaddressable { at, len }));
    }
    for (start, len) in [(START - 1, 2), (START + 5, 1), (START - 1, 0x1000)] {
        let both = ImageError::Overlap(PhysAddr(START), PhysAddr(start));
        assert_eq!(with(load(start, b"", len)), Err(both));
    }
    // A segment can begin at the end of another one. A segment without memory overlaps no other one.
    assert_eq!(with(load(START + 6, b"", 1)), Ok(range(START, 0x4000)));
    assert_eq!(with(load(0, b"", 0)), Ok(range(START, 0x4000)));
    let last = PhysAddr::LIMIT - 1;
    assert_eq!(with(load(last, b"", 1)), Ok(range(START, PhysAddr::LIMIT - START)));
}

#[test]
fn an_image_has_something_to_load_and_not_too_much() {
    assert_eq!(error(&file(&parts(&[])[2..])), ImageError::Empty);
    assert_eq!(error(&patched(&parts(&[]), elf::HEADERS, &[0; 8])), ImageError::Empty);
    let mut all = parts(&[]);
    all.resize(MAX_SEGMENTS, load(0, b"", 0));
    assert!(Image::parse(&file(&all)).is_ok());
    all.push(load(0, b"", 0));
    assert_eq!(error(&file(&all)), ImageError::TooManySegments(65));
    assert_eq!(error(&patched(&all, elf::COUNT, &[0xff; 2])), ImageError::TooManySegments(0xffff));
    assert_eq!(error(&patched(&all[1..], elf::COUNT, &[0; 2])), ImageError::Empty);
    assert_eq!(error(&patched(&all[1..], elf::SIZE, &[55, 0])), ImageError::HeaderSize(55));
}

#[test]
fn an_error_says_the_facts() {
    let at = PhysAddr(0x30_0000);
    for (error, text) in [
        (
            ImageError::Unaligned { at, align: 0x20_0000 },
            "the image cannot be put at 0x300000, which is not a multiple of 0x200000",
        ),
        (
            ImageError::TooHigh { last: PhysAddr(0x2000_3fff), max: PhysAddr(0x1fff_ffff) },
            "the last byte of the image would be at 0x20003fff, above its highest address 0x1fffffff",
        ),
        (
            ImageError::NotInFile { offset: 0x2a, len: 1, file: 9 },
            "a segment has 0x1 bytes at offset 0x2a of the file, but the file has only 0x9 bytes",
        ),
        (ImageError::Overlap(at, PhysAddr(7)), "the segments at 0x300000 and 0x7 overlap"),
    ] {
        assert_eq!(error.to_string(), text);
    }
    assert!(ImageError::BzImage.to_string().contains("extract-vmlinux"));
}
