// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::directory::Version;
use crate::{Incarnation, PhysCpuId, Vector};

#[test]
fn sizes_follow_the_formula() {
    let size = |lanes| Geometry::default_for(lanes).unwrap().total_size();
    assert_eq!([2, 16, 256].map(size), [45_056, 200_704, 1_085_440]);
    let bad = [
        (0, 8, 256),
        (257, 8, 256),
        (1, 0, 1),
        (1, 4, 1),
        (1, 12, 1),
        (1, 8192, 1),
        (1, 64, 0),
        (1, 128, 4097),
        (1, 64, 4096),
        (1, 8, 441),
        (u32::MAX, u32::MAX, u32::MAX),
    ];
    for (lanes, lines, max_len) in bad {
        assert_eq!(Geometry::new(lanes, lines, max_len), None, "{lanes} {lines} {max_len}");
    }
    assert!(Geometry::new(1, 128, 4096).is_some() && Geometry::new(1, 8, 440).is_some());
    let g = Geometry::new(3, 64, 256).unwrap();
    assert_eq!((g.receiver_len(), g.lanes_at(), g.lane_len()), (4096, 4096, 8192));
    assert_eq!([0, 1, 2, 3].map(|l| g.lane_at(l)), [Some(4096), Some(12_288), Some(20_480), None]);
    assert_eq!(g.total_size(), 28_672);
}

#[test]
fn a_region_by_default_has_more_lines_for_fewer_lanes() {
    let lines = |lanes| Geometry::default_for(lanes).unwrap().lines();
    assert_eq!([1, 4, 5, 16, 17, 64, 65, 256].map(lines), [256, 256, 128, 128, 64, 64, 32, 32]);
}

#[test]
fn whole_pages_follow_one_another() {
    // 256 bytes and 128 for each lane: 30 lanes fill a page.
    let receiver_len = |lanes| Geometry::new(lanes, 8, 256).unwrap().receiver_len();
    assert_eq!([1, 30, 31, 256].map(receiver_len), [4096, 4096, 8192, 36_864]);
    assert_eq!((STAMP_WORDS, MAX_PAYLOAD_WORDS), (8, 6 + 73 * 7));
}

#[test]
fn the_words_of_doubt_are_used_in_turn() {
    assert_eq!([0, 1, 2, 3, 4, 7, 8].map(control::doubt), [6, 7, 8, 9, 6, 9, 6]);
}

#[test]
fn a_message_takes_as_many_lines_as_it_must() {
    let lines = [0, 1, 48, 49, 104, 105, 256, 1024, 4096].map(lines_of);
    assert_eq!(lines, [1, 1, 1, 2, 2, 3, 5, 19, 74]);
    const { assert!(MAX_PAYLOAD_WORDS * 8 >= MAX_LEN) };
}

#[test]
fn tags_tell_stale_from_future_and_first_from_further() {
    let g = Geometry::new(1, 8, 256).unwrap();
    assert_eq!([0, 7, 8, 16].map(|p| g.first_tag(p).0 & 0xff), [0, 0, 1, 2]);
    assert_eq!([0, 7, 8].map(|p| g.line_at(p)), [32, 88, 32]);
    assert_eq!(g.first_tag(8 << 30), g.first_tag(0), "a lap wraps");
    let expected = g.first_tag(5 * 8);
    assert_ne!(LineTag::of_word(0), g.first_tag(0), "empty memory holds no tag");
    let [here, stale, ahead] = [5, 4, 6].map(LineTag::first);
    assert_eq!(here, expected);
    assert_eq!(LineTag::of_word(here.to_word(7)), expected);
    assert_eq!((here.0, LineTag::further(5).0), (0x4000_0005, 0xc000_0005));
    assert_eq!(here.to_word(0x1234_5678), 0x1234_5678_4000_0005);
    let firsts: std::vec::Vec<_> = (0..17).filter(|&position| g.is_first_of_lap(position)).collect();
    assert_eq!(firsts, [0, 8, 16]);
    // Half of the 2^30 laps count as later. The lap at distance 2^29 does not: it is equally far in both directions.
    let [far, farther] = [(1 << 29) - 1, 1 << 29].map(|laps| LineTag::first(5 + laps));
    assert!(expected.is_contradicted_by(far) && !expected.is_contradicted_by(farther));
    let nothing = [LineTag(0), LineTag(6), LineTag(!(1 << 30)), stale, LineTag::further(4), expected];
    assert!(nothing.iter().all(|&found| !expected.is_contradicted_by(found)));
    assert!([ahead, LineTag::further(6), LineTag::further(5)]
        .iter()
        .all(|&found| expected.is_contradicted_by(found)));
    let last = LineTag::first((1 << 30) - 1);
    assert!(!LineTag::first(0).is_contradicted_by(last) && last.is_contradicted_by(LineTag::first(0)));
}

#[test]
fn words_survive_the_wire_and_nonsense_does_not() {
    for phase in [Phase::First, Phase::Begin, Phase::Clean] {
        let hello = Hello { incarnation: Incarnation::FIRST, session: 7, phase };
        assert_eq!(Hello::from_word(hello.to_word()), Some(hello));
        assert_eq!(hello.may_send(), phase != Phase::Begin);
        assert_eq!(Hello { phase: Phase::First, ..hello }.in_phase(phase), hello);
        let word = hello.to_word();
        let bad = [0, 1, word & !0xffff_ffff, word | 1 << 51, word & !(1 << 50), word & !(3 << 48)];
        assert!(bad.iter().all(|&w| Hello::from_word(w).is_none()));
    }

    let bell = Bell { cpu: PhysCpuId(9), vector: Vector::new(0x20).unwrap() };
    let word = bell.to_word().unwrap();
    assert_eq!(Bell::from_word(word), Some(bell));
    for bad in [0, word & !(1 << 63), word | 1 << 56, word & !(0xff << 48), word | 0xff << 48, u64::MAX] {
        assert_eq!(Bell::from_word(bad), None, "{bad:#x}");
    }
    let ids = [(1 << 48) - 1, 1 << 48].map(|id| Bell { cpu: PhysCpuId(id), ..bell }.to_word().is_some());
    assert_eq!(ids, [true, false]);

    let life = Life { incarnation: Incarnation::FIRST, over: true };
    assert_eq!(Life::from_word(life.to_word()), Some(life));
    assert_eq!(life.to_word(), 0x1_0000_0001);
    assert_eq!(Life::from_word(7), Incarnation::new(7).map(|incarnation| Life { incarnation, over: false }));
    assert_eq!([0, 1 << 33 | 1].map(Life::from_word), [None, None]);
    let attached = Attached { incarnation: Incarnation::new(9).unwrap(), generation: 0x1234_5678 };
    assert_eq!(attached.to_word(), 0x1234_5678_0000_0009);
    assert_eq!(Attached::from_word(attached.to_word()), Some(attached));
    assert_eq!([0, 1 << 32].map(Attached::from_word), [None, None]);
    for b in [Breach::Tag, Breach::Length, Breach::Hello] {
        assert_eq!(Breach::from_word(b as u64), Some(b));
    }
    assert_eq!([0, 4].map(Breach::from_word), [None, None]);
    let about = MessageInfo { len: 256, cpu: 3 };
    assert_eq!(MessageInfo::from_word(about.to_word()), about);
}

#[test]
fn generations_that_were_followed_wrap() {
    let followed = |generation, to| Attached { incarnation: Incarnation::FIRST, generation }.has_followed(to);
    let yes = [(5, 5), (6, 5), (1, u32::MAX), (1 << 31, 1)];
    let no = [(0, 0), (0, 5), (4, 5), (u32::MAX, 1), ((1 << 31) + 1, 1)];
    assert!(yes.iter().all(|&(ours, to)| followed(ours, to)));
    assert!(no.iter().all(|&(ours, to)| !followed(ours, to)));
}

#[test]
fn a_new_session_is_another_than_said_and_answered() {
    let word = |session| Hello { incarnation: Incarnation::FIRST, session, phase: Phase::Clean }.to_word();
    let next = |said, answered| Hello::after(said, answered, Incarnation::FIRST);
    assert_eq!(next(word(4), word(3)).session, 5);
    assert_eq!(next(word(4), word(5)).session, 6);
    assert_eq!(next(word(u16::MAX), word(0)).session, 1);
    assert_eq!(next(0, 0).phase, Phase::Begin);
}

#[test]
fn a_stamp_is_checked_before_it_is_believed() {
    let g = Geometry::new(2, 256, 256).unwrap();
    let good = Stamp::new(g);
    assert_eq!(good.check(45_056, None), Ok(g));
    assert_eq!(good.check(45_055, None), Err(StampError::TooSmall(45_056)));
    let minor = Stamp { version: Version { major: 2, minor: 9 }, reserved: [!0; 4], ..good };
    assert_eq!(minor.check(1 << 20, None), Ok(g), "unknown minor versions and reserved words are ignored");
    let bad = |s: Stamp| s.check(u64::MAX, None).unwrap_err();
    for major in [1, 3] {
        let version = Version { major, minor: 0 };
        assert_eq!(bad(Stamp { version, ..good }), StampError::Version(version));
    }
    for (lanes, lines, max_len) in
        [(0, 64, 256), (2, 0, 256), (2, 3, 256), (257, 64, 256), (2, 1 << 31, 256), (2, 64, 4096), (2, 64, 0)]
    {
        let found = bad(Stamp { lanes, lines, max_len, ..good });
        assert_eq!(found, StampError::Geometry { lanes, lines, max_len });
    }
    for total_size in [0, 45_055, 45_057, u64::MAX] {
        assert_eq!(bad(Stamp { total_size, ..good }), StampError::Size(total_size));
    }
}

#[test]
fn what_is_no_stamp_is_named() {
    let g = Geometry::new(2, 64, 256).unwrap();
    let other = Stamp { magic: 7, ..Stamp::new(g) };
    let named = |number| Err(StampError::Mkipi0nn { number, version: 3 });
    for (magic, number) in
        [(0x4d4b_4950_4930_3033, 3), (0x4d4b_4950_4930_3037, 7), (0x4d4b_4950_4930_3432, 42)]
    {
        assert_eq!(other.check(264_256, Some([magic, 0xffff_ffff_0000_0003])), named(number));
    }
    for magic in [0x4d4b_4950_4930_303a, 0x4d4b_4950_4930_2f33, 0x4d4b_4950_4931_3033] {
        assert!(matches!(other.check(264_256, Some([magic, 3])), Err(StampError::NoStamp { .. })));
    }
    for (len, known) in [
        (272, KnownLayouts::RFC_V2),
        (17_416, KnownLayouts::FIRST_RING),
        (20_480, KnownLayouts::FIRST_RING),
        (263_696, KnownLayouts::V7_MK2),
        (264_256, KnownLayouts::MKIPI003),
        (266_240, KnownLayouts::V7_MK2.union(KnownLayouts::MKIPI003)),
        (528_416, KnownLayouts::DUPLEX),
        (4096, KnownLayouts::empty()),
        (u64::MAX, KnownLayouts::empty()),
    ] {
        assert_eq!(other.check(len, Some([0, 3])), Err(StampError::NoStamp { found: 7, known }), "{len}");
    }
}
