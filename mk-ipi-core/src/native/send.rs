// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sender's end of a lane: take lines, fill them, publish them, ring if the receiver wants it (SPEC N-8, N-10).
//!
//! Several CPUs of one instance share the lane, interrupt and NMI handlers included: lines are taken by one compare-and-swap in
//! private memory, and nothing waits for whoever holds others.

use super::lane::{Line, PeerRegion};
use crate::sync::{fence, AtomicU64, Ordering, Word};
use mk_ipi_abi::native::{
    control, header, lines_of, receiver, Attached, Bell, Geometry, Hello, MessageInfo, Phase,
    FIRST_LINE_BYTES, FURTHER_LINE_WORDS,
};
use mk_ipi_abi::MessageType;

/// Why nothing was sent. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The receiver has not read enough yet.
    Full,
    /// The receiver has not answered this life of ours yet.
    Unanswered,
    /// The receiver says that we broke the protocol.
    Quarantined,
    /// The words of the receiver contradict each other, or it does not know this life of ours any more.
    Broken,
    /// Other CPUs took lines at each try of this one.
    Contended,
    /// More bytes than the region allows.
    TooLong,
    /// The region was created again since we attached.
    Gone,
}

/// The value of `tail` while no line can be taken, because the life was not answered yet. No position is that large.
pub(super) const UNANSWERED: u64 = 1 << 63;
/// The value of `tail` while one CPU prepares the lane for the life that was answered.
pub(super) const PREPARING: u64 = UNANSWERED + 1;
/// Tries of the compare-and-swap. Each failure means that another CPU, or an interrupt, has taken lines.
const TRIES: usize = 64;
/// How many lines ahead a sender of many messages prefetches.
const AHEAD: u64 = 16;

/// The sender's end of its lane in another instance's region. Aligned to 128 bytes, apart from what others write.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Sender<W> {
    /// The next line to take, or one of the marks above.
    pub(super) tail: AtomicU64,
    /// The last value that was read from `CREDIT`. Never beyond `tail`.
    pub(super) credit: AtomicU64,
    /// The line at which this life began.
    pub(super) base: AtomicU64,
    /// The last value of `BELL` that was checked and valid.
    pub(super) good_bell: AtomicU64,
    /// The length, plus 1, of the longest message that waits for space; 0 if none does.
    pub(super) waiting: AtomicU64,
    /// Lines of the lane; 0 if its messages are too short to fill a line.
    pub(super) room_for_full_line: u64,
    /// Whether our lane held no hello before.
    pub(super) fresh: bool,
    /// The hello of this life, in the phase in which it sends.
    pub(super) hello: Hello,
    pub(super) region: PeerRegion<W>,
}

/// Lines that were taken.
#[derive(Clone, Copy)]
struct TakenLines {
    first: u64,
    credit: u64,
}

impl<W: Word> Sender<W> {
    /// Detaches, and gives back the mapped region. The lane stays as it is, so published messages will be read.
    pub(crate) fn into_region(self) -> PeerRegion<W> {
        if !self.is_gone() {
            // SYNC POINT: lane-attached (release)
            self.region.set(header::ATTACHED, 0);
        }
        self.region
    }

    /// Whether our lane held no hello before.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Whether the region was created again since we attached: our word in it is gone.
    #[inline(always)]
    pub(crate) fn is_gone(&self) -> bool {
        self.region.own(header::ATTACHED) == 0
    }

    /// Writes that this kernel has followed the directory up to this generation (SPEC N-17).
    pub(crate) fn follow(&self, generation: u32) {
        let found = self.region.own(header::ATTACHED);
        if found != 0 {
            let attached = Attached { incarnation: self.hello.incarnation, generation };
            // A compare-and-swap, so that we do not become attached to a region that is created again just now.
            // SYNC POINT: lane-followed (release)
            self.region.replace(header::ATTACHED, found, attached.to_word());
        }
    }

    /// The geometry of the region.
    pub(crate) const fn geometry(&self) -> Geometry {
        self.region.geometry
    }

    /// Stores a message and publishes it (SPEC N-8). Gives its number. `cpu` is the id of the sending CPU for the message; `swap` is the
    /// compare-and-swap that takes lines.
    pub(crate) fn send(
        &self,
        msg_type: MessageType,
        cpu: u32,
        payload: &[u8],
        swap: impl Fn(&AtomicU64, u64, u64) -> bool,
    ) -> Result<u64, Unsent> {
        let lines = self.lines_of(payload)?;
        let TakenLines { first, .. } = self.take(lines, swap)?;
        self.fill(first, lines, msg_type, cpu, payload)
    }

    /// As `send`, for as many messages of one type as there is space for, from the first on. Gives their count, and the last one's
    /// number. One compare-and-swap takes all lines. Lines for later messages are prefetched.
    #[inline(always)]
    pub(crate) fn post(
        &self,
        msg_type: MessageType,
        cpu: u32,
        payloads: &[&[u8]],
        swap: impl Fn(&AtomicU64, u64, u64) -> bool,
    ) -> Result<(usize, u64), Unsent> {
        let mut count = payloads.len();
        let TakenLines { first, credit } = loop {
            let lines =
                payloads.iter().take(count).try_fold(0, |n: u64, p| Ok(n.wrapping_add(self.lines_of(p)?)))?;
            match self.take(lines, &swap) {
                Err(Unsent::Full) if count > 1 => count = self.fitting(payloads, count)?,
                taken => break taken?,
            }
        };
        let mut position = first;
        for payload in payloads.iter().take(count) {
            let lines = self.lines_of(payload)?;
            position = self.fill(position, lines, msg_type, cpu, payload)?;
            // Only lines that the receiver has read. A single send does not prefetch, because the receiver would be polling those lines.
            let ahead = (AHEAD..AHEAD.wrapping_add(lines)).map(|n| position.wrapping_add(n));
            ahead
                .filter(|p| p.wrapping_sub(credit) < self.region.lines())
                .for_each(|p| self.region.will_write(p));
        }
        Ok((count, position))
    }

    /// How many of the first `count` messages fit now. There was no space for all of them.
    #[cold]
    fn fitting(&self, payloads: &[&[u8]], count: usize) -> Result<usize, Unsent> {
        // Loaded in this order, because the credit is never beyond the tail.
        let credit = self.credit.load(Ordering::Relaxed);
        let used = self.tail.load(Ordering::Relaxed).wrapping_sub(credit);
        let mut free = self.region.lines().saturating_sub(used);
        let mut fit = 0usize;
        for payload in payloads.iter().take(count.wrapping_sub(1)) {
            let Some(left) = free.checked_sub(lines_of(payload.len())) else { break };
            (free, fit) = (left, fit.wrapping_add(1));
        }
        if fit == 0 {
            return Err(Unsent::Full);
        }
        Ok(fit)
    }

    /// True if the receiver must be rung for published messages.
    #[inline(always)]
    pub(crate) fn flush(&self) -> bool {
        // SYNC POINT: armed (fence). Either we see that it is armed, or its second look sees what we have stored.
        fence(Ordering::SeqCst);
        // SYNC POINT: bell (acquire)
        self.region.receiver(receiver::ARMED) != 0
    }

    #[inline(always)]
    fn lines_of(&self, payload: &[u8]) -> Result<u64, Unsent> {
        if payload.len() > self.region.geometry.max_len() as usize {
            return Err(Unsent::TooLong);
        }
        Ok(lines_of(payload.len()))
    }

    /// As `send`, in few instructions, for a message that fills one line and finds space at the first try. Otherwise `None`, and
    /// nothing has happened.
    #[inline(always)]
    pub(crate) fn send_line(
        &self,
        msg_type: MessageType,
        cpu: u32,
        payload: &[u8],
        swap: impl Fn(&AtomicU64, u64, u64) -> bool,
    ) -> Option<u64> {
        let whole = <&[u8; FIRST_LINE_BYTES]>::try_from(payload).ok()?;
        let TakenLines { first, .. } = self.try_take(1, self.room_for_full_line, swap)?;
        self.fill_first(first, msg_type, cpu, FIRST_LINE_BYTES, whole);
        Some(first.wrapping_add(1))
    }

    /// Takes lines whose former messages the receiver has handled (SPEC N-8).
    fn take(&self, lines: u64, swap: impl Fn(&AtomicU64, u64, u64) -> bool) -> Result<TakenLines, Unsent> {
        for _ in 0..TRIES {
            match self.try_take(lines, self.region.lines(), &swap) {
                Some(taken) => return Ok(taken),
                None => self.refresh(lines)?,
            }
        }
        Err(Unsent::Contended)
    }

    /// One try to take lines, if at most `room` lines are unread then.
    #[inline(always)]
    fn try_take(
        &self,
        lines: u64,
        room: u64,
        swap: impl Fn(&AtomicU64, u64, u64) -> bool,
    ) -> Option<TakenLines> {
        // SYNC POINT: lane-prepared (acquire)
        let first = self.tail.load(Ordering::Acquire);
        // SYNC POINT: credit-cached (acquire)
        let credit = self.credit.load(Ordering::Acquire);
        let next = first.wrapping_add(lines);
        let fits = next.wrapping_sub(credit) <= room;
        if !fits || self.is_gone() {
            return None;
        }
        swap(&self.tail, first, next).then_some(TakenLines { first, credit })
    }

    /// Reads the receiver's credit, if the known value is not enough.
    #[cold]
    fn refresh(&self, lines: u64) -> Result<(), Unsent> {
        let (tail, known) = (self.tail.load(Ordering::Relaxed), self.credit.load(Ordering::Relaxed));
        if self.is_gone() {
            return Err(Unsent::Gone);
        }
        if tail >= UNANSWERED {
            return Err(Unsent::Unanswered);
        }
        if tail.wrapping_add(lines).wrapping_sub(known) <= self.region.lines() {
            // Another CPU took lines in between.
            return Ok(());
        }
        // SYNC POINT: lane-credit (acquire)
        let credit = self.region.control(control::CREDIT);
        // Loaded after the credit, so that all credited lines were taken before.
        let tail = self.tail.load(Ordering::Relaxed);
        if credit < known || credit > tail || !self.is_in_force() {
            return Err(Unsent::Broken);
        }
        // SYNC POINT: credit-cached (release)
        self.credit.fetch_max(credit, Ordering::Release);
        if tail.wrapping_add(lines).wrapping_sub(credit) <= self.region.lines() {
            return Ok(());
        }
        self.region.count(header::FULL);
        match self.region.control(control::BREACH) {
            0 => Err(Unsent::Full),
            _ => Err(Unsent::Quarantined),
        }
    }

    /// Fills taken lines. The first line, which the receiver checks, is written last, and its tag last of all. Gives the position behind.
    #[inline(always)]
    fn fill(
        &self,
        first: u64,
        lines: u64,
        msg_type: MessageType,
        cpu: u32,
        payload: &[u8],
    ) -> Result<u64, Unsent> {
        let (near, far) = payload.split_at_checked(FIRST_LINE_BYTES).unwrap_or((payload, &[]));
        if !far.is_empty() {
            self.fill_further(first, lines, far);
        }
        self.fill_first(first, msg_type, cpu, payload.len(), near);
        Ok(first.wrapping_add(lines))
    }

    /// Fills the first line of a message of `len` bytes, its tag last.
    #[inline(always)]
    fn fill_first(&self, first: u64, msg_type: MessageType, cpu: u32, len: usize, payload: &[u8]) {
        // Each index is in the lane (`PeerRegion::map`).
        let Some([tag, about, near @ ..]) = self.region.line(first) else { return };
        store(near, payload);
        // A region's longest message has 4,096 bytes.
        #[expect(clippy::cast_possible_truncation, reason = "checked by `lines_of`")]
        about.store(MessageInfo { len: len as u32, cpu }.to_word(), Ordering::Relaxed);
        // SYNC POINT: message-published (release)
        tag.store(self.region.geometry.first_tag(first).to_word(msg_type.0), Ordering::Release);
    }

    /// Fills the further lines of a message.
    #[inline(never)]
    fn fill_further(&self, first: u64, lines: u64, payload: &[u8]) {
        // Prefetches all of them first. Otherwise each store would wait for its line.
        (0..lines).for_each(|n| self.region.will_write(first.wrapping_add(n)));
        let mut rest = payload;
        for position in (1..lines).map(|n| first.wrapping_add(n)) {
            let Some([tag, words @ ..]): Option<&Line<W>> = self.region.line(position) else { return };
            match rest.split_first_chunk::<{ FURTHER_LINE_WORDS * 8 }>() {
                Some((whole, behind)) => {
                    store(words, whole);
                    rest = behind;
                }
                None => store(words, rest),
            }
            tag.store(self.region.geometry.further_tag(position).to_word(0), Ordering::Relaxed);
        }
    }

    /// The doorbell that the receiver asks for, if `is_its_cpu` says that the CPU belongs to it. `None`: use the one in the directory
    /// (SPEC N-12). The question is repeated whenever the word has changed.
    pub(crate) fn bell(&self, is_its_cpu: impl FnOnce(Bell) -> bool) -> Option<Bell> {
        let word = self.region.receiver(receiver::BELL);
        let bell = Bell::from_word(word)?;
        if self.good_bell.load(Ordering::Relaxed) != word {
            if !is_its_cpu(bell) {
                return None;
            }
            self.good_bell.store(word, Ordering::Relaxed);
        }
        Some(bell)
    }

    /// Forgets the checked `BELL`, so that the directory is asked again.
    pub(crate) fn forget_bell(&self) {
        self.good_bell.store(0, Ordering::Relaxed);
    }

    /// Counts a doorbell that was rung.
    pub(crate) fn count_rung(&self) {
        self.region.count(header::RUNG);
    }

    /// Whether the receiver knows our life.
    pub(super) fn is_in_force(&self) -> bool {
        // Relaxed: no later load depends on it.
        is_answer_to(self.hello, self.region.control_relaxed(control::ANSWER))
    }

    /// The first position of this life, and the one behind its last taken line.
    pub(super) fn positions(&self) -> (u64, u64) {
        // SYNC POINT: lane-prepared (acquire)
        let tail = self.tail.load(Ordering::Acquire);
        if tail >= UNANSWERED {
            (0, 0)
        } else {
            (self.base.load(Ordering::Relaxed), tail)
        }
    }
}

/// Whether a life with this hello may send while `ANSWER` has this value: the answer to its hello. In phase `First`, which does not
/// wait, also no answer, or the answer to its `Begin`.
pub(super) fn is_answer_to(hello: Hello, answer: u64) -> bool {
    let first = hello.phase == Phase::First;
    answer == hello.to_word() || (first && (answer == 0 || answer == hello.in_phase(Phase::Begin).to_word()))
}

#[inline(always)]
fn store<W: Word>(words: &[W], mut bytes: &[u8]) {
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
