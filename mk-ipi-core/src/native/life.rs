// SPDX-License-Identifier: MIT OR Apache-2.0
//! Birth and death at either end of a lane: the handshake, the receiver's restart, quarantine (SPEC N-9, N-11, N-14).
//!
//! A word is written only by one side, and each step may be the last one of a kernel: whoever comes back begins again
//! from what stands there.
#![expect(clippy::cast_possible_truncation, reason = "fields are cut out of words")]

use super::lane::{LaneEnd, OwnRegion, PeerRegion};
use super::receive::{disarm, Events, Lane, Receiver, Turn, Visit};
use super::send::{Sender, Unsent, PREPARING, UNANSWERED};
use crate::endpoint::LaneStats;
use crate::platform::PeerEvent;
use crate::sync::{AtomicU64, Ordering, Word};
use mk_ipi_abi::native::{control, header, receiver, Bell, Breach, Features, Hello, Lap, Life};
use mk_ipi_abi::{Incarnation, InstanceId};

impl<W: Word> Visit<'_, W> {
    /// The sender says something new in its hello.
    pub(super) fn greet<E: Events>(&mut self, to: &mut E, word: u64) -> Turn {
        let hello = Hello::from_word(word);
        if to.peer(self.id).is_none() {
            return Turn::Empty;
        }
        match hello {
            Some(hello) if !hello.first => {
                let believed = !core::mem::take(&mut self.lane.breach) && self.is_clean();
                self.lane.until = self.lane.next.wrapping_add(self.end.cells());
                if !believed {
                    // Nothing was published, or nobody knows by whom.
                    self.acknowledge(to);
                }
                Turn::More
            }
            Some(hello) if self.lane.hello == 0 && !self.lane.breach => {
                self.accept(to, word, hello.incarnation);
                Turn::More
            }
            _ => {
                self.lane.hello = word;
                self.quarantine(to, Breach::Hello);
                Turn::Empty
            }
        }
    }

    /// What the sender's former lives published is drained: the new one may begin, behind all that they can have
    /// written.
    pub(super) fn acknowledge<E: Events>(&mut self, to: &mut E) {
        // Perhaps not the one that was greeted: whoever came since has waited, and published nothing.
        let word = self.end.header(header::HELLO);
        let base = self.end.geometry.next_life(self.lane.until.wrapping_sub(self.end.cells()));
        (self.lane.next, self.lane.credited, self.lane.until) = (base, base, 0);
        self.end.set(control::BASE, base);
        self.end.set(control::CREDIT, base);
        self.end.set(control::BREACH, 0);
        match Hello::from_word(word) {
            Some(hello) if !hello.first => self.accept(to, word, hello.incarnation),
            _ => {
                self.lane.hello = word;
                self.quarantine(to, Breach::Hello);
            }
        }
    }

    fn accept<E: Events>(&mut self, to: &mut E, word: u64, incarnation: Incarnation) {
        self.lane.hello = word;
        self.lane.clean = false;
        self.end.count(control::RESETS);
        // SYNC POINT: lane-answer (release)
        self.end.set(control::ANSWER, word);
        to.event(self.id, PeerEvent::Began(incarnation));
        to.ring(self.id);
    }

    /// Takes no more from this lane until its sender begins anew.
    pub(super) fn quarantine<E: Events>(&mut self, to: &mut E, breach: Breach) {
        self.lane.breach = true;
        self.end.count(control::BAD);
        self.end.set(control::LAST_BREACH, breach as u64);
        self.end.set(control::BREACH, breach as u64);
        if self.lane.hello != 0 {
            // The hello that this is about: another one ends it. Never 0: a lane that was used must not look unused.
            self.end.set(control::ANSWER, self.lane.hello);
        }
        to.event(self.id, PeerEvent::Quarantined(breach));
    }
}

impl Receiver {
    /// Begins a life of the receiver (SPEC N-11): what a former life had read and not credited is not read again.
    ///
    /// Nobody may drain: our own instance is not in the table yet.
    pub(crate) fn begin<W: Word>(&self, own: &OwnRegion<W>, incarnation: Incarnation) {
        let Some(mut hold) = self.hold() else { return };
        let stamped = own.word(receiver::INCARNATION);
        let before = stamped.map_or(0, |w| (w.load(Ordering::Relaxed) >> 32) as u32);
        let restarted = before != 0 && before != incarnation.get();
        disarm(own);
        hold.with(|state| {
            for (number, lane) in (0..=u8::MAX).zip(&mut state.lanes) {
                if let Some(end) = own.lane_end(number) {
                    *lane = end.resume(restarted);
                }
            }
            state.activate_all(own.geometry.lanes());
        });
        if let (Some(stamped), Some(life)) = (stamped, own.word(receiver::LIFE)) {
            // The low half is the number of cells. Last, or a life that ends in between would not count as one.
            stamped.store(
                u64::from(own.geometry.cells()) | u64::from(incarnation.get()) << 32,
                Ordering::Relaxed,
            );
            if let Some(beat) = own.word(receiver::HEARTBEAT) {
                // A life without a clock never beats, and is not suspect for that.
                beat.store(0, Ordering::Relaxed);
            }
            // SYNC POINT: receiver-life (release)
            life.store(Life { incarnation, over: false }.to_word(), Ordering::Release);
        }
        hold.release();
        self.wake();
    }
}

impl<W: Word> LaneEnd<'_, W> {
    /// The lane as our former life left it.
    fn resume(&self, restarted: bool) -> Lane {
        let [credit, answer, _, lost_from, lost_to, breach, received, ..] =
            self.control.each_ref().map(|w| w.load(Ordering::Relaxed));
        let (hello, breach) = (answer, breach != 0);
        let clean = self.is_clean(hello);
        // Whether the sender was told of space nobody knows any more: then it is told again.
        let mut lane = Lane { next: credit, credited: credit, hello, received, breach, clean, ..Lane::NEW };
        let said = self.header(header::HELLO);
        // A first life is answered before it is read. What another's former lives left may have been read without.
        let unread = answer == 0 && Hello::from_word(said).is_none_or(|hello| hello.first);
        if !restarted || unread {
            return lane;
        }
        lane.next = if said == answer {
            if clean {
                self.first_unpublished(credit)
            } else {
                credit
            }
        } else {
            // A dead life's lane: it publishes no more, and what it had is not told apart from what we have read.
            credit.wrapping_add(self.cells())
        };
        if lane.next != credit {
            // A range that the sender has not seen yet stays in the report.
            let from = if self.header(header::SEEN) < lost_to { lost_from } else { credit };
            self.set(control::LOST_FROM, from);
            // SYNC POINT: lane-lost (release)
            self.set(control::LOST_TO, lane.next);
            lane.credited = lane.next;
            self.set(control::CREDIT, lane.next);
        }
        self.count(control::RESETS);
        lane
    }

    fn first_unpublished(&self, from: u64) -> u64 {
        let end = from.wrapping_add(self.cells());
        let mut position = from;
        while position != end {
            let published = self.cell(position).is_some_and(|[head, ..]| {
                // SYNC POINT: message-published (acquire). Who sees the credit must see the position as taken.
                let head = head.load(Ordering::Acquire);
                Lap::of(head as u32, self.geometry.lap(position)) == Lap::Here
            });
            if !published {
                break;
            }
            position = position.wrapping_add(1);
        }
        position
    }
}

impl<W: Word> Sender<W> {
    /// Begins a life in the lane (SPEC N-9).
    pub(crate) fn begin(region: PeerRegion<W>, incarnation: Incarnation) -> Self {
        // A lane of which its receiver has ever taken note was used, whatever its header says.
        let noted = [control::ANSWER, control::CREDIT, control::BREACH];
        let noted = noted.map(|word| region.control(word, Ordering::Relaxed)).into_iter();
        let before =
            core::iter::once(region.own(header::HELLO)).chain(noted).find(|word| *word != 0).unwrap_or(0);
        let mut hello = Hello::after(before, incarnation);
        if hello.to_word() == region.control(control::ANSWER, Ordering::Relaxed) {
            // Acknowledged before it was said: that is another's.
            hello = Hello::after(hello.to_word(), incarnation);
        }
        if hello.first {
            // Whatever the pages held before, nobody has said that it means anything.
            clean(&region, 0);
        }
        // SYNC POINT: lane-hello (release)
        region.set(header::HELLO, hello.to_word());
        let start = if hello.first { 0 } else { UNANSWERED };
        let [tail, credit, base] = [start, 0, 0].map(AtomicU64::new);
        Self { tail, credit, base, hello: hello.to_word(), region }
    }

    /// Begins to send once the receiver has acknowledged this life: from `BASE`, in clean cells (SPEC N-9).
    #[cold]
    pub(super) fn prepare(&self, tail: u64) -> Result<(), Unsent> {
        // SYNC POINT: lane-answer (acquire)
        let answer = self.region.control(control::ANSWER, Ordering::Acquire);
        if tail == PREPARING || answer != self.hello {
            return Err(Unsent::Unanswered);
        }
        if self.region.control(control::BREACH, Ordering::Relaxed) != 0 {
            return Err(Unsent::Quarantined);
        }
        let base = self.region.control(control::BASE, Ordering::Relaxed);
        let geometry = self.region.geometry;
        if base >= 1 << 63 || geometry.index(base) != 0 {
            return Err(Unsent::Broken);
        }
        if self.tail.compare_exchange(UNANSWERED, PREPARING, Ordering::Relaxed).is_err() {
            return Err(Unsent::Unanswered);
        }
        // Whatever a former life left there, by design or not, is no message of this one.
        clean(&self.region, base);
        // SYNC POINT: lane-clean (release)
        self.region.set(header::CLEAN, self.hello);
        self.credit.store(base, Ordering::Relaxed);
        self.base.store(base, Ordering::Relaxed);
        // SYNC POINT: lane-prepared (release)
        self.tail
            .compare_exchange(PREPARING, base, Ordering::Release)
            .map_or(Err(Unsent::Unanswered), |_| Ok(()))
    }
}

/// Makes each cell one that was last written in the lap before that of `base`, below which nothing was lost that matters.
fn clean<W: Word>(region: &PeerRegion<W>, base: u64) {
    let lap = region.geometry.lap(base).wrapping_sub(1);
    for position in 0..u64::from(region.geometry.cells()) {
        if let Some([head, ..]) = region.cell(position) {
            head.store(lap.into(), Ordering::Relaxed);
        }
    }
    region.set(header::SEEN, base);
}

/// What a sender can see of its receiver's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pulse {
    pub(crate) life: Option<Life>,
    pub(crate) beat: u64,
}

impl<W: Word> Sender<W> {
    /// Reads the receiver's signs of life.
    pub(crate) fn pulse(&self) -> Pulse {
        // SYNC POINT: receiver-life (acquire)
        let life = Life::from_word(self.region.load(receiver::LIFE, Ordering::Acquire));
        Pulse { life, beat: self.region.load(receiver::HEARTBEAT, Ordering::Relaxed) }
    }

    /// Messages of this life that a restart of the receiver lost, not told before: number of the first, counted from
    /// the first message of this life, and how many.
    pub(crate) fn take_lost(&self) -> Option<(u64, u64)> {
        let seen = self.region.own(header::SEEN);
        // SYNC POINT: lane-lost (acquire)
        let to = self.region.control(control::LOST_TO, Ordering::Acquire);
        let from = self.region.control(control::LOST_FROM, Ordering::Relaxed);
        let (base, tail) = self.positions();
        if to <= seen || to > tail || from >= to {
            return None;
        }
        self.region.set(header::SEEN, to);
        let first = from.max(seen).max(base);
        Some((first.wrapping_sub(base), to.saturating_sub(first))).filter(|(_, count)| *count != 0)
    }

    /// Whether the receiver's stamp offers this, and we know it too.
    pub(crate) const fn offers(&self, feature: Features) -> bool {
        self.region.features.contains(feature)
    }

    /// The lane in numbers.
    pub(crate) fn stats(&self) -> LaneStats {
        let theirs = |word| self.region.control(word, Ordering::Relaxed);
        LaneStats {
            sent: self.sent(),
            full: self.region.own(header::FULL),
            rung: self.region.own(header::RUNG),
            received: theirs(control::RECEIVED),
            resets: theirs(control::RESETS),
            bad: theirs(control::BAD),
            last_breach: Breach::from_word(theirs(control::LAST_BREACH)),
        }
    }

    /// Has the receiver's `incarnation` stop, if we are the host (SPEC N-15).
    pub(crate) fn stop(&self, incarnation: Incarnation) {
        self.region.set(header::STOP, incarnation.get().into());
    }
}

impl<W: Word> OwnRegion<W> {
    /// Whether the host has told this life of ours to stop (SPEC N-15).
    pub(crate) fn is_stopped(&self, incarnation: Incarnation) -> bool {
        let host = InstanceId::HOST.get();
        self.lane_end(host).is_some_and(|end| end.header(header::STOP) == u64::from(incarnation.get()))
    }

    /// Has the next drain look at the lane of `id`.
    pub(crate) fn hint(&self, id: InstanceId) {
        let words = self.hints().into_iter().flatten();
        if let Some((word, _)) = words.zip(0u8..).find(|(_, i)| *i == id.get() >> 6) {
            word.fetch_or(1 << (id.get() & 63), Ordering::Relaxed);
        }
    }

    /// Shows that we live.
    pub(crate) fn beat(&self) {
        if let Some(beat) = self.word(receiver::HEARTBEAT) {
            beat.store(beat.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Says that this life is over.
    pub(crate) fn say_goodbye(&self, incarnation: Incarnation) {
        if let Some(life) = self.word(receiver::LIFE) {
            // SYNC POINT: receiver-life (release)
            life.store(Life { incarnation, over: true }.to_word(), Ordering::Release);
        }
    }

    /// No sender rings any more, until the next drain arms.
    pub(crate) fn disarm(&self) {
        disarm(self);
    }

    /// Moves the doorbell: senders that ring from now on ring there (SPEC N-12).
    pub(crate) fn set_bell(&self, bell: Bell) {
        if let Some(word) = self.word(receiver::BELL) {
            word.store(bell.to_word(), Ordering::Relaxed);
        }
    }
}
