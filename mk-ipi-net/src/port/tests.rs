// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use mk_ipi_abi::net::{Features, MAX_FRAME};

const ONE: Incarnation = Incarnation::FIRST;
const LOST: CarrierChange = CarrierChange { lost: true, gained: false };
const CAME: CarrierChange = CarrierChange { lost: false, gained: true };

fn offer(key: u32) -> Offer {
    let key = Key::new(key).unwrap();
    Offer { key, features: Features::all(), max_frame: MAX_FRAME, mac: [2, 0, 0, 0, 0, 1] }
}

/// Delivers the pending message of `from` to `to`. Returns whether there was one.
fn deliver(from: &mut Port, to: &mut Port, life: Incarnation) -> bool {
    let Some(message) = from.begin_send() else { return false };
    assert!(!from.end_send(true), "after one message no other is pending");
    let _ = to.receive(Some(life), &message.encode()).unwrap();
    true
}

/// Delivers messages until both ends have none pending. Returns how many there were.
fn settle(a: &mut Port, b: &mut Port, lives: [Incarnation; 2]) -> usize {
    let mut count = 0;
    while usize::from(deliver(a, b, lives[0])) + usize::from(deliver(b, a, lives[1])) != 0 {
        count += 1;
        assert!(count < 10, "the ends do not stop sending");
    }
    count
}

fn both_open() -> (Port, Port) {
    let (mut a, mut b) = (Port::new(), Port::new());
    let _ = a.open(offer(1));
    let _ = b.open(offer(2));
    settle(&mut a, &mut b, [ONE, ONE]);
    assert_eq!((a.carrier(), b.carrier()), (Some(offer(2)), Some(offer(1))));
    (a, b)
}

#[test]
fn there_is_a_carrier_when_both_have_heard_of_each_other() {
    let (mut a, mut b) = (Port::new(), Port::new());
    let _ = a.open(offer(1));
    assert!(deliver(&mut a, &mut b, ONE));
    assert_eq!((a.carrier(), b.carrier(), b.pending()), (None, None, None), "one open end gives no carrier");
    let _ = b.open(offer(2));
    assert!(deliver(&mut b, &mut a, ONE));
    assert_eq!(
        (a.carrier(), b.carrier()),
        (Some(offer(2)), None),
        "a is the first to know that both keys were received"
    );
    assert!(deliver(&mut a, &mut b, ONE));
    assert_eq!(b.carrier(), Some(offer(1)));
    assert_eq!((a.pending(), b.pending()), (None, None));
    let (mut a, mut b) = (Port::new(), Port::new());
    let _ = a.open(offer(1));
    let _ = b.open(offer(2));
    assert!(deliver(&mut a, &mut b, ONE));
    assert_eq!(b.carrier(), None, "a has not received b's key");
    both_open();
}

#[test]
fn an_end_that_closes_takes_the_carrier_away() {
    let (mut a, mut b) = both_open();
    assert_eq!(a.close(), LOST);
    let close = a.begin_send().unwrap();
    assert_eq!(close, Control::Close(offer(1).key));
    assert_eq!(b.receive(Some(ONE), &close.encode()), Ok(LOST));
    assert!(!a.end_send(true));
    let _ = a.open(offer(3));
    settle(&mut a, &mut b, [ONE, ONE]);
    assert_eq!(b.carrier(), Some(offer(3)));
    assert_eq!(
        b.receive(Some(ONE), &close.encode()),
        Ok(CarrierChange::default()),
        "the close of a former opening"
    );
    assert_eq!(a.close(), LOST);
    assert_eq!(a.close(), CarrierChange::default());
    let _ = a.open(offer(4));
    settle(&mut a, &mut b, [ONE, ONE]);
    assert_eq!(b.carrier(), Some(offer(4)), "after an open the close that was not sent is not sent");
}

#[test]
fn the_next_life_of_a_peer_opens_anew() {
    let (mut a, _) = both_open();
    assert_eq!(a.peer_is_suspect(true), LOST);
    assert_eq!(a.peer_is_suspect(false), CAME);
    let next = ONE.next();
    assert_eq!(a.peer_is_up(ONE), CarrierChange::default(), "this life was known already");
    assert_eq!(a.peer_is_up(next), LOST);
    let mut b = Port::new();
    let _ = b.open(offer(9));
    settle(&mut a, &mut b, [ONE, next]);
    assert_eq!((a.carrier(), b.carrier()), (Some(offer(9)), Some(offer(1))));
    assert_eq!(a.peer_is_up(next), CarrierChange::default(), "the offer of this life came before the event");
    assert_eq!(a.peer_is_gone(Some(ONE)), CarrierChange::default(), "a former life has ended");
    assert_eq!(a.peer_is_gone(Some(next)), LOST);
    assert_eq!(b.peer_is_gone(None), LOST);
}

#[test]
fn a_life_that_gets_what_its_former_one_left_unread_is_not_misled() {
    // An open from a peer that still has the key of this kernel's former life.
    let stale = Control::Open { offer: offer(1), heard: Some(offer(2).key) };
    let mut ours = Port::new();
    let _ = ours.open(offer(5));
    assert_eq!(ours.receive(Some(ONE), &stale.encode()), Ok(CarrierChange::default()));
    assert_eq!(ours.pending(), Some(Control::Open { offer: offer(5), heard: Some(offer(1).key) }));
}

/// Two contexts of one kernel want to send. The message of the second one would be newer, and could arrive first.
#[test]
fn an_older_message_never_follows_a_newer_one() {
    let (mut a, mut b) = (Port::new(), Port::new());
    let _ = a.open(offer(1));
    let _ = b.open(offer(2));
    let first = a.begin_send().unwrap();
    assert!(deliver(&mut b, &mut a, ONE));
    assert_eq!(a.begin_send(), None, "the first message is not sent yet");
    let _ = b.receive(Some(ONE), &first.encode()).unwrap();
    assert!(a.end_send(true), "an open is pending, as the answer to the one that came meanwhile");
    settle(&mut a, &mut b, [ONE, ONE]);
    assert_eq!((a.carrier(), b.carrier()), (Some(offer(2)), Some(offer(1))));
}

#[test]
fn a_message_that_was_not_sent_stays_due() {
    let mut a = Port::new();
    let _ = a.open(offer(1));
    let message = a.begin_send();
    assert!(message.is_some() && !a.end_send(false), "a failed send is not tried again at once");
    assert_eq!(a.begin_send(), message);
    assert!(!a.end_send(true));
    assert_eq!(a.begin_send(), None);
}

/// For one end the link has ended, and for the other end it has not.
#[test]
fn a_link_that_ended_for_one_side_alone_comes_back() {
    let (mut a, mut b) = both_open();
    assert_eq!(a.peer_is_gone(None), LOST);
    settle(&mut a, &mut b, [ONE, ONE]);
    assert_eq!((a.carrier(), b.carrier()), (Some(offer(2)), Some(offer(1))));
}

#[test]
fn a_key_that_changes_is_a_carrier_lost_and_come() {
    let (mut a, _) = both_open();
    let message = Control::Open { offer: offer(7), heard: Some(offer(1).key) };
    assert_eq!(a.receive(Some(ONE), &message.encode()), Ok(CarrierChange { lost: true, gained: true }));
}

#[test]
fn a_bad_message_changes_nothing() {
    let (mut a, _) = both_open();
    assert_eq!(a.receive(Some(ONE), &[1; 31]), Err(ControlError::WrongSize(31)));
    assert_eq!(a.carrier(), Some(offer(2)));
}
