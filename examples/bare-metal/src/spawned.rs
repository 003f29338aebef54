// SPDX-License-Identifier: MIT OR Apache-2.0
//! The start of a spawned kernel: it finds its region and the directory by its boot parameters, and joins the other kernels.

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

/// Joins the demo. `shared` is the physical address of this kernel's region. When this returns, the kernel takes messages.
pub fn start(options: Options, cmdline: &[u8], shared: PhysAddr) -> Node {
    demo::register();
    let left_out = |id: InstanceId, e| fatal!("kernel {} cannot be added: {e:?}", id.get());
    let (me, kernels) = join(&ENDPOINT, directory(cmdline), shared, left_out);
    if me.get() != own::kernel() {
        fatal!("the directory lists this region for kernel {}", me.get());
    }
    let node = Node { me: me.index(), kernels, options };
    arch::interrupts::enable();
    node.reach(READY);
    report_listed(&node);
    node
}

/// Prints a record with the number of CPUs that the directory lists for the host, and the number of CPUs for which this
/// kernel is built.
fn report_listed(node: &Node) {
    let found =
        arch::cpus(Kernel.boot()).unwrap_or_else(|e| fatal!("firmware does not list the CPUs: {e:?}"));
    let of_host =
        found.ids().iter().filter(|cpu| Kernel.lists(InstanceId::HOST, **cpu) == Some(true)).count();
    let (me, room) = (node.me, OWN_CPUS);
    record!("{{\"listed\":{{\"kernel\":{me},\"host_cpus\":{of_host},\"room\":{room}}}}}");
}

/// Finds the directory at the address in the command line, and stores it.
pub fn directory(cmdline: &[u8]) -> &'static Directory<'static, AtomicU64> {
    let found = find_directory(&Kernel, cmdline);
    ENDPOINT.platform().set_directory(found.unwrap_or_else(|e| fatal!("{e}")))
}

/// Joins the other kernels. `shared` is the physical address of this kernel's region. Returns this kernel's id, and the number of
/// kernels in the endpoint's table. Calls `left_out` for each kernel that could not be added.
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
            // The host is changing the directory. The wait is bounded, because a host that died meanwhile never finishes the
            // change.
            Err(JoinError::Changing(_)) if clock::now().wrapping_sub(start) < SECOND => spin_hint(),
            Err(e) => fatal!("cannot join the other kernels: {e:?}"),
        }
    };
    let Some((me, _)) = endpoint.identity() else { fatal!("this kernel has no identity after joining") };
    (me, kernels)
}
