// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must be true of a lane in the end (SPEC N-11).

use mk_ipi_abi::Incarnation;
use std::collections::BTreeSet;

/// A message that `send` took.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// What its payload says.
    pub number: u64,
    /// What the endpoint calls it.
    pub position: u64,
}

/// One life of a sender in its lane.
pub struct Session {
    /// The life of the kernel.
    pub life: Incarnation,
    /// In order.
    pub sent: Vec<Sent>,
    /// Positions that the sender was told to be in doubt.
    pub doubts: Vec<u64>,
    /// Positions above the first, up to the second, that the sender was told to be given back.
    pub discarded: Vec<(u64, u64)>,
    /// It is over: nobody is told what became of its messages.
    pub over: bool,
    /// It broke the protocol.
    pub hostile: bool,
}

impl Session {
    /// One that has sent nothing yet.
    pub fn new(life: Incarnation) -> Self {
        let (sent, doubts, discarded) = (Vec::new(), Vec::new(), Vec::new());
        Self { life, sent, doubts, discarded, over: false, hostile: false }
    }

    fn was_given_back(&self, position: u64) -> bool {
        self.discarded.iter().any(|(after, to)| position > *after && position <= *to)
    }
}

/// A message that was handled.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// What its payload says.
    pub number: u64,
    /// What it says of its sender's life.
    pub life: Option<Incarnation>,
}

/// A lane, when all is over.
pub struct Lane<'a> {
    /// The sender's lives, in order.
    pub sessions: &'a [Session],
    /// Messages in whose `send` the sender stopped.
    pub uncertain: &'a BTreeSet<u64>,
    /// In order.
    pub received: &'a [Received],
    /// Times that the receiver's kernel stopped.
    pub deaths: usize,
    /// The receiver has given messages back unread.
    pub gives_back: bool,
}

impl Lane<'_> {
    /// Says what is wrong.
    pub fn judge(&self, say: &mut dyn FnMut(&str)) {
        if self.received.windows(2).any(|pair| pair[0].number >= pair[1].number) {
            say("a message out of order, or twice");
        }
        let numbers: BTreeSet<u64> = self.received.iter().map(|received| received.number).collect();
        let mut missing = 0;
        for session in self.sessions {
            missing += self.judge_session(session, &numbers, say);
        }
        if missing > self.deaths {
            say("more messages are missing than deaths can explain");
        }
        self.judge_origins(say);
    }

    /// What was sent has been handled once, or whoever sent it was told; how many were not handled.
    fn judge_session(&self, session: &Session, numbers: &BTreeSet<u64>, say: &mut dyn FnMut(&str)) -> usize {
        let mut missing = 0;
        for &Sent { number, position } in &session.sent {
            let (came, given_back) = (numbers.contains(&number), session.was_given_back(position));
            if came && given_back {
                say("a message was handled that its sender was told to be given back");
            }
            let excused = session.hostile || given_back || (session.over && self.gives_back);
            if came || excused {
                continue;
            }
            missing += 1;
            if !session.over && !session.doubts.contains(&position) {
                say("a message is lost, and nobody was told");
            }
        }
        let is_of_it = |position: &u64| session.sent.iter().any(|sent| sent.position == *position);
        if !session.doubts.iter().all(is_of_it) {
            say("a message is told to be in doubt that was not sent");
        }
        if session.doubts.len() > self.deaths {
            say("more is in doubt than one message for each death");
        }
        missing
    }

    /// Everything was sent by the life that it says.
    fn judge_origins(&self, say: &mut dyn FnMut(&str)) {
        for received in self.received {
            let by =
                self.sessions.iter().find(|session| session.sent.iter().any(|s| s.number == received.number));
            match by {
                None if self.uncertain.contains(&received.number) => {}
                None => say("a message that was not sent"),
                // Of a life that was over before it was heard of nothing is known.
                Some(session) if received.life.is_none() && session.over => {}
                Some(session) if received.life != Some(session.life) => say("a message of another life"),
                Some(_) => {}
            }
        }
    }
}
