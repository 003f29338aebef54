// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a sender begins a life in its lane (SPEC N-9).

use super::lane::PeerRegion;
use super::send::{is_answer_to, Sender, PREPARING, UNANSWERED};
use crate::sync::{fence, AtomicU64, Ordering, Word};
use mk_ipi_abi::native::{control, header, Attached, Hello, Phase, FIRST_LINE_BYTES};
use mk_ipi_abi::Incarnation;

/// How far the handshake of a life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The receiver has not answered yet, or another CPU continues the handshake.
    Waiting,
    /// A new hello was written: ring the receiver if [`Sender::flush`] says so.
    HelloSent,
    /// Lines can be taken.
    Open,
}

impl<W: Word> Sender<W> {
    /// Begins a life in the lane.
    pub(crate) fn begin(region: PeerRegion<W>, incarnation: Incarnation) -> Self {
        let said = region.own(header::HELLO);
        let answered = region.control(control::ANSWER);
        let begin = Hello::after(said, answered, incarnation);
        region.set(header::ATTACHED, Attached { incarnation, generation: 0 }.to_word());
        // Ends the wait of a former life.
        region.set(header::WANT, 0);
        let unused = said == 0 && answered == 0 && region.control(control::BREACH) == 0;
        // A hostile former life may have taken back its hello.
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

    /// Continues the handshake, if the receiver has answered. It may clean every line, so do not call it with interrupts off.
    pub(crate) fn open(&self) -> Opening {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail < UNANSWERED {
            return Opening::Open;
        }
        let begin = self.hello.in_phase(Phase::Begin).to_word();
        // `HELLO` is read first: another CPU, or an interrupt here, may continue the handshake in between. An answer older than the
        // hello would look as if it was taken back.
        let said = self.region.own(header::HELLO);
        fence(Ordering::Acquire);
        // SYNC POINT: lane-answer (acquire)
        let answer = self.region.control(control::ANSWER);
        let cleans = answer == begin && said == begin;
        let begins = answer == self.hello.to_word();
        // The receiver has taken back its answer: its new life found the words of the former one invalid.
        let is_forgotten = answer != begin && said == self.hello.to_word();
        let swapped = || self.tail.compare_exchange(UNANSWERED, PREPARING, Ordering::Acquire);
        if (!cleans && !begins && !is_forgotten) || swapped().is_err() {
            return Opening::Waiting;
        }
        let base = self.region.control_relaxed(control::BASE);
        // No honest receiver gives a larger position, so it is not used.
        if begins && base < 1 << 62 {
            self.credit.store(base, Ordering::Relaxed);
            self.base.store(base, Ordering::Relaxed);
            // SYNC POINT: lane-prepared (release)
            self.tail.store(base, Ordering::Release);
            return Opening::Open;
        }
        if cleans {
            // Nothing that a former life left in the lines may look like a message of this one.
            clean(&self.region);
        }
        // SYNC POINT: lane-hello (release)
        self.region.set(header::HELLO, if cleans { self.hello.to_word() } else { begin });
        self.tail.store(UNANSWERED, Ordering::Release);
        Opening::HelloSent
    }

    /// Tells the receiver's `incarnation` to stop. It does if we are the host (SPEC N-15).
    pub(crate) fn stop(&self, incarnation: Incarnation) {
        self.region.set(header::STOP, incarnation.get().into());
    }
}

/// Begins in a lane that seems unused, so that this life can send at once. False if a life was answered there nevertheless.
fn begin_first<W: Word>(region: &PeerRegion<W>, hello: Hello) -> bool {
    // The pages may hold anything before the first hello.
    clean(region);
    // With release, as each hello. No model proves it: loom runs nothing between this and the fence.
    region.set(header::HELLO, hello.to_word());
    // SYNC POINT: lane-first (fence). Either a receiver that is just answering a former life sees our hello, or we see its answer.
    fence(Ordering::SeqCst);
    is_answer_to(hello, region.control(control::ANSWER))
}

/// Empties every line.
fn clean<W: Word>(region: &PeerRegion<W>) {
    for position in 0..u64::from(region.geometry.lines()) {
        if let Some([tag, ..]) = region.line(position) {
            tag.store(0, Ordering::Relaxed);
        }
    }
}
