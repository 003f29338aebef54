// SPDX-License-Identifier: MIT OR Apache-2.0
//! Does one thing of the native link so many times, for `valgrind --tool=callgrind` to count: what twice as many times take
//! more, by their number, is what one takes. `cargo xtask test --only instructions` does that.

#[path = "../../../benches/src/ours/host.rs"]
#[allow(dead_code, reason = "the benchmarks need more of it")]
mod host;

use std::env;
use std::hint::black_box;
use std::process::ExitCode;

use mk_ipi_core::abi::native::{Geometry, DEFAULT_MAX_LEN, MAX_LINES};
use mk_ipi_core::abi::InstanceId;
use mk_ipi_core::sync::AtomicU64;
use mk_ipi_core::{Handler, Message};

use host::{Kernel, Memory, NUMBERED};

/// A message that fits into one line.
const PAYLOAD: [u8; 48] = [7; 48];
/// Looks after which a message that was sent has certainly been found.
const LOOKS: usize = 1000;
/// How the kernels know each other.
const SENDER: u8 = 0;
const RECEIVER: u8 = 1;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [_, what, count] => count.parse().ok().and_then(|count| run(what, count)),
        _ => None,
    };
    match done {
        Some(()) => ExitCode::SUCCESS,
        None => {
            eprintln!("usage: mk-ipi-instructions send|send_of_4_cpus|empty_poll|send_and_poll COUNT");
            ExitCode::FAILURE
        }
    }
}

/// `None` if there is no such thing to do, or it did not come out as it must.
fn run(what: &str, count: usize) -> Option<()> {
    match what {
        "send" => Pair::<1>::new().send(count),
        "send_of_4_cpus" => Pair::<4>::new().send(count),
        "empty_poll" => Pair::<1>::new().poll(count, false),
        "send_and_poll" => Pair::<1>::new().poll(count, true),
        _ => None,
    }
}

/// Looks at its message, and does no more.
struct Trivial;

impl Handler for Trivial {
    fn handle(&self, message: &Message<'_>) {
        black_box(message.payload().first());
    }
}

/// Two kernels, whose one direction is used. `CPUS`: how many could send.
struct Pair<const CPUS: usize> {
    sender: Box<Kernel<AtomicU64, Trivial, CPUS>>,
    receiver: Box<Kernel<AtomicU64, Trivial, CPUS>>,
}

impl<const CPUS: usize> Pair<CPUS> {
    fn new() -> Self {
        // As many lines as there can be, so that a sender need not wait for who counts.
        let geometry = Geometry::new(2, MAX_LINES, DEFAULT_MAX_LEN).expect("lanes and lines within bounds");
        let memory = Memory::new(2 * geometry.total_size());
        let sender = host::kernel(&memory, SENDER, Trivial);
        let receiver = host::kernel(&memory, RECEIVER, Trivial);
        host::link([(&sender, SENDER, geometry), (&receiver, RECEIVER, geometry)]);
        Self { sender, receiver }
    }

    /// Sends `count` messages to a receiver that polls, and therefore is not rung.
    fn send(&self, count: usize) -> Option<()> {
        let _poller = self.receiver.poller()?;
        let held = self.sender.instance(InstanceId::new(RECEIVER)).ok()?;
        let payload = black_box(&PAYLOAD[..]);
        for _ in 0..count {
            self.sender.send_held(&held, NUMBERED, payload).ok()?;
        }
        Some(())
    }

    /// Polls `count` times; `each` time for a message that was sent before.
    fn poll(&self, count: usize, each: bool) -> Option<()> {
        let mut poller = self.receiver.poller()?;
        let held = self.sender.instance(InstanceId::new(RECEIVER)).ok()?;
        let payload = black_box(&PAYLOAD[..]);
        // The first message: from now on the lane is the one that spoke last.
        self.sender.send_held(&held, NUMBERED, payload).ok()?;
        let mut found: usize = (0..LOOKS).map(|_| poller.poll()).sum();
        if found == 0 {
            return None;
        }
        found = 0;
        for _ in 0..count {
            if each {
                self.sender.send_held(&held, NUMBERED, payload).ok()?;
            }
            found += poller.poll();
        }
        (found == if each { count } else { 0 }).then_some(())
    }
}
