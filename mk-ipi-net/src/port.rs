// SPDX-License-Identifier: MIT OR Apache-2.0
//! One end of an interface: open or not, and whether the other is (SPEC E-3, E-4).

use mk_ipi_abi::net::{Control, ControlError, Key, Offer};
use mk_ipi_abi::Incarnation;

/// What is to be told to the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Nothing,
    Open,
    Close(Key),
}

/// What the other end said of itself, and the life in which it did.
#[derive(Clone, Copy, Debug)]
struct PeerEnd {
    offer: Offer,
    life: Option<Incarnation>,
    /// It has heard our present key.
    heard: bool,
}

/// What an event changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "the carrier may have changed, and something may be pending"]
pub struct CarrierChange {
    /// The carrier went, if only for a moment: what was begun goes nowhere.
    pub lost: bool,
    /// There is a carrier that was not there before.
    pub gained: bool,
}

/// One end.
#[derive(Debug)]
pub struct Port {
    ours: Option<Offer>,
    theirs: Option<PeerEnd>,
    suspect: bool,
    pending: Pending,
}

impl Default for Port {
    fn default() -> Self {
        Self::new()
    }
}

impl Port {
    /// An end that is closed, and has heard nothing.
    pub const fn new() -> Self {
        Self { ours: None, theirs: None, suspect: false, pending: Pending::Nothing }
    }

    /// Does something, and tells what it changed for whoever sends frames.
    fn change(&mut self, what: impl FnOnce(&mut Self)) -> CarrierChange {
        let before = self.carrier();
        what(self);
        let after = self.carrier();
        let differ = before.map(|offer| offer.key) != after.map(|offer| offer.key);
        CarrierChange { lost: before.is_some() && differ, gained: after.is_some() && differ }
    }

    /// Opens it: from now on frames with the key of `ours` are taken.
    pub fn open(&mut self, ours: Offer) -> CarrierChange {
        self.change(|port| {
            port.ours = Some(ours);
            port.pending = Pending::Open;
            if let Some(theirs) = &mut port.theirs {
                theirs.heard = false;
            }
        })
    }

    /// Closes it.
    pub fn close(&mut self) -> CarrierChange {
        self.change(|port| {
            if let Some(ours) = port.ours.take() {
                port.pending = Pending::Close(ours.key);
            }
        })
    }

    /// A control message came, sent by that life of the peer, as far as that is known.
    ///
    /// # Errors
    /// It is none. Nothing has changed.
    pub fn receive(
        &mut self,
        life: Option<Incarnation>,
        payload: &[u8],
    ) -> Result<CarrierChange, ControlError> {
        let message = Control::decode(payload)?;
        Ok(self.change(|port| match message {
            Control::Open { offer, heard } => port.receive_open(life, offer, heard),
            Control::Close(key) => {
                if port.theirs.is_some_and(|theirs| theirs.offer.key == key) {
                    port.theirs = None;
                }
            }
        }))
    }

    fn receive_open(&mut self, life: Option<Incarnation>, offer: Offer, heard: Option<Key>) {
        let is_new = self.theirs.is_none_or(|theirs| theirs.offer != offer);
        let heard = self.ours.is_some_and(|ours| heard == Some(ours.key));
        self.theirs = Some(PeerEnd { offer, life, heard });
        // One that speaks lives.
        self.suspect = false;
        if self.ours.is_some() && (is_new || !heard) {
            self.pending = Pending::Open;
        }
    }

    /// The peer is up as this life: what another one said counts no more.
    pub fn peer_is_up(&mut self, life: Incarnation) -> CarrierChange {
        self.change(|port| {
            port.suspect = false;
            if port.theirs.is_some_and(|theirs| theirs.life != Some(life)) {
                port.theirs = None;
            }
            if port.ours.is_some() && port.theirs.is_none() {
                port.pending = Pending::Open;
            }
        })
    }

    /// This life of the peer is over; `None` for whichever it is: the link ended.
    pub fn peer_is_gone(&mut self, life: Option<Incarnation>) -> CarrierChange {
        self.change(|port| {
            if port.theirs.is_some_and(|theirs| life.is_none() || theirs.life == life) {
                port.theirs = None;
            }
        })
    }

    /// The peer's heartbeat stands still, or beats again.
    pub fn peer_is_suspect(&mut self, suspect: bool) -> CarrierChange {
        self.change(|port| port.suspect = suspect)
    }

    /// What is to be sent to the peer, if anything is. When it was sent, say so ([`message`](Self::said)); until then ask again.
    pub fn pending(&self) -> Option<Control> {
        match self.pending {
            Pending::Nothing => None,
            Pending::Close(key) => Some(Control::Close(key)),
            Pending::Open => {
                let heard = self.theirs.map(|theirs| theirs.offer.key);
                self.ours.map(|offer| Control::Open { offer, heard })
            }
        }
    }

    /// What [`pending`](Self::owed) gave was sent.
    pub fn sent(&mut self, what: &Control) {
        if self.pending().as_ref() == Some(what) {
            self.pending = Pending::Nothing;
        }
    }

    /// What we said of ourselves, while we are open.
    pub fn ours(&self) -> Option<&Offer> {
        self.ours.as_ref()
    }

    /// What the other end said of itself, while frames may be sent to it: both are open, know of each other, and it lives.
    pub fn carrier(&self) -> Option<Offer> {
        let theirs = self.theirs.filter(|theirs| theirs.heard && !self.suspect)?;
        self.ours.is_some().then_some(theirs.offer)
    }
}

#[cfg(test)]
mod tests;
