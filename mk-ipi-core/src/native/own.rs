// SPDX-License-Identifier: MIT OR Apache-2.0
//! The words that a receiver writes for all its senders, and the stop word (SPEC N-4, N-12, N-15).

use super::lane::OwnRegion;
use crate::sync::{fence, Ordering, Word};
use mk_ipi_abi::native::{header, receiver, Attached, Bell, Life};
use mk_ipi_abi::{Incarnation, InstanceId};

impl<W: Word> OwnRegion<W> {
    /// Whether the host has told this life of ours to stop (SPEC N-15).
    pub(crate) fn is_stopped(&self, incarnation: Incarnation) -> bool {
        let host = self.lane_end(InstanceId::HOST.get());
        host.is_some_and(|end| end.header(header::STOP) == u64::from(incarnation.get()))
    }

    /// The instances whose words say that they have the region mapped (SPEC N-17).
    pub(crate) fn attached(&self) -> impl Iterator<Item = (InstanceId, Attached)> + use<'_, W> {
        // See `Endpoint::attach_listed`.
        fence(Ordering::SeqCst);
        (0..=u8::MAX).filter_map(|lane| {
            // SYNC POINT: lane-followed (acquire)
            let attached = Attached::from_word(self.lane_end(lane)?.header(header::ATTACHED))?;
            Some((InstanceId::new(lane), attached))
        })
    }

    /// Advances our heartbeat.
    pub(crate) fn advance_heartbeat(&self) {
        if let Some(heartbeat) = self.word(receiver::HEARTBEAT) {
            heartbeat.store(heartbeat.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Writes that this life has ended.
    pub(crate) fn say_goodbye(&self, incarnation: Incarnation) {
        if let Some(life) = self.word(receiver::LIFE) {
            // SYNC POINT: receiver-life (release)
            life.store(Life { incarnation, over: true }.to_word(), Ordering::Release);
        }
    }

    /// Tells senders not to ring until the next drain arms.
    pub(crate) fn disarm(&self) {
        if let Some(armed) = self.word(receiver::ARMED).filter(|armed| armed.load(Ordering::Relaxed) != 0) {
            armed.store(0, Ordering::Relaxed);
        }
    }

    /// Moves the doorbell: senders that ring from now on ring there (SPEC N-12). False if it does not fit into a word.
    pub(crate) fn set_bell(&self, bell: Bell) -> bool {
        let word = self.word(receiver::BELL).zip(bell.to_word());
        if let Some((word, bell)) = word {
            word.store(bell, Ordering::Relaxed);
        }
        word.is_some()
    }
}
