// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes one call of the native link COUNT times, so that `valgrind --tool=callgrind` can count the instructions.
//! `cargo xtask test --only instructions` runs this program with one COUNT, and then with a larger one. The difference of the two
//! numbers of instructions, divided by the difference of the two COUNTs, is the number of instructions of one call.

#[path = "../../../benches/src/ours/host.rs"]
#[allow(dead_code, reason = "only the benchmarks use all of it")]
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
/// After this number of polls a message that was sent has been found.
const LOOKS: usize = 1000;
/// The instance id of the kernel that sends.
const SENDER: u8 = 0;
/// The instance id of the kernel that receives.
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

/// Makes the calls. `None` if `what` is unknown, or if a call failed.
fn run(what: &str, count: usize) -> Option<()> {
    match what {
        "send" => Pair::<1>::new().send(count),
        "send_of_4_cpus" => Pair::<4>::new().send(count),
        "empty_poll" => Pair::<1>::new().poll(count, false),
        "send_and_poll" => Pair::<1>::new().poll(count, true),
        _ => None,
    }
}

/// A handler that reads the first byte of the message, and does nothing else.
struct Trivial;

impl Handler for Trivial {
    fn handle(&self, message: &Message<'_>) {
        black_box(message.payload().first());
    }
}

/// Two kernels, of which one sends to the other. `CPUS` is the number of CPUs for which their endpoints are made.
struct Pair<const CPUS: usize> {
    sender: Box<Kernel<AtomicU64, Trivial, CPUS>>,
    receiver: Box<Kernel<AtomicU64, Trivial, CPUS>>,
}

impl<const CPUS: usize> Pair<CPUS> {
    fn new() -> Self {
        // The largest number of lines, so that the lane does not become full.
        let geometry = Geometry::new(2, MAX_LINES, DEFAULT_MAX_LEN).expect("lanes and lines within bounds");
        let memory = Memory::new(2 * geometry.total_size());
        let sender = host::kernel(&memory, SENDER, Trivial);
        let receiver = host::kernel(&memory, RECEIVER, Trivial);
        host::link([(&sender, SENDER, geometry), (&receiver, RECEIVER, geometry)]);
        Self { sender, receiver }
    }

    /// Sends `count` messages to a receiver that has a poller, so that no send rings a doorbell. `None` if a send fails.
    fn send(&self, count: usize) -> Option<()> {
        let _poller = self.receiver.poller()?;
        let held = self.sender.instance(InstanceId::new(RECEIVER)).ok()?;
        let payload = black_box(&PAYLOAD[..]);
        for _ in 0..count {
            self.sender.send_held(&held, NUMBERED, payload).ok()?;
        }
        Some(())
    }

    /// Polls `count` times. If `each` is true, sends a message before each poll. `None` if a poll does not find exactly what was
    /// sent.
    fn poll(&self, count: usize, each: bool) -> Option<()> {
        let mut poller = self.receiver.poller()?;
        let held = self.sender.instance(InstanceId::new(RECEIVER)).ok()?;
        let payload = black_box(&PAYLOAD[..]);
        // After this message is received, each poll reads this lane: a poller always reads the lane that had a message last.
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
