// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the conformance suite on bare metal, with the machine's interrupt controller. Reports the result of each case.

use crate::arch::{self, without_interrupts};
use crate::control::control;
use crate::layout;
use crate::node::{instance, Node};
use crate::platform::{Kernel, Role, ENDPOINT};
use mk_ipi_abi::{Incarnation, PhysCpuId, PhysRange, Vector};
use mk_ipi_conformance::{Case, Env, Inbox, Outcome, TestEndpoint};
use mk_ipi_core::platform::{Peer, PeerEvent};
use mk_ipi_core::sync::spin_hint;
use mk_ipi_core::sync::{AtomicU64, Ordering};
use mk_ipi_core::{InstanceConfig, LinkConfig, SlotPolicy};
use spin::{Mutex, Once};

/// The endpoint that the suite tests. Its queue is small, so that a case can fill it.
pub static SUITE: TestEndpoint<BareMetal> = TestEndpoint::<BareMetal>::new(Kernel);
static BARE_METAL: BareMetal = BareMetal {
    inbox: Inbox::new(),
    node: Once::new(),
    told: Mutex::new([None; TOLD]),
    stops: AtomicU64::new(0),
    spare_interrupts: AtomicU64::new(0),
};
/// The largest number of events that are kept until the suite calls `peer_events`, which it does whenever it waits for an
/// event. Further events are dropped.
const TOLD: usize = 64;

/// The environment of the suite: this kernel.
pub struct BareMetal {
    inbox: Inbox,
    node: Once<Kernels>,
    /// Events that the core reported to this kernel's `Observer`, and that the suite has not fetched yet. Accessed with
    /// interrupts off.
    told: Mutex<[Option<(Peer, PeerEvent)>; TOLD]>,
    stops: AtomicU64,
    spare_interrupts: AtomicU64,
}

/// The number of this kernel, the number of kernels, and the doorbell of each kernel.
struct Kernels {
    me: usize,
    count: usize,
    doorbells: [(PhysCpuId, Vector); layout::MAX_KERNELS],
}

impl BareMetal {
    fn node(&self) -> &Kernels {
        self.node.get().expect("`run` sets `node` before the suite begins")
    }
}

/// Keeps an event for the suite. Called for each peer event while the suite runs. If `told` is full, the event is dropped.
pub fn on_peer_event(peer: Peer, event: PeerEvent) {
    without_interrupts(|| {
        if let Some(place) = BARE_METAL.told.lock().iter_mut().find(|place| place.is_none()) {
            *place = Some((peer, event));
        }
    });
}

/// Called when the host tells this kernel to stop (SPEC N-15). The suite only counts these calls; the kernel goes on.
pub fn on_stop() {
    BARE_METAL.stops.fetch_add(1, Ordering::Relaxed);
}

/// Called after an interrupt on the spare vector, which the caller has acknowledged.
pub fn on_spare() {
    BARE_METAL.spare_interrupts.fetch_add(1, Ordering::Relaxed);
    SUITE.on_interrupt();
}

impl Env for BareMetal {
    type Platform = Kernel;
    const PATIENCE: u64 = 20_000_000;
    const SPARE_VECTOR: Vector = arch::SPARE_VECTOR;

    fn endpoint(&'static self) -> &'static TestEndpoint<Self> {
        &SUITE
    }
    fn config_of(&self, kernel: usize) -> InstanceConfig<'_> {
        let (cpu, vector) = &self.node().doorbells[kernel];
        InstanceConfig {
            id: instance(kernel),
            incarnation: Incarnation::FIRST,
            cpus: core::slice::from_ref(cpu),
            doorbell_cpu: *cpu,
            vector: *vector,
            link: LinkConfig::RfcV2 { slots: layout::SUITE_SLOTS, policy: SlotPolicy::Exclusive },
            one_doorbell: false,
        }
    }
    fn region_of(&self, kernel: usize) -> PhysRange {
        layout::suite_region(kernel)
    }
    fn native_region_of(&self, kernel: usize) -> PhysRange {
        layout::suite_native_region(kernel)
    }
    fn peer_events(&self, f: &mut dyn FnMut(Peer, PeerEvent)) {
        let told = without_interrupts(|| core::mem::replace(&mut *self.told.lock(), [None; TOLD]));
        told.into_iter().flatten().for_each(|(peer, event)| f(peer, event));
    }
    fn stops(&self) -> u64 {
        self.stops.load(Ordering::Relaxed)
    }
    fn spare_interrupts(&self) -> u64 {
        self.spare_interrupts.load(Ordering::Relaxed)
    }
    fn inbox(&self) -> &Inbox {
        &self.inbox
    }
    fn me(&self) -> usize {
        self.node().me
    }
    fn kernels(&self) -> usize {
        self.node().count
    }
    fn page_of(&self, kernel: usize) -> PhysRange {
        layout::suite_page(kernel)
    }
    fn post(&self, value: u64) {
        control().suite(self.me()).store(value, Ordering::Release);
    }
    fn posted(&self, kernel: usize) -> u64 {
        control().suite(kernel).load(Ordering::Acquire)
    }
    fn pause(&self) {
        Kernel.service();
        spin_hint();
    }
    /// Returns false for the case `a_doorbell_moves` if the interrupt controller has only one vector (riscv64 with SBI).
    fn wants(&self, case: &Case) -> bool {
        Kernel.controller().has_spare() || case.name != MOVES
    }
    fn report(&self, case: &Case, outcome: Outcome) {
        let (result, detail) = match outcome {
            Ok(()) => ("pass", ""),
            Err(failed) => ("fail", failed.0),
        };
        tell(case, result, detail);
    }
}

/// The name of the case that needs a second vector.
const MOVES: &str = "a_doorbell_moves";

fn tell(Case { name, clauses, .. }: &Case, result: &str, detail: &str) {
    let me = BARE_METAL.me();
    record!(
        "{{\"case\":{{\"name\":\"{name}\",\"clause\":\"{clauses}\",\"kernel\":{me},\
         \"result\":\"{result}\",\"detail\":\"{detail}\"}}}}"
    );
}

/// Runs all cases that this interrupt controller supports. Returns whether all passed.
pub fn run(node: &Node) -> bool {
    let mut doorbells = [(PhysCpuId(0), arch::DOORBELL); layout::MAX_KERNELS];
    for (kernel, doorbell) in doorbells.iter_mut().enumerate().take(node.kernels) {
        let Ok(known) = ENDPOINT.instance(instance(kernel)) else { fatal!("kernel {kernel} is missing") };
        *doorbell = (known.doorbell_cpu(), known.vector());
    }
    BARE_METAL.node.call_once(|| Kernels { me: node.me, count: node.kernels, doorbells });
    SUITE.identify(instance(node.me), Incarnation::FIRST);
    Kernel.controller().open_spare();
    Kernel.play(Role::Suite);
    for case in mk_ipi_conformance::CASES.iter().filter(|case| !BARE_METAL.wants(case)) {
        tell(case, "skip", "this interrupt controller has only one vector");
    }
    mk_ipi_conformance::run(&BARE_METAL)
}
