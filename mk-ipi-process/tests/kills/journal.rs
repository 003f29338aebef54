// SPDX-License-Identifier: MIT OR Apache-2.0
//! A journal that each kernel keeps in its pool, after its region: which messages it has sent and handled. The journal stays when
//! the kernel dies, and the kernel's next life continues it. It is not part of the protocol.

use crate::KERNELS;
use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysRange};
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_process::{Machine, Map};

/// How many gaps the journal keeps for each peer. A later gap replaces the oldest one.
const GAPS: usize = 512;
/// How many words the journal has for each peer.
const WORDS: usize = 8 + 2 * GAPS;
/// Size of a journal in bytes.
const LEN: u64 = 8 * (WORDS * KERNELS) as u64;

/// Size of a pool in bytes: a region, and the journal after it.
pub fn pool() -> u64 {
    geometry().total_size() + LEN.next_multiple_of(4096)
}

/// The geometry of the regions. The lanes are so short that they are sometimes full.
pub fn geometry() -> Geometry {
    Geometry::new(KERNELS as u32, 64, 256).unwrap()
}

/// A word of a journal.
#[derive(Clone, Copy)]
pub enum Word {
    /// The number after the last message to the peer whose sending has begun.
    Begun,
    /// The number after the last message to the peer whose sending has ended.
    Ended,
    /// The number after the last message of the peer whose handler has begun.
    Handling,
    /// The number after the last message of the peer whose handler has ended. The message with this number must come next.
    Handled,
    /// How many gaps there were in the numbers of the received messages.
    Gaps,
    /// How many messages were received again, or after a later one.
    Doubled,
    /// How many messages were received with other bytes than were sent.
    Torn,
}

/// One kernel's journal.
pub struct Journal(Map);

impl Journal {
    /// The journal of kernel `k`.
    pub fn of(machine: &Machine, k: usize, writable: bool) -> Self {
        let pool = machine.pool(InstanceId::new(k as u8)).unwrap();
        let range = PhysRange::new(PhysAddr(pool.start().0 + geometry().total_size()), LEN).unwrap();
        Self(machine.map(range, writable).unwrap())
    }

    fn word(&self, peer: usize, word: Word) -> &AtomicU64 {
        &self.0.words()[peer * WORDS + word as usize]
    }

    pub fn get(&self, peer: usize, word: Word) -> u64 {
        self.word(peer, word).load(Ordering::SeqCst)
    }

    pub fn set(&self, peer: usize, word: Word, value: u64) {
        self.word(peer, word).store(value, Ordering::SeqCst);
    }

    fn gap_at(&self, peer: usize, nth: u64) -> &[AtomicU64] {
        let at = peer * WORDS + 8 + 2 * (nth as usize % GAPS);
        &self.0.words()[at..at + 2]
    }

    /// Notes that messages `from..to` of the peer were not received.
    pub fn add_gap(&self, peer: usize, from: u64, to: u64) {
        let nth = self.get(peer, Word::Gaps);
        let [first, last] = self.gap_at(peer, nth) else { unreachable!() };
        first.store(from, Ordering::SeqCst);
        last.store(to, Ordering::SeqCst);
        self.set(peer, Word::Gaps, nth + 1);
    }

    /// The numbers of the messages in the `nth` gap. Fails if a later gap has replaced it.
    pub fn gap(&self, peer: usize, nth: u64) -> std::ops::Range<u64> {
        assert!(self.get(peer, Word::Gaps) - nth <= GAPS as u64, "a gap was replaced before it was checked");
        let [first, last] = self.gap_at(peer, nth) else { unreachable!() };
        first.load(Ordering::SeqCst)..last.load(Ordering::SeqCst)
    }

    /// How many messages this kernel has sent and handled.
    pub fn progress(&self) -> u64 {
        (0..KERNELS).map(|peer| self.get(peer, Word::Ended) + self.get(peer, Word::Handled)).sum()
    }

    /// Prepares the journal for a new life. A number whose sending had begun is not used again, because the message may have been
    /// published. A message whose handler had begun counts as handled, because it is not handled again.
    pub fn recover(&self) {
        for peer in 0..KERNELS {
            self.set(peer, Word::Ended, self.get(peer, Word::Begun));
            self.set(peer, Word::Handled, self.get(peer, Word::Handling));
        }
    }
}

/// The bytes of message `n` from kernel `from` to kernel `to`. The receiver computes them too, and compares.
pub fn payload(from: usize, to: usize, n: u64) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (from * KERNELS + to) as u64;
    let len = 8 + (n * 31 % 200) as usize;
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize_with(len, || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    bytes
}
