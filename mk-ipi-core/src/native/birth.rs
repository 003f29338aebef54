// SPDX-License-Identifier: MIT OR Apache-2.0
//! The receiver's part of the handshake when either end of a lane begins a life (SPEC N-9, N-11).
//!
//! Each word has one writer. A kernel can die after each step. Its next life reads the words that the dead life left, and
//! continues from there.

use super::lane::LaneEnd;
use super::state::{Buffer, Events, Lane, Visit};
use crate::sync::{fence, Ordering, Word};
use mk_ipi_abi::native::{control, header, lines_of, Breach, Hello, LineTag, MessageInfo, Phase};

/// A position from this on is wrong (SPEC N-11). A sender refuses a `BASE` only from 2^62 on (`Sender::open`).
const MAX_POSITION: u64 = 1 << 61;

/// The value of `ANSWER` while the receiver delivers messages of a sender's life that ended before it was answered. Not a valid
/// hello.
const NEVER_ANSWERED: u64 = 1;

impl<W: Word> LaneEnd<'_, W> {
    /// Begins a life of the receiver in this lane (SPEC N-11). Returns the state that follows from the words of former lives, and
    /// stores the words that this life begins with. `first`: `LIFE` is 0. `restarted`: `LIFE` names another incarnation.
    /// `discard`: discard unread messages. A message that the former life was delivering is in doubt. The messages after it are
    /// unread.
    pub(super) fn resume(&self, first: bool, restarted: bool, discard: bool) -> Lane {
        let [credit, answer, handed] =
            [control::CREDIT, control::ANSWER, control::HANDED].map(|w| self.own(w));
        let hello = Hello::from_word(answer);
        let breach = self.own(control::BREACH) != 0;
        // A hostile former life can have left any values. Impossible positions are not used.
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
        // If the positions are wrong, the lane continues at `lines()`. It must not continue at 0: at position 0 the receiver
        // assumes that no life was ever in force here.
        lane.go_to(if sane { next } else { self.lines() });
        if restarted && open && handed > credit {
            self.doubt(handed);
        }
        if discard && open {
            lane.go_to(self.discard(lane.next));
        }
        if !first || answer != 0 || next != 0 || breach {
            // After one lap the sender has written every line again, so a wrong position has no effect any more.
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

    /// Tells the sender that the message with this number is in doubt. Does nothing if that is the last number that was told: a
    /// former life has done this, and died before it stored `CREDIT`.
    fn doubt(&self, number: u64) {
        let doubts = self.own(control::DOUBTS);
        if doubts == 0 || self.own(control::doubt(doubts.wrapping_sub(1))) != number {
            self.set(control::doubt(doubts), number);
            // SYNC POINT: lane-doubt (release)
            self.set(control::DOUBTS, doubts.wrapping_add(1));
        }
    }

    /// The position at which to continue. A former life can have died after it told the sender of discarded messages, and before
    /// it stored `CREDIT`. If `next` is among these messages, this is the position after them. Otherwise it is `next`.
    fn behind_discarded(&self, next: u64, credit: u64) -> u64 {
        let [from, to] = [control::DISCARD_FROM, control::DISCARD_TO].map(|word| self.own(word));
        let told = (from..to).contains(&next) && to.wrapping_sub(credit) <= self.lines();
        if told {
            to
        } else {
            next
        }
    }

    /// Tells the sender that the messages from position `from` on, up to the first gap, are discarded. Returns the position after
    /// them.
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

    /// The position after the messages that are published from position `from` on without a gap.
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
    /// Rings the sender if it waits for space and there is space now. Then handles a new hello of the sender, if there is one.
    /// True if a new hello was handled.
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

    /// Handles a hello of the sender. `handed_on`: all messages of the sender's former life were delivered. True if anything was
    /// done.
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

    /// Returns whether no life of the sender was ever in force in this lane. `answer_hello` calls this if no life is in force
    /// now. If one was, the lane is beyond position 0. `ANSWER` can also be `NEVER_ANSWERED`, if a former life of
    /// the receiver died while it delivered messages.
    fn was_never_in_force(&self) -> bool {
        self.lane.next == 0 || Hello::from_word(self.lane.answer).is_none()
    }

    /// Called if no life was ever in force, and `word`, the value of `HELLO`, is not in phase `First`. An earlier life in phase
    /// `First` can have published messages, and can have died before it was answered. Prepares to deliver these messages.
    fn hand_on_never_answered(&mut self, word: u64) {
        // If another life begins with `First` now, either it finds this `ANSWER` and does not send, or we find its hello below.
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

    /// From now on, visits deliver the messages of the sender's former life, through one lap of lines.
    fn begin_to_hand_on(&mut self) {
        self.lane.hand_on_until = self.lane.next.wrapping_add(self.end.lines());
    }

    /// Returns whether `ANSWER` is the `Begin` of this life. With this answer the life was allowed to clean the lines.
    fn has_begun(&self, hello: Hello) -> bool {
        self.lane.answer == hello.in_phase(Phase::Begin).to_word()
    }

    /// Answers a life in phase `First`, which found the lane unused.
    fn answer_first<E: Events>(&mut self, to: &mut E, hello: Hello) {
        if self.lane.next != 0
            || self.lane.breach
            || Hello::from_word(self.lane.answer).is_some_and(Hello::may_send)
        {
            return self.quarantine(to, Breach::Hello);
        }
        // In two steps. If another life begins with `First` now, either it finds this `ANSWER` and does not send, or we find its
        // hello below, before we read a line.
        self.set_answer(hello.in_phase(Phase::Begin));
        // SYNC POINT: lane-first (fence)
        fence(Ordering::SeqCst);
        if self.end.header(header::HELLO) == hello.to_word() {
            self.put_in_force(to, hello);
        } else {
            self.lane.last_hello = 0;
        }
    }

    /// Stores `ANSWER` = `Begin`, which allows this life to clean the lines. Called after the messages
    /// of former lives were delivered, or if they are not delivered because of a quarantine or because the sender was disowned.
    fn answer_begin<E: Events>(&mut self, to: &mut E, hello: Hello) {
        self.lane.open = false;
        self.set_answer(hello.in_phase(Phase::Begin));
        if hello.phase == Phase::Clean {
            // `ANSWER` was not the `Begin` of this session. A former life of ours can have stored a wrong value. The next
            // visit handles this hello again, and puts the life in force. The life may have begun at another position, so a
            // breach in the first lap is excused.
            self.lane.last_hello = 0;
            self.lane.excused_until = self.lane.next.wrapping_add(self.end.lines());
        } else {
            self.lane.excused_until = 0;
        }
        to.ring(self.id);
    }

    /// Puts this life in force: from now on its messages are read, from the next position on.
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

    /// Stores `ANSWER`.
    fn set_answer(&mut self, hello: Hello) {
        self.lane.answer = hello.to_word();
        self.lane.theirs = Some(hello.incarnation);
        // SYNC POINT: lane-answer (release)
        self.end.set(control::ANSWER, self.lane.answer);
    }

    /// Delivers messages of a life of the sender that has ended. Skips lines without a good message. Returns the number of steps,
    /// at most `share`: each message, each line that is skipped, and the end of the life is one step.
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
                // A life that has ended is not put into quarantine. A bad message is skipped.
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

    /// Skips a line without a message. `CREDIT` is stored before `HANDED`: if `HANDED` were larger when we die, our next life
    /// would report a message in doubt.
    fn leave_out(&mut self, next: u64) {
        self.lane.next = next;
        self.give_credit();
        self.end.set(control::HANDED, next);
    }

    /// All messages of the sender's former life were delivered. Handles the hello of its new life.
    fn end_former_life<E: Events>(&mut self, to: &mut E) {
        (self.lane.hand_on_until, self.lane.open, self.lane.excused_until) = (0, false, 0);
        // `HELLO` is loaded again, because yet another life can have begun meanwhile. The lives in between were never answered,
        // so they have published nothing.
        let word = self.end.header(header::HELLO);
        self.lane.last_hello = word;
        self.answer_hello(to, word, true);
    }
}

impl<W: Word> LaneEnd<'_, W> {
    /// The value of `WANT`, if the receiver must ring for it: `CREDIT` has reached it, and the sender was not rung for it yet.
    /// `WANT` is loaded only once, because the sender can change it at any time.
    fn space_for_waiter(&self, lane: &Lane) -> Option<u64> {
        let want = self.header(header::WANT);
        (want > lane.answered_want && want <= lane.credited).then_some(want)
    }

    /// Returns whether a visit to the lane would find work: a message, a new hello, or a sender that waits for space and has
    /// it now.
    pub(super) fn is_pending(&self, lane: &Lane) -> bool {
        let speaks = self.header(header::HELLO) != lane.last_hello;
        lane.hand_on_until != 0 || self.is_there(lane) || speaks || self.space_for_waiter(lane).is_some()
    }
}
