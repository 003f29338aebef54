// SPDX-License-Identifier: MIT OR Apache-2.0
//! A spawned kernel: finds itself and the others by its boot parameters.

use crate::arch;
use crate::clock::{self, SECOND};
use crate::demo;
use crate::node::{Node, READY};
use crate::options::Options;
use crate::own;
use crate::platform::{End, Kernel, ENDPOINT, OWN_CPUS};
use mk_ipi_abi::boot_param::mk_ipi_directory;
use mk_ipi_abi::directory::{DirectoryError, DirectoryHeader};
use mk_ipi_abi::{InstanceId, PhysAddr, PhysRange};
use mk_ipi_core::directory::Directory;
use mk_ipi_core::platform::{Access, PhysMemory};
use mk_ipi_core::sync::{spin_hint, AtomicU64};
use mk_ipi_core::JoinError;

/// Takes this kernel's place in the demo, its region being at `shared`: from then on it takes messages.
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

/// Says how many of the machine's CPUs the directory gives to the host, and how many CPUs this kernel is built for.
fn report_listed(node: &Node) {
    let found = arch::cpus(Kernel.boot()).unwrap_or_else(|e| fatal!("firmware does not say the CPUs: {e:?}"));
    let of_host =
        found.ids().iter().filter(|cpu| Kernel.lists(InstanceId::HOST, **cpu) == Some(true)).count();
    let (me, room) = (node.me, OWN_CPUS);
    record!("{{\"listed\":{{\"kernel\":{me},\"host_cpus\":{of_host},\"room\":{room}}}}}");
}

/// The directory that the command line names.
pub fn directory(cmdline: &[u8]) -> &'static Directory<'static, AtomicU64> {
    match mk_ipi_directory(cmdline) {
        Ok(Some(at)) => ENDPOINT.platform().set_directory(open(at)),
        Ok(None) => fatal!("mk_ipi_shared= without mk_ipi_directory="),
        Err(e) => fatal!("mk_ipi_directory=: {e:?}"),
    }
}

/// Takes this kernel's place among the others, its region being at `shared`; gives who it is, and how many there are. Calls
/// `left_out` for each that could not be added.
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
            // The host may be writing of others; one that died in it never ends.
            Err(JoinError::Changing(_)) if clock::now().wrapping_sub(start) < SECOND => spin_hint(),
            Err(e) => fatal!("joining the others: {e:?}"),
        }
    };
    let Some((me, _)) = endpoint.identity() else { fatal!("joined as nobody") };
    (me, kernels)
}

/// The directory at `at`, mapped read-only: its header first, which says how long it is.
fn open(at: PhysAddr) -> Directory<'static, AtomicU64> {
    match Directory::open(map(at, size_of::<DirectoryHeader>() as u64)) {
        Err(DirectoryError::TooSmall(len)) => Directory::open(map(at, len)),
        whole => whole,
    }
    .unwrap_or_else(|e| fatal!("the directory at {:#x}: {e:?}", at.0))
}

fn map(at: PhysAddr, len: u64) -> &'static [AtomicU64] {
    let range = PhysRange::new(at, len).ok_or(mk_ipi_core::platform::MapError::NotAllowed);
    let mapping = range.and_then(|r| Kernel.map(r, Access::ReadOnly));
    let mapping = mapping.unwrap_or_else(|e| fatal!("the directory at {:#x}: {e:?}", at.0));
    // SAFETY: all of memory stays mapped for ever (platform.rs).
    unsafe { mapping.as_ptr().as_ref() }
}
