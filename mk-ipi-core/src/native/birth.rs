// SPDX-License-Identifier: MIT OR Apache-2.0
//! The receiver's part of the handshake when either end of a lane begins a life (SPEC N-9, N-11).
//!
//! Each word has one writer. A kernel may die after each step; its next life begins again from the words that are
//! there.

use super::lane::LaneEnd;
use super::state::{Buffer, Events, Lane, Visit};
use crate::sync::{fence, Ordering, Word};
use mk_ipi_abi::native::{control, header, lines_of, Breach, Hello, LineTag, MessageInfo, Phase};

/// Honest positions are below this. It is also far below the position from which a sender would refuse to begin.
const MAX_POSITION: u64 = 1 << 61;

/// The value of `ANSWER` while messages are delivered of a life that ended before it was answered. It is no hello.
const NEVER_ANSWERED: u64 = 1;

impl<W: Word> LaneEnd<'_, W> {
    /// The lane as our former life left it. The message that it was delivering is in doubt; messages behind that are unread.
    pub(super) fn resume(&self, first: bool, restarted: bool, discard: bool) -> Lane {
        let [credit, answer, handed] =
            [control::CREDIT, control::ANSWER, control::HANDED].map(|w| self.own(w));
        let hello = Hello::from_word(answer);
        let breach = self.own(control::BREACH) != 0;
        // A hostile former life may have left any value. Impossible ones are not used.
        let next = credit.max(handed);
        let sane = next < MAX_POSITION && next.wrapping_sub(credit) <= self.lines();
        let open = hello.is_some_and(Hello::may_send) && !breach && sane;
        let next = if sane { self.behind_discarded(next, credit) } else { next };
        let mut lane = Lane {
            answer,
            theirs: hello.map(|hello| hello.incarnation),
            received: self.own(control::RECEIVED),
            breach,
            open,
            ..Lane::NEW
        };
        // Not 0: that would mean that no life was ever read here.
        lane.go_to(if sane { next } else { self.lines() });
        if open && handed > credit {
            self.doubt(handed);
        }
        if discard && open {
            lane.go_to(self.discard(lane.next));
        }
        if !first || answer != 0 || next != 0 || breach {
            // One lap from here all lines were written again.
            lane.excused_until = lane.next.wrapping_add(self.lines());
        }
        if credit != lane.next {
            self.set(control::CREDIT, lane.next);
        }
        if handed != lane.next {
            self.set(control::HANDED, lane.next);
        }
        if restarted && answer != 0 {
            self.count(control::RESETS);
        }
        if !sane {
            self.close(&mut lane);
        }
        lane
    }

    /// Writes that the message with this number is in doubt, unless a life that died at this point has done so.
    fn doubt(&self, number: u64) {
        let doubts = self.own(control::DOUBTS);
        if doubts == 0 || self.own(control::doubt(doubts.wrapping_sub(1))) != number {
            self.set(control::doubt(doubts), number);
            // SYNC POINT: lane-doubt (release)
            self.set(control::DOUBTS, doubts.wrapping_add(1));
        }
    }

    /// The position at which to continue, from `next` on. A life that died during a discard may have announced discarded messages.
    fn behind_discarded(&self, next: u64, credit: u64) -> u64 {
        let [from, to] = [control::DISCARD_FROM, control::DISCARD_TO].map(|word| self.own(word));
        let told = from <= next && next < to && to.wrapping_sub(credit) <= self.lines();
        if told {
            to
        } else {
            next
        }
    }

    /// Writes that all messages published from `from` on are discarded. Gives the position behind them.
    fn discard(&self, from: u64) -> u64 {
        let to = self.end_of_published(from);
        if to != from {
            if self.own(control::DISCARD_TO) != from || self.own(control::DISCARD_FROM) > from {
                self.set(control::DISCARD_FROM, from);
            }
            // SYNC POINT: lane-discarded (release)
            self.set(control::DISCARD_TO, to);
        }
        to
    }

    /// The position behind the messages that are published from `from` on without a gap.
    fn end_of_published(&self, from: u64) -> u64 {
        let end = from.wrapping_add(self.lines());
        let mut position = from;
        while position != end {
            let Some([tag, about, ..]) = self.line(position) else { break };
            // SYNC POINT: message-published (acquire)
            let tag = LineTag::of_word(tag.load_acquire());
            if tag != self.geometry.first_tag(position) {
                break;
            }
            let len = MessageInfo::from_word(about.load(Ordering::Relaxed)).len;
            if len > self.geometry.max_len() {
                break;
            }
            let next = position.wrapping_add(lines_of(len as usize));
            if next.wrapping_sub(from) > self.lines() {
                break;
            }
            position = next;
        }
        position
    }
}

impl<W: Word> Visit<'_, W> {
    /// Checks whether the sender waits for space, or has written a new hello. True if it has a new hello.
    pub(super) fn look_at_header<E: Events>(&mut self, to: &mut E) -> bool {
        if let Some(want) = self.end.space_for_waiter(self.lane) {
            self.lane.answered_want = want;
            to.ring(self.id);
        }
        // SYNC POINT: lane-hello (acquire)
        let word = self.end.header(header::HELLO);
        if word == self.lane.last_hello || self.lane.hand_on_until != 0 {
            return false;
        }
        self.lane.last_hello = word;
        word != self.lane.answer && self.answer_hello(to, word, false)
    }

    /// Handles a new hello of the sender. `handed_on`: all messages of its former life were delivered.
    fn answer_hello<E: Events>(&mut self, to: &mut E, word: u64, handed_on: bool) -> bool {
        match Hello::from_word(word) {
            Some(hello) if hello.phase == Phase::First => self.answer_first(to, hello),
            Some(hello) if hello.phase == Phase::Clean && self.has_begun(hello) => {
                self.put_in_force(to, hello)
            }
            Some(_) if !handed_on && self.lane.open => self.begin_to_hand_on(),
            Some(_) if !handed_on && self.was_never_in_force() && !self.lane.breach => {
                self.hand_on_never_answered(word)
            }
            Some(hello) => self.answer_begin(to, hello),
            None if word == 0 || self.lane.breach => return false,
            None => self.quarantine(to, Breach::Hello),
        }
        true
    }

    /// Whether no life was ever in force here: a life that was has moved the lane beyond position 0. One may have been half answered.
    fn was_never_in_force(&self) -> bool {
        self.lane.next == 0 || Hello::from_word(self.lane.answer).is_none()
    }

    /// A first life may have published messages, and may have died before it was answered. Prepares to deliver them.
    fn hand_on_never_answered(&mut self, word: u64) {
        // A life that begins from now on sees that the lane was used, or we see its hello before we read a line.
        self.lane.answer = NEVER_ANSWERED;
        self.end.set(control::ANSWER, NEVER_ANSWERED);
        // SYNC POINT: lane-first (fence)
        fence(Ordering::SeqCst);
        if self.end.header(header::HELLO) == word {
            self.begin_to_hand_on();
        } else {
            self.lane.last_hello = 0;
        }
    }

    fn begin_to_hand_on(&mut self) {
        self.lane.hand_on_until = self.lane.next.wrapping_add(self.end.lines());
    }

    /// Whether the `Begin` of this life was answered, so that it may clean the lines.
    fn has_begun(&self, hello: Hello) -> bool {
        self.lane.answer == hello.in_phase(Phase::Begin).to_word()
    }

    /// Answers a sender that found the lane unused.
    fn answer_first<E: Events>(&mut self, to: &mut E, hello: Hello) {
        if self.lane.next != 0
            || self.lane.breach
            || Hello::from_word(self.lane.answer).is_some_and(Hello::may_send)
        {
            return self.quarantine(to, Breach::Hello);
        }
        // In two steps: a later life either sees that one was answered, or we see its hello before we read a line.
        self.set_answer(hello.in_phase(Phase::Begin));
        // SYNC POINT: lane-first (fence)
        fence(Ordering::SeqCst);
        if self.end.header(header::HELLO) == hello.to_word() {
            self.put_in_force(to, hello);
        } else {
            self.lane.last_hello = 0;
        }
    }

    /// Tells a life that it may clean the lines: all messages of former lives were delivered.
    fn answer_begin<E: Events>(&mut self, to: &mut E, hello: Hello) {
        self.lane.open = false;
        self.set_answer(hello.in_phase(Phase::Begin));
        if hello.phase == Phase::Clean {
            // Its `Begin` was answered by a former life of ours. It is put in force at the next look. We do not know its position.
            self.lane.last_hello = 0;
            self.lane.excused_until = self.lane.next.wrapping_add(self.end.lines());
        } else {
            self.lane.excused_until = 0;
        }
        to.ring(self.id);
    }

    /// From now on messages of this life are read.
    fn put_in_force<E: Events>(&mut self, to: &mut E, hello: Hello) {
        self.lane.go_to(self.lane.next);
        self.lane.answered_want = 0;
        self.end.set(control::BASE, self.lane.next);
        self.end.set(control::CREDIT, self.lane.next);
        self.end.set(control::HANDED, self.lane.next);
        self.end.set(control::BREACH, 0);
        // Discards of former lives are not reported any more.
        self.end.set(control::DISCARD_FROM, self.lane.next);
        self.end.set(control::DISCARD_TO, self.lane.next);
        self.end.count(control::RESETS);
        (self.lane.open, self.lane.breach, self.lane.began_reported) = (true, false, false);
        self.set_answer(hello);
        self.report_began(to);
        to.ring(self.id);
    }

    fn set_answer(&mut self, hello: Hello) {
        self.lane.answer = hello.to_word();
        self.lane.theirs = Some(hello.incarnation);
        // SYNC POINT: lane-answer (release)
        self.end.set(control::ANSWER, self.lane.answer);
    }

    /// Delivers messages of a life of the sender that has ended: up to `share` lines, without gaps. Gives the number of lines.
    pub(super) fn hand_on<E: Events>(&mut self, to: &mut E, buffer: &mut Buffer, share: usize) -> usize {
        for steps in 0..share {
            let first = self.lane.next;
            if first == self.lane.hand_on_until {
                self.end_former_life(to);
                return steps.wrapping_add(1);
            }
            let copied = self.end.line(first).and_then(|[tag, ..]| {
                // SYNC POINT: message-published (acquire)
                let word = tag.load_acquire();
                let is_message = LineTag::of_word(word) == self.end.geometry.first_tag(first);
                // A dead life is not accused: an invalid line is skipped.
                is_message.then(|| self.end.copy(first, word, buffer).ok()).flatten()
            });
            let left = self.lane.hand_on_until.wrapping_sub(first);
            match copied.filter(|copied| copied.end.wrapping_sub(first) <= left) {
                Some(copied) => self.hand_out(to, &copied, buffer),
                None => self.leave_out(first.wrapping_add(1)),
            }
        }
        share
    }

    /// Advances behind a line without a message. The credit is written first: a message beyond it would be in doubt.
    fn leave_out(&mut self, next: u64) {
        self.lane.next = next;
        self.give_credit();
        self.end.set(control::HANDED, next);
    }

    fn end_former_life<E: Events>(&mut self, to: &mut E) {
        (self.lane.hand_on_until, self.lane.open, self.lane.excused_until) = (0, false, 0);
        // It may not be the hello that was read before. A life that began since has waited, and published nothing.
        let word = self.end.header(header::HELLO);
        self.lane.last_hello = word;
        self.answer_hello(to, word, true);
    }
}

impl<W: Word> LaneEnd<'_, W> {
    /// The position that the sender waits for, if it is credited by now and the sender was not rung for it. Read once, because it may change.
    fn space_for_waiter(&self, lane: &Lane) -> Option<u64> {
        let want = self.header(header::WANT);
        (want > lane.answered_want && want <= lane.credited).then_some(want)
    }

    /// Whether a visit to the lane would find work.
    pub(super) fn is_pending(&self, lane: &Lane) -> bool {
        let speaks = self.header(header::HELLO) != lane.last_hello;
        lane.hand_on_until != 0 || self.is_there(lane) || speaks || self.space_for_waiter(lane).is_some()
    }
}
