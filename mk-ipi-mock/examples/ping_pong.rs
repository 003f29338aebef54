// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two kernels in one process send a message back and forth: `cargo run --example ping_pong -p mk-ipi-mock`. With `-- FILE` the
//! run is also written to that file, as a trace that <https://ui.perfetto.dev> shows.
#![expect(clippy::expect_used, reason = "an example")]

use mk_ipi_core::abi::{native::Geometry, InstanceId, MessageType};
use mk_ipi_core::sync::{AtomicU64, Ordering::Relaxed};
use mk_ipi_mock::{Callback, Failure, Machine};
use std::sync::Arc;

const PING: InstanceId = InstanceId::new(0);
const PONG: InstanceId = InstanceId::new(1);
const BALL: MessageType = MessageType(1);

fn main() -> Result<(), Failure> {
    // A machine with two kernels, on the CPUs with the physical ids 0 and 4. Each kernel has attached the other.
    let machine = Machine::builder().kernel(&[0]).kernel(&[4]).trace().build();
    let geometry = Geometry::default_for(2).expect("2 is a number of lanes");
    let [ping, pong] = machine.link_native(geometry);

    // Pong's handler sends back each message that arrives. Ping's handler counts the messages that return. The core calls both
    // handlers in deferred work, after the interrupt.
    let racket = Arc::downgrade(&pong);
    let hit = Callback::new(move |ball| {
        let pong = racket.upgrade().expect("pong outlives the run");
        pong.send(PING, BALL, ball.payload()).expect("there is room for a ball");
    });
    let _serves = pong.register(BALL, hit).expect("room for a handler");
    let returned = Arc::new(AtomicU64::new(0));
    let score = returned.clone();
    let catch = Callback::new(move |ball| {
        println!("round trip {}: {}", score.fetch_add(1, Relaxed), String::from_utf8_lossy(ball.payload()));
    });
    let _counts = ping.register(BALL, catch).expect("room for a handler");

    // Every CPU runs this code. On the CPU of pong's kernel the loop does nothing: that CPU only takes interrupts.
    let report = machine.run(|cpu| {
        for round in (0..5).filter(|_| cpu.kernel() == 0) {
            ping.send(PONG, BALL, b"hello from CPU 0").expect("there is room for a ball");
            cpu.wait_until(|| returned.load(Relaxed) > round);
        }
    })?;
    println!("{:?} in {} steps", report.doorbells, report.steps);
    if let Some(file) = std::env::args_os().nth(1) {
        std::fs::write(file, machine.chrome_trace()).expect("the trace can be written");
    }
    Ok(())
}
