// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests messages whose payload is a Rust type, and messages of another length.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::panic,
    reason = "a test may panic"
)]

mod common;

use common::{leak, Pair, A, B};
use mk_ipi::abi::MessageType;
use mk_ipi::asynchronous::Waiters;
use mk_ipi::sync::{AtomicU64, Ordering::Relaxed};
use mk_ipi::typed::{TypedHandler, TypedMessage};
use mk_ipi::{EndpointExt, SendError};
use std::sync::{Arc, Mutex};
use zerocopy::{FromBytes, Immutable, IntoBytes};

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Temperature {
    sensor: u32,
    millikelvin: u32,
}

impl TypedMessage for Temperature {
    const TYPE: MessageType = MessageType(7);
}

/// A type that is longer than the longest message to these kernels (256 bytes).
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Large([u64; 33]);

impl TypedMessage for Large {
    const TYPE: MessageType = MessageType(8);
}

static SUM: AtomicU64 = AtomicU64::new(0);
static REPORTED: AtomicU64 = AtomicU64::new(0);
static TEMPERATURES: TypedHandler<Temperature> = TypedHandler::<Temperature>::new(|message, temperature| {
    assert_eq!(message.sender(), Some(A));
    SUM.fetch_add(temperature.millikelvin.into(), Relaxed);
})
.on_wrong_length(|message| _ = REPORTED.fetch_add(message.payload().len() as u64, Relaxed));

#[test]
fn a_value_arrives_and_a_message_of_another_length_is_told() {
    let pair = Pair::by_hand(leak(Waiters::new()));
    let _handle = pair.b.register_typed(&TEMPERATURES).unwrap();
    let value = Temperature { sensor: 3, millikelvin: 300_000 };
    pair.a.send_typed(B, &value).unwrap();
    for len in [0, 7, 9] {
        pair.a.send(B, Temperature::TYPE, &[1; 9][..len]).unwrap();
    }
    pair.a.send_typed(B, &value).unwrap();
    pair.settle();
    assert_eq!(SUM.load(Relaxed), 600_000, "messages of the right length, also after wrong ones");
    assert_eq!((TEMPERATURES.wrong_length(), REPORTED.load(Relaxed)), (3, 7 + 9));
    assert_eq!(pair.b.stats().unhandled, 0, "the wrong messages had a handler too");
}

#[test]
fn a_closure_may_be_a_typed_handler() {
    let pair = Pair::by_hand(leak(Waiters::new()));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let writer = seen.clone();
    let handler = TypedHandler::<Temperature, _>::new(move |_: &mk_ipi::Message<'_>, value: &Temperature| {
        writer.lock().unwrap().push(*value);
    });
    let handle = pair.b.register_typed(leak(handler)).unwrap();
    let values = [1, 2, 3].map(|sensor| Temperature { sensor, millikelvin: 0 });
    values.iter().for_each(|value| _ = pair.a.send_typed(B, value).unwrap());
    pair.settle();
    assert_eq!(*seen.lock().unwrap(), values);
    pair.b.unregister(handle).unwrap();
    pair.a.send_typed(B, &values[0]).unwrap();
    pair.settle();
    assert_eq!((seen.lock().unwrap().len(), pair.b.platform().unhandled().len()), (3, 1));
}

#[test]
fn a_value_that_is_too_long_for_the_peer_is_refused() {
    let pair = Pair::by_hand(leak(Waiters::new()));
    assert_eq!(pair.a.send_typed(B, &Large([0; 33])), Err(SendError::TooLong));
}

#[test]
fn a_message_that_no_handler_takes_is_handed_to_the_observer() {
    // The core calls `Observer::unhandled` for messages whose type has no handler. This crate does not change that.
    let pair = Pair::by_hand(leak(Waiters::new()));
    let _handle = pair.b.register_typed(leak(TypedHandler::<Temperature>::new(|_, _| ()))).unwrap();
    pair.a.send(B, MessageType(99), b"who takes this?").unwrap();
    pair.settle();
    let unhandled = pair.b.platform().unhandled();
    assert_eq!(unhandled, [(Some(A), MessageType(99), b"who takes this?".to_vec())]);
}
