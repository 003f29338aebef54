// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel writes down behind its region, so that it outlives it: how far its streams are. No part of the protocol.

use crate::KERNELS;
use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::{InstanceId, PhysAddr, PhysRange};
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_process::{Machine, Map};

/// Gaps that are kept until the supervisor has looked at them.
const GAPS: usize = 512;
/// Words of what is written down about one peer.
const WORDS: usize = 8 + 2 * GAPS;
/// Bytes of a journal.
const LEN: u64 = 8 * (WORDS * KERNELS) as u64;

/// Bytes of a pool: a region, and the journal behind it.
pub fn pool() -> u64 {
    geometry().total_size() + LEN.next_multiple_of(4096)
}

/// The regions: lanes short enough to be full at times.
pub fn geometry() -> Geometry {
    Geometry::new(KERNELS as u32, 64, 256).unwrap()
}

/// A word of a journal.
#[derive(Clone, Copy)]
pub enum Word {
    /// Behind the last message to the peer whose sending began.
    Begun,
    /// Behind the last whose sending ended.
    Ended,
    /// Behind the last message of the peer whose handler began.
    Handling,
    /// Behind the last whose handler ended: the next that must come.
    Handled,
    /// Gaps in what came.
    Gaps,
    /// Messages that came again, or out of order.
    Doubled,
    /// Messages that were not what was sent.
    Torn,
}

/// One kernel's journal.
pub struct Journal(Map);

impl Journal {
    /// That of kernel `k`.
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

    /// Messages `from..to` of the peer did not come.
    pub fn add_gap(&self, peer: usize, from: u64, to: u64) {
        let nth = self.get(peer, Word::Gaps);
        let [first, last] = self.gap_at(peer, nth) else { unreachable!() };
        first.store(from, Ordering::SeqCst);
        last.store(to, Ordering::SeqCst);
        self.set(peer, Word::Gaps, nth + 1);
    }

    /// The `nth` gap.
    pub fn gap(&self, peer: usize, nth: u64) -> std::ops::Range<u64> {
        assert!(self.get(peer, Word::Gaps) - nth <= GAPS as u64, "more gaps than are kept");
        let [first, last] = self.gap_at(peer, nth) else { unreachable!() };
        first.load(Ordering::SeqCst)..last.load(Ordering::SeqCst)
    }

    /// All that this kernel has sent and handled.
    pub fn progress(&self) -> u64 {
        (0..KERNELS).map(|peer| self.get(peer, Word::Ended) + self.get(peer, Word::Handled)).sum()
    }

    /// Goes on where a former life was stopped. A number whose sending began is not used again: had it been published, it would come
    /// twice. Nor is a message handled again whose handler began.
    pub fn recover(&self) {
        for peer in 0..KERNELS {
            self.set(peer, Word::Ended, self.get(peer, Word::Begun));
            self.set(peer, Word::Handled, self.get(peer, Word::Handling));
        }
    }
}

/// Bytes of message `n` from one kernel to another: each can be foretold.
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
