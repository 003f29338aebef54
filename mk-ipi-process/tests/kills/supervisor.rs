// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host of the machine, which is not a kernel itself. It starts the kernels, stops and kills them, and checks all messages.

use crate::books::Books;
use crate::journal::{geometry, pool};
use crate::KERNELS;
use mk_ipi_core::abi::{InstanceId, PhysCpuId, PhysRange};
use mk_ipi_core::sync::Ordering;
use mk_ipi_process::{Host, Machine, Map, Shape};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The number of kills in an ordinary test run.
const KILLS: u64 = 60;
/// If a kernel makes no progress for this time, the test fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// An instance without a kernel. Its pool contains the control word.
const CONTROL: InstanceId = InstanceId::new(KERNELS as u8);

/// Maps the page whose first word, the control word, tells all kernels to send no more if it is not 0.
pub fn control(machine: &Machine, writable: bool) -> Map {
    let start = machine.pool(CONTROL).unwrap().start();
    machine.map(PhysRange::new(start, 4096).unwrap(), writable).unwrap()
}

/// Pseudo-random numbers, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// The processes of the kernels. They are killed, and the machine's file is removed, when this value is dropped.
struct Kernels<'a> {
    path: &'a Path,
    children: Vec<Option<Child>>,
}

impl Kernels<'_> {
    fn start(&mut self, host: &Host<'_>, k: usize) {
        let mut cmd = Command::new(std::env::current_exe().unwrap());
        cmd.arg("kernel").arg(self.path).arg(k.to_string()).arg(host.command_line(id(k)).unwrap());
        self.children[k] = Some(cmd.spawn().unwrap());
    }

    /// Fails if kernel `k` has ended by itself.
    fn assert_alive(&mut self, k: usize) {
        let ended = self.children[k].as_mut().unwrap().try_wait().unwrap();
        assert!(ended.is_none(), "kernel {k} ended by itself: {ended:?}");
    }

    fn signal(&self, k: usize, signal: i32) {
        let pid = self.children[k].as_ref().unwrap().id();
        // SAFETY: this sends a signal to a child of this process. Nothing has waited for the child yet, so no other process can
        // have its id.
        assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
    }

    fn kill(&mut self, k: usize) {
        let mut child = self.children[k].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Kernels<'_> {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(self.path);
    }
}

fn id(k: usize) -> InstanceId {
    InstanceId::new(k as u8)
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .map_or(otherwise, |value| value.parse().expect("MK_IPI_KILLS and MK_IPI_SEED must be numbers"))
}

/// Runs the test.
pub fn run() {
    let (kills, seed) = (number("MK_IPI_KILLS", KILLS), number("MK_IPI_SEED", 1));
    let path: PathBuf =
        ["/dev/shm", "/tmp"].iter().map(PathBuf::from).find(|folder| folder.is_dir()).unwrap();
    let path = path.join(format!("mk-ipi-kills-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let shape = Shape { cpus: KERNELS as u32, instances: KERNELS as u32 + 1, pool: pool() };
    let machine = Machine::create(file, shape).unwrap();
    let mut host = Host::new(&machine).unwrap();
    let mut kernels = Kernels { path: &path, children: (0..KERNELS).map(|_| None).collect() };
    for k in 0..KERNELS {
        host.create(id(k), &[PhysCpuId(k as u64)], geometry()).unwrap();
    }
    (0..KERNELS).for_each(|k| kernels.start(&host, k));

    let (mut random, mut books) = (Random(seed), Books::new(&machine));
    let (start, mut done, mut stops) = (Instant::now(), 0, 0);
    while done < kills {
        let first = random.below(KERNELS as u64) as usize;
        // Sometimes two kernels are killed at once.
        let second = (random.below(4) == 0).then_some((first + 1) % KERNELS);
        let victims: Vec<usize> = [Some(first), second].into_iter().flatten().collect();
        victims.iter().for_each(|k| get_on(&mut kernels, &books, *k, 1 + random.below(400)));
        let stopped = stop_some(&kernels, &mut random, &mut stops);
        pause(random.below(200));
        victims.iter().for_each(|k| kernels.kill(*k));
        let live_on = stopped.iter().filter(|k| !victims.contains(k));
        live_on.for_each(|k| kernels.signal(*k, libc::SIGCONT));
        for k in &victims {
            host.died(id(*k)).unwrap();
            books.died(&machine, *k);
        }
        books.check();
        inspect(&path);
        for k in victims {
            host.next_life(id(k)).unwrap();
            kernels.start(&host, k);
            done += 1;
        }
        if done % 1000 < 2 && kills > KILLS {
            eprintln!("{done} kills, {} messages, {} s", books.handled(), start.elapsed().as_secs());
        }
    }
    settle(&machine, &mut kernels, &mut books);
    println!(
        "test result: ok. 1 passed; 0 failed; {done} kills and {stops} stops in {} s, seed {seed}: \
         {} messages handled; {} deaths in a send, {} in a handler; {} messages missing, all in doubt",
        start.elapsed().as_secs(),
        books.handled(),
        books.sending,
        books.handling,
        books.missing
    );
}

/// Checks that mk-ipi-inspect finds all regions, and reports nothing as broken: the death of a kernel breaks no rule of the
/// protocol.
fn inspect(path: &Path) {
    let memory = mk_ipi_inspect::Memory::open(path, None).unwrap();
    let found = mk_ipi_inspect::Machine::find(&memory, 1).unwrap();
    assert_eq!((found.directories.len(), found.regions.len()), (1, KERNELS));
    assert!(!found.is_broken(), "{}", mk_ipi_inspect::text::machine(&found));
}

/// Waits until kernel `k` has sent and handled this many more messages.
fn get_on(kernels: &mut Kernels<'_>, books: &Books, k: usize, messages: u64) {
    let (start, before) = (Instant::now(), books.progress(k));
    while books.progress(k) < before + messages {
        kernels.assert_alive(k);
        assert!(
            start.elapsed() < PATIENCE,
            "kernel {k} makes no progress after {} messages",
            books.progress(k)
        );
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Stops some kernels at random, at any instruction. After at most 1.5 ms lets most of them continue. Returns those that stay
/// stopped.
fn stop_some(kernels: &Kernels<'_>, random: &mut Random, stops: &mut u64) -> Vec<usize> {
    let stopped: Vec<usize> = (0..KERNELS).filter(|_| random.below(4) == 0).collect();
    stopped.iter().for_each(|k| kernels.signal(*k, libc::SIGSTOP));
    *stops += stopped.len() as u64;
    if !stopped.is_empty() {
        std::thread::sleep(Duration::from_micros(random.below(1500)));
    }
    let (stay, go_on): (Vec<usize>, Vec<usize>) = stopped.iter().partition(|_| random.below(3) == 0);
    go_on.iter().for_each(|k| kernels.signal(*k, libc::SIGCONT));
    stay
}

/// Waits by spinning, because a sleep can take much longer than asked.
fn pause(micros: u64) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
}

/// Tells the kernels to send no more, and waits until all messages that were sent have arrived, except those in doubt.
fn settle(machine: &Machine, kernels: &mut Kernels<'_>, books: &mut Books) {
    control(machine, true).words()[0].store(1, Ordering::SeqCst);
    let start = Instant::now();
    while let Some((from, to, n)) = books.outstanding() {
        (0..KERNELS).for_each(|k| kernels.assert_alive(k));
        assert!(start.elapsed() < PATIENCE, "message {n} from {from} to {to} is lost");
        std::thread::sleep(Duration::from_millis(1));
    }
    // If a message arrives again in this time, `check` finds it.
    std::thread::sleep(Duration::from_millis(50));
    books.check();
}
