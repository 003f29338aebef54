// SPDX-License-Identifier: MIT OR Apache-2.0
//! A model of the lanes: the messages that must be delivered between honest kernels.

use super::KERNELS;
use mk_ipi_abi::native::lines_of;
use mk_ipi_abi::Incarnation;
use mk_ipi_core::SendError;
use std::collections::VecDeque;

/// A message that was sent, or that was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub payload: Vec<u8>,
    /// The life of the sender; `None` if that life ended before the receiver answered it.
    pub life: Option<Incarnation>,
    pub number: u64,
}

/// The lane from one kernel to another.
#[derive(Default)]
pub struct Lane {
    /// The messages that were sent and not received yet, oldest first.
    pending: VecDeque<Sent>,
    /// How many messages in `pending` the present attachment has sent.
    ours: usize,
    /// Payloads that were sent while one end was hostile, or by an attachment from that time. They may be delivered or not.
    pub maybe: Vec<Vec<u8>>,
    /// Whether both ends have been honest since the sender attached. Then no message may be lost.
    pub sound: bool,
    /// Whether a message of the present attachment was handed out.
    flows: bool,
    /// The number of the last message of the present attachment.
    pub number: u64,
    /// The messages that were discarded and not yet reported to the sender.
    discarded: Option<(u64, u64)>,
    /// The result of the last send.
    last: Option<Result<u64, SendError>>,
}

/// The expected state of all lanes.
#[derive(Default)]
pub struct Model {
    /// The lanes, by sender and receiver.
    pub lanes: [[Lane; KERNELS]; KERNELS],
    /// Whether the sender has requested space, so the event may come. By sender and receiver.
    pub wanting: [[bool; KERNELS]; KERNELS],
    /// Whether the sender has requested space and there was none, so the event must come. By sender and receiver.
    pub owed: [[bool; KERNELS]; KERNELS],
    /// The kernels that are hostile now.
    pub hostile: [bool; KERNELS],
    /// The kernels that were ever hostile.
    pub ever_hostile: [bool; KERNELS],
    /// The life of each kernel that the host has told to stop.
    pub stopped: [Option<Incarnation>; KERNELS],
    /// How often the method `stop` of each kernel's platform was called.
    pub stops: [u64; KERNELS],
}

impl Model {
    /// Makes kernel `n` hostile.
    pub fn turn(&mut self, n: usize) {
        (self.hostile[n], self.ever_hostile[n]) = (true, true);
        for other in 0..KERNELS {
            self.lanes[n][other].spoil();
            self.lanes[other][n].spoil();
            (self.owed[n][other], self.owed[other][n]) = (false, false);
        }
    }

    /// Whether both ends of a lane are honest now.
    pub fn honest(&self, from: usize, to: usize) -> bool {
        !self.hostile[from] && !self.hostile[to]
    }

    /// Checks a message that kernel `to` has read in the lane of `from`. `life` is the present life of `from`.
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
        assert!(
            !lane.flows,
            "a message is lost, doubled, changed or out of order: got {got:?}, expected {expected:?}"
        );
        // A former, hostile life of the sender can have written messages into its lane without sending them. These must name that
        // life. If the receiver was hostile before, it can have damaged its words. Then any message can be handed out.
        let planted = was_hostile && (got.life != Some(life) || self.ever_hostile[to]);
        assert!(planted || lane.maybe.contains(&got.payload), "{got:?} was not sent, expected {expected:?}");
    }
}

impl Lane {
    /// One end becomes hostile: from now on the pending messages may be delivered or not.
    fn spoil(&mut self) {
        self.maybe.extend(self.pending.drain(..).map(|sent| sent.payload));
        (self.ours, self.sound, self.flows, self.discarded) = (0, false, false, None);
    }

    /// A send has succeeded.
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

    /// Stores the result of a send.
    pub fn ended(&mut self, sent: Result<u64, SendError>) {
        self.last = Some(sent);
    }

    /// The sender has attached again.
    pub fn begin(&mut self, honest: bool) {
        (self.sound, self.flows, self.ours, self.number) = (honest, false, 0, 0);
        self.discarded = None;
    }

    /// The receiver's next life discards all unread messages.
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

    /// The sender got the event that these messages were discarded.
    pub fn told_of(&mut self, after: u64, to: u64) {
        assert_eq!(self.discarded.take(), Some((after, to)));
    }

    /// Checks that all discarded messages were reported.
    pub fn all_told(&self) {
        assert!(self.discarded.is_none(), "{:?} was not reported", self.discarded);
    }

    /// Whether no message is pending.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The result of the last send.
    pub fn last(&self) -> Option<Result<u64, SendError>> {
        self.last
    }
}
