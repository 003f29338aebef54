// SPDX-License-Identifier: MIT OR Apache-2.0
//! The words that a receiver writes for all its senders. Also the two words that it reads without visiting a lane: the stop word,
//! and `ATTACHED` (SPEC N-4, N-12, N-15, N-17).

use super::lane::OwnRegion;
use crate::sync::{fence, Ordering, Word};
use mk_ipi_abi::native::{header, receiver, Attached, Bell, Life};
use mk_ipi_abi::{Incarnation, InstanceId};

impl<W: Word> OwnRegion<W> {
    /// Returns whether the host has told this incarnation to stop (SPEC N-15).
    pub(crate) fn is_stopped(&self, incarnation: Incarnation) -> bool {
        let host = self.lane_end(InstanceId::HOST.get());
        host.is_some_and(|end| end.header(header::STOP) == u64::from(incarnation.get()))
    }

    /// Iterates over the instances whose valid `ATTACHED` words say that they have this region mapped (SPEC N-17).
    pub(crate) fn attached(&self) -> impl Iterator<Item = (InstanceId, Attached)> + use<'_, W> {
        // The other half of the fence in `Endpoint::attach_listed`: either we see the word of an instance that attaches now, or
        // that instance reads the directory as we have written it before this call.
        fence(Ordering::SeqCst);
        (0..=u8::MAX).filter_map(|lane| {
            // SYNC POINT: lane-followed (acquire)
            let attached = Attached::from_word(self.lane_end(lane)?.header(header::ATTACHED))?;
            Some((InstanceId::new(lane), attached))
        })
    }

    /// Adds one to `HEARTBEAT`.
    pub(crate) fn advance_heartbeat(&self) {
        if let Some(heartbeat) = self.word(receiver::HEARTBEAT) {
            heartbeat.store(heartbeat.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Stores to `LIFE` that this incarnation has ended.
    pub(crate) fn say_goodbye(&self, incarnation: Incarnation) {
        if let Some(life) = self.word(receiver::LIFE) {
            // SYNC POINT: receiver-life (release)
            life.store(Life { incarnation, over: true }.to_word(), Ordering::Release);
        }
    }

    /// Stores 0 to `ARMED`: senders do not ring until a drain has stored 1 again.
    pub(crate) fn disarm(&self) {
        if let Some(armed) = self.word(receiver::ARMED).filter(|armed| armed.load(Ordering::Relaxed) != 0) {
            armed.store(0, Ordering::Relaxed);
        }
    }

    /// Stores a new doorbell to `BELL`. After the next drain has armed, senders ring only there (SPEC N-12). False if the
    /// doorbell does not fit into a word.
    pub(crate) fn set_bell(&self, bell: Bell) -> bool {
        let word = self.word(receiver::BELL).zip(bell.to_word());
        if let Some((word, bell)) = word {
            word.store(bell, Ordering::Relaxed);
        }
        word.is_some()
    }
}
