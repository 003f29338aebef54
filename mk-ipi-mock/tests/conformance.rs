// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance suite on the mock: stepped over many seeds, and free-running.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, missing_docs)]
#![allow(clippy::indexing_slicing, clippy::disallowed_types, clippy::cast_possible_truncation)]

use mk_ipi_abi::{Incarnation, InstanceId, PhysCpuId, PhysRange, Vector};
use mk_ipi_conformance::{run, Case, Env, Ep, Inbox, Outcome, CASES};
use mk_ipi_core::{InstanceConfig, LinkConfig, Occupied};
use mk_ipi_mock::{Cpu, Machine, MockPlatform, Mode};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Sparse ids, as real machines have them, and a slot for each.
const CPUS: [u64; 3] = [4, 9, 0];
const SLOTS: u32 = 10;

/// What the kernels of one machine share beside the protocol.
struct Bench {
    posted: [AtomicU64; 3],
    pages: [PhysRange; 3],
    regions: [PhysRange; 3],
    failed: Mutex<Vec<(usize, &'static str, &'static str)>>,
    reported: AtomicUsize,
    /// The one case to run, if `MK_IPI_CASE` names one.
    only: Option<String>,
}

struct MockEnv {
    bench: Arc<Bench>,
    platform: MockPlatform,
    endpoint: Ep<Self>,
    inbox: Inbox,
    me: usize,
}

impl Env for MockEnv {
    type Platform = MockPlatform;
    const PATIENCE: u64 = 4_000_000;

    fn endpoint(&'static self) -> &'static Ep<Self> {
        &self.endpoint
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

impl MockEnv {
    /// A kernel of the machine, with every instance attached.
    fn boot(bench: &Arc<Bench>, cpu: &Cpu) -> &'static Self {
        let (me, platform) = (cpu.kernel(), cpu.platform());
        let endpoint = Ep::<Self>::new(platform.clone());
        let env: &'static Self =
            Box::leak(Box::new(Self { bench: bench.clone(), platform, endpoint, inbox: Inbox::new(), me }));
        for (k, cpu) in CPUS.into_iter().enumerate() {
            let cpus = &[PhysCpuId(cpu)];
            let config = InstanceConfig {
                id: InstanceId::new(k as u8),
                incarnation: Incarnation::FIRST,
                cpus,
                doorbell_cpu: PhysCpuId(cpu),
                vector: Vector::RFC_V2,
                link: LinkConfig::RfcV2 { slots: SLOTS, policy: Occupied::Exclusive },
            };
            env.endpoint.attach_instance(&config, Some(bench.regions[k])).unwrap();
        }
        env.endpoint.identify(InstanceId::new(me as u8), Incarnation::FIRST);
        env.platform.set_vector(Vector::RFC_V2, || env.endpoint.on_interrupt());
        env.platform.set_deferred(|| _ = env.endpoint.run_deferred());
        env
    }
}

fn suite(mode: Mode) {
    let machine = CPUS.into_iter().fold(Machine::builder(), |b, cpu| b.kernel(&[cpu])).mode(mode).build();
    let reserve = |len| std::array::from_fn(|_| machine.reserve(len));
    let bench = Arc::new(Bench {
        posted: Default::default(),
        pages: reserve(4096),
        regions: reserve(u64::from(SLOTS) * 272),
        failed: Mutex::default(),
        reported: AtomicUsize::new(0),
        only: std::env::var("MK_IPI_CASE").ok(),
    });
    let run = machine.run(|cpu| {
        run(MockEnv::boot(&bench, cpu));
    });
    let failed = bench.failed.lock().unwrap();
    assert!(failed.is_empty(), "{mode:?}: {failed:#?}");
    run.unwrap();
    let cases = if bench.only.is_some() { 1 } else { CASES.len() };
    assert_eq!(bench.reported.load(Ordering::Relaxed), cases * CPUS.len(), "every case at every kernel");
}

#[test]
fn stepped() {
    for seed in 0..6 {
        suite(Mode::Stepped { seed });
    }
}

#[test]
fn free() {
    suite(Mode::Free);
}
