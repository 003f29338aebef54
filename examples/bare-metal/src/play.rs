// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the demo or the conformance suite, after all kernels have joined.

use crate::control::control;
use crate::host::{self, Machine};
use crate::node::{self, Node, DONE};
use crate::options::Run;
use crate::platform::{Kernel, ENDPOINT};
use crate::{conformance, console, demo, machine, own};
use mk_ipi_abi::{Incarnation, InstanceId};
use mk_ipi_core::platform::ThisCpu;

/// Prints the record with this kernel's number, CPU and life.
pub fn introduce(identity: Option<(InstanceId, Incarnation)>) {
    let cpu = Kernel.physical_id().0;
    let (me, life) = identity.map_or((console::me(), 0), |(me, life)| (me.get(), life.get()));
    record!("{{\"kernel\":{{\"id\":{me},\"lang\":\"rust\",\"cpu\":{cpu},\"life\":{life}}}}}");
}

/// Waits until all kernels are up, runs the demo or the suite, and reports the result. Only the host passes a `machine`.
pub fn run(node: &Node, machine: Option<&mut Machine>) -> ! {
    introduce(ENDPOINT.identity());
    log!("image at {:#x}, {}", own::image().start().0, node.options);
    node.wait_for_all(node::READY, "not all kernels are up", || {});
    let ok =
        if node.options.run == Run::Conformance { conformance::run(node) } else { demo::run(node, machine) };
    control().set_verdict(node.me, ok);
    node.reach(DONE);
    if node.me == 0 {
        host::finish(node)
    }
    machine::halt()
}
