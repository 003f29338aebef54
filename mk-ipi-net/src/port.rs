// SPDX-License-Identifier: MIT OR Apache-2.0
//! One end of an interface: whether it is open, and whether the other end is (SPEC E-3, E-4).

use mk_ipi_abi::net::{Control, ControlError, Key, Offer};
use mk_ipi_abi::Incarnation;

/// The control message that is due to the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Nothing,
    Open,
    Close(Key),
}

/// The offer of the other end, and the life that made it.
#[derive(Clone, Copy, Debug)]
struct PeerEnd {
    offer: Offer,
    life: Option<Incarnation>,
    /// Whether the other end has received our present key.
    heard: bool,
}

/// How an event changed the carrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "the carrier may have changed, and something may be pending"]
pub struct CarrierChange {
    /// The carrier was lost, perhaps only for a moment. Frames that were begun are void.
    pub lost: bool,
    /// There is a new carrier.
    pub gained: bool,
}

/// One end of an interface.
#[derive(Debug)]
pub struct Port {
    ours: Option<Offer>,
    theirs: Option<PeerEnd>,
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
    /// A closed end that has received nothing.
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

    /// Opens the end. From now on frames with the key of `ours` are accepted.
    pub fn open(&mut self, ours: Offer) -> CarrierChange {
        self.change(|port| {
            port.ours = Some(ours);
            port.pending = Pending::Open;
            if let Some(theirs) = &mut port.theirs {
                theirs.heard = false;
            }
        })
    }

    /// Closes the end.
    pub fn close(&mut self) -> CarrierChange {
        self.change(|port| {
            if let Some(ours) = port.ours.take() {
                port.pending = Pending::Close(ours.key);
            }
        })
    }

    /// Handles a control message from life `life` of the peer, if that is known.
    ///
    /// # Errors
    /// The payload is not a control message. Nothing has changed.
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

    /// The peer is up as this life. An offer of another life is void.
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

    /// This life of the peer has ended. `None`: the link ended, for any life.
    pub fn peer_is_gone(&mut self, life: Option<Incarnation>) -> CarrierChange {
        self.change(|port| {
            if port.theirs.is_some_and(|theirs| life.is_none() || theirs.life == life) {
                port.theirs = None;
                // If the other end is still there, its answer shows that.
                if port.ours.is_some() {
                    port.pending = Pending::Open;
                }
            }
        })
    }

    /// The peer's heartbeat has stopped, or advances again.
    pub fn peer_is_suspect(&mut self, suspect: bool) -> CarrierChange {
        self.change(|port| port.suspect = suspect)
    }

    /// The control message that is due, if any.
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

    /// The control message to send now, if any. Call [`end_send`](Self::end_send) when it was sent, or could not be. Until then
    /// no other caller gets one. So the other end receives our messages in the order in which we changed (SPEC E-3): the last one
    /// is the newest.
    pub fn begin_send(&mut self) -> Option<Control> {
        if self.in_flight.is_some() {
            return None;
        }
        self.in_flight = self.pending();
        self.in_flight
    }

    /// Says whether the message of [`begin_send`](Self::begin_send) was sent. Returns whether another message is due: then begin
    /// again. A message that was not sent stays due. Try again later.
    pub fn end_send(&mut self, was_sent: bool) -> bool {
        let message = self.in_flight.take();
        if was_sent && message.is_some() && self.pending() == message {
            self.pending = Pending::Nothing;
        }
        was_sent && self.pending().is_some()
    }

    /// Our offer, while we are open.
    pub fn ours(&self) -> Option<&Offer> {
        self.ours.as_ref()
    }

    /// The offer of the other end, while frames may be sent to it: both ends are open and know each other's key, and the peer
    /// lives.
    pub fn carrier(&self) -> Option<Offer> {
        let theirs = self.theirs.filter(|theirs| theirs.heard && !self.suspect)?;
        self.ours.is_some().then_some(theirs.offer)
    }
}

#[cfg(test)]
mod tests;
