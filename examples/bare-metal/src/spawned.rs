// SPDX-License-Identifier: MIT OR Apache-2.0
//! A spawned kernel: finds itself and the others by its boot parameters.

use crate::arch;
use crate::clock::{self, SECOND};
use crate::demo;
use crate::node::{Node, READY};
use crate::options::Options;
use crate::own;
use crate::platform::{End, Kernel, ENDPOINT, OWN_CPUS};
use mk_ipi::bring_up::find_directory;
use mk_ipi_abi::{InstanceId, PhysAddr};
use mk_ipi_core::directory::Directory;
use mk_ipi_core::sync::{spin_hint, AtomicU64};
use mk_ipi_core::JoinError;

/// Takes this kernel's place in the demo. Its region is at `shared`. From then on it takes messages.
pub fn start(options: Options, cmdline: &[u8], shared: PhysAddr) -> Node {
    demo::register();
    let left_out = |id: InstanceId, e| fatal!("kernel {} cannot be added: {e:?}", id.get());
    let (me, kernels) = join(&ENDPOINT, directory(cmdline), shared, left_out);
    if me.get() != own::kernel() {
        fatal!("the directory lists kernel {} with this region", me.get());
    }
    let node = Node { me: me.index(), kernels, options };
    arch::interrupts::enable();
    node.reach(READY);
    report_listed(&node);
    node
}

/// Reports how many of the machine's CPUs the directory gives to the host, and how many CPUs this kernel is built for.
fn report_listed(node: &Node) {
    let found =
        arch::cpus(Kernel.boot()).unwrap_or_else(|e| fatal!("firmware does not list the CPUs: {e:?}"));
    let of_host =
        found.ids().iter().filter(|cpu| Kernel.lists(InstanceId::HOST, **cpu) == Some(true)).count();
    let (me, room) = (node.me, OWN_CPUS);
    record!("{{\"listed\":{{\"kernel\":{me},\"host_cpus\":{of_host},\"room\":{room}}}}}");
}

/// The directory that the command line names.
pub fn directory(cmdline: &[u8]) -> &'static Directory<'static, AtomicU64> {
    let found = find_directory(&Kernel, cmdline);
    ENDPOINT.platform().set_directory(found.unwrap_or_else(|e| fatal!("{e}")))
}

/// Takes this kernel's place among the others. Its region is at `shared`. Returns its id, and how many kernels there
/// are. Calls `left_out` for each kernel that could not be added.
pub fn join<const CPUS: usize>(
    endpoint: &End<CPUS>,
    directory: &Directory<'static, AtomicU64>,
    shared: PhysAddr,
    left_out: impl Fn(InstanceId, JoinError),
) -> (InstanceId, usize) {
    let start = clock::now();
    let kernels = loop {
        match endpoint.join_and(shared, directory, &left_out) {
            Ok(kernels) => break kernels,
            // The host may be writing another entry. If it died while it wrote, this state never ends.
            Err(JoinError::Changing(_)) if clock::now().wrapping_sub(start) < SECOND => spin_hint(),
            Err(e) => fatal!("joining the others: {e:?}"),
        }
    };
    let Some((me, _)) = endpoint.identity() else { fatal!("joined without an identity") };
    (me, kernels)
}
