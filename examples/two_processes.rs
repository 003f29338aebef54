// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two kernels, a process each, play ping-pong: `cargo run --example two_processes -p mk-ipi-process`.
//!
//! The first process makes the machine, a file, and is its host. It starts the second one, which finds what it needs in that file
//! and on its command line, as a kernel does that was started by another.

use mk_ipi_core::abi::{native::Geometry, InstanceId, MessageType, PhysCpuId};
use mk_ipi_core::platform::Observer;
use mk_ipi_core::sync::{AtomicU64, Ordering::Relaxed};
use mk_ipi_process::{boot, wait, Callback, Host, Machine, Shape};
use std::fs::File;
use std::process::Command;
use std::time::Duration;

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

const PING: InstanceId = InstanceId::new(0);
const PONG: InstanceId = InstanceId::new(1);
const BALL: MessageType = MessageType(1);
const ROUNDS: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(10);
/// Balls that came to this kernel.
static BALLS: AtomicU64 = AtomicU64::new(0);

/// Hears nothing of its peers: nobody dies here.
struct Deaf;
impl Observer for Deaf {}

fn open(path: &str) -> std::io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

fn main() -> Result {
    let args: Vec<String> = std::env::args().collect();
    match args.as_slice() {
        [_, path, command_line] => pong(path, command_line),
        _ => ping(),
    }
}

/// The host's process: makes the machine, starts the other kernel, and plays.
fn ping() -> Result {
    let path = std::env::temp_dir().join(format!("mk-ipi-{}", std::process::id())).display().to_string();
    let machine = Machine::create(open(&path)?, Shape { cpus: 2, instances: 2, pool: 1 << 20 })?;
    let geometry = Geometry::default_for(2).ok_or("2 is a number of lanes")?;
    let mut host = Host::new(&machine)?;
    host.create(PING, &[PhysCpuId(0)], geometry)?;
    host.create(PONG, &[PhysCpuId(1)], geometry)?;
    let mut other =
        Command::new(std::env::current_exe()?).arg(&path).arg(host.command_line(PONG)?).spawn()?;

    let link = boot(open(&path)?, PhysCpuId(0), &host.command_line(PING)?, Deaf)?;
    let catch = Callback::new(|ball| {
        println!("round trip {}: {}", BALLS.fetch_add(1, Relaxed), String::from_utf8_lossy(ball.payload()));
    });
    let _catches = link.register(BALL, catch).map_err(|e| format!("{e:?}"))?;
    for round in 0..ROUNDS {
        // Pong may still be on its way: what is sent waits for it.
        let ball = format!("hello from process {}", std::process::id());
        link.send(PONG, BALL, ball.as_bytes()).map_err(|e| format!("{e:?}"))?;
        if !wait(link, PATIENCE, || BALLS.load(Relaxed) > round) {
            return Err("no ball came back".into());
        }
    }
    std::fs::remove_file(&path)?;
    println!("pong ended with {}", other.wait()?);
    Ok(())
}

/// The other kernel's process: sends back what comes.
fn pong(path: &str, command_line: &str) -> Result {
    let link = boot(open(path)?, PhysCpuId(1), command_line, Deaf)?;
    let hit = Callback::new(move |ball| {
        if link.send(PING, BALL, ball.payload()).is_ok() {
            BALLS.fetch_add(1, Relaxed);
        }
    });
    let _hits = link.register(BALL, hit).map_err(|e| format!("{e:?}"))?;
    wait(link, PATIENCE, || BALLS.load(Relaxed) == ROUNDS);
    link.goodbye();
    Ok(())
}
