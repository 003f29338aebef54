// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replaces examples/bare-metal/src/platform.rs: what the demo and the conformance suite need in addition to the platform
//! traits of mk-ipi. The guest's mk_ipi.rs implements those traits.

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

/// The type of this kernel's message handlers: static references to functions.
pub type HandlerFn = &'static (dyn Fn(&Message) + Send + Sync);
/// The type of this kernel's endpoint. This kernel has at most `CPUS` CPUs. Other kernels can have any number of CPUs.
pub type End<const CPUS: usize> = Endpoint<Kernel, HandlerFn, CPUS, 32, BUDGET>;
/// The number of CPUs of this kernel.
pub const OWN_CPUS: usize = 1;
/// This kernel's endpoint in the demo.
pub static ENDPOINT: End<OWN_CPUS> = Endpoint::new(Kernel);
/// The largest number of messages that one run of the deferred work passes to handlers.
pub const BUDGET: usize = 64;
/// The state of this kernel. All its endpoints share it.
static STATE: State = State {
    boot: Once::new(),
    controller: Once::new(),
    role: Once::new(),
    directory: Once::new(),
    runs: AtomicU64::new(0),
    pools: Pools::new(),
};

/// What this kernel does. The role says which endpoint gets the doorbells and the deferred work, and which code gets the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The demo. A kernel has this role until [`State::play`] is called.
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
    /// Stores the information that the kernel was given at its start, and its interrupt controller.
    pub fn set_up(&self, boot: Boot, controller: Controller) {
        self.boot.call_once(|| boot);
        self.controller.call_once(|| controller);
    }

    /// The information that the kernel was given at its start.
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

    /// The directory. `None` before it is made.
    pub fn directory(&self) -> Option<&Directory<'static, AtomicU64>> {
        self.directory.get()
    }

    /// Returns whether the directory lists `cpu` for `instance` now. `None` if it cannot tell, and always while the
    /// conformance suite runs, because the directory does not list the suite's instances.
    pub fn lists(&self, instance: InstanceId, cpu: PhysCpuId) -> Option<bool> {
        self.directory().filter(|_| self.role() != Role::Suite)?.has_cpu(instance, cpu).ok()
    }

    /// How often this kernel has tried to ring a doorbell.
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

    /// This kernel's role.
    pub fn role(&self) -> Role {
        self.role.get().copied().unwrap_or(Role::Demo)
    }

    /// Runs deferred work if it is due and interrupts are on. In a guest only the main program runs deferred work.
    pub fn service(&self) {
        if interrupts::are_enabled() && mk_ipi::take_due() {
            run_deferred();
            self.runs.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Runs deferred work if it is due. Does not sleep, because no timer would end the sleep.
    pub fn sleep(&self, _: u64) {
        self.service();
        spin_hint();
    }

    /// Always false: there is no second CPU.
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

/// Called in an interrupt on this kernel's doorbell vector. Interrupts are off.
pub fn on_doorbell() {
    match Kernel.role() {
        Role::Suite => SUITE.on_interrupt(),
        Role::Demo | Role::Serve => ENDPOINT.on_interrupt(),
    }
}

/// Called in an interrupt on the conformance suite's second vector.
pub fn on_spare() {
    conformance::on_spare();
}

/// Called for each event of a peer.
pub fn on_peer_event(peer: Peer, event: PeerEvent) {
    match Kernel.role() {
        Role::Suite => conformance::on_peer_event(peer, event),
        Role::Demo | Role::Serve => stream::on_peer_event(peer.id, event),
    }
}

/// Called when the stop word of this kernel is set. As this kernel is the host, only the suite does that.
pub fn on_stop() {
    if Kernel.role() == Role::Suite {
        conformance::on_stop();
    }
}

/// The bytes of RAM at `range`.
///
/// # Safety
///
/// `range` is mapped RAM, and no code writes it while the slice is used.
pub unsafe fn bytes(range: PhysRange) -> &'static [u8] {
    let at = mk_ipi::virtual_address(range.start().0) as *const u8;
    // SAFETY: the caller keeps the safety rules of this function.
    unsafe { slice::from_raw_parts(at, range.len() as usize) }
}
