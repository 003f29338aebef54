// SPDX-License-Identifier: MIT OR Apache-2.0
//! Watching the peers of the native link: restarted, lost, gone, silent (SPEC N-11).

use crate::native::{Pulse, Sender};
use crate::platform::PeerEvent;
use crate::sync::{AtomicBool, AtomicU64, Ordering, Word};
use mk_ipi_abi::native::{Features, Life};

/// What was last seen of a peer. One caller at a time looks (`busy`).
#[derive(Debug)]
pub(crate) struct Watch {
    busy: AtomicBool,
    life: AtomicU64,
    beat: AtomicU64,
    /// When the beat last changed, by the kernel's clock.
    since: AtomicU64,
    suspect: AtomicBool,
}

impl Watch {
    pub(crate) fn new() -> Self {
        let [life, beat, since] = [0, 0, 0].map(AtomicU64::new);
        Self { busy: AtomicBool::new(false), life, beat, since, suspect: AtomicBool::new(false) }
    }

    /// Compares the peer's signs of life with those seen before, and tells what is new.
    pub(crate) fn look<W: Word>(
        &self,
        sender: &Sender<W>,
        now: u64,
        patience: u64,
        tell: impl Fn(PeerEvent),
    ) {
        // SYNC POINT: watch (acquire)
        if self.busy.swap(true, Ordering::Acquire) {
            return;
        }
        let Pulse { life, beat } = sender.pulse();
        // Behind the pulse: who is told that the peer is up again knows what that has cost.
        if let Some((first, count)) = sender.take_lost() {
            tell(PeerEvent::Lost { first, count });
        }
        let word = life.map_or(0, Life::to_word);
        if self.life.load(Ordering::Relaxed) != word {
            self.life.store(word, Ordering::Relaxed);
            self.hear(beat, now);
            match life {
                Some(Life { incarnation, over: true }) => tell(PeerEvent::Dead(incarnation)),
                Some(Life { incarnation, over: false }) => tell(PeerEvent::Up(incarnation)),
                None => {}
            }
        }
        // A life that never beat has no clock.
        if life.is_some_and(|life| !life.over) && beat != 0 && sender.offers(Features::HEARTBEAT) {
            self.look_at_beat(beat, now, patience, tell);
        }
        // SYNC POINT: watch (release)
        self.busy.store(false, Ordering::Release);
    }

    /// `now` may be a little behind what another CPU's clock gave: then no time has passed.
    fn look_at_beat(&self, beat: u64, now: u64, patience: u64, tell: impl Fn(PeerEvent)) {
        if self.beat.load(Ordering::Relaxed) != beat {
            if self.suspect.load(Ordering::Relaxed) {
                tell(PeerEvent::Alive);
            }
            self.hear(beat, now);
        } else if now.saturating_sub(self.since.load(Ordering::Relaxed)) > patience
            && !self.suspect.swap(true, Ordering::Relaxed)
        {
            tell(PeerEvent::Suspect);
        }
    }

    fn hear(&self, beat: u64, now: u64) {
        self.beat.store(beat, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
        self.suspect.store(false, Ordering::Relaxed);
    }
}
