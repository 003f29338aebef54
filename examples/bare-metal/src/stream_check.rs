// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the numbers of an endless stream: which came, which were left out, which came twice or late.
//!
//! Hosts outside of this crate use this file too. So it uses only `mk_ipi_abi` and mk-ipi's atomics, and does not
//! panic.

use mk_ipi_abi::Incarnation;
use mk_ipi_core::sync::{AtomicU64, Ordering};

/// So many numbers below the highest one are remembered, whether they came or not.
const WINDOW: u64 = 64;

/// The stream of one sender. The code that drains calls [`take`](Self::take), [`took_torn`](Self::took_torn) and
/// [`began`](Self::began), one at a time. Any code may read.
#[derive(Debug)]
pub struct StreamCheck {
    /// The sender's life, 0 before the first.
    life: AtomicU64,
    /// The number after the highest one of this life that came.
    next: AtomicU64,
    /// One bit for each of the [`WINDOW`] numbers below `next`, set if it came. Bit 0 is for the highest number.
    seen: AtomicU64,
    first: AtomicU64,
    received: AtomicU64,
    former: AtomicU64,
    lost: AtomicU64,
    torn: AtomicU64,
    doubled: AtomicU64,
    disordered: AtomicU64,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Whole messages, each counted once.
    pub received: u64,
    /// Of these, the ones that former lives of the sender sent.
    pub former: u64,
    /// Number of the first message that came, 0 if none did.
    pub first: u64,
    /// Numbers that were left out and did not come later.
    pub lost: u64,
    /// Torn messages.
    pub torn: u64,
    /// Messages that came before, or are too old to tell.
    pub doubled: u64,
    /// Messages that came after one with a higher number. They count as received, too.
    pub disordered: u64,
}

impl StreamCheck {
    /// Nothing came; number 0 is expected.
    #[allow(clippy::new_without_default, reason = "for a `static`")]
    pub const fn new() -> Self {
        let [life, next, seen, first, received] = [const { AtomicU64::new(0) }; 5];
        let [former, lost, torn, doubled, disordered] = [const { AtomicU64::new(0) }; 5];
        Self { life, next, seen, first, received, former, lost, torn, doubled, disordered }
    }

    /// Notes that a whole message with this number came.
    pub fn take(&self, number: u64) {
        let next = self.next.load(Ordering::Relaxed);
        if get(&self.received) == 0 {
            self.first.store(number, Ordering::Relaxed);
        }
        match number.checked_sub(next) {
            Some(gap) => self.take_next(number, gap),
            None => self.take_late(next.wrapping_sub(number).wrapping_sub(1)),
        }
    }

    /// Notes a message whose number is `gap` more than expected.
    fn take_next(&self, number: u64, gap: u64) {
        let passed = u32::try_from(gap).ok().and_then(|gap| gap.checked_add(1));
        let seen = passed.and_then(|passed| get(&self.seen).checked_shl(passed)).unwrap_or(0);
        self.seen.store(seen | 1, Ordering::Relaxed);
        self.next.store(number.wrapping_add(1), Ordering::Relaxed);
        add(&self.lost, gap);
        add(&self.received, 1);
    }

    /// Notes a message whose number is `back` less than the highest one.
    fn take_late(&self, back: u64) {
        let bit = if back < WINDOW { 1u64 << back } else { 0 };
        let seen = get(&self.seen);
        if bit == 0 || seen & bit != 0 {
            return add(&self.doubled, 1);
        }
        self.seen.store(seen | bit, Ordering::Relaxed);
        self.lost.store(get(&self.lost).saturating_sub(1), Ordering::Relaxed);
        add(&self.received, 1);
        add(&self.disordered, 1);
    }

    /// Notes a message whose content does not match its checksum.
    pub fn took_torn(&self) {
        add(&self.torn, 1);
    }

    /// What comes from now on was sent in this life of the sender. If it is another life than before, it begins at
    /// number 0.
    pub fn began(&self, life: Incarnation) {
        let life = u64::from(life.get());
        if self.life.swap(life, Ordering::Relaxed) != life {
            self.expect_anew();
        }
    }

    /// The sender is gone. Whatever number its next life has, it counts as another life.
    pub fn ended(&self) {
        self.life.store(0, Ordering::Relaxed);
        self.expect_anew();
    }

    fn expect_anew(&self) {
        self.former.store(get(&self.received), Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        self.seen.store(0, Ordering::Relaxed);
    }

    /// Forgets everything except the sender's life: number 0 is expected. No message may be on its way.
    pub fn reset(&self) {
        let Self { life: _, next, seen, first, received, former, lost, torn, doubled, disordered } = self;
        for word in [next, seen, first, received, former, lost, torn, doubled, disordered] {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// What was found.
    pub fn counts(&self) -> Counts {
        Counts {
            received: get(&self.received),
            former: get(&self.former),
            first: get(&self.first),
            lost: get(&self.lost),
            torn: get(&self.torn),
            doubled: get(&self.doubled),
            disordered: get(&self.disordered),
        }
    }
}

fn get(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

/// Only the code that drains adds, so no locked instruction is needed.
fn add(word: &AtomicU64, n: u64) {
    word.store(get(word).wrapping_add(n), Ordering::Relaxed);
}
