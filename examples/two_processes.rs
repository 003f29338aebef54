// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two kernels, each of which is a process, send a message back and forth: `cargo run --example two_processes -p mk-ipi-process`.
//!
//! The first process is the host. It makes the machine, which is a file, and starts the second process. The second process
//! finds its region and the directory by its command line, like a spawned kernel.

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
/// The number of messages that came to this kernel.
static BALLS: AtomicU64 = AtomicU64::new(0);

/// An observer that ignores all events.
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

/// The host's process: makes the machine, starts the other kernel, sends it messages, and waits until each one comes back.
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
        // The other kernel may not have started yet. The message waits in its region.
        let ball = format!("hello from process {}", std::process::id());
        link.send(PONG, BALL, ball.as_bytes()).map_err(|e| format!("{e:?}"))?;
        if !wait(link, PATIENCE, || BALLS.load(Relaxed) > round) {
            return Err("a message did not come back in time".into());
        }
    }
    std::fs::remove_file(&path)?;
    println!("pong ended with {}", other.wait()?);
    Ok(())
}

/// The other kernel's process: sends each message back.
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
