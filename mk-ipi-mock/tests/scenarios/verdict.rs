// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conditions that must hold for a lane at the end of a scenario (SPEC N-11).

use mk_ipi_abi::Incarnation;
use std::collections::BTreeSet;

/// A message that `send` accepted.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The number that the test gave to the message. The payload begins with this number.
    pub number: u64,
    /// The message number that `send` returned: the position after the message.
    pub position: u64,
}

/// One life of a sender in its lane.
pub struct Session {
    /// The incarnation of the kernel.
    pub life: Incarnation,
    /// The messages that it sent, in order.
    pub sent: Vec<Sent>,
    /// The positions of the messages that were reported to the sender as in doubt.
    pub doubts: Vec<u64>,
    /// The ranges of messages that were reported to the sender as discarded: the positions above the first number, up to the
    /// second.
    pub discarded: Vec<(u64, u64)>,
    /// True if this life is over. Then the sender gets no more events about its messages.
    pub over: bool,
    /// True if this life has broken the protocol.
    pub hostile: bool,
}

impl Session {
    /// Makes the record of a life that has sent nothing yet.
    pub fn new(life: Incarnation) -> Self {
        let (sent, doubts, discarded) = (Vec::new(), Vec::new(), Vec::new());
        Self { life, sent, doubts, discarded, over: false, hostile: false }
    }

    /// Returns true if the message with this position was reported as discarded.
    fn was_given_back(&self, position: u64) -> bool {
        self.discarded.iter().any(|(after, to)| position > *after && position <= *to)
    }
}

/// A message that was handled.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// The number that the test gave to the message. The payload begins with this number.
    pub number: u64,
    /// The sender's incarnation that the message named when it was handled.
    pub life: Option<Incarnation>,
}

/// A lane at the end of a scenario.
pub struct Lane<'a> {
    /// The sender's lives, in order.
    pub sessions: &'a [Session],
    /// The numbers of the messages whose `send` did not return, because the sender stopped in it.
    pub uncertain: &'a BTreeSet<u64>,
    /// The messages that were handled, in order.
    pub received: &'a [Received],
    /// How often the receiver's kernel stopped.
    pub deaths: usize,
    /// True if the receiver discards unread messages.
    pub gives_back: bool,
}

impl Lane<'_> {
    /// Checks all conditions. Calls `say` with a text for each condition that does not hold.
    pub fn judge(&self, say: &mut dyn FnMut(&str)) {
        if self.received.windows(2).any(|pair| pair[0].number >= pair[1].number) {
            say("a message was handled twice, or after a later one");
        }
        let numbers: BTreeSet<u64> = self.received.iter().map(|received| received.number).collect();
        let mut missing = 0;
        for session in self.sessions {
            missing += self.judge_session(session, &numbers, say);
        }
        if missing > self.deaths {
            say("more messages are missing than the receiver had deaths");
        }
        self.judge_origins(say);
    }

    /// Checks that each message of this life was handled, or was reported to its sender as discarded or in doubt. Returns how
    /// many messages are missing. A message that was not handled counts as missing, except in three cases: it was reported as
    /// discarded, or this life has broken the protocol, or this life is over and the receiver discards unread messages.
    fn judge_session(&self, session: &Session, numbers: &BTreeSet<u64>, say: &mut dyn FnMut(&str)) -> usize {
        let mut missing = 0;
        for &Sent { number, position } in &session.sent {
            let (came, given_back) = (numbers.contains(&number), session.was_given_back(position));
            if came && given_back {
                say("a message was handled, but was reported to its sender as discarded");
            }
            let excused = session.hostile || given_back || (session.over && self.gives_back);
            if came || excused {
                continue;
            }
            missing += 1;
            if !session.over && !session.doubts.contains(&position) {
                say("a message is lost, and its sender got no event InDoubt for it");
            }
        }
        let is_of_it = |position: &u64| session.sent.iter().any(|sent| sent.position == *position);
        if !session.doubts.iter().all(is_of_it) {
            say("a message was reported as in doubt that was never sent");
        }
        if session.doubts.len() > self.deaths {
            say("more messages are in doubt than the receiver had deaths");
        }
        missing
    }

    /// Checks that each message that was handled had been sent, and that it names the life that sent it.
    fn judge_origins(&self, say: &mut dyn FnMut(&str)) {
        for received in self.received {
            let by =
                self.sessions.iter().find(|session| session.sent.iter().any(|s| s.number == received.number));
            match by {
                None if self.uncertain.contains(&received.number) => {}
                None => say("a message was handled that was not sent"),
                // The messages of a life that ended before its hello was answered can have no incarnation.
                Some(session) if received.life.is_none() && session.over => {}
                Some(session) if received.life != Some(session.life) => {
                    say("a message names another life than its sender's")
                }
                Some(_) => {}
            }
        }
    }
}
