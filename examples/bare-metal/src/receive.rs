// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demo's receiving side: counts the messages that arrive, and detects lost, torn, doubled and disordered ones.

use crate::journal::SentTo;
use crate::layout::MAX_KERNELS;
use crate::node::instance;
use crate::options::MAX_MESSAGES;
use crate::payload;
use crate::platform::Kernel;
use mk_ipi_abi::InstanceId;
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_core::Message;

/// The counters for one sender. Deferred work writes them, and the main program reads them.
#[repr(C)]
struct FromSender {
    /// The number of different messages that came intact.
    received: AtomicU64,
    /// One more than the highest sequence number that came.
    next: AtomicU64,
    /// The number of intact messages that came after one with a higher sequence number.
    disordered: AtomicU64,
    /// The number of intact messages that came again.
    doubled: AtomicU64,
    /// The number of torn messages in the sender's lane, or in a slot that names a CPU of the sender.
    torn: AtomicU64,
    /// One bit for each sequence number. It is set if the message came.
    seen: [AtomicU64; MAX_MESSAGES as usize / 64],
}

/// The results about the messages of one sender.
#[derive(Clone, Copy)]
pub struct Findings {
    /// The number of different messages that came intact.
    pub received: u64,
    /// The number of messages that did not come intact, without those in doubt.
    pub lost: u64,
    /// The number of messages with a wrong checksum, from this sender or from an unknown one.
    pub torn: u64,
    /// The number of messages that came again.
    pub doubled: u64,
    /// The number of messages that came after one that was sent later.
    pub disordered: u64,
}

/// The counters for all senders. They are in the kernel's journal, and are all zeros at the kernel's first start.
#[repr(C)]
pub struct Receiver {
    senders: [FromSender; MAX_KERNELS],
    /// The number of torn messages from an unknown sender.
    torn: AtomicU64,
}

impl Receiver {
    /// Sets the count of received messages from the bits in `seen`. A former life can have died after it set a bit, and
    /// before it counted the message.
    pub fn recover(&self) {
        for from in &self.senders {
            let seen = from.seen.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones()));
            from.received.store(seen.sum(), Ordering::Relaxed);
        }
    }

    /// Checks and counts a message of the stream.
    pub fn take(&self, message: &Message) {
        let place = payload::check(message.payload()).and_then(|(sequence, sender)| {
            let from = self.senders.get(sender as usize)?;
            // In a lane, only its sender can have sent the message. A slot does not tell the sender.
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

    /// One more than the highest sequence number that came from kernel `k`.
    pub fn next(&self, k: usize) -> u64 {
        self.senders[k].next.load(Ordering::Relaxed)
    }

    /// Returns whether message `number` came from kernel `k`.
    fn has(&self, k: usize, number: u64) -> bool {
        let word = self.senders[k].seen.get((number / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (number % 64) != 0)
    }

    /// The counter that must count this torn message: that of its sender, if the sender is known.
    fn torn_by(&self, message: &Message) -> &AtomicU64 {
        let cpu = message.sender_cpu();
        let sent = |k: &usize| Kernel.lists(instance(*k), cpu) == Some(true);
        let sender = message.sender().map(InstanceId::index).or_else(|| (0..MAX_KERNELS).find(sent));
        sender.and_then(|k| self.senders.get(k)).map_or(&self.torn, |from| &from.torn)
    }

    /// The number of different messages that came intact, from all senders.
    pub fn total(&self) -> u64 {
        self.senders.iter().fold(0, |sum, s| sum + s.received.load(Ordering::Relaxed))
    }

    /// A number that grows with every message that arrives, intact or not.
    pub fn arrivals(&self) -> u64 {
        let bad = |s: &FromSender| s.doubled.load(Ordering::Relaxed) + s.torn.load(Ordering::Relaxed);
        self.senders.iter().fold(self.total() + self.torn.load(Ordering::Relaxed), |sum, s| sum + bad(s))
    }

    /// The results about the messages from kernel `k`. `sent` is that kernel's record of what it sent.
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
