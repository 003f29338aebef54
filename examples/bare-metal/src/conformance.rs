// SPDX-License-Identifier: MIT OR Apache-2.0
//! The conformance suite on real local APICs: reports case by case.

use crate::control::control;
use crate::layout;
use crate::node::{instance, Node};
use crate::platform::{Kernel, ENDPOINT};
use mk_ipi_abi::PhysRange;
use mk_ipi_conformance::{Case, Env, Ep, Inbox, Outcome};
use mk_ipi_core::sync::spin_hint;
use mk_ipi_core::sync::Ordering;
use mk_ipi_core::{InstanceConfig, LinkConfig, Occupied};
use spin::Once;

/// The endpoint that the suite works on, with a small queue.
pub static SUITE: Ep<BareMetal> = Ep::<BareMetal>::new(Kernel);
static BARE_METAL: BareMetal = BareMetal { inbox: Inbox::new(), node: Once::new() };

/// This kernel, as the suite sees it.
pub struct BareMetal {
    inbox: Inbox,
    /// Who this is, and how many there are.
    node: Once<(usize, usize)>,
}

impl BareMetal {
    fn node(&self) -> (usize, usize) {
        *self.node.get().expect("run sets it before the suite begins")
    }
}

impl Env for BareMetal {
    type Platform = Kernel;
    const PATIENCE: u64 = 20_000_000;

    fn endpoint(&'static self) -> &'static Ep<Self> {
        &SUITE
    }
    fn inbox(&self) -> &Inbox {
        &self.inbox
    }
    fn me(&self) -> usize {
        self.node().0
    }
    fn kernels(&self) -> usize {
        self.node().1
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
    fn report(&self, case: &Case, outcome: Outcome) {
        let (result, detail) = match outcome {
            Ok(()) => ("pass", ""),
            Err(failed) => ("fail", failed.0),
        };
        let (me, name, clause) = (self.me(), case.name, case.clauses);
        record!(
            "{{\"case\":{{\"name\":\"{name}\",\"clause\":\"{clause}\",\"kernel\":{me},\
             \"result\":\"{result}\",\"detail\":\"{detail}\"}}}}"
        );
    }
}

/// Runs the cases; whether all passed.
pub fn run(node: &Node) -> bool {
    BARE_METAL.node.call_once(|| (node.me, node.kernels));
    for kernel in 0..node.kernels {
        // The demo's instances once more, in the suite's table.
        let Ok(known) = ENDPOINT.instance(instance(kernel)) else { fatal!("kernel {kernel} is not known") };
        let Some(region) = known.region() else { fatal!("kernel {kernel} has no region") };
        let config = InstanceConfig {
            id: instance(kernel),
            incarnation: known.incarnation(),
            cpus: &[known.doorbell_cpu()],
            doorbell_cpu: known.doorbell_cpu(),
            vector: known.vector(),
            link: LinkConfig::RfcV2 {
                slots: (region.len() / 272) as u32,
                policy: known.policy().unwrap_or(Occupied::Exclusive),
            },
        };
        if let Err(e) = SUITE.attach_instance(&config, Some(region)) {
            fatal!("kernel {kernel}: {e:?}");
        }
    }
    let Some((me, incarnation)) = ENDPOINT.identity() else {
        fatal!("the demo's endpoint is not identified")
    };
    SUITE.identify(me, incarnation);
    Kernel.enter_suite();
    mk_ipi_conformance::run(&BARE_METAL)
}
