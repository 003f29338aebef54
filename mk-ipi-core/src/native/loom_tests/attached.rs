// SPDX-License-Identifier: MIT OR Apache-2.0
//! The word `ATTACHED`: a sender has the region mapped, has followed the directory, or has detached (SPEC N-17).

use super::*;

/// The index of `ATTACHED`.
fn word() -> usize {
    header_word(header::ATTACHED)
}

/// lane-attached: a host that finds 0 in `ATTACHED` also sees all stores that the sender made to the region before. So the host
/// can use the memory again.
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
            // No flush, because its fence would order these stores even if the release at the detachment were missing.
            sender.send(MessageType(1), 1, &[1], swap).unwrap();
            drop(sender.into_region());
            drop(kept);
        };
        let at_host = move || {
            let mut mapped = false;
            mapped_by(&region, range(), geometry(), |_, _| mapped = true).unwrap();
            if !mapped {
                // The memory is free for any use. Loom fails the model if the sender's stores can come after this one.
                region.store(tag(0) + 1, 7);
            }
        };
        both(first, at_sender, at_host);
    });
}

/// lane-followed: a host that finds that a sender has followed the directory also sees all stores that the sender made before.
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
