// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sender's end of a lane: take a position, fill its cell, publish it, ring if the receiver wants it.
//!
//! Several CPUs of one instance share the lane, interrupt and NMI handlers included: a position is taken by one
//! compare-and-swap in private memory, and nothing waits for whoever holds another.

use super::lane::{Cell, PeerRegion};
use crate::sync::{fence, AtomicU64, Ordering, Word};
use mk_ipi_abi::native::{cell, control, header, receiver, Bell, CellAbout, MAX_LEN};
use mk_ipi_abi::{MessageType, PhysCpuId, Vector};

/// Why a message was not sent; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The receiver has not read enough yet.
    Full,
    /// The receiver has not acknowledged this life of ours yet.
    Unanswered,
    /// The receiver holds that we broke the protocol.
    Quarantined,
    /// The receiver's own words contradict each other.
    Broken,
    /// More CPUs take positions than this one can keep up with.
    Contended,
    /// More than [`MAX_LEN`] bytes.
    TooLong,
}

/// `tail` while no position can be taken: the life was not acknowledged yet.
pub(super) const UNANSWERED: u64 = u64::MAX;
/// `tail` while one CPU prepares the lane for the life that was acknowledged.
pub(super) const PREPARING: u64 = u64::MAX - 1;
/// Tries of the compare-and-swap: each that fails means that another CPU's succeeded.
const TRIES: usize = 64;

/// One instance's end of the lane that it has in another's region.
#[derive(Debug)]
pub(crate) struct Sender<W> {
    /// The next position to take, or one of the marks above.
    pub(super) tail: AtomicU64,
    /// What `CREDIT` was when it was last looked at: never beyond `tail`.
    pub(super) credit: AtomicU64,
    /// The position at which this life began.
    pub(super) base: AtomicU64,
    pub(super) hello: u64,
    pub(super) region: PeerRegion<W>,
}

impl<W: Word> Sender<W> {
    /// Gives the region back. The lane stays as it is: what was published will be read.
    pub(crate) fn into_region(self) -> PeerRegion<W> {
        self.region
    }

    /// Sends a message (SPEC N-8). True if the receiver is to be rung for it.
    #[inline]
    pub(crate) fn send(&self, msg_type: MessageType, cpu: u16, payload: &[u8]) -> Result<bool, Unsent> {
        let (head, word) = self.fill(msg_type, cpu, payload)?;
        // SYNC POINT: message-published (release); armed (fence)
        head.publish(word);
        Ok(self.is_wanted())
    }

    /// As `send`, but leaves it to [`flush`](Self::flush) to find out whether the receiver is to be rung.
    #[inline]
    pub(crate) fn post(&self, msg_type: MessageType, cpu: u16, payload: &[u8]) -> Result<(), Unsent> {
        let (head, word) = self.fill(msg_type, cpu, payload)?;
        // SYNC POINT: message-published (release)
        head.store(word, Ordering::Release);
        Ok(())
    }

    /// True if the receiver is to be rung for what was posted.
    pub(crate) fn flush(&self) -> bool {
        // SYNC POINT: armed (fence)
        fence(Ordering::SeqCst);
        self.is_wanted()
    }

    /// Takes a position and fills its cell but for the head; gives the head, and what publishes it.
    #[inline(always)]
    fn fill(&self, msg_type: MessageType, cpu: u16, payload: &[u8]) -> Result<(&W, u64), Unsent> {
        let len = u16::try_from(payload.len()).ok().filter(|&len| usize::from(len) <= MAX_LEN);
        let len = len.ok_or(Unsent::TooLong)?;
        let position = self.claim()?;
        // Each index is in the lane (`PeerRegion::map`).
        let cell = self.region.cell(position).ok_or(Unsent::Broken)?;
        store_payload(cell, payload);
        let [head, about, ..] = cell;
        about.store(CellAbout { len, cpu }.to_word(), Ordering::Relaxed);
        self.region.set(header::SENT, position.wrapping_add(1));
        let lap = self.region.geometry.lap(position);
        Ok((head, u64::from(lap) | (u64::from(msg_type.0) << 32)))
    }

    /// Takes the next position, if the receiver has read its cell (SPEC N-8).
    #[inline(always)]
    fn claim(&self) -> Result<u64, Unsent> {
        let cells = u64::from(self.region.geometry.cells());
        for _ in 0..TRIES {
            // SYNC POINT: lane-prepared (acquire)
            let tail = self.tail.load(Ordering::Acquire);
            // SYNC POINT: credit-cached (acquire)
            let credit = self.credit.load(Ordering::Acquire);
            if tail >= PREPARING {
                self.prepare(tail)?;
            } else if tail.wrapping_sub(credit) >= cells {
                self.refresh(credit, cells)?;
            } else if self.tail.compare_exchange(tail, tail.wrapping_add(1), Ordering::Relaxed).is_ok() {
                return Ok(tail);
            }
        }
        Err(Unsent::Contended)
    }

    /// Looks how far the receiver has read.
    #[cold]
    fn refresh(&self, known: u64, cells: u64) -> Result<(), Unsent> {
        // SYNC POINT: lane-credit (acquire)
        let credit = self.region.control(control::CREDIT, Ordering::Acquire);
        // Loaded behind the credit: whatever was read was taken before.
        let tail = self.tail.load(Ordering::Relaxed);
        if credit < known || credit > tail {
            return Err(Unsent::Broken);
        }
        // SYNC POINT: credit-cached (release)
        self.credit.fetch_max(credit, Ordering::Release);
        if tail.wrapping_sub(credit) < cells {
            return Ok(());
        }
        self.region.set(header::FULL, self.region.own(header::FULL).wrapping_add(1));
        match self.region.control(control::BREACH, Ordering::Relaxed) {
            0 => Err(Unsent::Full),
            _ => Err(Unsent::Quarantined),
        }
    }

    /// Whether the receiver is to be rung; says who has something for it, if nobody has (SPEC N-10).
    #[inline(always)]
    fn is_wanted(&self) -> bool {
        if let Some(hint) = self.region.hint() {
            let bit = 1u64 << (self.region.lane & 63);
            if hint.load(Ordering::SeqCst) & bit == 0 {
                hint.fetch_or(bit, Ordering::SeqCst);
                // SYNC POINT: armed (fence)
                fence(Ordering::SeqCst);
            }
        }
        // SYNC POINT: bell (acquire). SeqCst, and the hint too: `publish` may be a swap, which orders no other load.
        self.region.load(receiver::ARMED, Ordering::SeqCst) != 0
    }

    /// Where the receiver wants to be rung: one of `listed`, or what the directory says.
    pub(crate) fn bell(&self, listed: &[PhysCpuId], directory: (PhysCpuId, Vector)) -> (PhysCpuId, Vector) {
        Bell::from_word(self.region.load(receiver::BELL, Ordering::Relaxed), listed).unwrap_or(directory)
    }

    /// Counts a doorbell.
    pub(crate) fn count_rung(&self) {
        self.region.set(header::RUNG, self.region.own(header::RUNG).wrapping_add(1));
    }

    /// Asks to be rung when the receiver has given more credit (SPEC N-10). True if it is to be rung for that.
    pub(crate) fn want_space(&self) -> bool {
        let mut wanted = false;
        for _ in 0..TRIES {
            let credit = self.region.control(control::CREDIT, Ordering::SeqCst);
            self.region.set(header::WANT, credit.wrapping_add(1));
            wanted = self.flush();
            // If it went on meanwhile, the receiver may have looked too early, or another CPU have asked for more.
            if self.region.control(control::CREDIT, Ordering::SeqCst) == credit {
                break;
            }
        }
        wanted
    }

    /// Whether there is space. If others took what was asked for it is asked for again, and `ring` learns whether the receiver
    /// is to be rung for that.
    pub(crate) fn has_space_at_last(&self, ring: impl FnOnce(bool)) -> bool {
        // A yes is the last word: looked at again, others may have taken it since, and nobody would ask.
        if self.has_space() {
            return true;
        }
        if self.is_told() {
            ring(self.want_space());
        }
        self.has_space()
    }

    /// Whether what was asked for has come to pass: then it is to be asked for again.
    fn is_told(&self) -> bool {
        let credit = self.region.control(control::CREDIT, Ordering::SeqCst);
        self.region.own(header::WANT) != credit.wrapping_add(1)
    }

    /// Whether a send could succeed now.
    pub(crate) fn has_space(&self) -> bool {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail >= PREPARING {
            return self.region.control(control::ANSWER, Ordering::SeqCst) == self.hello;
        }
        let credit = self.region.control(control::CREDIT, Ordering::SeqCst);
        tail.wrapping_sub(credit) < u64::from(self.region.geometry.cells())
    }

    /// Messages of this life so far.
    pub(crate) fn sent(&self) -> u64 {
        let (base, tail) = self.positions();
        tail.wrapping_sub(base)
    }

    /// The positions of this life so far: first, and behind the last that was taken.
    pub(super) fn positions(&self) -> (u64, u64) {
        // SYNC POINT: lane-prepared (acquire)
        let tail = self.tail.load(Ordering::Acquire);
        if tail >= PREPARING {
            (0, 0)
        } else {
            (self.base.load(Ordering::Relaxed), tail)
        }
    }
}

/// Stores the payload, the lines that the receiver does not poll first.
#[inline(always)]
fn store_payload<W: Word>(words: &Cell<W>, payload: &[u8]) {
    const FAR: usize = cell::PAYLOAD + cell::NEAR_WORDS;
    let (near, far) = payload.split_at_checked(cell::NEAR_WORDS * 8).unwrap_or((payload, &[]));
    store_bytes(words.get(FAR..).unwrap_or(&[]), far);
    store_bytes(words.get(cell::PAYLOAD..FAR).unwrap_or(&[]), near);
}

#[inline(always)]
fn store_bytes<W: Word>(words: &[W], mut bytes: &[u8]) {
    for word in words {
        let Some((eight, rest)) = bytes.split_first_chunk() else {
            if !bytes.is_empty() {
                let last = bytes.iter().rev().fold(0, |word, &byte| (word << 8) | u64::from(byte));
                word.store(last, Ordering::Relaxed);
            }
            return;
        };
        word.store(u64::from_le_bytes(*eight), Ordering::Relaxed);
        bytes = rest;
    }
}
