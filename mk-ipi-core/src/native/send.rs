// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sender's end of a lane. A send takes lines, fills and publishes them, and rings the receiver if necessary (SPEC N-8,
//! N-10).
//!
//! Several CPUs of one instance share the lane, also in interrupt and NMI handlers. One compare-and-swap on a word in private
//! memory takes the lines of a message. No send waits for another one that has taken lines and not published them yet.

use super::lane::{Line, PeerRegion};
use crate::sync::{fence, AtomicU64, Ordering, Word};
use mk_ipi_abi::native::{
    control, header, lines_of, receiver, Attached, Bell, Geometry, Hello, MessageInfo, Phase,
    FIRST_LINE_BYTES, FURTHER_LINE_WORDS,
};
use mk_ipi_abi::MessageType;

/// Why nothing was sent. The lane has not changed, except for its statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The lane has too few free lines: the receiver has not handled enough messages yet.
    Full,
    /// The receiver has not answered the hello of this life yet.
    Unanswered,
    /// The receiver has put the lane into quarantine, because this life broke the protocol.
    Quarantined,
    /// The receiver's `CREDIT` has an impossible value, or its `ANSWER` does not name this life any more. Attach again.
    Broken,
    /// At each try, another CPU or an interrupt handler took lines first.
    Contended,
    /// The message has more bytes than the region allows.
    TooLong,
    /// The region was created again since we attached.
    Gone,
}

/// The value of `tail` until this life is answered. It is larger than all positions, so no line can be taken.
pub(super) const UNANSWERED: u64 = 1 << 63;
/// The value of `tail` while one CPU continues the handshake. No line can be taken then, either.
pub(super) const PREPARING: u64 = UNANSWERED + 1;
/// Largest number of tries to take lines. A try fails if another CPU, or an interrupt handler, takes lines at the same time.
const TRIES: usize = 64;
/// Distance in lines between the last message that was stored and the lines that `post` prefetches.
const AHEAD: u64 = 16;

/// The sender's end of its lane in another instance's region. Aligned to 128 bytes, so that it shares no cache line with data
/// that other code writes.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Sender<W> {
    /// The position of the next line to take, or [`UNANSWERED`] or [`PREPARING`].
    pub(super) tail: AtomicU64,
    /// The largest value that was read from `CREDIT` in this life. After messages were reported as unsettled, at least the number
    /// of the last of them. Never larger than `tail`.
    pub(super) credit: AtomicU64,
    /// The position at which this life began.
    pub(super) base: AtomicU64,
    /// The last value of `BELL` that was checked with the directory and found valid. 0: none.
    pub(super) good_bell: AtomicU64,
    /// The length, plus 1, of the longest message that waits for space; 0 if none does.
    pub(super) waiting: AtomicU64,
    /// Number of lines of the lane. 0 if the region allows no message that fills the first line.
    pub(super) room_for_full_line: u64,
    /// Whether `HELLO` of the lane was 0 before this life began.
    pub(super) fresh: bool,
    /// The hello of this life in the phase in which this life can send: `First` or `Clean`.
    pub(super) hello: Hello,
    pub(super) region: PeerRegion<W>,
}

/// Lines that a send has taken: the position of the first one, and the credit that was known then.
#[derive(Clone, Copy)]
struct TakenLines {
    first: u64,
    credit: u64,
}

impl<W: Word> Sender<W> {
    /// Stores 0 to `ATTACHED`, and returns the mapped region. The lines do not change, so the receiver will read published
    /// messages.
    pub(crate) fn into_region(self) -> PeerRegion<W> {
        if !self.is_gone() {
            // SYNC POINT: lane-attached (release)
            self.region.set(header::ATTACHED, 0);
        }
        self.region
    }

    /// Returns whether `HELLO` of the lane was 0 before this life began.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Returns whether the region was created again since this life began. Then our `ATTACHED` word is 0.
    #[inline(always)]
    pub(crate) fn is_gone(&self) -> bool {
        self.region.own(header::ATTACHED) == 0
    }

    /// Stores to `ATTACHED` that this kernel has followed the directory up to this generation (SPEC N-17).
    pub(crate) fn follow(&self, generation: u32) {
        let found = self.region.own(header::ATTACHED);
        if found != 0 {
            let attached = Attached { incarnation: self.hello.incarnation, generation };
            // A compare-and-swap: if the region is created again at this moment, its word must stay 0.
            // SYNC POINT: lane-followed (release)
            self.region.replace(header::ATTACHED, found, attached.to_word());
        }
    }

    /// The geometry of the region.
    pub(crate) const fn geometry(&self) -> Geometry {
        self.region.geometry
    }

    /// Stores a message and publishes it (SPEC N-8). Returns its number. `cpu` is the id of the sending CPU, which the message
    /// contains. `swap` is the compare-and-swap that takes lines: word, expected value, new value. It returns whether it has
    /// stored.
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

    /// As `send`, for several messages of one type. If there is not space for all, sends as many as fit, from the first on.
    /// Returns how many were sent, and the number of the last one. One compare-and-swap takes all lines. Prefetches lines for
    /// later messages.
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
                Err(Unsent::Full) => count = self.fitting(payloads, count)?,
                taken => break taken?,
            }
        };
        let mut position = first;
        for payload in payloads.iter().take(count) {
            let lines = self.lines_of(payload)?;
            position = self.fill(position, lines, msg_type, cpu, payload)?;
            // Prefetches only lines that the receiver has read and credited. `send` prefetches nothing, because a receiver that
            // polls reads the next lines all the time.
            let ahead = (AHEAD..AHEAD.wrapping_add(lines)).map(|n| position.wrapping_add(n));
            ahead
                .filter(|p| p.wrapping_sub(credit) < self.region.lines())
                .for_each(|p| self.region.will_write(p));
        }
        Ok((count, position))
    }

    /// Called when there is no space for `count` messages. Returns how many of them fit, from the first on.
    #[cold]
    fn fitting(&self, payloads: &[&[u8]], count: usize) -> Result<usize, Unsent> {
        // The credit is loaded first: it is never larger than a tail that is loaded later.
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

    /// Called after messages were published, or after a store to `HELLO` or `WANT`. Returns whether the receiver must be rung.
    #[inline(always)]
    pub(crate) fn flush(&self) -> bool {
        // SYNC POINT: armed (fence). Either we find 1 in `ARMED`, or the receiver's check after arming sees what we have stored.
        fence(Ordering::SeqCst);
        // SYNC POINT: bell (acquire)
        self.region.receiver(receiver::ARMED) != 0
    }

    /// The number of lines for a payload. An error if it is too long for the region.
    #[inline(always)]
    fn lines_of(&self, payload: &[u8]) -> Result<u64, Unsent> {
        if payload.len() > self.region.geometry.max_len() as usize {
            return Err(Unsent::TooLong);
        }
        Ok(lines_of(payload.len()))
    }

    /// As `send`, in few instructions, for a message that fills exactly one line. `None`, and nothing is sent, if the payload has
    /// another length or the first try to take a line fails.
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

    /// Takes free lines: their former messages were handled by the receiver (SPEC N-8).
    fn take(&self, lines: u64, swap: impl Fn(&AtomicU64, u64, u64) -> bool) -> Result<TakenLines, Unsent> {
        for _ in 0..TRIES {
            match self.try_take(lines, self.region.lines(), &swap) {
                Some(taken) => return Ok(taken),
                None => self.refresh(lines)?,
            }
        }
        Err(Unsent::Contended)
    }

    /// One try to take lines. Takes none if more than `room` lines would then be taken and not credited.
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

    /// Called when a try to take lines has failed. Loads the receiver's `CREDIT` if the known value is too small. An error if
    /// another try cannot succeed now.
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
            // The known credit is large enough: the try failed because another CPU took lines.
            return Ok(());
        }
        // SYNC POINT: lane-credit (acquire)
        let credit = self.region.control(control::CREDIT);
        // Loaded after the credit: all lines below a correct credit were taken before, so the tail is not below it.
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

    /// Fills lines that were taken. The receiver checks the tag of the first line, so this tag is stored last. Returns the
    /// position after the lines.
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

    /// Fills the first line of a message of `len` bytes. Stores the tag last, which publishes the message.
    #[inline(always)]
    fn fill_first(&self, first: u64, msg_type: MessageType, cpu: u32, len: usize, payload: &[u8]) {
        // Always `Some`: `PeerRegion::map` has mapped all lines of the lane.
        let Some([tag, about, near @ ..]) = self.region.line(first) else { return };
        store(near, payload);
        // `len` fits into 32 bits: no region allows messages of more than 4,096 bytes.
        #[expect(clippy::cast_possible_truncation, reason = "checked by `lines_of`")]
        about.store(MessageInfo { len: len as u32, cpu }.to_word(), Ordering::Relaxed);
        // SYNC POINT: message-published (release)
        tag.store(self.region.geometry.first_tag(first).to_word(msg_type.0), Ordering::Release);
    }

    /// Fills the further lines of a message. `payload` is the part after the first line.
    #[inline(never)]
    fn fill_further(&self, first: u64, lines: u64, payload: &[u8]) {
        // Prefetches all lines first. Otherwise the stores would wait for one cache line after the other.
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

    /// The doorbell in `BELL`. `None` if there is none, or if `is_its_cpu` says that its CPU does not belong to the receiver: use
    /// the doorbell in the directory then (SPEC N-12). `is_its_cpu` is not called if `BELL` still has the last valid value.
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

    /// Forgets the last valid value of `BELL`, so that the next [`bell`](Self::bell) calls `is_its_cpu` again.
    pub(crate) fn forget_bell(&self) {
        self.good_bell.store(0, Ordering::Relaxed);
    }

    /// Adds one to the statistics of doorbells.
    pub(crate) fn count_rung(&self) {
        self.region.count(header::RUNG);
    }

    /// Returns whether `ANSWER` allows this life to send.
    pub(super) fn is_in_force(&self) -> bool {
        // Relaxed, because no later load must be ordered after this one.
        is_answer_to(self.hello, self.region.control_relaxed(control::ANSWER))
    }

    /// The position at which this life began, and the position after the last line that it has taken. Both are 0 until this life
    /// is answered.
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

/// Returns whether a life with this hello may send while `ANSWER` has this value, which must be that hello. A life in phase
/// `First` does not wait for its answer, so it may also send if `ANSWER` is 0, or is `Begin` of its session.
pub(super) fn is_answer_to(hello: Hello, answer: u64) -> bool {
    let first = hello.phase == Phase::First;
    answer == hello.to_word() || (first && (answer == 0 || answer == hello.in_phase(Phase::Begin).to_word()))
}

/// Stores bytes to words, little endian. Bits of the last word after the last byte are 0. Further words do not change.
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
