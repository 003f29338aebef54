// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel that streams messages to all others, and checks the messages that it receives.

use crate::journal::{payload, Journal, Word};
use crate::KERNELS;
use mk_ipi_core::abi::{InstanceId, MessageType, PhysCpuId};
use mk_ipi_core::platform::Observer;
use mk_ipi_core::SendError;
use mk_ipi_process::{boot, wait, Callback, Link, Machine};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

const TYPE: MessageType = MessageType(1);
/// How many messages are sent to one peer in a row.
const BURST: usize = 40;

/// An observer that ignores all events. The supervisor checks the result itself.
struct Blind;
impl Observer for Blind {}

/// Runs until it is killed.
pub fn run(path: &str, me: usize, command_line: &str) {
    let open = || File::options().read(true).write(true).open(path).unwrap();
    let machine = Machine::open(open()).unwrap();
    let journal = Arc::new(Journal::of(&machine, me, true));
    journal.recover();
    let control = Control::of(&machine);
    let link = boot(open(), PhysCpuId(me as u64), command_line, Blind).unwrap();
    let book = journal.clone();
    let _forever = link
        .register(
            TYPE,
            Callback::new(move |message| {
                let from = message.sender().unwrap().index();
                received(&book, from, me, message.payload());
            }),
        )
        .unwrap();
    // Messages that arrived before this handler was registered are also passed to it, because the deferred work has not run yet.
    loop {
        let mut sent = 0;
        for peer in (0..KERNELS).filter(|peer| *peer != me && !control.is_over()) {
            sent += (0..BURST).take_while(|_| send(link, &journal, me, peer)).count();
        }
        // The wait is never 0, so that each life handles messages, even if it is killed soon.
        let nap = if sent == 0 { Duration::from_millis(1) } else { Duration::ZERO };
        wait(link, nap.max(Duration::from_micros(20)), || false);
    }
}

/// Sends the next message to `peer`. Returns false if it was not accepted.
fn send(link: &Link, journal: &Journal, me: usize, peer: usize) -> bool {
    let n = journal.get(peer, Word::Ended);
    let bytes = payload(me, peer, n);
    journal.set(peer, Word::Begun, n + 1);
    let sent = link.send(InstanceId::new(peer as u8), TYPE, &bytes);
    match sent {
        Ok(_) => journal.set(peer, Word::Ended, n + 1),
        // The message was not sent, and the lane has not changed.
        Err(SendError::Full | SendError::Unanswered | SendError::Instance(_)) => {
            journal.set(peer, Word::Begun, n)
        }
        Err(e) => panic!("kernel {me} cannot send to kernel {peer}: {e:?}"),
    }
    sent.is_ok()
}

/// Notes in the journal that a message was received, and whether it is the next one and has the right bytes.
fn received(journal: &Journal, from: usize, me: usize, bytes: &[u8]) {
    let Some(n) = bytes.first_chunk().map(|n| u64::from_le_bytes(*n)) else {
        return journal.set(from, Word::Torn, journal.get(from, Word::Torn) + 1);
    };
    let expected = journal.get(from, Word::Handled);
    if bytes != payload(from, me, n) {
        return journal.set(from, Word::Torn, journal.get(from, Word::Torn) + 1);
    }
    if n < expected {
        return journal.set(from, Word::Doubled, journal.get(from, Word::Doubled) + 1);
    }
    if n > expected {
        journal.add_gap(from, expected, n);
        // Without this store, the gap would be added again if the kernel died after this point.
        journal.set(from, Word::Handled, n);
    }
    journal.set(from, Word::Handling, n + 1);
    journal.set(from, Word::Handled, n + 1);
}

/// The word by which the supervisor tells all kernels to send no more.
struct Control(mk_ipi_process::Map);

impl Control {
    fn of(machine: &Machine) -> Self {
        Self(crate::supervisor::control(machine, false))
    }

    fn is_over(&self) -> bool {
        self.0.words()[0].load(mk_ipi_core::sync::Ordering::Relaxed) != 0
    }
}
