// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who has a region mapped says so, and when it has not any more (SPEC N-17).

use super::*;

fn word() -> usize {
    header_word(header::ATTACHED)
}

/// lane-attached: who finds a region mapped by nobody finds everything that was stored there.
#[test]
fn loom_native_who_has_detached_stores_no_more() {
    detached();
}
fn detached() {
    check(|first| {
        let region = Region::new(&[word()]);
        let sender = Sender::begin(PeerRegion::map(&region, range(), SENDER).unwrap(), life(1));
        let kept = region.clone();
        let at_sender = move || {
            // No flush: its fence would order more than a detachment may count on.
            sender.send(MessageType(1), 1, &[1], swap).unwrap();
            drop(sender.into_region());
            drop(kept);
        };
        let at_host = move || {
            let mut mapped = false;
            mapped_by(&region, range(), geometry(), |_, _| mapped = true).unwrap();
            if !mapped {
                // It goes back to the pool, and is anybody's.
                region.store(tag(0) + 1, 7);
            }
        };
        both(first, at_sender, at_host);
    });
}

/// lane-followed: who finds that a sender has followed the directory finds what that did before.
#[test]
fn loom_native_who_has_followed_has_done_so() {
    followed();
}
fn followed() {
    check(|first| {
        let region = Region::new(&[word()]);
        let (sender, kernel) = (region.sender(1), region.receiver(1, false));
        let done = Arc::new(Shared::Owned(UnsafeCell::new(0)));
        let at_sender = {
            let done = done.clone();
            move || {
                done.store(1, Ordering::Relaxed);
                sender.follow(5);
            }
        };
        let at_receiver = move || {
            if kernel.own.attached().any(|(_, attached)| attached.has_followed(5)) {
                assert_eq!(done.load(Ordering::Relaxed), 1);
            }
        };
        both(first, at_sender, at_receiver);
    });
}

twins! {
    loom_native_broken_detach: detached without "lane-attached (release)", 0;
    loom_native_broken_pool: detached without "lane-attached (acquire)", 0;
    loom_native_broken_follow: followed without "lane-followed (release)", 0;
    loom_native_broken_behind: followed without "lane-followed (acquire)", 0;
}
