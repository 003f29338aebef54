// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the sequence numbers of an endless stream: counts those that came, were skipped, came twice, or came late.
//!
//! The module in examples/linux includes this file, too. So it uses only `mk_ipi_abi` and the atomics of mk-ipi, and does not
//! panic.

use mk_ipi_abi::Incarnation;
use mk_ipi_core::sync::{AtomicU64, Ordering};

/// The check knows for this number of sequence numbers whether each of them came. The last of them is the highest one that came.
const WINDOW: u64 = 64;

/// The check of one sender's stream. Only the code that drains calls [`take`](Self::take), [`took_torn`](Self::took_torn) and
/// [`began`](Self::began), never two of them at the same time. Any code may call [`counts`](Self::counts).
#[derive(Debug)]
pub struct StreamCheck {
    /// The sender's incarnation. 0 before the first one is known.
    life: AtomicU64,
    /// One more than the highest sequence number of this life that came.
    next: AtomicU64,
    /// One bit for each of the [`WINDOW`] sequence numbers below `next`. It is set if that number came. Bit 0 is for `next - 1`.
    seen: AtomicU64,
    first: AtomicU64,
    received: AtomicU64,
    former: AtomicU64,
    lost: AtomicU64,
    torn: AtomicU64,
    doubled: AtomicU64,
    disordered: AtomicU64,
}

/// The results of the check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The number of intact messages, each counted once.
    pub received: u64,
    /// The number of those messages that former lives of the sender sent.
    pub former: u64,
    /// The sequence number of the first message that came. 0 if none came.
    pub first: u64,
    /// The number of sequence numbers that were skipped, and did not come later.
    pub lost: u64,
    /// The number of torn messages.
    pub torn: u64,
    /// The number of messages that came again. Messages whose numbers are below the window are counted here, too.
    pub doubled: u64,
    /// The number of messages that came after one with a higher sequence number. `received` contains them, too.
    pub disordered: u64,
}

impl StreamCheck {
    /// The state before the first message: sequence number 0 is expected.
    #[allow(clippy::new_without_default, reason = "for a `static`")]
    pub const fn new() -> Self {
        let [life, next, seen, first, received] = [const { AtomicU64::new(0) }; 5];
        let [former, lost, torn, doubled, disordered] = [const { AtomicU64::new(0) }; 5];
        Self { life, next, seen, first, received, former, lost, torn, doubled, disordered }
    }

    /// Counts an intact message with this sequence number.
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

    /// Counts a message whose sequence number is `gap` above the expected one.
    fn take_next(&self, number: u64, gap: u64) {
        let passed = u32::try_from(gap).ok().and_then(|gap| gap.checked_add(1));
        let seen = passed.and_then(|passed| get(&self.seen).checked_shl(passed)).unwrap_or(0);
        self.seen.store(seen | 1, Ordering::Relaxed);
        self.next.store(number.wrapping_add(1), Ordering::Relaxed);
        add(&self.lost, gap);
        add(&self.received, 1);
    }

    /// Counts a message whose sequence number is `back` below the highest one that came.
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

    /// Counts a message with a wrong checksum.
    pub fn took_torn(&self) {
        add(&self.torn, 1);
    }

    /// Sets the life of the sender to which the next messages belong. If it is a new life, its sequence numbers begin at 0.
    pub fn began(&self, life: Incarnation) {
        let life = u64::from(life.get());
        if self.life.swap(life, Ordering::Relaxed) != life {
            self.expect_anew();
        }
    }

    /// Called when the sender was removed. The next life counts as a new one, even if it has the same incarnation.
    pub fn ended(&self) {
        self.life.store(0, Ordering::Relaxed);
        self.expect_anew();
    }

    fn expect_anew(&self) {
        self.former.store(get(&self.received), Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        self.seen.store(0, Ordering::Relaxed);
    }

    /// Sets everything except the sender's life to the initial state. Sequence number 0 is expected. No message may be on its
    /// way.
    pub fn reset(&self) {
        let Self { life: _, next, seen, first, received, former, lost, torn, doubled, disordered } = self;
        for word in [next, seen, first, received, former, lost, torn, doubled, disordered] {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// The results so far.
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

/// Adds `n` to a counter. Only the code that drains changes counters, so the addition need not be atomic.
fn add(word: &AtomicU64, n: u64) {
    word.store(get(word).wrapping_add(n), Ordering::Relaxed);
}
