// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::directory::Version;

#[test]
fn sizes_follow_the_formula() {
    let size = |lanes| Geometry::default_for(lanes).unwrap().total_size();
    assert_eq!([2, 16, 256].map(size), [57_344, 204_800, 1_089_536]);
    for (lanes, cells) in [(0, 8), (257, 8), (1, 0), (1, 1), (1, 3), (1, 2048), (u32::MAX, u32::MAX)] {
        assert_eq!(Geometry::new(lanes, cells), None, "{lanes} {cells}");
    }
    let g = Geometry::new(3, 16).unwrap();
    assert_eq!((g.receiver_len(), g.lanes_at(), g.lane_len()), (4096, 8192, 8192));
    assert_eq!([0, 1, 2, 3].map(|l| g.lane_at(l)), [Some(8192), Some(16_384), Some(24_576), None]);
    assert_eq!(g.total_size(), 32_768);
}

#[test]
fn laps_count_from_1_and_tell_stale_from_future() {
    let g = Geometry::new(1, 8).unwrap();
    assert_eq!([0, 7, 8, 15, 16].map(|p| (g.lap(p), g.index(p))), [(1, 0), (1, 7), (2, 0), (2, 7), (3, 0)]);
    assert_eq!(g.lap(u64::from(u32::MAX) << 3), 0, "a lap wraps");
    assert_eq!(
        [5, 4, 0, 6].map(|found| Lap::of(found, 5)),
        [Lap::Here, Lap::NotYet, Lap::NotYet, Lap::Future]
    );
    assert_eq!([u32::MAX, 1].map(|found| Lap::of(found, 0)), [Lap::NotYet, Lap::Future]);
}

#[test]
fn a_new_life_begins_where_no_cell_can_match() {
    let g = Geometry::new(1, 8).unwrap();
    for next in 0..40 {
        let base = g.next_life(next);
        // The former life may have published up to a full lane beyond `next`.
        assert!(base % 8 == 0 && g.lap(base) > g.lap(next + 7), "{next} {base}");
    }
}

#[test]
fn words_survive_the_wire_and_nonsense_does_not() {
    let hello = Hello::after(0, Incarnation::FIRST);
    assert!(hello.first);
    assert_eq!(Hello::from_word(hello.to_word()), Some(hello));
    let again = Hello::after(hello.to_word(), Incarnation::FIRST);
    assert!(!again.first && again.session != hello.session);
    let beyond = hello.to_word() | 1 << 50;
    assert!([0, 1, hello.to_word() & !0xffff_ffff, beyond].iter().all(|&w| Hello::from_word(w).is_none()));

    let listed = [PhysCpuId(4), PhysCpuId(9)];
    let bell = Bell { cpu: 1, vector: Vector::new(0x20).unwrap() };
    assert_eq!(Bell::from_word(bell.to_word(), &listed), Some((PhysCpuId(9), bell.vector)));
    let word = bell.to_word();
    for bad in
        [0, word & !(1 << 63), word + 1, word | 1 << 24, word & !0x00ff_0000, word | 0x00ff_0000, u64::MAX]
    {
        assert_eq!(Bell::from_word(bad, &listed), None, "{bad:#x}");
    }

    let life = Life { incarnation: Incarnation::FIRST, over: true };
    assert_eq!(Life::from_word(life.to_word()), Some(life));
    assert_eq!([0, 1 << 33 | 1].map(Life::from_word), [None, None]);
    for b in [Breach::Lap, Breach::Length, Breach::Cpu, Breach::Hello] {
        assert_eq!(Breach::from_word(b as u64), Some(b));
    }
    assert_eq!([0, 5].map(Breach::from_word), [None, None]);
    let about = CellAbout { len: 256, cpu: 3 };
    assert_eq!(CellAbout::from_word(about.to_word()), about);
}

#[test]
fn a_stamp_is_checked_before_it_is_believed() {
    let g = Geometry::new(2, 64).unwrap();
    let good = Stamp::new(g, Features::SPACE);
    assert_eq!(good.check(57_344, None), Ok((g, Features::SPACE)));
    assert_eq!(good.check(57_343, None), Err(StampError::TooSmall(57_344)));
    let minor = Stamp { version: Version { major: 1, minor: 9 }, features: !0, ..good };
    assert_eq!(minor.check(1 << 20, None), Ok((g, Features::all())), "what is unknown is left out");
    let bad = |s: Stamp| s.check(u64::MAX, None).unwrap_err();
    let major = Version { major: 2, minor: 0 };
    assert_eq!(bad(Stamp { version: major, ..good }), StampError::Version(major));
    for (lanes, cells) in [(0, 64), (2, 0), (2, 3), (257, 64), (2, 1 << 31), (u32::MAX, u32::MAX)] {
        assert_eq!(bad(Stamp { lanes, cells, ..good }), StampError::Geometry { lanes, cells });
    }
    for total_size in [0, 57_343, 57_345, u64::MAX] {
        assert_eq!(bad(Stamp { total_size, ..good }), StampError::Size(total_size));
    }
}

#[test]
fn what_is_no_stamp_is_named() {
    let g = Geometry::new(2, 64).unwrap();
    let other = Stamp { magic: 7, ..Stamp::new(g, Features::empty()) };
    let words = Some([MKIPI003_MAGIC, 0xffff_ffff_0000_0003]);
    assert_eq!(other.check(264_256, words), Err(StampError::Mkipi003 { version: 3 }));
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
