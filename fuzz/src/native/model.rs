// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must become of the messages between honest kernels.

use super::{CELLS, KERNELS};
use mk_ipi_abi::Incarnation;
use mk_ipi_core::SendError;
use std::collections::VecDeque;
use std::ops::Range;

/// The lane from one honest kernel to another.
#[derive(Default)]
pub struct Lane {
    /// Sent and not received yet, oldest first: the payload, and whether by this attachment.
    pending: VecDeque<(Vec<u8>, bool)>,
    /// Messages of this attachment.
    count: u64,
    /// Numbers of those that a restart of the receiver lost, and that the sender was not told of.
    lost: Option<Range<u64>>,
    last: Option<Result<(), SendError>>,
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
    /// The life that the host told to stop.
    pub stopped: [Option<Incarnation>; KERNELS],
    /// Times that the platform was told to stop.
    pub stops: [u64; KERNELS],
}

impl Lane {
    fn in_flight(&self) -> usize {
        self.pending.iter().filter(|(_, ours)| *ours).count()
    }

    /// Whether a send must be refused.
    pub fn is_full(&self) -> bool {
        self.in_flight() == CELLS as usize
    }

    /// A send ended so.
    pub fn sent(&mut self, sent: Result<(), SendError>, payload: Vec<u8>, answered: bool) {
        match sent {
            Ok(()) => {
                assert!(!self.is_full());
                self.pending.push_back((payload, true));
                self.count += 1;
            }
            Err(SendError::Full) => assert!(self.is_full()),
            Err(SendError::Unanswered) => assert!(!answered),
            Err(e) => panic!("{e:?}"),
        }
        self.last = Some(sent);
    }

    /// A message was handed on.
    pub fn received(&mut self, payload: &[u8]) {
        let next = self.pending.pop_front();
        assert_eq!(
            next.as_ref().map(|(p, _)| p.as_slice()),
            Some(payload),
            "lost, doubled, torn or out of order"
        );
    }

    /// The sender was attached anew.
    pub fn begin(&mut self) {
        self.pending.iter_mut().for_each(|(_, ours)| *ours = false);
        (self.count, self.lost) = (0, None);
    }

    /// The receiver restarts: what it has not read is lost, and the sender is told if its life is the one in force.
    pub fn lose(&mut self, in_force: bool) {
        let lost = self.in_flight() as u64;
        if in_force && lost != 0 {
            let first = self.lost.as_ref().map_or(self.count - lost, |l| l.start);
            self.lost = Some(first..self.count);
        }
        self.pending.clear();
    }

    /// The sender was told of a range.
    pub fn told_of(&mut self, first: u64, count: u64) {
        assert_eq!(self.lost.take(), Some(first..first + count));
    }

    /// Nothing is left to be told, if `watched`.
    pub fn all_told(&self, watched: bool) {
        assert!(!watched || self.lost.is_none(), "{:?} not told of", self.lost);
    }

    /// Nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The last send was accepted.
    pub fn is_sending(&self) -> bool {
        self.last == Some(Ok(()))
    }
}
