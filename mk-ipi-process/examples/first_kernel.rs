// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two kernels, each a process: one asks, the other answers. `cargo run --example first_kernel -p mk-ipi-process`

use mk_ipi_core::abi::{boot_param::mk_ipi_shared, native::Geometry};
use mk_ipi_core::abi::{InstanceId, MessageType, PhysCpuId, Vector};
use mk_ipi_core::sync::{AtomicU64, Ordering::Relaxed};
use mk_ipi_core::Endpoint;
use mk_ipi_process::{Callback, Host, Kernel, Machine, Shape};
use std::time::{Duration, Instant};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;
/// This kernel's end of all links. The platform is `Kernel`, a handler is a `Callback`, and this kernel has one CPU.
type End = Endpoint<Kernel, Callback, 1>;

const ASKER: InstanceId = InstanceId::HOST;
const ANSWERER: InstanceId = InstanceId::new(1);
const QUESTION: MessageType = MessageType(1);
const ANSWER: MessageType = MessageType(2);
const QUESTIONS: u64 = 3;
/// The longest sleep.
const NAP: Duration = Duration::from_millis(20);
/// A peer is suspect if its heartbeat does not change for this many milliseconds.
const PATIENCE: u64 = 1_000;
/// How many answers this kernel has received, or how many questions it has answered.
static SEEN: AtomicU64 = AtomicU64::new(0);

fn main() -> Result {
    let words: Vec<String> = std::env::args().collect();
    match words.as_slice() {
        [_, memory, command_line] => answerer(memory, command_line),
        _ => asker(),
    }
}

/// Boots this process as a kernel: it becomes a CPU of the machine, makes its endpoint, and joins the other kernels.
fn boot(memory: &str, cpu: PhysCpuId, command_line: &str) -> Result<&'static End> {
    let machine = Machine::open(std::fs::File::options().read(true).write(true).open(memory)?)?;
    let kernel = Kernel::enter(machine, cpu)?;
    let end: &'static End = Box::leak(Box::new(End::new(kernel.clone())));
    // The handler of the doorbell's vector. The machine acknowledges the interrupt before it calls this handler.
    kernel.set_vector(Vector::RFC_V2, || end.on_interrupt());
    let region = mk_ipi_shared(command_line.as_bytes()).map_err(|e| format!("{e:?}"))?;
    let directory = kernel.machine().directory().ok_or("the host has not created the directory")?;
    let region = region.ok_or("the command line has no mk_ipi_shared=")?;
    end.join(region, &directory).map_err(|e| format!("{e:?}"))?;
    Ok(end)
}

/// The idle loop: sleeps until the doorbell rings, then calls the handlers. Repeats this until `done` returns true.
fn idle(end: &End, done: impl Fn() -> bool) -> Result {
    let start = Instant::now();
    let directory = end.platform().machine().directory().ok_or("there is no directory")?;
    while !done() {
        // `tick` advances this kernel's heartbeat, and checks those of the others. `follow` applies changes of the directory.
        end.tick(u64::try_from(start.elapsed().as_millis())?, PATIENCE);
        end.follow(&directory, |_, _| ()).map_err(|e| format!("{e:?}"))?;
        // HERE a simpler loop loses a doorbell: "if there is no work, sleep" is two steps, and the interrupt
        // can come between them. `Kernel::idle` does both steps, and blocks the interrupt until it sleeps.
        if end.platform().idle(NAP) {
            end.run_deferred();
        }
    }
    Ok(())
}

/// The host: makes the machine and its directory, starts the other kernel, then boots as kernel 0 and asks.
fn asker() -> Result {
    let memory = std::env::temp_dir().join(format!("first-kernel-{}", std::process::id()));
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&memory)?;
    let machine = Machine::create(file, Shape { cpus: 2, instances: 2, pool: 1 << 20 })?;
    let lanes = Geometry::default_for(2).ok_or("a region cannot have 2 lanes")?;
    let mut host = Host::new(&machine)?;
    host.create(ASKER, &[PhysCpuId(0)], lanes)?;
    host.create(ANSWERER, &[PhysCpuId(1)], lanes)?;
    let memory = memory.display().to_string();
    let program = std::env::current_exe()?;
    let mut other =
        std::process::Command::new(program).args([&memory, &host.command_line(ANSWERER)?]).spawn()?;

    let end = boot(&memory, PhysCpuId(0), &host.command_line(ASKER)?)?;
    let print = Callback::new(|message| {
        println!("{}", String::from_utf8_lossy(message.payload()));
        SEEN.fetch_add(1, Relaxed);
    });
    let _registered = end.register(ANSWER, print).map_err(|e| format!("{e:?}"))?;
    for question in 1..=QUESTIONS {
        // The other kernel may still be booting. The message then waits in its region.
        end.send(ANSWERER, QUESTION, &question.to_le_bytes()).map_err(|e| format!("{e:?}"))?;
        idle(end, || SEEN.load(Relaxed) == question)?;
    }
    std::fs::remove_file(&memory)?;
    println!("the other kernel ended with {}", other.wait()?);
    Ok(())
}

/// The spawned kernel: answers each question, and then says goodbye to the other kernel.
fn answerer(memory: &str, command_line: &str) -> Result {
    let end = boot(memory, PhysCpuId(1), command_line)?;
    let reply = Callback::new(move |message| {
        let answer = format!("answer to {:?} from process {}", message.payload(), std::process::id());
        // The lane has room for many messages. A kernel that can fill a lane must handle the error `Full`: see `want_space`.
        let sent = end.send(ASKER, ANSWER, answer.as_bytes());
        SEEN.fetch_add(sent.is_ok().into(), Relaxed);
    });
    let _registered = end.register(QUESTION, reply).map_err(|e| format!("{e:?}"))?;
    idle(end, || SEEN.load(Relaxed) == QUESTIONS)?;
    end.goodbye();
    Ok(())
}
