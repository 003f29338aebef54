// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use mk_ipi_abi::net::{Takes, MAX_FRAME};

const ONE: Incarnation = Incarnation::FIRST;
const LOST: Changed = Changed { lost: true, came: false };
const CAME: Changed = Changed { lost: false, came: true };

fn offer(key: u32) -> Offer {
    let key = Key::new(key).unwrap();
    Offer { key, takes: Takes::all(), max_frame: MAX_FRAME, mac: [2, 0, 0, 0, 0, 1] }
}

/// Delivers what `from` owes to `to`, once; whether there was anything.
fn deliver(from: &mut Port, to: &mut Port, life: Incarnation) -> bool {
    let Some(said) = from.owed() else { return false };
    from.said(&said);
    let _ = to.hear(Some(life), &said.encode()).unwrap();
    true
}

/// Lets both say what they owe; how many messages that took.
fn settle(a: &mut Port, b: &mut Port, lives: [Incarnation; 2]) -> usize {
    let mut count = 0;
    while usize::from(deliver(a, b, lives[0])) + usize::from(deliver(b, a, lives[1])) != 0 {
        count += 1;
        assert!(count < 10, "they do not come to rest");
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
    assert_eq!((a.carrier(), b.carrier(), b.owed()), (None, None, None), "one alone is none");
    let _ = b.open(offer(2));
    assert!(deliver(&mut b, &mut a, ONE));
    assert_eq!((a.carrier(), b.carrier()), (Some(offer(2)), None), "the first to know that both know");
    assert!(deliver(&mut a, &mut b, ONE));
    assert_eq!(b.carrier(), Some(offer(1)));
    assert_eq!((a.owed(), b.owed()), (None, None));
    both_open();
}

#[test]
fn an_end_that_closes_takes_the_carrier_away() {
    let (mut a, mut b) = both_open();
    assert_eq!(a.close(), LOST);
    let close = a.owed().unwrap();
    assert_eq!(close, Control::Close(offer(1).key));
    assert_eq!(b.hear(Some(ONE), &close.encode()), Ok(LOST));
    a.said(&close);
    let _ = a.open(offer(3));
    settle(&mut a, &mut b, [ONE, ONE]);
    assert_eq!(b.carrier(), Some(offer(3)));
    assert_eq!(b.hear(Some(ONE), &close.encode()), Ok(Changed::default()), "of a former opening");
    assert_eq!(a.close(), LOST);
    assert_eq!(a.close(), Changed::default());
    let _ = a.open(offer(4));
    settle(&mut a, &mut b, [ONE, ONE]);
    assert_eq!(b.carrier(), Some(offer(4)), "the close that was not said is not missed");
}

#[test]
fn the_next_life_of_a_peer_opens_anew() {
    let (mut a, _) = both_open();
    assert_eq!(a.peer_is_suspect(true), LOST);
    assert_eq!(a.peer_is_suspect(false), CAME);
    let next = ONE.next();
    assert_eq!(a.peer_is_up(ONE), Changed::default(), "it is that one already");
    assert_eq!(a.peer_is_up(next), LOST);
    let mut b = Port::new();
    let _ = b.open(offer(9));
    settle(&mut a, &mut b, [ONE, next]);
    assert_eq!((a.carrier(), b.carrier()), (Some(offer(9)), Some(offer(1))));
    assert_eq!(a.peer_is_up(next), Changed::default(), "heard of before it was seen to be up");
    assert_eq!(a.peer_is_gone(Some(ONE)), Changed::default(), "its former life");
    assert_eq!(a.peer_is_gone(Some(next)), LOST);
    assert_eq!(b.peer_is_gone(None), LOST);
}

#[test]
fn a_life_that_gets_what_its_former_one_left_unread_is_not_misled() {
    // Of a peer that thinks it speaks with our former life.
    let stale = Control::Open { offer: offer(1), heard: Some(offer(2).key) };
    let mut ours = Port::new();
    let _ = ours.open(offer(5));
    assert_eq!(ours.hear(Some(ONE), &stale.encode()), Ok(Changed::default()));
    assert_eq!(ours.owed(), Some(Control::Open { offer: offer(5), heard: Some(offer(1).key) }));
}

#[test]
fn a_key_that_changes_is_a_carrier_lost_and_come() {
    let (mut a, _) = both_open();
    let said = Control::Open { offer: offer(7), heard: Some(offer(1).key) };
    assert_eq!(a.hear(Some(ONE), &said.encode()), Ok(Changed { lost: true, came: true }));
}

#[test]
fn a_bad_message_changes_nothing() {
    let (mut a, _) = both_open();
    assert_eq!(a.hear(Some(ONE), &[1; 31]), Err(ControlError::WrongSize(31)));
    assert_eq!(a.carrier(), Some(offer(2)));
}
