// SPDX-License-Identifier: MIT OR Apache-2.0
//! The test's record of all messages: which messages did not arrive, and which ones are allowed not to arrive.

use crate::journal::{geometry, Journal, Word};
use crate::KERNELS;
use mk_ipi_core::abi::native::{control, lines_of, receiver, LineTag, MessageInfo};
use mk_ipi_core::abi::{InstanceId, PhysRange};
use mk_ipi_core::sync::Ordering;
use mk_ipi_process::Machine;
use std::collections::BTreeSet;

/// The record of the messages in all lanes.
pub struct Books {
    journals: [Journal; KERNELS],
    /// The numbers of the messages in doubt, by sender and receiver. Such a message is allowed not to arrive.
    doubt: [[BTreeSet<u64>; KERNELS]; KERNELS],
    /// How many gaps in the received messages were checked, by receiver and sender.
    seen: [[u64; KERNELS]; KERNELS],
    /// How many messages did not arrive. All of them were in doubt.
    pub missing: u64,
    /// How often a kernel died while it sent a message.
    pub sending: u64,
    /// How often a kernel died while the handlers of a message may have been running.
    pub handling: u64,
}

impl Books {
    pub fn new(machine: &Machine) -> Self {
        Self {
            journals: std::array::from_fn(|k| Journal::of(machine, k, false)),
            doubt: Default::default(),
            seen: Default::default(),
            missing: 0,
            sending: 0,
            handling: 0,
        }
    }

    pub fn progress(&self, k: usize) -> u64 {
        self.journals[k].progress()
    }

    /// How many messages were handled, in all lanes.
    pub fn handled(&self) -> u64 {
        pairs().map(|(from, to)| self.journals[to].get(from, Word::Handled)).sum()
    }

    /// Notes which messages are in doubt because kernel `k` has died.
    pub fn died(&mut self, machine: &Machine, k: usize) {
        for peer in (0..KERNELS).filter(|peer| *peer != k) {
            let (begun, ended) =
                (self.journals[k].get(peer, Word::Begun), self.journals[k].get(peer, Word::Ended));
            assert!(begun == ended || begun == ended + 1, "kernel {k}: {begun} sends begun, {ended} ended");
            if begun != ended {
                self.sending += 1;
                self.doubt[k][peer].insert(ended);
            }
            if let Some(n) = with_handlers(machine, peer, k) {
                self.handling += 1;
                self.doubt[peer][k].insert(n);
            }
        }
    }

    /// Fails if a message did not arrive and was not in doubt, or if one arrived twice, out of order or with wrong bytes.
    pub fn check(&mut self) {
        for (from, to) in pairs() {
            let journal = &self.journals[to];
            let [doubled, torn] = [Word::Doubled, Word::Torn].map(|word| journal.get(from, word));
            assert!(doubled == 0 && torn == 0, "from {from} to {to}: {doubled} doubled, {torn} torn");
            // `Handled` is read before `Gaps`. A kernel adds a gap before it increases `Handled` beyond the gap. So all gaps
            // below `handled` are checked here.
            let handled = journal.get(from, Word::Handled);
            for nth in self.seen[to][from]..journal.get(from, Word::Gaps) {
                for n in journal.gap(from, nth) {
                    assert!(self.doubt[from][to].contains(&n), "message {n} from {from} to {to} is lost");
                    self.missing += 1;
                }
                self.seen[to][from] = nth + 1;
            }
            // A message that has arrived, or was found missing, is not in doubt any more.
            self.doubt[from][to] = self.doubt[from][to].split_off(&handled);
        }
    }

    /// A message that was sent, has not arrived and is not in doubt, if there is one: sender, receiver and number.
    pub fn outstanding(&self) -> Option<(usize, usize, u64)> {
        pairs().find_map(|(from, to)| {
            let sent = self.journals[from].get(to, Word::Ended);
            let mut left = self.journals[to].get(from, Word::Handled)..sent;
            left.find(|n| !self.doubt[from][to].contains(n)).map(|n| (from, to, n))
        })
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..KERNELS).flat_map(|from| (0..KERNELS).map(move |to| (from, to))).filter(|(from, to)| from != to)
}

/// Returns the number, in its payload, of the message from `from` whose handlers may have been running when `to` died. `None` if
/// there was no such message. If HANDED is above CREDIT, it is the message that ends at HANDED (SPEC N-11).
fn with_handlers(machine: &Machine, from: usize, to: usize) -> Option<u64> {
    let geometry = geometry();
    let start = machine.pool(InstanceId::new(to as u8)).unwrap().start();
    let map = machine.map(PhysRange::new(start, geometry.total_size()).unwrap(), false).unwrap();
    let word = |at: usize| map.words()[at].load(Ordering::SeqCst);
    let line = receiver::CONTROL + from * receiver::CONTROL_WORDS;
    let (credit, handed) = (word(line + control::CREDIT), word(line + control::HANDED));
    let lane = geometry.lane_at(from as u32).unwrap() as usize / 8;
    let mut position = credit;
    while position < handed {
        let at = lane + geometry.line_at(position);
        if LineTag::of_word(word(at)) != geometry.first_tag(position) {
            // A former life of the sender died before it had written this line.
            position += 1;
            continue;
        }
        let next = position + lines_of(MessageInfo::from_word(word(at + 1)).len as usize);
        if next == handed {
            return Some(word(at + 2));
        }
        position = next;
    }
    assert!(
        handed <= credit,
        "HANDED {handed} of lane {from} is not the end of a message, CREDIT is {credit}"
    );
    None
}
