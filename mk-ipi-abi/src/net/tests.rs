// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;

fn key(number: u32) -> Key {
    Key::new(number).expect("not 0")
}

fn offer() -> Offer {
    Offer {
        key: key(0x0102_0304),
        features: Features::CSUM | Features::TSO4,
        max_frame: MAX_FRAME,
        mac: [2, 0x6d, 0x6b, 0, 1, 0],
    }
}

fn open() -> Control {
    Control::Open { offer: offer(), heard: Key::new(5) }
}

#[test]
fn a_control_message_comes_back_as_it_went() {
    for one in [open(), Control::Open { offer: offer(), heard: None }, Control::Close(key(7))] {
        assert_eq!(Control::decode(&one.encode()), Ok(one));
    }
}

#[test]
fn the_smallest_largest_frame_is_that_of_ipv4() {
    assert_eq!((LEAST_MAX_FRAME, MAX_FRAME), (82, 65_549));
}

#[test]
fn control_messages_have_the_specs_bytes() {
    let bytes = [
        1, 0, 0, 0, 1, 0, 0, 0, 4, 3, 2, 1, 5, 0, 0, 0, 3, 0, 0, 0, 0x0d, 0, 1, 0, 2, 0x6d, 0x6b, 0, 1, 0, 0,
        0,
    ];
    assert_eq!(open().encode(), bytes);
    let mut close = [0; 32];
    close[0] = 2;
    close[4] = 1;
    close[8] = 9;
    assert_eq!(Control::Close(key(9)).encode(), close);
}

#[test]
fn a_control_message_without_sense_is_refused_by_name() {
    let with = |at: usize, value: &[u8]| {
        let mut bytes = open().encode();
        put(&mut bytes, at, value);
        Control::decode(&bytes)
    };
    assert_eq!(Control::decode(&[1; 31]), Err(ControlError::WrongSize(31)));
    assert_eq!(Control::decode(&[1; 33]), Err(ControlError::WrongSize(33)));
    assert_eq!(with(0, &[3]), Err(ControlError::WrongKind(3)));
    assert_eq!(with(4, &[2]), Err(ControlError::Version(2)));
    assert_eq!(with(6, &[9]), Ok(open()), "a newer minor version is accepted");
    assert_eq!(with(8, &[0; 4]), Err(ControlError::NoKey));
    assert_eq!(with(16, &[8]), Err(ControlError::WrongFeatures(8)));
    assert_eq!(with(16, &[2]), Err(ControlError::WrongFeatures(2)), "TSO without a checksum");
    assert_eq!(with(20, &[81, 0, 0]), Err(ControlError::WrongMaxFrame(81)));
    assert_eq!(with(20, &[14, 0, 1]), Err(ControlError::WrongMaxFrame(65_550)));
    assert_eq!(with(24, &[3]), Err(ControlError::WrongMac([3, 0x6d, 0x6b, 0, 1, 0])));
    assert_eq!(with(24, &[0; 6]), Err(ControlError::WrongMac([0; 6])));
}

#[test]
fn each_opening_has_another_key() {
    let first = Incarnation::FIRST;
    assert_eq!(Key::of(first, 2).get(), 0x1_0002);
    assert_ne!(Key::of(first, 1), Key::of(first, 2));
    assert_ne!(Key::of(first, 1), Key::of(first.next(), 1));
    let wraps = Incarnation::new(0x1_0000).expect("not 0");
    assert_ne!(Key::of(wraps, 0).get(), 0);
}

fn tso() -> Offload {
    let flags = Offload::NEEDS_CSUM;
    Offload { flags, gso_type: Offload::TCPV4, hdr_len: 66, gso_size: 1448, csum_start: 34, csum_offset: 16 }
}

#[test]
fn heads_have_the_specs_bytes_and_come_back() {
    let head = FrameHead { key: key(1), number: 2, len: 0x0304, offload: tso() };
    let bytes = [1, 0, 0, 0, 2, 0, 0, 0, 4, 3, 0, 0, 1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];
    assert_eq!(head.encode(), bytes);
    assert_eq!(FrameHead::decode(&bytes), Some((head, &[][..])));
    assert_eq!(FrameHead::decode(&bytes[..23]), None);
    let part = PartHead { key: key(1), number: 2, at: 0x0506 };
    let bytes = [1, 0, 0, 0, 2, 0, 0, 0, 6, 5, 0, 0, 0, 0, 0, 0, 77];
    assert_eq!(part.encode(), bytes[..16]);
    assert_eq!(PartHead::decode(&bytes), Some((part, &bytes[16..])));
    assert_eq!(PartHead::decode(&[0; 16]), None, "no key");
    assert_eq!(PartHead::decode(&bytes[..15]), None);
}

#[test]
fn an_offload_is_checked_before_it_is_believed() {
    let all = Features::all();
    let good = tso();
    assert_eq!(good.check(2000, all), Ok(()));
    assert_eq!(Offload::default().check(14, Features::empty()), Ok(()));
    assert_eq!(Offload { flags: 5, ..good }.check(2000, all), Err(OffloadError::Flags(5)));
    assert_eq!(Offload { gso_type: 3, ..good }.check(2000, all), Err(OffloadError::Gso(3)));
    assert_eq!(Offload { gso_type: 0x80, ..good }.check(2000, all), Err(OffloadError::Gso(0x80)));
    assert_eq!(Offload { gso_size: 0, ..good }.check(2000, all), Err(OffloadError::GsoWhole));
    assert_eq!(Offload { flags: 2, ..good }.check(2000, all), Err(OffloadError::GsoWhole));
    let csum = |start, offset| Offload { csum_start: start, csum_offset: offset, ..good }.check(100, all);
    assert_eq!(csum(14, 84), Ok(()));
    assert_eq!(csum(14, 85), Err(OffloadError::Csum { start: 14, offset: 85 }));
    assert_eq!(csum(13, 0), Err(OffloadError::Csum { start: 13, offset: 0 }));
    assert_eq!(csum(u16::MAX, u16::MAX), Err(OffloadError::Csum { start: u16::MAX, offset: u16::MAX }));
    assert_eq!(good.check(2000, Features::CSUM), Err(OffloadError::NotSupported));
    assert_eq!(
        Offload { gso_type: 0x84, ..good }.check(2000, Features::CSUM | Features::TSO4),
        Err(OffloadError::NotSupported)
    );
    assert_eq!(
        Offload { gso_type: 0, ..good }.check(2000, Features::empty()),
        Err(OffloadError::NotSupported)
    );
}
