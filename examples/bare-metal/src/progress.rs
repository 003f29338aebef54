// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reports how many messages of the stream have come. It does so after each twentieth part of them.

use crate::journal;
use crate::node::Node;

/// The state of the reports.
pub struct Progress {
    kernel: usize,
    /// The smallest number of messages that must come. (While kernels are killed or a CPU is moved, more come.)
    total: u64,
    /// The number of messages at which the next report is due.
    next: u64,
}

impl Progress {
    /// Begins the reports. None has been made yet.
    pub fn new(node: &Node) -> Self {
        let total = u64::from(node.options.messages) * (node.kernels as u64 - 1);
        Self { kernel: node.me, total, next: total.div_ceil(20) }
    }

    /// Prints a report if one is due. Returns a number that changes with every message that arrives.
    pub fn report(&mut self) -> u64 {
        let receiver = &journal::own().receiver;
        let done = receiver.total();
        if done >= self.next {
            // The last report is made when `done` reaches `total`.
            self.next =
                if done < self.total { (done + self.total.div_ceil(20)).min(self.total) } else { u64::MAX };
            self.tell(done);
        }
        receiver.arrivals()
    }

    /// Prints the last report, if it was not printed yet. Called when no more messages will come, even if some are missing.
    pub fn end(&mut self) {
        if self.next != u64::MAX {
            self.next = u64::MAX;
            self.tell(self.total);
        }
    }

    fn tell(&self, done: u64) {
        let Self { kernel, total, .. } = self;
        let done = done.min(*total);
        record!("{{\"progress\":{{\"kernel\":{kernel},\"done\":{done},\"total\":{total}}}}}");
    }
}
