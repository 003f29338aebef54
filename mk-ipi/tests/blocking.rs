// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests `send_blocking`: it waits for space until a deadline, but does not wait for a dead peer.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::panic,
    reason = "a test may panic"
)]

mod common;

use common::{clock, leak, Pair, B, FIRST, LINES, TYPE};
use mk_ipi::asynchronous::Waiters;
use mk_ipi::blocking::{Deadline, WaitError};
use mk_ipi::typed::TypedHandler;
use mk_ipi::{abi::MessageType, typed::TypedMessage, EndpointExt, LookupError, SendError};
use mk_ipi_mock::Mode;
use std::sync::{Arc, Mutex};

#[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C)]
struct Number(u64);

impl TypedMessage for Number {
    const TYPE: MessageType = TYPE;
}

/// Registers a handler at B. It writes each number that it receives to the returned log.
fn logged(pair: &Pair) -> Arc<Mutex<Vec<u64>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let writer = log.clone();
    let handler = move |_: &mk_ipi::Message<'_>, n: &Number| writer.lock().unwrap().push(n.0);
    let _handle = pair.b.register_typed(leak(TypedHandler::<Number, _>::new(handler))).unwrap();
    log
}

#[test]
fn it_waits_for_space_and_all_arrive_in_order() {
    const COUNT: u64 = 60;
    let mut full = 0;
    for seed in 0..40 {
        let pair = Pair::new(Mode::Stepped { seed }, leak(Waiters::new()));
        let log = logged(&pair);
        let run = pair.machine.run(|cpu| {
            for n in (0..COUNT).filter(|_| cpu.kernel() == 0) {
                let deadline = Deadline::new(clock(|_| ()), 100_000);
                pair.a.send_blocking(B, TYPE, &n.to_le_bytes(), deadline).unwrap();
            }
        });
        run.unwrap();
        assert_eq!(*log.lock().unwrap(), Vec::from_iter(0..COUNT), "seed {seed}");
        full += pair.a.stats().full;
    }
    assert!(full > 0, "no send had to wait, so this test has tested nothing");
}

#[test]
fn the_deadline_passes() {
    let pair = Pair::by_hand(leak(Waiters::new()));
    pair.fill();
    let mut reads = 0;
    let deadline = Deadline::new(clock(|now| reads = now), 9);
    assert_eq!(pair.a.send_blocking(B, TYPE, &[1], deadline), Err(WaitError::Deadline));
    assert_eq!(reads, 9, "the clock is read once in each iteration");
    // Nothing was sent: only the messages that filled the lane arrive.
    pair.settle();
    assert_eq!(pair.b.stats().unhandled, LINES);
    // There is one try even if the deadline has passed already.
    let past = || Deadline::new(|| 5, 5);
    assert!(pair.a.send_blocking(B, TYPE, &[1], past()).is_ok());
    while pair.a.send(B, TYPE, &[0]).is_ok() {}
    assert_eq!(pair.a.send_blocking(B, TYPE, &[1], past()), Err(WaitError::Deadline));
}

#[test]
fn the_message_goes_in_the_turn_in_which_there_is_space() {
    let pair = Pair::by_hand(leak(Waiters::new()));
    pair.fill();
    let mut last = 0;
    let at_turn = |now| {
        last = now;
        if now == 4 {
            pair.b.run_deferred();
        }
    };
    assert!(pair.a.send_blocking(B, TYPE, &[1], Deadline::new(clock(at_turn), 1000)).is_ok());
    assert_eq!(last, 4);
}

#[test]
fn a_peer_that_dies_ends_the_waiting_and_its_next_life_takes_the_message() {
    let mut pair = Pair::by_hand(leak(Waiters::new()));
    pair.fill();
    let goodbye = |now| {
        if now == 3 {
            pair.b.goodbye();
        }
    };
    let waited = pair.a.send_blocking(B, TYPE, &7u64.to_le_bytes(), Deadline::new(clock(goodbye), 1000));
    assert_eq!(waited, Err(WaitError::PeerEnded(FIRST)));
    pair.next_life_of_b();
    let log = logged(&pair);
    let lives = |_| _ = pair.b.run_deferred();
    let sent = pair.a.send_blocking(B, TYPE, &8u64.to_le_bytes(), Deadline::new(clock(lives), 1000));
    assert!(sent.is_ok(), "{sent:?}");
    pair.settle();
    assert_eq!(*log.lock().unwrap(), [8], "the message that was refused is not received");
}

#[test]
fn what_waiting_does_not_mend_is_told_at_once() {
    let pair = Pair::by_hand(leak(Waiters::new()));
    let never = || Deadline::new(|| panic!("it waited"), 1);
    assert_eq!(pair.a.send_blocking(B, TYPE, &[0; 257], never()), Err(WaitError::Send(SendError::TooLong)));
    let nobody = pair.a.send_blocking(mk_ipi::abi::InstanceId::new(9), TYPE, &[0], never());
    assert_eq!(nobody, Err(WaitError::Send(SendError::Instance(LookupError::Unknown))));
    // The peer is removed from the table while we wait for it.
    pair.fill();
    let gone = |now| {
        if now == 2 {
            pair.a.destroy_instance(B).unwrap();
        }
    };
    let waited = pair.a.send_blocking(B, TYPE, &[0], Deadline::new(clock(gone), 1000));
    assert_eq!(waited, Err(WaitError::Send(SendError::Instance(LookupError::Destroyed))));
}

#[test]
fn each_error_says_what_it_is() {
    let errors = [WaitError::Deadline, WaitError::PeerEnded(FIRST), WaitError::Send(SendError::Full)];
    let texts = errors.map(|e| Box::<dyn std::error::Error>::from(e).to_string());
    assert!(texts[0].contains("deadline") && texts[1].contains("incarnation 1") && texts[2].contains("full"));
}
