// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must become of the messages between honest kernels.

use super::KERNELS;
use mk_ipi_abi::native::lines_of;
use mk_ipi_abi::Incarnation;
use mk_ipi_core::SendError;
use std::collections::VecDeque;

/// A message, as its sender knows it or its receiver got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub payload: Vec<u8>,
    /// The life of the sender; `None` for one that was over before its receiver heard of it.
    pub life: Option<Incarnation>,
    pub number: u64,
}

/// The lane from one kernel to another.
#[derive(Default)]
pub struct Lane {
    /// Sent and not received yet, oldest first.
    pending: VecDeque<Sent>,
    /// How many of these are of this attachment.
    ours: usize,
    /// Payloads that were sent while one end was hostile, or by an attachment that goes back to then.
    pub maybe: Vec<Vec<u8>>,
    /// Both ends are honest, and were since the sender was attached: all must go well.
    pub sound: bool,
    /// A message of this attachment has come.
    flows: bool,
    /// Of the last message of this attachment.
    pub number: u64,
    /// Those given back unread that the sender was not told of.
    discarded: Option<(u64, u64)>,
    last: Option<Result<u64, SendError>>,
}

/// All that is foretold.
#[derive(Default)]
pub struct Model {
    /// By sender and receiver.
    pub lanes: [[Lane; KERNELS]; KERNELS],
    /// Who asked for space where, and may be told.
    pub wanting: [[bool; KERNELS]; KERNELS],
    /// Who found none, and must be told.
    pub owed: [[bool; KERNELS]; KERNELS],
    /// Who writes whatever it likes.
    pub hostile: [bool; KERNELS],
    /// Who ever did.
    pub ever_hostile: [bool; KERNELS],
    /// The life that the host told to stop.
    pub stopped: [Option<Incarnation>; KERNELS],
    /// Times that the platform was told to stop.
    pub stops: [u64; KERNELS],
}

impl Model {
    /// From now on that kernel may write whatever it likes.
    pub fn turn(&mut self, n: usize) {
        (self.hostile[n], self.ever_hostile[n]) = (true, true);
        for other in 0..KERNELS {
            self.lanes[n][other].spoil();
            self.lanes[other][n].spoil();
            (self.owed[n][other], self.owed[other][n]) = (false, false);
        }
    }

    /// Whether neither end of a lane is hostile.
    pub fn honest(&self, from: usize, to: usize) -> bool {
        !self.hostile[from] && !self.hostile[to]
    }

    /// `to` got a message that says that it is by `from`, whose life now is `life`.
    pub fn received(&mut self, from: usize, to: usize, life: Incarnation, got: &Sent) {
        if !self.honest(from, to) {
            return;
        }
        let was_hostile = self.ever_hostile[from];
        let lane = &mut self.lanes[from][to];
        let is_of_former = lane.pending.len() > lane.ours;
        let matches = |sent: &Sent| {
            let life = got.life == sent.life || (is_of_former && got.life.is_none());
            life && (sent.number, &sent.payload) == (got.number, &got.payload)
        };
        if lane.pending.front().is_some_and(matches) {
            lane.pending.pop_front();
            lane.flows |= lane.pending.len() < lane.ours;
            lane.ours = lane.ours.min(lane.pending.len());
            return;
        }
        let expected = lane.pending.front();
        assert!(!lane.flows, "lost, doubled, torn or out of order: {got:?}, not {expected:?}");
        // What a former life of the sender planted is that life's; what one of the receiver spoiled may come in any way.
        let planted = was_hostile && (got.life != Some(life) || self.ever_hostile[to]);
        assert!(planted || lane.maybe.contains(&got.payload), "nobody sent {got:?}, {expected:?} is next");
    }
}

impl Lane {
    /// What is on its way may come or not.
    fn spoil(&mut self) {
        self.maybe.extend(self.pending.drain(..).map(|sent| sent.payload));
        (self.ours, self.sound, self.flows, self.discarded) = (0, false, false, None);
    }

    /// A message was accepted.
    pub fn sent(&mut self, payload: Vec<u8>, life: Incarnation, number: u64) {
        if !self.sound {
            return self.maybe.push(payload);
        }
        let lines = lines_of(payload.len());
        assert!(number >= self.number + lines, "{number} after {}", self.number);
        self.number = number;
        self.pending.push_back(Sent { payload, life: Some(life), number });
        self.ours += 1;
    }

    /// A send ended so.
    pub fn ended(&mut self, sent: Result<u64, SendError>) {
        self.last = Some(sent);
    }

    /// The sender was attached anew.
    pub fn begin(&mut self, honest: bool) {
        (self.sound, self.flows, self.ours, self.number) = (honest, false, 0, 0);
        self.discarded = None;
    }

    /// The receiver's next life gives back what is unread.
    pub fn discard(&mut self) {
        let ours = self.pending.len() - self.ours..self.pending.len();
        if let (Some(first), Some(last)) = (self.pending.range(ours).next(), self.pending.back()) {
            let from = first.number - lines_of(first.payload.len());
            let joined = self.discarded.filter(|(_, to)| *to == from).map_or(from, |(from, _)| from);
            self.discarded = Some((joined, last.number));
        }
        self.pending.clear();
        self.ours = 0;
    }

    /// The sender was told that messages were given back.
    pub fn told_of(&mut self, after: u64, to: u64) {
        assert_eq!(self.discarded.take(), Some((after, to)));
    }

    /// Nothing is left to be told.
    pub fn all_told(&self) {
        assert!(self.discarded.is_none(), "{:?} not told of", self.discarded);
    }

    /// Nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The last send.
    pub fn last(&self) -> Option<Result<u64, SendError>> {
        self.last
    }
}
