// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a sender observes its receiver: the receiver's start and end, its heartbeat, and messages of this sender that are in
//! doubt, discarded or not confirmed (SPEC N-11).

use super::send::Sender;
use crate::platform::PeerEvent;
use crate::sync::{AtomicBool, AtomicU64, Ordering, Word};
use mk_ipi_abi::native::{control, header, receiver, Breach, Life};
use mk_ipi_abi::Incarnation;

/// Statistics of this kernel's lane in a peer's region. The peer writes some of the values, so do not rely on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStats {
    /// The number of the last message that this life sent. 0 if it has sent none.
    pub number: u64,
    /// How often a send found the lane full, in all lives of this kernel.
    pub full: u64,
    /// How often this kernel rang the peer for this lane, in all lives of this kernel. A send rings only if the peer
    /// has asked for it.
    pub rung: u64,
    /// How many messages the peer has delivered to its handlers, in all lives of both kernels. The peer writes this value.
    pub received: u64,
    /// How often the peer accepted a new life or attachment of this kernel, plus how often the peer restarted. The peer writes
    /// this value.
    pub resets: u64,
    /// How often the peer put the lane into quarantine. The peer writes this value.
    pub bad: u64,
    /// The reason for the last quarantine. The peer writes this value.
    pub last_breach: Option<Breach>,
}

/// Messages of which the sender does not know whether they were handled: those with a number above the first value, up to the
/// second value.
pub(crate) type Unsettled = (u64, u64);

/// What the last check found in a peer's words, so that the next one can report changes. One caller at a time checks (`busy`).
#[derive(Debug)]
pub(crate) struct Watch {
    busy: AtomicBool,
    /// The value of `LIFE`. 0 if `LIFE` was 0 or invalid.
    life: AtomicU64,
    /// The value of `HEARTBEAT`.
    heartbeat: AtomicU64,
    /// The time of the check that last found another heartbeat, in units of this kernel's clock.
    since: AtomicU64,
    /// Whether the peer is suspect, because its heartbeat stands still.
    suspect: AtomicBool,
    /// The value of `DOUBTS`: the doubts up to this one need not be reported any more.
    doubts: AtomicU64,
    /// The value of `DISCARD_TO`: discarded messages up to this number need not be reported any more.
    discarded: AtomicU64,
    /// Whether it was reported that the peer refuses this life of ours.
    refused: AtomicBool,
    /// Whether it was reported that the region was created again.
    gone: AtomicBool,
}

/// Clears `busy` when it is dropped: at the end of a check, and if the observer unwinds.
struct WatchGuard<'a>(&'a AtomicBool);

impl Drop for WatchGuard<'_> {
    fn drop(&mut self) {
        // SYNC POINT: watch (release)
        self.0.store(false, Ordering::Release);
    }
}

impl Watch {
    /// A watch of the receiver of `sender`. It does not report doubts and discards of messages of former lives of this kernel.
    pub(crate) fn new<W: Word>(sender: &Sender<W>) -> Self {
        let [life, heartbeat, since] = [0, 0, 0].map(AtomicU64::new);
        let [doubts, discarded] =
            [control::DOUBTS, control::DISCARD_TO].map(|word| AtomicU64::new(sender.region.control(word)));
        let [busy, suspect, refused, gone] = [false; 4].map(AtomicBool::new);
        Self { busy, life, heartbeat, since, suspect, doubts, discarded, refused, gone }
    }

    /// Returns whether the peer is suspect: at the last check its heartbeat had stood still for too long.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Compares the peer's words with those at the last check, and reports changes. Returns at once if another CPU checks now.
    /// `now` is the time, and `patience` is how long a heartbeat can stand still before the peer is suspect, both in units of the
    /// kernel's clock.
    pub(crate) fn look<W: Word>(
        &self,
        sender: &Sender<W>,
        now: u64,
        patience: u64,
        report: impl Fn(PeerEvent),
    ) {
        // Acquire, so that we see what the last check stored. No loom model fails without it, because a load from the peer's
        // pages follows, and its acquire fence has the same effect.
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

    /// Called if the region was created again. Reports the messages that the former region may have lost, and, once, that the
    /// directory must be read.
    fn report_region_gone<W: Word>(&self, sender: &Sender<W>, report: impl Fn(PeerEvent)) {
        if let Some((after, to)) = sender.unsettled() {
            sender.forget_unsettled(to);
            report(PeerEvent::Unsettled { after, to });
        }
        if !self.gone.swap(true, Ordering::Relaxed) {
            report(PeerEvent::ReadDirectory);
        }
    }

    /// Reports changes of the receiver's life and heartbeat, and what happened to messages of this life.
    fn check_life<W: Word>(&self, sender: &Sender<W>, now: u64, patience: u64, report: impl Fn(PeerEvent)) {
        let life = sender.life();
        let heartbeat = sender.region.receiver_relaxed(receiver::HEARTBEAT);
        // Called before `Up` is reported: when the observer gets `Up`, it must know which messages are in doubt or discarded.
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
        // A life with heartbeat 0 never called `tick`, so it cannot be suspect. If `LIFE` is invalid, the heartbeat is checked
        // all the same.
        if !life.is_some_and(|life| life.over) && heartbeat != 0 {
            self.check_heartbeat(heartbeat, now, patience, &report);
        }
    }

    /// Reports which messages of this life are in doubt or discarded, and whether the receiver has put this life into quarantine.
    /// Ignores numbers that no message of this life can have.
    fn check_messages<W: Word>(&self, sender: &Sender<W>, report: impl Fn(PeerEvent)) {
        let region = &sender.region;
        let doubts = region.control_relaxed(control::DOUBTS);
        // SYNC POINT: lane-doubt (acquire); lane-discarded (acquire)
        let to = region.control(control::DISCARD_TO);
        // Loaded after `DOUBTS` and `DISCARD_TO`: the lines of all messages that a correct receiver names were taken before.
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
        // Leaves out the part of the range that was reported before.
        let after = if seen <= to { after.max(seen) } else { after };
        if after < to && to <= tail {
            report(PeerEvent::Discarded { after, to });
        }
        if let Some(breach) = sender.breach().filter(|_| self.newly_refused()) {
            report(PeerEvent::Refused(breach));
        }
    }

    /// Returns true at the first call only: then the caller must report that the peer refuses this life.
    pub(crate) fn newly_refused(&self) -> bool {
        !self.refused.swap(true, Ordering::Relaxed)
    }

    /// Reports if the heartbeat stands still for too long, or changes again after that. `now` can be a little less than `since`,
    /// which another CPU may have stored. Then no time has passed.
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

    /// The value of the receiver's `LIFE`. `None` if it is 0 or invalid.
    pub(crate) fn life(&self) -> Option<Life> {
        Life::from_word(self.life_word())
    }

    /// The life of the receiver that began last in the region. `None` if `LIFE` is 0: no life has begun. `Some(None)` if `LIFE`
    /// is invalid.
    pub(crate) fn begun(&self) -> Option<Option<Life>> {
        let word = self.life_word();
        (word != 0).then(|| Life::from_word(word))
    }

    /// The incarnation in the receiver's `LIFE`. `None` if no life has begun, or the last one is over. `Some(None)` if `LIFE` is
    /// invalid.
    pub(crate) fn lives(&self) -> Option<Option<Incarnation>> {
        let word = self.region.receiver(receiver::LIFE);
        let life = Life::from_word(word);
        (word != 0 && !life.is_some_and(|life| life.over)).then(|| life.map(|life| life.incarnation))
    }

    /// The number up to which the receiver has handled all messages of this life. `None` if `CREDIT` has an impossible value.
    pub(crate) fn handled(&self) -> Option<u64> {
        let credit = self.region.control(control::CREDIT);
        let (base, tail) = self.positions();
        if tail == 0 {
            // Nothing was sent, or this life is not answered yet, so that `CREDIT` still belongs to a former life.
            return Some(0);
        }
        (credit <= tail).then_some(if credit < base { 0 } else { credit })
    }

    /// The messages of this life that the receiver has not confirmed as handled. `None` if there are none.
    pub(crate) fn unsettled(&self) -> Option<Unsettled> {
        let (base, tail) = self.positions();
        let known = self.credit.load(Ordering::Relaxed);
        let said = if self.is_gone() { None } else { self.handled() };
        let after = said.unwrap_or(0).max(known).max(base);
        (after < tail).then_some((after, tail))
    }

    /// Makes [`unsettled`](Self::unsettled) leave out the messages up to number `to`, because they were reported.
    fn forget_unsettled(&self, to: u64) {
        self.credit.fetch_max(to, Ordering::Relaxed);
    }

    /// The statistics of the lane.
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
