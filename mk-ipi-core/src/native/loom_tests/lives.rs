// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lives of the sender (SPEC N-1, N-9).

use super::*;
use crate::platform::PeerEvent::{Began, Quarantined};
use mk_ipi_abi::native::{Breach, Hello, Phase, StampError};

/// A region in which the words of the handshake, the words in `more` and the tags of the first two lines are live.
fn region(more: &[usize]) -> Region {
    let words = [control::ANSWER, control::BASE, control::CREDIT].map(control_word);
    Region::new(&[&[receiver::ARMED, header_word(header::HELLO), tag(0), tag(1)], &words[..], more].concat())
}

/// Sends message 9. Returns whether it was sent; it is not if this life is not answered yet.
fn say(sender: &Sender<Shared>) -> bool {
    let sent = send(sender, 9, TWO_LINES);
    assert!(sent.is_ok() || sent == Err(Unsent::Unanswered), "{sent:?}");
    sent.is_ok()
}

/// Continues the handshake until it is complete, sends message 9 unless it was sent before, and drains until all messages are
/// received.
fn go_on(sender: &Sender<Shared>, mut sent: bool, kernel: &Kernel, seen: &mut Seen) {
    for _ in 0..3 {
        kernel.run(seen);
        if sender.open() == Opening::Open {
            sent = sent || say(sender);
        }
    }
    assert!(sent, "the life was not answered, so message 9 was not sent");
    kernel.run(seen);
}

/// What a receiver sees of message 1 of the first life, and of the second life, which sends message 9.
const THE_NEXT_LIFE: [Step; 3] = [Step::Message(1), Step::Event(Began(life(2))), Step::Message(9)];

/// lane-hello, lane-answer: the receiver takes the messages of the former life before it answers the new one. After the answer,
/// it reads no line until the new life has cleaned the lines.
#[test]
fn loom_native_a_new_life_waits_for_its_answer() {
    next_life();
}
fn next_life() {
    check(|first| {
        let (former, kernel) = region(&[]).linked();
        let begins = move || {
            post(&former, 1, TWO_LINES).unwrap();
            let sender = former.region.sender(2);
            let said = sender.open();
            assert_ne!(said, Opening::Open, "a life cannot send before its `Clean` is answered");
            (sender, said == Opening::HelloSent)
        };
        let ((sender, _), mut seen) = both(first, begins, drains(&kernel, 1));
        go_on(&sender, false, &kernel, &mut seen);
        assert_eq!(seen.steps, THE_NEXT_LIFE);
    });
}

/// As above, but the former life died before the receiver answered its hello.
#[test]
fn loom_native_a_life_that_was_never_heard_is_handed_on() {
    check(|first| {
        let region = region(&[]);
        let (former, kernel) = (region.sender(1), region.receiver(1, false));
        post(&former, 1, TWO_LINES).unwrap();
        let (sender, mut seen) = both(first, move || region.sender(2), drains(&kernel, 1));
        go_on(&sender, false, &kernel, &mut seen);
        let steps = seen.steps.strip_prefix(&[Step::Event(Began(life(1)))]).unwrap_or(&seen.steps);
        assert_eq!(steps, THE_NEXT_LIFE);
    });
}

/// lane-hello, lane-answer: after a life has cleaned the lines, the receiver takes only messages of this life, from `BASE` on.
#[test]
fn loom_native_lines_are_read_when_they_were_cleaned() {
    cleaned();
}
fn cleaned() {
    check(|first| {
        let region = region(&[]);
        let (former, kernel) = region.linked();
        // A line of the former life with the tag that the receiver expects at the position where the next life begins.
        let base = former.end.region.geometry().lines().into();
        region.store(tag(base), geometry().first_tag(base).to_word(7));
        let sender = region.sender(2);
        kernel.run(&mut Seen::default());
        let opens = {
            let sender = sender.clone();
            move || {
                assert_eq!(sender.open(), Opening::HelloSent);
                sender.open() == Opening::Open && say(&sender)
            }
        };
        let (sent, mut seen) = both(first, opens, drains(&kernel, 1));
        go_on(&sender, sent, &kernel, &mut seen);
        assert_eq!(seen.steps, THE_NEXT_LIFE[1..]);
    });
}

/// The first life in a lane also cleans the lines, because the memory can hold any values before.
#[test]
fn loom_native_a_first_life_has_cleaned_its_lines() {
    check(|first| {
        let region = region(&[]);
        region.store(tag(0), geometry().first_tag(0).to_word(7));
        let kernel = region.receiver(1, false);
        let begins = move || {
            let sender = region.sender(2);
            assert!(say(&sender));
            sender
        };
        let (_sender, mut seen) = both(first, begins, drains(&kernel, 1));
        kernel.run(&mut seen);
        assert_eq!(seen.steps, THE_NEXT_LIFE[1..]);
    });
}

/// lane-first: the hello of a former life is cleared while the receiver answers that hello. Another life then begins in phase
/// `First`. Either that life sees the answer to the former one, or the receiver sees the hello of the new one.
#[test]
fn loom_native_a_first_life_after_others() {
    after_first();
    after_begin();
}
fn after_first() {
    first_again(Phase::First);
}
fn after_begin() {
    first_again(Phase::Begin);
}
fn first_again(phase: Phase) {
    check(move |first| {
        // The former life sent nothing. So the model does not need the other lines.
        let region = region(&[]).with((2..LINES).map(tag), || Shared::Ignored);
        let kernel = region.receiver(1, false);
        let hello = Hello::after(0, 0, life(1)).in_phase(phase);
        region.store(header_word(header::HELLO), hello.to_word());
        let begins = move || {
            region.store(header_word(header::HELLO), 0);
            let sender = region.sender(2);
            let sent = say(&sender);
            (sender, sent)
        };
        let ((sender, sent), mut seen) = both(first, begins, drains(&kernel, 1));
        go_on(&sender, sent, &kernel, &mut seen);
        // Other steps can come before. The receiver may have put the former life in force. The new life may have begun twice: as
        // `First`, and again with `Begin` after it saw the answer to the former life. Its `First` can count as a breach. Its
        // later `Clean` ends the quarantine.
        let at = seen.steps.len() - 2;
        assert_eq!(seen.steps[at..], THE_NEXT_LIFE[1..]);
        let may_be = [Began(life(1)), Began(life(2)), Quarantined(Breach::Hello)].map(Step::Event);
        assert!(seen.steps[..at].iter().all(|step| may_be.contains(step)), "{:?}", seen.steps);
    });
}

/// message-published: a CPU of the former life publishes a message while the next life begins. The receiver takes this message
/// before it answers the next life, or never.
#[test]
fn loom_native_a_former_life_publishes_late() {
    late();
}
fn late() {
    check(|first| {
        let (former, kernel) = region(&[]).linked();
        let region = former.region.clone();
        let posts = move || _ = post(&former, 1, TWO_LINES).unwrap();
        let begins = move || both(first, posts, move || region.sender(2)).1;
        let (sender, mut seen) = both(first, begins, drains(&kernel, 1));
        go_on(&sender, false, &kernel, &mut seen);
        assert!(seen.steps == THE_NEXT_LIFE || seen.steps == THE_NEXT_LIFE[1..], "{:?}", seen.steps);
    });
}

/// lane-prepared: two CPUs of the sender find the answers to its hello. One CPU at a time continues the handshake. The other one
/// can send only after the handshake is complete.
#[test]
fn loom_native_two_cpus_find_the_answer() {
    prepared();
}
fn prepared() {
    check(|first| {
        let (former, kernel) = region(&[tag(2), tag(3)]).linked();
        let sender = former.region.sender(2);
        kernel.run(&mut Seen::default());
        let opens = |n: u8, tries: usize| {
            let sender = sender.clone();
            move || {
                (0..tries).for_each(|_| _ = sender.open());
                let sent = send(&sender, n, TWO_LINES);
                assert!(sent.is_ok() || sent == Err(Unsent::Unanswered));
                let (base, tail) = sender.positions();
                assert!(tail >= base && (base == LINES) == (tail != 0), "{base} {tail}");
                sent.is_ok()
            }
        };
        let cpus = (opens(1, 2), opens(2, 1));
        let receives = drains(&kernel, 1);
        let (sent, mut seen) = both(first, move || both(first, cpus.0, cpus.1), receives);
        kernel.run(&mut seen);
        let mut messages = seen.messages();
        messages.sort_unstable();
        let sent: Vec<_> = [(sent.0, 1), (sent.1, 2)].iter().filter(|s| s.0).map(|s| s.1).collect();
        assert_eq!(messages, sent);
    });
}

/// region-stamped: while a region is created, a reader finds no stamp or the complete stamp.
#[test]
fn loom_native_a_region_is_found_whole_or_not_at_all() {
    stamped();
}
fn stamped() {
    check(|first| {
        let region = Region::blank();
        let creates = {
            let region = region.clone();
            move || create(&region, range(), geometry()).unwrap()
        };
        let maps = move || match PeerRegion::map(&region, range(), SENDER) {
            Ok(found) => assert_eq!(found.geometry(), geometry()),
            Err(e) => {
                assert!(matches!(e, RegionError::Stamp(StampError::NoStamp { found: 0, .. })), "{e:?}");
            }
        };
        both(first, creates, maps);
    });
}

twins! {
    loom_native_broken_begin: next_life without "lane-hello (release)", 0;
    loom_native_broken_clean: cleaned without "lane-hello (release)", 1;
    loom_native_broken_hello: next_life without "lane-hello (acquire)", 0;
    loom_native_broken_answer: next_life without "lane-answer (release)", 0;
    loom_native_broken_opening: next_life without "lane-answer (acquire)", 0;
    loom_native_broken_fence: after_first without "lane-first (fence)", 0;
    loom_native_broken_unheard: after_begin without "lane-first (fence)", 1;
    loom_native_broken_answered: after_first without "lane-first (fence)", 2;
    loom_native_broken_hand_on: late without "message-published (acquire)", 3;
    loom_native_broken_preparing: prepared without "lane-prepared (release)", 0;
    loom_native_broken_prepared: prepared without "lane-prepared (acquire)", 0;
    loom_native_broken_positions: prepared without "lane-prepared (acquire)", 1;
    loom_native_broken_stamp: stamped without "region-stamped (release)", 0;
    loom_native_broken_stamp_look: stamped without "region-stamped (acquire)", 0;
}
