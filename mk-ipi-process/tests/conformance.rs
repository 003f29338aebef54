// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance suite with three kernels, each of which is a process. Their doorbells are a futex and a signal.
#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::indexing_slicing, reason = "tests")]
#![expect(clippy::arithmetic_side_effects, reason = "tests")]

use mk_ipi_conformance::{run, Case, Env, Inbox, Outcome, TestEndpoint, CASES, NATIVE_LEN};
use mk_ipi_core::abi::native::Geometry;
use mk_ipi_core::abi::{Incarnation, InstanceId, PhysAddr, PhysCpuId, PhysRange, Vector};
use mk_ipi_core::platform::{Observer, Peer, PeerEvent};
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_core::{InstanceConfig, LinkConfig, SlotPolicy};
use mk_ipi_process::{Host, Kernel, Machine, Map, Shape};
use std::fs::File;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The CPU of each kernel. The ids have gaps, as on real machines.
const CPUS: [PhysCpuId; 3] = [PhysCpuId(4), PhysCpuId(9), PhysCpuId(0)];
/// Number of slots of an RFC v2 region: one for each id from 0 to the highest.
const SLOTS: u32 = 10;
/// Offset of a kernel's RFC v2 region in its pool. The native region is before it.
const SLOTS_AT: u64 = NATIVE_LEN;
/// Offset of the page that a kernel shares with others.
const PAGE_AT: u64 = SLOTS_AT + 4096;
/// Offset of the page whose first word is the kernel's control word ([`Env::post`]).
const CONTROL_AT: u64 = PAGE_AT + 4096;
/// Size of a kernel's pool.
const POOL: u64 = CONTROL_AT + 4096;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.as_slice() {
        [_, word, path, me] if word == "kernel" => kernel(path, me.parse().unwrap()),
        _ => supervisor(),
    }
}

/// Makes the machine, and starts a process for each kernel.
fn supervisor() {
    let path = std::env::temp_dir().join(format!("mk-ipi-conformance-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let machine = Machine::create(file, Shape { cpus: SLOTS, instances: 3, pool: POOL }).unwrap();
    // The kernels read in the directory which CPU belongs to which kernel. The regions are not used: the suite makes its own in
    // their place.
    let mut host = Host::new(&machine).unwrap();
    for (id, cpu) in (0..).zip(CPUS) {
        host.create(InstanceId::new(id), &[cpu], Geometry::new(3, 8, 256).unwrap()).unwrap();
    }
    let start = |me: usize| {
        let mut cmd = Command::new(std::env::current_exe().unwrap());
        cmd.arg("kernel").arg(&path).arg(me.to_string()).spawn().unwrap()
    };
    let kernels: Vec<_> = (0..CPUS.len()).map(start).collect();
    let ended: Vec<_> = kernels.into_iter().map(|mut kernel| kernel.wait().unwrap()).collect();
    std::fs::remove_file(&path).unwrap();
    assert!(ended.iter().all(|status| status.success()), "{ended:?}");
    println!("test result: ok. {} passed; 0 failed; conformance of three processes", CASES.len());
}

/// An observer that keeps the events, and counts the calls of `stop`.
#[derive(Clone)]
struct Seen {
    events: Arc<Mutex<Vec<(Peer, PeerEvent)>>>,
    stops: Arc<AtomicU64>,
}

impl Observer for Seen {
    fn peer_event(&self, peer: Peer, event: PeerEvent) {
        self.events.lock().unwrap().push((peer, event));
    }
    fn stop(&self) {
        self.stops.fetch_add(1, Ordering::Relaxed);
    }
}

struct ProcessEnv {
    endpoint: TestEndpoint<Self>,
    kernel: Kernel,
    control: [Map; 3],
    seen: Seen,
    inbox: Inbox,
    spare_interrupts: AtomicU64,
    me: usize,
    only: Option<String>,
    failed: AtomicU64,
}

/// The `len` bytes of a kernel's pool from offset `at` on.
fn part(machine: &Machine, kernel: usize, at: u64, len: u64) -> PhysRange {
    let pool = machine.pool(InstanceId::new(kernel as u8)).unwrap();
    PhysRange::new(PhysAddr(pool.start().0 + at), len).unwrap()
}

impl Env for ProcessEnv {
    type Platform = Kernel;
    // A call of `pause` takes about 0.1 ms if no interrupt ends it. So a wait fails after about 10 s.
    const PATIENCE: u64 = 100_000;
    const SPARE_VECTOR: Vector = Vector::new(0x40).unwrap();

    fn endpoint(&'static self) -> &'static TestEndpoint<Self> {
        &self.endpoint
    }
    fn config_of(&self, kernel: usize) -> InstanceConfig<'_> {
        InstanceConfig {
            id: InstanceId::new(kernel as u8),
            incarnation: Incarnation::FIRST,
            cpus: std::slice::from_ref(&CPUS[kernel]),
            doorbell_cpu: CPUS[kernel],
            vector: Vector::RFC_V2,
            link: LinkConfig::RfcV2 { slots: SLOTS, policy: SlotPolicy::Exclusive },
            one_doorbell: false,
        }
    }
    fn region_of(&self, kernel: usize) -> PhysRange {
        part(self.kernel.machine(), kernel, SLOTS_AT, u64::from(SLOTS) * 272)
    }
    fn native_region_of(&self, kernel: usize) -> PhysRange {
        part(self.kernel.machine(), kernel, 0, NATIVE_LEN)
    }
    fn peer_events(&self, f: &mut dyn FnMut(Peer, PeerEvent)) {
        let events = std::mem::take(&mut *self.seen.events.lock().unwrap());
        events.into_iter().for_each(|(peer, event)| f(peer, event));
    }
    fn stops(&self) -> u64 {
        self.seen.stops.load(Ordering::Relaxed)
    }
    fn spare_interrupts(&self) -> u64 {
        self.spare_interrupts.load(Ordering::Relaxed)
    }
    fn inbox(&self) -> &Inbox {
        &self.inbox
    }
    fn me(&self) -> usize {
        self.me
    }
    fn kernels(&self) -> usize {
        CPUS.len()
    }
    fn page_of(&self, kernel: usize) -> PhysRange {
        part(self.kernel.machine(), kernel, PAGE_AT, 4096)
    }
    fn post(&self, value: u64) {
        self.control[self.me].words()[0].store(value, Ordering::Release);
    }
    fn posted(&self, kernel: usize) -> u64 {
        self.control[kernel].words()[0].load(Ordering::Acquire)
    }
    fn pause(&self) {
        if self.kernel.idle(Duration::from_micros(100)) {
            self.endpoint.run_deferred();
        }
    }
    fn wants(&self, case: &Case) -> bool {
        self.only.as_ref().is_none_or(|only| only == case.name)
    }
    fn report(&self, case: &Case, outcome: Outcome) {
        if let Err(failed) = outcome {
            self.failed.fetch_add(1, Ordering::Relaxed);
            eprintln!("kernel {}: {}: {failed}", self.me, case.name);
        }
    }
}

/// The main function of a process that is a kernel.
fn kernel(path: &str, me: usize) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let (machine, seen) =
        (Machine::open(file).unwrap(), Seen { events: Arc::default(), stops: Arc::new(AtomicU64::new(0)) });
    let control = [0, 1, 2].map(|k| machine.map(part(&machine, k, CONTROL_AT, 4096), true).unwrap());
    let kernel = Kernel::enter_with(machine, CPUS[me], seen.clone()).unwrap();
    let env: &'static ProcessEnv = Box::leak(Box::new(ProcessEnv {
        endpoint: TestEndpoint::<ProcessEnv>::new(kernel.clone()),
        kernel: kernel.clone(),
        control,
        seen,
        inbox: Inbox::new(),
        spare_interrupts: AtomicU64::new(0),
        me,
        only: std::env::var("MK_IPI_CASE").ok(),
        failed: AtomicU64::new(0),
    }));
    env.endpoint.identify(InstanceId::new(me as u8), Incarnation::FIRST);
    assert!(kernel.set_vector(Vector::RFC_V2, || env.endpoint.on_interrupt()));
    assert!(kernel.set_vector(ProcessEnv::SPARE_VECTOR, || {
        env.spare_interrupts.fetch_add(1, Ordering::Relaxed);
        env.endpoint.on_interrupt();
    }));
    let passed = run(env);
    assert!(passed && env.failed.load(Ordering::Relaxed) == 0);
}
