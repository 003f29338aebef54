// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demo's receiving side: counts what arrives, and finds what was lost, torn, doubled or out of order.

use crate::journal::SentTo;
use crate::layout::MAX_KERNELS;
use crate::node::instance;
use crate::options::MAX_MESSAGES;
use crate::payload;
use crate::platform::Kernel;
use mk_ipi_abi::InstanceId;
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_core::Message;

/// What came from one sender. The CPU's deferred work writes it, the main program reads it.
#[repr(C)]
struct FromSender {
    /// Whole messages, each counted once.
    received: AtomicU64,
    /// The number after the highest one that came.
    next: AtomicU64,
    /// Whole messages that came after one with a higher number.
    disordered: AtomicU64,
    /// Whole messages that had come before.
    doubled: AtomicU64,
    /// Torn messages that came in the sender's lane, or whose slot names the sender's CPU.
    torn: AtomicU64,
    /// One bit for each sequence number that came.
    seen: [AtomicU64; MAX_MESSAGES as usize / 64],
}

/// What was found about the messages of one sender.
#[derive(Clone, Copy)]
pub struct Findings {
    /// Different messages that came whole.
    pub received: u64,
    /// Messages that never came whole, and are not in doubt.
    pub lost: u64,
    /// Messages whose content does not match their checksum, from this sender or from an unknown one.
    pub torn: u64,
    /// Messages that came again.
    pub doubled: u64,
    /// Messages that came after one that was sent later.
    pub disordered: u64,
}

/// All that was received. It lies in the kernel's journal, and is all zeros at the kernel's first start.
#[repr(C)]
pub struct Receiver {
    senders: [FromSender; MAX_KERNELS],
    /// Torn messages from an unknown sender.
    torn: AtomicU64,
}

impl Receiver {
    /// Counts again what a former life has seen: it may have died after it set the bit and before it counted.
    pub fn recover(&self) {
        for from in &self.senders {
            let seen = from.seen.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()));
            from.received.store(seen.sum(), Ordering::Relaxed);
        }
    }

    /// Takes a message of the stream.
    pub fn take(&self, message: &Message) {
        let place = payload::check(message.payload()).and_then(|(sequence, sender)| {
            let from = self.senders.get(sender as usize)?;
            // A lane proves which kernel sent; a slot does not.
            if message.sender().is_some_and(|id| id.index() != sender as usize) {
                return None;
            }
            Some((from, sequence, from.seen.get((sequence / 64) as usize)?))
        });
        let Some((from, sequence, seen)) = place else {
            self.torn_by(message).fetch_add(1, Ordering::Relaxed);
            return;
        };
        let bit = 1 << (sequence % 64);
        let again =
            seen.fetch_update(Ordering::Relaxed, |seen| (seen & bit == 0).then_some(seen | bit)).is_err();
        let count = if again { &from.doubled } else { &from.received };
        count.fetch_add(1, Ordering::Relaxed);
        if from.next.fetch_max(sequence + 1, Ordering::Release) > sequence && !again {
            from.disordered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number after the highest one that came from kernel `k`.
    pub fn next(&self, k: usize) -> u64 {
        self.senders[k].next.load(Ordering::Relaxed)
    }

    /// Returns whether message `number` came from kernel `k`.
    fn has(&self, k: usize, number: u64) -> bool {
        let word = self.senders[k].seen.get((number / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (number % 64) != 0)
    }

    /// The counter for a torn message.
    fn torn_by(&self, message: &Message) -> &AtomicU64 {
        let cpu = message.sender_cpu();
        let sent = |k: &usize| Kernel.lists(instance(*k), cpu) == Some(true);
        let sender = message.sender().map(InstanceId::index).or_else(|| (0..MAX_KERNELS).find(sent));
        sender.and_then(|k| self.senders.get(k)).map_or(&self.torn, |from| &from.torn)
    }

    /// Different messages that came whole, from all senders.
    pub fn total(&self) -> u64 {
        self.senders.iter().fold(0, |sum, s| sum + s.received.load(Ordering::Relaxed))
    }

    /// Changes with every message that arrives, whatever is wrong with it.
    pub fn arrivals(&self) -> u64 {
        let bad = |s: &FromSender| s.doubled.load(Ordering::Relaxed) + s.torn.load(Ordering::Relaxed);
        self.senders.iter().fold(self.total() + self.torn.load(Ordering::Relaxed), |sum, s| sum + bad(s))
    }

    /// What was found about the messages of kernel `k`, which `sent` them.
    pub fn findings(&self, k: usize, sent: &SentTo) -> Findings {
        let from = &self.senders[k];
        let received = from.received.load(Ordering::Relaxed);
        let torn = from.torn.load(Ordering::Relaxed) + self.torn.load(Ordering::Relaxed);
        let [doubled, disordered] = [&from.doubled, &from.disordered].map(|n| n.load(Ordering::Relaxed));
        let undelivered = sent.in_doubt().filter(|&number| !self.has(k, number)).count() as u64;
        let lost = sent.messages().saturating_sub(received).saturating_sub(undelivered);
        Findings { received, lost, torn, doubled, disordered }
    }
}
