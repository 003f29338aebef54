// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel that streams to all others, and checks what comes.

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
/// Messages in a row to one peer.
const BURST: usize = 40;

/// What it was told of its peers decides nothing here: the supervisor sees for itself.
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
    // What came before there was a handler is for it too: nothing has run the deferred work yet.
    loop {
        let mut sent = 0;
        for peer in (0..KERNELS).filter(|peer| *peer != me && !control.is_over()) {
            sent += (0..BURST).take_while(|_| send(link, &journal, me, peer)).count();
        }
        // A life that is killed at once has seen more than its first lines.
        let nap = if sent == 0 { Duration::from_millis(1) } else { Duration::ZERO };
        wait(link, nap.max(Duration::from_micros(20)), || false);
    }
}

/// Sends the next message to `peer`; whether there was room.
fn send(link: &Link, journal: &Journal, me: usize, peer: usize) -> bool {
    let n = journal.get(peer, Word::Ended);
    let bytes = payload(me, peer, n);
    journal.set(peer, Word::Begun, n + 1);
    let sent = link.send(InstanceId::new(peer as u8), TYPE, &bytes);
    match sent {
        Ok(_) => journal.set(peer, Word::Ended, n + 1),
        // Not sent, and nothing has changed.
        Err(SendError::Full | SendError::Unanswered | SendError::Instance(_)) => {
            journal.set(peer, Word::Begun, n)
        }
        Err(e) => panic!("kernel {me} to {peer}: {e:?}"),
    }
    sent.is_ok()
}

/// A message came: it must be the next one, whole.
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
        // Or a death just here would have the gap told twice.
        journal.set(from, Word::Handled, n);
    }
    journal.set(from, Word::Handling, n + 1);
    journal.set(from, Word::Handled, n + 1);
}

/// The supervisor's word to all.
struct Control(mk_ipi_process::Map);

impl Control {
    fn of(machine: &Machine) -> Self {
        Self(crate::supervisor::control(machine, false))
    }

    fn is_over(&self) -> bool {
        self.0.words()[0].load(mk_ipi_core::sync::Ordering::Relaxed) != 0
    }
}
