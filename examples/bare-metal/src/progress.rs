// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells how much of the stream has come, every twentieth.

use crate::journal;
use crate::node::Node;

/// What has come, and when to tell it next.
pub struct Progress {
    kernel: usize,
    /// Messages that are to come, at least.
    total: u64,
    next: u64,
}

impl Progress {
    /// Nothing is told yet.
    pub fn new(node: &Node) -> Self {
        let total = u64::from(node.options.messages) * (node.kernels as u64 - 1);
        Self { kernel: node.me, total, next: total.div_ceil(20) }
    }

    /// Tells it if it is time; gives a number that changes with every arrival.
    pub fn report(&mut self) -> u64 {
        let receiver = &journal::own().receiver;
        let done = receiver.total();
        if done >= self.next {
            // The last one comes exactly at the end.
            self.next =
                if done < self.total { (done + self.total.div_ceil(20)).min(self.total) } else { u64::MAX };
            self.tell(done);
        }
        receiver.arrivals()
    }

    /// Tells that nothing more will come: what is lost is lost.
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
