// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a sender begins a life in its lane (SPEC N-9).

use super::lane::PeerRegion;
use super::send::{is_answer_to, Sender, PREPARING, UNANSWERED};
use crate::sync::{fence, AtomicU64, Ordering, Word};
use mk_ipi_abi::native::{control, header, Attached, Hello, Phase, FIRST_LINE_BYTES};
use mk_ipi_abi::Incarnation;

/// The state of the handshake with which a sender's life begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The receiver has not answered yet, or another CPU continues the handshake.
    Waiting,
    /// A new hello was written: ring the receiver if [`Sender::flush`] says so.
    HelloSent,
    /// The handshake is complete: this life can send.
    Open,
}

impl<W: Word> Sender<W> {
    /// Begins a life of the sender in its lane. If the lane was never used, this life can send at once. Otherwise it must first
    /// complete the handshake ([`open`](Self::open)).
    pub(crate) fn begin(region: PeerRegion<W>, incarnation: Incarnation) -> Self {
        let said = region.own(header::HELLO);
        let answered = region.control(control::ANSWER);
        let begin = Hello::after(said, answered, incarnation);
        region.set(header::ATTACHED, Attached { incarnation, generation: 0 }.to_word());
        // A former life may have waited for space. This life does not.
        region.set(header::WANT, 0);
        let unused = said == 0 && answered == 0 && region.control(control::BREACH) == 0;
        // A `CREDIT` above 0 means that the lane was used, even if a hostile former life has stored 0 to `HELLO`.
        let unused = unused && region.control(control::CREDIT) == 0;
        let first = unused && begin_first(&region, begin.in_phase(Phase::First));
        if !first {
            // SYNC POINT: lane-hello (release)
            region.set(header::HELLO, begin.to_word());
        }
        let hello = begin.in_phase(if first { Phase::First } else { Phase::Clean });
        let start = if first { 0 } else { UNANSWERED };
        let [tail, credit, base, good_bell, waiting] = [start, 0, 0, 0, 0].map(AtomicU64::new);
        let whole = region.geometry.max_len() as usize >= FIRST_LINE_BYTES;
        let room_for_full_line = if whole { region.lines() } else { 0 };
        let fresh = said == 0;
        Self { tail, credit, base, good_bell, waiting, room_for_full_line, fresh, hello, region }
    }

    /// Continues the handshake if the receiver has answered. This can store to every line of the lane, so do not call it with
    /// interrupts off.
    pub(crate) fn open(&self) -> Opening {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail < UNANSWERED {
            return Opening::Open;
        }
        let begin = self.hello.in_phase(Phase::Begin).to_word();
        // `HELLO` is loaded before `ANSWER`. Another CPU, or an interrupt handler on this one, can continue the handshake between
        // the loads. In the other order, the old `ANSWER` and the new `HELLO` would look like an answer that was withdrawn.
        let said = self.region.own(header::HELLO);
        fence(Ordering::Acquire);
        // SYNC POINT: lane-answer (acquire)
        let answer = self.region.control(control::ANSWER);
        let cleans = answer == begin && said == begin;
        let begins = answer == self.hello.to_word();
        // The receiver has disowned this life: the receiver's words in the lane were wrong, or it found a breach that it excused.
        let is_forgotten = answer != begin && said == self.hello.to_word();
        let swapped = || self.tail.compare_exchange(UNANSWERED, PREPARING, Ordering::Acquire);
        if (!cleans && !begins && !is_forgotten) || swapped().is_err() {
            return Opening::Waiting;
        }
        let base = self.region.control_relaxed(control::BASE);
        // A correct receiver never stores such a large position. It is not used.
        if begins && base < 1 << 62 {
            self.credit.store(base, Ordering::Relaxed);
            self.base.store(base, Ordering::Relaxed);
            // SYNC POINT: lane-prepared (release)
            self.tail.store(base, Ordering::Release);
            return Opening::Open;
        }
        if cleans {
            // A line that a former life left must not look like a message of this life.
            clean(&self.region);
        }
        // SYNC POINT: lane-hello (release)
        self.region.set(header::HELLO, if cleans { self.hello.to_word() } else { begin });
        self.tail.store(UNANSWERED, Ordering::Release);
        Opening::HelloSent
    }

    /// Stores the receiver's `incarnation` to the stop word. A receiver obeys only the host's stop word (SPEC N-15).
    pub(crate) fn stop(&self, incarnation: Incarnation) {
        self.region.set(header::STOP, incarnation.get().into());
    }
}

/// Begins a life in a lane that looks unused. Returns true if this life can send at once, false if the receiver has answered
/// another life in the meantime.
fn begin_first<W: Word>(region: &PeerRegion<W>, hello: Hello) -> bool {
    // Before the first hello, the pages of the lane can hold any values.
    clean(region);
    // With release, as each store to `HELLO`. No loom model fails without this release, because the fence below follows at once.
    region.set(header::HELLO, hello.to_word());
    // SYNC POINT: lane-first (fence). Either a receiver that answers a former life just now sees our hello, or we see its answer.
    fence(Ordering::SeqCst);
    is_answer_to(hello, region.control(control::ANSWER))
}

/// Stores 0 to the tag of every line.
fn clean<W: Word>(region: &PeerRegion<W>) {
    for position in 0..u64::from(region.geometry.lines()) {
        if let Some([tag, ..]) = region.line(position) {
            tag.store(0, Ordering::Relaxed);
        }
    }
}
