// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a sender sees of its receiver: restarted, gone, silent, what it says became of our messages (SPEC N-11).

use super::send::Sender;
use crate::platform::PeerEvent;
use crate::sync::{AtomicBool, AtomicU64, Ordering, Word};
use mk_ipi_abi::native::{control, header, receiver, Breach, Life};
use mk_ipi_abi::Incarnation;

/// Our lane in a peer's region, in numbers. Some are the peer's word: they inform, and decide nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStats {
    /// The number of the last message; 0 if none was sent.
    pub number: u64,
    /// Sends that found the lane full, in all lives.
    pub full: u64,
    /// Doorbells rung, in all lives; all other sends were suppressed.
    pub rung: u64,
    /// Messages that the peer says it handed out, in all lives.
    pub received: u64,
    /// Lives of ours that it answered, and restarts of its own.
    pub resets: u64,
    /// How often it put the lane into quarantine.
    pub bad: u64,
    /// Why it did so last.
    pub last_breach: Option<Breach>,
}

/// Messages of which nobody knows whether they were handled: those with a number above the first, up to the second.
pub(crate) type Unsettled = (u64, u64);

/// What was last seen of a peer. One caller at a time looks (`busy`).
#[derive(Debug)]
pub(crate) struct Watch {
    busy: AtomicBool,
    life: AtomicU64,
    heartbeat: AtomicU64,
    /// When the beat last changed, by the kernel's clock.
    since: AtomicU64,
    suspect: AtomicBool,
    /// How many messages in doubt have been told of.
    doubts: AtomicU64,
    /// The end of the discarded messages that have been told of.
    discarded: AtomicU64,
    /// Whether it was told that the peer refuses this life of ours.
    refused: AtomicBool,
    /// Whether it was told that the region was made anew.
    gone: AtomicBool,
}

/// Somebody looks; also one whose observer unwinds comes to an end.
struct WatchGuard<'a>(&'a AtomicBool);

impl Drop for WatchGuard<'_> {
    fn drop(&mut self) {
        // SYNC POINT: watch (release)
        self.0.store(false, Ordering::Release);
    }
}

impl Watch {
    /// Of the receiver that `sender` sends to: what became of former lives' messages is not told.
    pub(crate) fn new<W: Word>(sender: &Sender<W>) -> Self {
        let [life, heartbeat, since] = [0, 0, 0].map(AtomicU64::new);
        let [doubts, discarded] =
            [control::DOUBTS, control::DISCARD_TO].map(|word| AtomicU64::new(sender.region.control(word)));
        let [busy, suspect, refused, gone] = [false; 4].map(AtomicBool::new);
        Self { busy, life, heartbeat, since, suspect, doubts, discarded, refused, gone }
    }

    /// Compares the peer's words with those seen before, and tells what is new.
    pub(crate) fn look<W: Word>(
        &self,
        sender: &Sender<W>,
        now: u64,
        patience: u64,
        report: impl Fn(PeerEvent),
    ) {
        // Acquire, though no model sees it: what is loaded from the peer's pages next has a fence that does the same.
        if self.busy.swap(true, Ordering::Acquire) {
            return;
        }
        let _guard = WatchGuard(&self.busy);
        if sender.is_gone() {
            self.report_region_gone(sender, &report);
        } else {
            self.check_life(sender, now, patience, &report);
        }
    }

    /// The region was made anew: what we sent into the old one is told of, once.
    fn report_region_gone<W: Word>(&self, sender: &Sender<W>, report: impl Fn(PeerEvent)) {
        if let Some((after, to)) = sender.unsettled() {
            sender.forget_unsettled(to);
            report(PeerEvent::Unsettled { after, to });
        }
        if !self.gone.swap(true, Ordering::Relaxed) {
            report(PeerEvent::ReadDirectory);
        }
    }

    fn check_life<W: Word>(&self, sender: &Sender<W>, now: u64, patience: u64, report: impl Fn(PeerEvent)) {
        let life = sender.life();
        let heartbeat = sender.region.receiver_relaxed(receiver::HEARTBEAT);
        // Behind the life: who is told that the peer is up again knows what that has cost.
        self.check_messages(sender, &report);
        let word = life.map_or(0, Life::to_word);
        if self.life.load(Ordering::Relaxed) != word {
            self.life.store(word, Ordering::Relaxed);
            self.note_heartbeat(heartbeat, now);
            match life {
                Some(Life { incarnation, over: true }) => report(PeerEvent::Dead(incarnation)),
                Some(Life { incarnation, over: false }) => report(PeerEvent::Up(incarnation)),
                None => {}
            }
        }
        // A life that never beat has no clock. Whoever scribbles over its own LIFE is watched all the same.
        if !life.is_some_and(|life| life.over) && heartbeat != 0 {
            self.check_heartbeat(heartbeat, now, patience, &report);
        }
    }

    /// What the receiver says became of this life's messages. Numbers that were never given mean nothing.
    fn check_messages<W: Word>(&self, sender: &Sender<W>, report: impl Fn(PeerEvent)) {
        let region = &sender.region;
        let doubts = region.control_relaxed(control::DOUBTS);
        // SYNC POINT: lane-doubt (acquire); lane-discarded (acquire)
        let to = region.control(control::DISCARD_TO);
        // Loaded behind both: what they tell of was taken before.
        let (base, tail) = sender.positions();
        let room = control::DOUBT_WORDS as u64;
        let seen = self.doubts.swap(doubts, Ordering::Relaxed).max(doubts.saturating_sub(room));
        for nth in (seen..doubts).take(control::DOUBT_WORDS) {
            let number = region.control(control::doubt(nth));
            if number > base && number <= tail {
                report(PeerEvent::InDoubt { number });
            }
        }
        let seen = self.discarded.swap(to, Ordering::Relaxed);
        let after = region.control(control::DISCARD_FROM).max(base);
        // What was told of before may stand in the same range.
        let after = if seen > after && seen < to { seen } else { after };
        if to != seen && after < to && to <= tail {
            report(PeerEvent::Discarded { after, to });
        }
        if let Some(breach) = sender.breach().filter(|_| self.newly_refused()) {
            report(PeerEvent::Refused(breach));
        }
    }

    /// That the peer refuses this life of ours is to be told; true once.
    pub(crate) fn newly_refused(&self) -> bool {
        !self.refused.swap(true, Ordering::Relaxed)
    }

    /// `now` may be a little behind what another CPU's clock gave: then no time has passed.
    fn check_heartbeat(&self, heartbeat: u64, now: u64, patience: u64, report: impl Fn(PeerEvent)) {
        if self.heartbeat.load(Ordering::Relaxed) != heartbeat {
            if self.suspect.load(Ordering::Relaxed) {
                report(PeerEvent::Alive);
            }
            self.note_heartbeat(heartbeat, now);
        } else if now.saturating_sub(self.since.load(Ordering::Relaxed)) > patience
            && !self.suspect.swap(true, Ordering::Relaxed)
        {
            report(PeerEvent::Suspect);
        }
    }

    fn note_heartbeat(&self, heartbeat: u64, now: u64) {
        self.heartbeat.store(heartbeat, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
        self.suspect.store(false, Ordering::Relaxed);
    }
}

impl<W: Word> Sender<W> {
    fn life_word(&self) -> u64 {
        // SYNC POINT: receiver-life (acquire)
        self.region.receiver(receiver::LIFE)
    }

    /// The receiver's life, as its page says now.
    pub(crate) fn life(&self) -> Option<Life> {
        Life::from_word(self.life_word())
    }

    /// Whether a life of the receiver has begun in the region, and which, if the word makes sense.
    pub(crate) fn begun(&self) -> Option<Option<Life>> {
        let word = self.life_word();
        (word != 0).then(|| Life::from_word(word))
    }

    /// Whether the receiver lives, by its own word, and which life that is, if the word makes sense.
    pub(crate) fn lives(&self) -> Option<Option<Incarnation>> {
        let word = self.region.receiver(receiver::LIFE);
        let life = Life::from_word(word);
        (word != 0 && !life.is_some_and(|life| life.over)).then(|| life.map(|life| life.incarnation))
    }

    /// How far the receiver has handled: every message with a number up to this. `None` if it says what cannot be.
    pub(crate) fn handled(&self) -> Option<u64> {
        let credit = self.region.control(control::CREDIT);
        let (base, tail) = self.positions();
        if tail == 0 {
            // Nothing was sent, or this life is not answered yet: the credit is a former one's.
            return Some(0);
        }
        (credit <= tail).then_some(if credit < base { 0 } else { credit })
    }

    /// What the receiver has not said to have handled, if anything.
    pub(crate) fn unsettled(&self) -> Option<Unsettled> {
        let (base, tail) = self.positions();
        let known = self.credit.load(Ordering::Relaxed);
        let said = if self.is_gone() { None } else { self.handled() };
        let after = said.unwrap_or(0).max(known).max(base);
        (after < tail).then_some((after, tail))
    }

    /// That was told: what was sent up to there is not told again.
    fn forget_unsettled(&self, to: u64) {
        self.credit.fetch_max(to, Ordering::Relaxed);
    }

    /// The lane in numbers.
    pub(crate) fn stats(&self) -> LaneStats {
        let theirs = |word| self.region.control(word);
        let (base, tail) = self.positions();
        LaneStats {
            number: if tail == base { 0 } else { tail },
            full: self.region.own(header::FULL),
            rung: self.region.own(header::RUNG),
            received: theirs(control::RECEIVED),
            resets: theirs(control::RESETS),
            bad: theirs(control::BAD),
            last_breach: Breach::from_word(theirs(control::LAST_BREACH)),
        }
    }
}
