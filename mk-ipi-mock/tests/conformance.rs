// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the conformance suite on the mock machine: in stepped mode with several seeds, and in free mode.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, missing_docs)]
#![allow(clippy::indexing_slicing, clippy::disallowed_types, clippy::cast_possible_truncation)]

use mk_ipi_abi::{Incarnation, InstanceId, PhysCpuId, PhysRange, Vector};
use mk_ipi_conformance::{run, Case, Env, Inbox, Outcome, TestEndpoint, CASES, NATIVE_LEN};
use mk_ipi_core::platform::{Peer, PeerEvent};
use mk_ipi_core::{InstanceConfig, LinkConfig, SlotPolicy};
use mk_ipi_mock::{Cpu, Machine, MockPlatform, Mode};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The physical id of each kernel's CPU. The ids have gaps, as on real machines.
const CPUS: [PhysCpuId; 3] = [PhysCpuId(4), PhysCpuId(9), PhysCpuId(0)];
/// The number of slots in each region: one for each physical CPU id from 0 to 9.
const SLOTS: u32 = 10;

/// State that the kernels of one machine share in the test, in addition to the protocol's memory.
struct Bench {
    posted: [AtomicU64; 3],
    pages: [PhysRange; 3],
    regions: [PhysRange; 3],
    native_regions: [PhysRange; 3],
    failed: Mutex<Vec<(usize, &'static str, &'static str)>>,
    reported: AtomicUsize,
    /// The name in the variable `MK_IPI_CASE`. Only this case is run. With `None` all cases are run.
    only: Option<String>,
}

struct MockEnv<const PATIENCE: u64> {
    bench: Arc<Bench>,
    platform: MockPlatform,
    endpoint: TestEndpoint<Self>,
    inbox: Inbox,
    spare_interrupts: AtomicU64,
    me: usize,
}

impl<const PATIENCE: u64> Env for MockEnv<PATIENCE> {
    type Platform = MockPlatform;
    const PATIENCE: u64 = PATIENCE;
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
        self.bench.regions[kernel]
    }
    fn native_region_of(&self, kernel: usize) -> PhysRange {
        self.bench.native_regions[kernel]
    }
    fn peer_events(&self, f: &mut dyn FnMut(Peer, PeerEvent)) {
        self.platform.peer_news().into_iter().for_each(|(peer, event)| f(peer, event));
    }
    fn stops(&self) -> u64 {
        self.platform.stops()
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
        self.bench.pages[kernel]
    }
    fn post(&self, value: u64) {
        self.bench.posted[self.me].store(value, Ordering::Release);
    }
    fn posted(&self, kernel: usize) -> u64 {
        self.bench.posted[kernel].load(Ordering::Acquire)
    }
    fn pause(&self) {
        use mk_ipi_core::platform::ThisCpu;
        self.platform.relax();
    }
    fn wants(&self, case: &Case) -> bool {
        self.bench.only.as_ref().is_none_or(|only| only == case.name)
    }
    fn report(&self, case: &Case, outcome: Outcome) {
        self.bench.reported.fetch_add(1, Ordering::Relaxed);
        if let Err(failed) = outcome {
            self.bench.failed.lock().unwrap().push((self.me, case.name, failed.0));
        }
    }
}

impl<const PATIENCE: u64> MockEnv<PATIENCE> {
    /// Boots the kernel of this CPU: makes its endpoint, and sets its handlers.
    fn boot(bench: &Arc<Bench>, cpu: &Cpu) -> &'static Self {
        let (me, platform) = (cpu.kernel(), cpu.platform());
        let endpoint = TestEndpoint::<Self>::new(platform.clone());
        let env: &'static Self = Box::leak(Box::new(Self {
            bench: bench.clone(),
            platform,
            endpoint,
            inbox: Inbox::new(),
            spare_interrupts: AtomicU64::new(0),
            me,
        }));
        env.endpoint.identify(InstanceId::new(me as u8), Incarnation::FIRST);
        env.platform.set_vector(Vector::RFC_V2, || env.endpoint.on_interrupt());
        env.platform.set_vector(Self::SPARE_VECTOR, || {
            env.spare_interrupts.fetch_add(1, Ordering::Relaxed);
            env.endpoint.on_interrupt();
        });
        env.platform.set_deferred(|| _ = env.endpoint.run_deferred());
        env
    }
}

fn suite<const PATIENCE: u64>(mode: Mode) {
    let machine = CPUS.into_iter().fold(Machine::builder().memory(512), |b, cpu| b.kernel(&[cpu.0]));
    let machine = machine.mode(mode).step_limit(20_000_000).build();
    let reserve = |len| std::array::from_fn(|_| machine.reserve(len));
    let bench = Arc::new(Bench {
        posted: Default::default(),
        pages: reserve(4096),
        regions: reserve(u64::from(SLOTS) * 272),
        native_regions: reserve(NATIVE_LEN),
        failed: Mutex::default(),
        reported: AtomicUsize::new(0),
        only: std::env::var("MK_IPI_CASE").ok(),
    });
    let run = machine.run(|cpu| {
        run(MockEnv::<PATIENCE>::boot(&bench, cpu));
    });
    let failed = bench.failed.lock().unwrap();
    assert!(failed.is_empty(), "{mode:?}: {failed:#?}");
    run.unwrap();
    let cases = if bench.only.is_some() { 1 } else { CASES.len() };
    assert_eq!(
        bench.reported.load(Ordering::Relaxed),
        cases * CPUS.len(),
        "every case is reported at every kernel"
    );
}

#[test]
fn stepped() {
    for seed in 0..6 {
        suite::<300_000>(Mode::Stepped { seed });
    }
}

#[test]
fn free() {
    // In free mode the operating system can stop a thread for a long time, so each wait has more iterations.
    suite::<4_000_000>(Mode::Free);
}
