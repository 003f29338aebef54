// SPDX-License-Identifier: MIT OR Apache-2.0
//! One end of an interface: whether this end is open, what the other end has offered, and whether there is a carrier (SPEC E-3,
//! E-4).

use mk_ipi_abi::net::{Control, ControlError, Key, Offer};
use mk_ipi_abi::Incarnation;

/// The control message that must be sent to the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Nothing,
    Open,
    Close(Key),
}

/// What the other end has said in its last open.
#[derive(Clone, Copy, Debug)]
struct PeerEnd {
    offer: Offer,
    /// The life of the peer that sent the open, if it is known.
    life: Option<Incarnation>,
    /// Whether the other end has received this end's present key.
    heard: bool,
}

/// How an event changed the carrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "the carrier can have changed, and a control message can be pending"]
pub struct CarrierChange {
    /// The carrier was lost. Drop incomplete frames, in both directions. If `gained` is true too, there is already a new carrier.
    pub lost: bool,
    /// There is a new carrier.
    pub gained: bool,
}

/// One end of an interface.
#[derive(Debug)]
pub struct Port {
    ours: Option<Offer>,
    theirs: Option<PeerEnd>,
    /// Whether the peer's heartbeat has stopped.
    suspect: bool,
    pending: Pending,
    /// The message that is being sent.
    in_flight: Option<Control>,
}

impl Default for Port {
    fn default() -> Self {
        Self::new()
    }
}

impl Port {
    /// Makes a closed end that has received nothing.
    pub const fn new() -> Self {
        Self { ours: None, theirs: None, suspect: false, pending: Pending::Nothing, in_flight: None }
    }

    /// Makes a change, and returns its effect on the carrier.
    fn change(&mut self, what: impl FnOnce(&mut Self)) -> CarrierChange {
        let before = self.carrier();
        what(self);
        let after = self.carrier();
        let differ = before.map(|offer| offer.key) != after.map(|offer| offer.key);
        CarrierChange { lost: before.is_some() && differ, gained: after.is_some() && differ }
    }

    /// Opens this end with the offer `ours`, whose key must differ from those of former openings (SPEC E-3). An open is then
    /// pending.
    pub fn open(&mut self, ours: Offer) -> CarrierChange {
        self.change(|port| {
            port.ours = Some(ours);
            port.pending = Pending::Open;
            if let Some(theirs) = &mut port.theirs {
                theirs.heard = false;
            }
        })
    }

    /// Closes this end. A close is then pending, if this end was open.
    pub fn close(&mut self) -> CarrierChange {
        self.change(|port| {
            if let Some(ours) = port.ours.take() {
                port.pending = Pending::Close(ours.key);
            }
        })
    }

    /// Handles a control message. `life` is the life of the peer that sent it, if it is known.
    ///
    /// # Errors
    /// The payload is not a valid control message. Nothing has changed.
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
        // A peer that sends is alive.
        self.suspect = false;
        if self.ours.is_some() && (is_new || !heard) {
            self.pending = Pending::Open;
        }
    }

    /// Handles the event that the peer is up as `life`. An offer that another life has made is dropped. If this end is open, and
    /// has no offer of the other end, an open is then pending.
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

    /// Handles the event that `life` of the peer has ended. `None` means that the link has ended, whatever the peer's life is.
    pub fn peer_is_gone(&mut self, life: Option<Incarnation>) -> CarrierChange {
        self.change(|port| {
            if port.theirs.is_some_and(|theirs| life.is_none() || theirs.life == life) {
                port.theirs = None;
                // If the other end is still open, it answers this open, and the carrier comes back.
                if port.ours.is_some() {
                    port.pending = Pending::Open;
                }
            }
        })
    }

    /// Handles the event that the peer's heartbeat has stopped (`suspect` is true), or that it advances again (false).
    pub fn peer_is_suspect(&mut self, suspect: bool) -> CarrierChange {
        self.change(|port| port.suspect = suspect)
    }

    /// The control message that must be sent, if there is one.
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

    /// The control message to send now, if there is one. Call [`end_send`](Self::end_send) after it was sent, or could not be
    /// sent. Until then this method returns `None`. So only one context of this kernel sends at a time, and the other end
    /// receives the messages in the order in which this end has changed (SPEC E-3).
    pub fn begin_send(&mut self) -> Option<Control> {
        if self.in_flight.is_some() {
            return None;
        }
        self.in_flight = self.pending();
        self.in_flight
    }

    /// Says whether the message of [`begin_send`](Self::begin_send) was sent. If it was sent, returns whether another message
    /// must be sent: then call `begin_send` again. If it was not sent, returns false, and the message stays pending: call
    /// `begin_send` later.
    pub fn end_send(&mut self, was_sent: bool) -> bool {
        let message = self.in_flight.take();
        if was_sent && message.is_some() && self.pending() == message {
            self.pending = Pending::Nothing;
        }
        was_sent && self.pending().is_some()
    }

    /// This end's offer. `None` if this end is closed.
    pub fn ours(&self) -> Option<&Offer> {
        self.ours.as_ref()
    }

    /// The offer of the other end. `None` if there is no carrier: then no frames may be sent. There is a carrier if both ends are
    /// open, each has received the other's key, and the peer is alive.
    pub fn carrier(&self) -> Option<Offer> {
        let theirs = self.theirs.filter(|theirs| theirs.heard && !self.suspect)?;
        self.ours.is_some().then_some(theirs.offer)
    }
}

#[cfg(test)]
mod tests;
