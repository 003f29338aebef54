// SPDX-License-Identifier: MIT OR Apache-2.0
//! One end of an interface: open or not, and whether the other is (SPEC E-3, E-4).

use mk_ipi_abi::net::{Control, ControlError, Key, Offer};
use mk_ipi_abi::Incarnation;

/// What is to be told to the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Nothing,
    Open,
    Close(Key),
}

/// What the other end said of itself, and the life in which it did.
#[derive(Clone, Copy, Debug)]
struct Theirs {
    offer: Offer,
    life: Option<Incarnation>,
    /// It has heard our present key.
    heard: bool,
}

/// What an event changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "the carrier may have changed, and something may be owed"]
pub struct Changed {
    /// The carrier went, if only for a moment: what was begun goes nowhere.
    pub lost: bool,
    /// There is a carrier that was not there before.
    pub came: bool,
}

/// One end.
#[derive(Debug)]
pub struct Port {
    ours: Option<Offer>,
    theirs: Option<Theirs>,
    suspect: bool,
    owed: Owed,
}

impl Default for Port {
    fn default() -> Self {
        Self::new()
    }
}

impl Port {
    /// An end that is closed, and has heard nothing.
    pub const fn new() -> Self {
        Self { ours: None, theirs: None, suspect: false, owed: Owed::Nothing }
    }

    /// Does something, and tells what it changed for whoever sends frames.
    fn change(&mut self, what: impl FnOnce(&mut Self)) -> Changed {
        let before = self.carrier();
        what(self);
        let after = self.carrier();
        let differ = before.map(|offer| offer.key) != after.map(|offer| offer.key);
        Changed { lost: before.is_some() && differ, came: after.is_some() && differ }
    }

    /// Opens it: from now on frames with the key of `ours` are taken.
    pub fn open(&mut self, ours: Offer) -> Changed {
        self.change(|port| {
            port.ours = Some(ours);
            port.owed = Owed::Open;
            if let Some(theirs) = &mut port.theirs {
                theirs.heard = false;
            }
        })
    }

    /// Closes it.
    pub fn close(&mut self) -> Changed {
        self.change(|port| {
            if let Some(ours) = port.ours.take() {
                port.owed = Owed::Close(ours.key);
            }
        })
    }

    /// A control message came, sent by that life of the peer, as far as that is known.
    ///
    /// # Errors
    /// It is none. Nothing has changed.
    pub fn hear(&mut self, life: Option<Incarnation>, payload: &[u8]) -> Result<Changed, ControlError> {
        let said = Control::decode(payload)?;
        Ok(self.change(|port| match said {
            Control::Open { offer, heard } => port.hear_open(life, offer, heard),
            Control::Close(key) => {
                if port.theirs.is_some_and(|theirs| theirs.offer.key == key) {
                    port.theirs = None;
                }
            }
        }))
    }

    fn hear_open(&mut self, life: Option<Incarnation>, offer: Offer, heard: Option<Key>) {
        let is_new = self.theirs.is_none_or(|theirs| theirs.offer != offer);
        let heard = self.ours.is_some_and(|ours| heard == Some(ours.key));
        self.theirs = Some(Theirs { offer, life, heard });
        // One that speaks lives.
        self.suspect = false;
        if self.ours.is_some() && (is_new || !heard) {
            self.owed = Owed::Open;
        }
    }

    /// The peer is up as this life: what another one said counts no more.
    pub fn peer_is_up(&mut self, life: Incarnation) -> Changed {
        self.change(|port| {
            port.suspect = false;
            if port.theirs.is_some_and(|theirs| theirs.life != Some(life)) {
                port.theirs = None;
            }
            if port.ours.is_some() && port.theirs.is_none() {
                port.owed = Owed::Open;
            }
        })
    }

    /// This life of the peer is over; `None` for whichever it is: the link ended.
    pub fn peer_is_gone(&mut self, life: Option<Incarnation>) -> Changed {
        self.change(|port| {
            if port.theirs.is_some_and(|theirs| life.is_none() || theirs.life == life) {
                port.theirs = None;
            }
        })
    }

    /// The peer's heartbeat stands still, or beats again.
    pub fn peer_is_suspect(&mut self, suspect: bool) -> Changed {
        self.change(|port| port.suspect = suspect)
    }

    /// What is to be sent to the peer, if anything is. When it was sent, say so ([`said`](Self::said)); until then ask again.
    pub fn owed(&self) -> Option<Control> {
        match self.owed {
            Owed::Nothing => None,
            Owed::Close(key) => Some(Control::Close(key)),
            Owed::Open => {
                let heard = self.theirs.map(|theirs| theirs.offer.key);
                self.ours.map(|offer| Control::Open { offer, heard })
            }
        }
    }

    /// What [`owed`](Self::owed) gave was sent.
    pub fn said(&mut self, what: &Control) {
        if self.owed().as_ref() == Some(what) {
            self.owed = Owed::Nothing;
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
