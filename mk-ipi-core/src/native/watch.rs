// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a sender observes of its receiver: restarts, its end, its heartbeat, and what happened to our messages (SPEC N-11).

use super::send::Sender;
use crate::platform::PeerEvent;
use crate::sync::{AtomicBool, AtomicU64, Ordering, Word};
use mk_ipi_abi::native::{control, header, receiver, Breach, Life};
use mk_ipi_abi::Incarnation;

/// Statistics of our lane in a peer's region. Some values are written by the peer, so they are information only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStats {
    /// The number of the last message; 0 if none was sent.
    pub number: u64,
    /// Sends that found the lane full, in all lives.
    pub full: u64,
    /// Doorbells rung, in all lives. All other sends needed none.
    pub rung: u64,
    /// Messages that the peer delivered to its handlers, as it says, in all lives.
    pub received: u64,
    /// Lives of ours that it answered, plus its own restarts.
    pub resets: u64,
    /// How often it put the lane into quarantine.
    pub bad: u64,
    /// The reason for the last quarantine.
    pub last_breach: Option<Breach>,
}

/// Messages that may or may not be handled: those with a number above the first, up to the second.
pub(crate) type Unsettled = (u64, u64);

/// What was last seen of a peer. One caller at a time checks it (`busy`).
#[derive(Debug)]
pub(crate) struct Watch {
    busy: AtomicBool,
    life: AtomicU64,
    heartbeat: AtomicU64,
    /// When the heartbeat last changed, by the kernel's clock.
    since: AtomicU64,
    suspect: AtomicBool,
    /// How many messages in doubt were reported.
    doubts: AtomicU64,
    /// The end of the discarded messages that were reported.
    discarded: AtomicU64,
    /// Whether it was reported that the peer refuses this life of ours.
    refused: AtomicBool,
    /// Whether it was reported that the region was created again.
    gone: AtomicBool,
}

/// Clears `busy` when a check ends, also if the observer unwinds.
struct WatchGuard<'a>(&'a AtomicBool);

impl Drop for WatchGuard<'_> {
    fn drop(&mut self) {
        // SYNC POINT: watch (release)
        self.0.store(false, Ordering::Release);
    }
}

impl Watch {
    /// A watch of the receiver of `sender`. It does not report what happened to messages of former lives.
    pub(crate) fn new<W: Word>(sender: &Sender<W>) -> Self {
        let [life, heartbeat, since] = [0, 0, 0].map(AtomicU64::new);
        let [doubts, discarded] =
            [control::DOUBTS, control::DISCARD_TO].map(|word| AtomicU64::new(sender.region.control(word)));
        let [busy, suspect, refused, gone] = [false; 4].map(AtomicBool::new);
        Self { busy, life, heartbeat, since, suspect, doubts, discarded, refused, gone }
    }

    /// Whether the heartbeat stood still when it was looked at last.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Compares the peer's words with those seen before, and reports changes.
    pub(crate) fn look<W: Word>(
        &self,
        sender: &Sender<W>,
        now: u64,
        patience: u64,
        report: impl Fn(PeerEvent),
    ) {
        // Acquire. No model proves it, because the next load from the peer's pages has a fence that has the same effect.
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

    /// The region was created again: reports, once, what we sent into the former one.
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
        // Called before `Up` is reported, so that the observer knows the lost messages by then.
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
        // A life with heartbeat 0 never called `tick`. An invalid LIFE does not end the check.
        if !life.is_some_and(|life| life.over) && heartbeat != 0 {
            self.check_heartbeat(heartbeat, now, patience, &report);
        }
    }

    /// Reports what happened to messages of this life, as the receiver says. Numbers that no message has are ignored.
    fn check_messages<W: Word>(&self, sender: &Sender<W>, report: impl Fn(PeerEvent)) {
        let region = &sender.region;
        let doubts = region.control_relaxed(control::DOUBTS);
        // SYNC POINT: lane-doubt (acquire); lane-discarded (acquire)
        let to = region.control(control::DISCARD_TO);
        // Loaded after both, so that messages with these numbers were taken before.
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
        // A part of the range may have been reported before.
        let after = if seen > after && seen < to { seen } else { after };
        if to != seen && after < to && to <= tail {
            report(PeerEvent::Discarded { after, to });
        }
        if let Some(breach) = sender.breach().filter(|_| self.newly_refused()) {
            report(PeerEvent::Refused(breach));
        }
    }

    /// Whether it must be reported that the peer refuses this life of ours. True once.
    pub(crate) fn newly_refused(&self) -> bool {
        !self.refused.swap(true, Ordering::Relaxed)
    }

    /// `now` may be a little behind the clock of another CPU. Then no time has passed.
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

    /// The life of the receiver that has begun in the region. The inner value is `None` if its word is invalid.
    pub(crate) fn begun(&self) -> Option<Option<Life>> {
        let word = self.life_word();
        (word != 0).then(|| Life::from_word(word))
    }

    /// The incarnation of the receiver that lives, by its own word. The inner value is `None` if the word is invalid.
    pub(crate) fn lives(&self) -> Option<Option<Incarnation>> {
        let word = self.region.receiver(receiver::LIFE);
        let life = Life::from_word(word);
        (word != 0 && !life.is_some_and(|life| life.over)).then(|| life.map(|life| life.incarnation))
    }

    /// The number up to which the receiver has handled all messages. `None` if its credit is impossible.
    pub(crate) fn handled(&self) -> Option<u64> {
        let credit = self.region.control(control::CREDIT);
        let (base, tail) = self.positions();
        if tail == 0 {
            // Nothing was sent, or this life is not answered yet. The credit is that of a former life.
            return Some(0);
        }
        (credit <= tail).then_some(if credit < base { 0 } else { credit })
    }

    /// The messages that the receiver has not confirmed as handled, if any.
    pub(crate) fn unsettled(&self) -> Option<Unsettled> {
        let (base, tail) = self.positions();
        let known = self.credit.load(Ordering::Relaxed);
        let said = if self.is_gone() { None } else { self.handled() };
        let after = said.unwrap_or(0).max(known).max(base);
        (after < tail).then_some((after, tail))
    }

    /// Marks messages up to `to` as reported.
    fn forget_unsettled(&self, to: u64) {
        self.credit.fetch_max(to, Ordering::Relaxed);
    }

    /// Statistics of the lane.
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
