// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a region is made, found, mapped and unmapped, and the words that a receiver has for all senders (SPEC N-1 to N-4, N-17).

use super::arena_for_tests::*;
use super::*;
use crate::platform::MapError;
use crate::sync::Ordering;
use core::cell::Cell;
use mk_ipi_abi::native::{header, receiver, Attached, Bell, Geometry, Life, StampError, STAMP_WORDS};
use mk_ipi_abi::{Incarnation, InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use std::vec::Vec;

fn range(start: PhysAddr, len: u64) -> PhysRange {
    PhysRange::new(start, len).unwrap()
}

/// Maps the region as its receiver and as a sender, and checks that both have the same result and leave nothing mapped.
fn map(arena: &Arena, range: PhysRange) -> Result<(), RegionError> {
    let own = OwnRegion::map(arena, range).map(|region| {
        assert_eq!(arena.mapped.get(), 2, "the receiver's pages and the lanes");
        region.unmap(arena);
    });
    assert_eq!(arena.mapped.get(), 0);
    let peer = PeerRegion::map(arena, range, ME).map(|region| {
        assert_eq!(arena.mapped.get(), 2, "the receiver's pages and our lane");
        region.unmap(arena);
    });
    assert_eq!((arena.mapped.get(), own), (0, peer));
    peer
}

#[test]
fn a_region_is_mapped_if_it_is_as_long_as_its_stamp_says() {
    let arena = Arena::new(SMALL);
    assert_eq!(SMALL.total_size(), 8192);
    let small = |needed| Err(RegionError::Stamp(StampError::TooSmall(needed)));
    let cases = [
        (8, small(4096)),
        (4088, small(4096)),
        (4095, small(4096)),
        (4096, small(8192)),
        (8184, small(8192)),
        (8191, small(8192)),
        (8192, Ok(())),
        (8193, Ok(())),
        (1 << 20, Ok(())),
    ];
    for (len, result) in cases {
        assert_eq!(map(&arena, range(START, len)), result, "{len}");
    }
    assert_eq!(map(&arena, range(PhysAddr(START.0 + 8), 8192)), Err(RegionError::Misaligned));
    let other = PeerRegion::map(&arena, arena.range(), InstanceId::new(1)).map(drop);
    assert_eq!((other, arena.mapped.get()), (Err(RegionError::NoLane(InstanceId::new(1))), 0));
}

#[test]
fn what_was_mapped_is_unmapped_if_the_rest_cannot_be_mapped() {
    let arena = Arena::new(SMALL);
    let refused = Err(RegionError::Map(MapError::NoMemory));
    let with = |maps: usize| arena.maps_left.set(maps);
    // The page of the stamp, then two parts.
    for maps in 0..4 {
        with(maps);
        let own = OwnRegion::map(&arena, arena.range());
        assert_eq!(own.as_ref().err(), refused.as_ref().err().filter(|_| maps < 3), "{maps}");
        assert_eq!(arena.mapped.get(), if maps < 3 { 0 } else { 2 });
        own.into_iter().for_each(|region| region.unmap(&arena));
        with(maps);
        let peer = PeerRegion::map(&arena, arena.range(), ME);
        assert_eq!(peer.as_ref().err(), refused.as_ref().err().filter(|_| maps < 3), "{maps}");
        assert_eq!(arena.mapped.get(), if maps < 3 { 0 } else { 2 });
        peer.into_iter().for_each(|region| region.unmap(&arena));
    }
    with(0);
    assert_eq!(create(&arena, arena.range(), SMALL), refused);
    assert_eq!(mapped_by(&arena, arena.range(), SMALL, |_, _| ()), Err(MapError::NoMemory));
}

#[test]
fn a_region_of_another_protocol_is_named() {
    /// The length of a region of MKIPI003. Its magic is in the last three words.
    const LEN: u64 = 264_256;
    let arena = Arena {
        words: (0..LEN / 8 + 1024).map(|_| Watched::new()).collect(),
        geometry: SMALL,
        mapped: Cell::new(0),
        maps_left: Cell::new(usize::MAX),
    };
    let look = |len| match map(&arena, range(START, len)) {
        Err(RegionError::Stamp(StampError::NoStamp { found: 0, .. })) => None,
        Err(RegionError::Stamp(StampError::Mkipi0nn { number, version })) => Some((number, version)),
        other => panic!("{other:?}"),
    };
    assert_eq!(look(LEN), None, "memory of zeros");
    arena.receiver(264_232 / 8).store(u64::from_be_bytes(*b"MKIPI003"), Ordering::Relaxed);
    arena.receiver(264_240 / 8).store(3, Ordering::Relaxed);
    for len in [4096, 262_136, 262_144, 264_232, 264_240, 264_247] {
        assert_eq!(look(len), None, "{len}: too short for the magic and the version");
    }
    for len in [264_248, LEN, LEN + 4096] {
        assert_eq!(look(len), Some((3, 3)), "{len}");
    }
    // The page of the magic cannot be mapped.
    arena.maps_left.set(1);
    assert!(matches!(
        OwnRegion::map(&arena, range(START, LEN)),
        Err(RegionError::Stamp(StampError::NoStamp { .. }))
    ));
    assert_eq!(arena.mapped.get(), 0);
}

#[test]
fn a_new_region_is_empty_except_for_its_stamp() {
    let arena = Arena::new(SMALL);
    let stamp: Vec<_> = (0..STAMP_WORDS).map(|at| arena.receiver(at).load(Ordering::Relaxed)).collect();
    arena.words.iter().for_each(|word| word.value.store(u64::MAX, Ordering::Relaxed));
    create(&arena, arena.range(), SMALL).unwrap();
    let words: Vec<_> = arena.words.iter().map(|word| word.value.load(Ordering::Relaxed)).collect();
    assert_eq!(words[..STAMP_WORDS], stamp);
    assert!(words[STAMP_WORDS..].iter().all(|&word| word == 0));
    let stored: Vec<_> = arena.words.iter().map(Watched::stored).collect();
    assert!(stored[1..].iter().all(|&at| at < stored[0]), "the magic is stored last");
    assert_eq!((map(&arena, arena.range()), arena.mapped.get()), (Ok(()), 0));
}

#[test]
fn each_instance_that_has_the_region_mapped_is_found() {
    let geometry = Geometry::new(3, 8, 256).unwrap();
    let arena = Arena::new(geometry);
    let attached = |lane: u32| arena.header_of(lane, header::ATTACHED);
    let five = Attached { incarnation: Incarnation::new(5).unwrap(), generation: 9 };
    attached(0).store(five.to_word(), Ordering::Relaxed);
    // No valid word, but not 0.
    attached(2).store(1 << 40, Ordering::Relaxed);
    let mut found = Vec::new();
    mapped_by(&arena, arena.range(), geometry, |id, incarnation| found.push((id.get(), incarnation.get())))
        .unwrap();
    assert_eq!((found, arena.mapped.get()), (std::vec![(0, 5), (2, 1)], 0));
    let own = OwnRegion::map(&arena, arena.range()).unwrap();
    assert_eq!(own.attached().collect::<Vec<_>>(), [(ME, five)], "only those with a valid word");
}

#[test]
fn the_receiver_stores_its_own_words_and_obeys_only_the_host() {
    let geometry = Geometry::new(3, 8, 256).unwrap();
    let arena = Arena::new(geometry);
    let own = OwnRegion::map(&arena, arena.range()).unwrap();
    let word = |at: usize| arena.receiver(at).load(Ordering::Relaxed);
    let [one, two] = [1, 2].map(|number| Incarnation::new(number).unwrap());
    for lane in [1, 2] {
        arena.header_of(lane, header::STOP).store(2, Ordering::Relaxed);
    }
    assert_eq!([one, two].map(|life| own.is_stopped(life)), [false, false], "not the host");
    arena.header(header::STOP).store(2, Ordering::Relaxed);
    assert_eq!([one, two].map(|life| own.is_stopped(life)), [false, true]);

    own.advance_heartbeat();
    own.advance_heartbeat();
    assert_eq!(word(receiver::HEARTBEAT), 2);
    own.say_goodbye(two);
    assert_eq!(Life::from_word(word(receiver::LIFE)), Some(Life { incarnation: two, over: true }));
    arena.receiver(receiver::ARMED).store(1, Ordering::Relaxed);
    own.disarm();
    assert_eq!(word(receiver::ARMED), 0);
    let bell = |cpu: u64| Bell { cpu: PhysCpuId(cpu), vector: Vector::new(0x40).unwrap() };
    assert!(own.set_bell(bell(7)));
    assert_eq!(Bell::from_word(word(receiver::BELL)), Some(bell(7)));
    assert!(!own.set_bell(bell(1 << 48)), "more than 48 bits do not fit");
    assert_eq!(Bell::from_word(word(receiver::BELL)), Some(bell(7)));
}

#[test]
fn the_sender_knows_how_long_a_message_may_be() {
    let arena = Arena::new(SMALL);
    let sender = arena.life(1);
    assert_eq!(sender.geometry(), SMALL);
    assert_eq!([0, 255, 256, 257, usize::MAX].map(|len| sender.fits(len)), [true, true, true, false, false]);
}
