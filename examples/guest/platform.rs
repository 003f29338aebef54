// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the demo and the conformance suite of examples/bare-metal need of a kernel in addition to mk-ipi's own traits.
//! Those are in mk_ipi.rs.

use crate::arch::{interrupts, Controller};
use crate::boot::Boot;
use crate::conformance::{self, SUITE};
pub use crate::mk_ipi::Kernel;
use crate::pools::Pools;
use crate::{drains, mk_ipi, stream};
use core::ops::Deref;
use core::slice;
use mk_ipi_abi::{InstanceId, PhysCpuId, PhysRange};
use mk_ipi_core::directory::Directory;
use mk_ipi_core::platform::{Peer, PeerEvent};
use mk_ipi_core::sync::{spin_hint, AtomicU64, Ordering};
use mk_ipi_core::{Endpoint, Message};
use spin::Once;

/// The type of a message handler here: a function that lives for ever.
pub type HandlerFn = &'static (dyn Fn(&Message) + Send + Sync);
/// This kernel's end of all links, if it has at most `CPUS` CPUs. The other kernels may have any number.
pub type End<const CPUS: usize> = Endpoint<Kernel, HandlerFn, CPUS, 32, BUDGET>;
/// CPUs of this kernel.
pub const OWN_CPUS: usize = 1;
/// This kernel's end of all links, in the demo.
pub static ENDPOINT: End<OWN_CPUS> = Endpoint::new(Kernel);
/// Messages that one run of the deferred work hands on, at most.
pub const BUDGET: usize = 64;
/// The state that a kernel has only once, however many endpoints it has.
static STATE: State = State {
    boot: Once::new(),
    controller: Once::new(),
    role: Once::new(),
    directory: Once::new(),
    runs: AtomicU64::new(0),
    pools: Pools::new(),
};

/// What this kernel's doorbells, deferred work and events belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The demo. This is the role if no other was set.
    Demo,
    /// The conformance suite.
    Suite,
    /// A guest never has this role.
    Serve,
}

/// The state of this kernel.
pub struct State {
    boot: Once<Boot>,
    controller: Once<Controller>,
    role: Once<Role>,
    /// The directory of the kernels on this machine.
    directory: Once<Directory<'static, AtomicU64>>,
    /// How often deferred work has run.
    runs: AtomicU64,
    /// The instance pools.
    pub pools: Pools,
}

impl Deref for Kernel {
    type Target = State;
    fn deref(&self) -> &State {
        &STATE
    }
}

impl State {
    /// Stores what the kernel was told at its start, and its interrupt controller.
    pub fn set_up(&self, boot: Boot, controller: Controller) {
        self.boot.call_once(|| boot);
        self.controller.call_once(|| controller);
    }

    /// What the kernel was told at its start.
    pub fn boot(&self) -> &Boot {
        self.boot.get().expect("set_up comes before any use")
    }

    /// The interrupt controller.
    pub fn controller(&self) -> &Controller {
        self.controller.get().expect("set_up comes before any use")
    }

    /// Stores the directory.
    pub fn set_directory(&self, directory: Directory<'static, AtomicU64>) -> &Directory<'static, AtomicU64> {
        self.directory.call_once(|| directory)
    }

    /// The directory, once it is made.
    pub fn directory(&self) -> Option<&Directory<'static, AtomicU64>> {
        self.directory.get()
    }

    /// Returns whether the directory gives `cpu` to `instance` now; `None` if it does not say. It does not list the
    /// suite's instances.
    pub fn lists(&self, instance: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        self.directory().filter(|_| self.role() != Role::Suite)?.has_cpu(instance, cpu).ok()
    }

    /// Doorbells rung so far.
    pub fn rung(&self) -> u64 {
        mk_ipi::RUNG.load(Ordering::Relaxed)
    }

    /// How often deferred work has run.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// Sets this kernel's role. Only the first call has an effect.
    pub fn play(&self, role: Role) {
        self.role.call_once(|| role);
    }

    /// The role that this kernel has.
    pub fn role(&self) -> Role {
        self.role.get().copied().unwrap_or(Role::Demo)
    }

    /// Runs the deferred work that is due, if interrupts are on. This kernel runs it only in its main program.
    pub fn service(&self) {
        if interrupts::are_enabled() && mk_ipi::take_due() {
            run_deferred();
            self.runs.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One turn of a wait. It does not sleep, because there is no timer to end a sleep.
    pub fn sleep(&self, _: u64) {
        self.service();
        spin_hint();
    }

    /// There is no second CPU.
    pub fn second_runs(&self) -> bool {
        false
    }
}

fn run_deferred() {
    match Kernel.role() {
        Role::Suite => _ = SUITE.run_deferred(),
        Role::Demo | Role::Serve => drains::watched(|| _ = ENDPOINT.run_deferred()),
    }
}

/// This kernel's vector arrived. Interrupts are off.
pub fn on_doorbell() {
    match Kernel.role() {
        Role::Suite => SUITE.on_interrupt(),
        Role::Demo | Role::Serve => ENDPOINT.on_interrupt(),
    }
}

/// The suite's second vector arrived.
pub fn on_spare() {
    conformance::on_spare();
}

/// Something happened to a peer.
pub fn on_peer_event(peer: Peer, event: PeerEvent) {
    match Kernel.role() {
        Role::Suite => conformance::on_peer_event(peer, event),
        Role::Demo | Role::Serve => stream::on_peer_event(peer.id, event),
    }
}

/// The host's stop word, which only the suite sends to a host.
pub fn on_stop() {
    if Kernel.role() == Role::Suite {
        conformance::on_stop();
    }
}

/// The bytes of RAM at `range`, which is not written from now on.
///
/// # Safety
///
/// `range` is RAM, mapped, and not written while the slice is used.
pub unsafe fn bytes(range: PhysRange) -> &'static [u8] {
    let at = mk_ipi::virtual_address(range.start().0) as *const u8;
    // SAFETY: the caller promises it.
    unsafe { slice::from_raw_parts(at, range.len() as usize) }
}
