// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::{FrameSplitter, SplitError};
use mk_ipi_abi::net::Features;
use std::vec::Vec;

fn ours() -> Offer {
    Offer { key: Key::new(7).unwrap(), features: Features::CSUM, max_frame: 9000, mac: [2, 0, 0, 0, 0, 1] }
}

type Message = (MessageType, Vec<u8>);

/// Splits `frame` into messages.
fn messages(frame: &[u8], number: u32, max_message: u32) -> Vec<Message> {
    let mut cut =
        FrameSplitter::new(&ours(), number, frame.len() as u32, Offload::default(), max_message).unwrap();
    let mut all = Vec::new();
    while let Some(piece) = cut.next() {
        let bytes = &frame[piece.at as usize..][..piece.len as usize];
        let payload = [piece.head.as_bytes(), bytes].concat();
        assert!(payload.len() <= max_message as usize);
        all.push((piece.msg_type, payload));
        cut.sent(&piece);
    }
    all
}

/// Passes `messages` to `gather`. Returns the frames that became complete.
fn gathered(gather: &mut FrameAssembler, messages: &[Message]) -> Result<Vec<Vec<u8>>, FrameError> {
    let (mut whole, mut frame) = (Vec::new(), Vec::new());
    for (msg_type, payload) in messages {
        let taken = gather.take(Some(&ours()), *msg_type, payload)?;
        if let Some((len, _)) = taken.begins {
            frame = std::vec![0; len as usize];
        }
        frame[taken.at as usize..][..taken.bytes.len()].copy_from_slice(taken.bytes);
        if taken.is_whole {
            whole.push(frame.clone());
        }
    }
    Ok(whole)
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

#[test]
fn each_size_arrives_whole_by_messages_of_each_size() {
    for len in [14, 15, 60, 1514, 4072, 4073, 9000] {
        for max in [25, 26, 256, 4096] {
            let got = gathered(&mut FrameAssembler::new(), &messages(&frame(len), 1, max)).unwrap();
            assert_eq!(got, [frame(len)], "{len} bytes by {max}");
        }
    }
}

#[test]
fn a_frame_that_fits_is_one_message() {
    assert_eq!(messages(&frame(4072), 1, 4096).len(), 1);
    assert_eq!(messages(&frame(4073), 1, 4096).len(), 2);
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let cut = |len, offload, max| FrameSplitter::new(&ours(), 1, len, offload, max).err();
    let plain = Offload::default();
    assert_eq!(cut(13, plain, 4096), Some(SplitError::WrongSize(13)));
    assert_eq!(cut(9001, plain, 4096), Some(SplitError::WrongSize(9001)));
    assert_eq!(cut(60, plain, 24), Some(SplitError::NoRoom));
    let gso = Offload {
        flags: Offload::NEEDS_CSUM,
        gso_type: Offload::TCPV4,
        gso_size: 1,
        csum_start: 34,
        ..plain
    };
    assert_eq!(cut(60, gso, 4096), Some(SplitError::Offload(OffloadError::NotSupported)));
}

#[test]
fn a_part_that_is_missing_costs_its_frame_and_no_other() {
    let (first, second) = (messages(&frame(1000), 1, 256), messages(&frame(500), 2, 256));
    for missing in 0..first.len() {
        let mut gather = FrameAssembler::new();
        let came = first.iter().enumerate().filter(|(n, _)| *n != missing);
        let taken: Vec<_> = came.map(|(_, (ty, payload))| gather.take(Some(&ours()), *ty, payload)).collect();
        assert!(!taken.iter().any(|t| t.is_ok_and(|taken| taken.is_whole)));
        let refused = taken.iter().filter(|t| matches!(t, Err(FrameError::NotExpected { number: 1, .. })));
        assert_eq!(refused.count(), first.len() - 1 - missing);
        assert_eq!(gathered(&mut gather, &second), Ok(std::vec![frame(500)]));
    }
}

#[test]
fn parts_of_two_frames_are_not_mixed() {
    let (first, second) = (messages(&frame(1000), 1, 256), messages(&frame(1000), 2, 256));
    let mut gather = FrameAssembler::new();
    let mixed = [first[0].clone(), second[1].clone()];
    assert_eq!(gathered(&mut gather, &mixed), Err(FrameError::NotExpected { number: 2, at: 232 }));
    assert_eq!(gathered(&mut gather, &first[1..2]), Err(FrameError::NotExpected { number: 1, at: 232 }));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let offer = ours();
    let head = FrameHead { key: offer.key, number: 1, len: 20, offload: Offload::default() };
    let take = |ours: Option<&Offer>, ty, payload: &[u8]| {
        FrameAssembler::new().take(ours, ty, payload).map(|_| ()).err()
    };
    let begin = |head: FrameHead, rest: &[u8]| {
        take(Some(&offer), NET_FRAME_TYPE, &[&head.encode()[..], rest].concat())
    };
    assert_eq!(begin(head, &[0; 20]), None);
    assert_eq!(take(None, NET_FRAME_TYPE, &head.encode()), Some(FrameError::Closed));
    assert_eq!(
        take(Some(&offer), MessageType(1), &head.encode()),
        Some(FrameError::WrongType(MessageType(1)))
    );
    assert_eq!(take(Some(&offer), NET_FRAME_TYPE, &[7; 23]), Some(FrameError::NoHead));
    assert_eq!(take(Some(&offer), NET_PART_TYPE, &[7; 15]), Some(FrameError::NoHead));
    let other = Key::new(8).unwrap();
    assert_eq!(begin(FrameHead { key: other, ..head }, &[0; 20]), Some(FrameError::Stale(other)));
    assert_eq!(begin(FrameHead { len: 13, ..head }, &[0; 13]), Some(FrameError::WrongSize(13)));
    assert_eq!(begin(FrameHead { len: 9001, ..head }, &[0; 20]), Some(FrameError::WrongSize(9001)));
    assert_eq!(begin(head, &[0; 21]), Some(FrameError::WrongLength(21)));
    assert_eq!(begin(head, &[]), Some(FrameError::WrongLength(0)));
    let offload = Offload { flags: 4, ..Offload::default() };
    assert_eq!(
        begin(FrameHead { offload, ..head }, &[0; 20]),
        Some(FrameError::Offload(OffloadError::Flags(4)))
    );
    let offload = Offload { gso_type: 9, ..Offload::default() };
    assert_eq!(
        begin(FrameHead { offload, ..head }, &[0; 20]),
        Some(FrameError::Offload(OffloadError::Gso(9)))
    );
}

#[test]
fn a_stale_message_does_not_disturb_the_frame_under_way() {
    let all = messages(&frame(400), 1, 256);
    let mut gather = FrameAssembler::new();
    assert_eq!(gathered(&mut gather, &all[..1]), Ok(Vec::new()));
    let stale = PartHead { key: Key::new(8).unwrap(), number: 1, at: 232 }.encode();
    let other = gather.take(Some(&ours()), NET_PART_TYPE, &stale);
    assert_eq!(other, Err(FrameError::Stale(Key::new(8).unwrap())));
    let last = gather.take(Some(&ours()), all[1].0, &all[1].1);
    assert!(last.is_ok_and(|taken| taken.is_whole && taken.at == 232));
}

#[test]
fn a_part_without_bytes_ends_its_frame() {
    let all = messages(&frame(400), 1, 256);
    let mut gather = FrameAssembler::new();
    assert_eq!(gathered(&mut gather, &all[..1]), Ok(Vec::new()));
    let empty = PartHead { key: ours().key, number: 1, at: 232 }.encode();
    assert_eq!(gather.take(Some(&ours()), NET_PART_TYPE, &empty), Err(FrameError::WrongLength(0)));
    gather.reset();
    assert_eq!(gathered(&mut gather, &all), Ok(std::vec![frame(400)]));
}
