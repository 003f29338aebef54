// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reports how much of the stream has come, at every twentieth part of it.

use crate::journal;
use crate::node::Node;

/// What has come, and when to report it next.
pub struct Progress {
    kernel: usize,
    /// How many messages will come, at least.
    total: u64,
    next: u64,
}

impl Progress {
    /// Nothing is reported yet.
    pub fn new(node: &Node) -> Self {
        let total = u64::from(node.options.messages) * (node.kernels as u64 - 1);
        Self { kernel: node.me, total, next: total.div_ceil(20) }
    }

    /// Reports if it is time. Returns a number that changes with every arrival.
    pub fn report(&mut self) -> u64 {
        let receiver = &journal::own().receiver;
        let done = receiver.total();
        if done >= self.next {
            // The last report comes exactly at the end.
            self.next =
                if done < self.total { (done + self.total.div_ceil(20)).min(self.total) } else { u64::MAX };
            self.tell(done);
        }
        receiver.arrivals()
    }

    /// Reports that nothing more will come: what is missing now is lost.
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
